"""Work in several processes that ``torchrun`` started. In a single process all functions here do nothing.

``group`` is entered once, around all work. Inside, each process has a rank, and works on its share of the images.
"""

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

# Imported here, before any group exists: the functions of this module keep the default group that exists when it is
# imported. DistributedDataParallel would import it inside our group, whose threads would then outlive the group and
# sometimes abort the process at its end.
import torch.distributed.nn.functional
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

# A process that has finished its share waits for the others, whose blocks of an evaluation may take hours.
TIMEOUT = timedelta(days=7)


@contextmanager
def group(device: torch.device) -> Iterator[None]:
    """Joins the processes that ``torchrun`` started: by gloo on the CPU, by nccl on GPUs, one GPU for each process."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    # Without device_id, the first barrier would guess a device.
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=TIMEOUT, device_id=device if on_gpu else None)
    failed = True
    try:
        yield
        failed = False
    finally:
        # Processes leave nccl together. If one has failed, it would wait here for the others, which wait for it, and
        # its error would never be shown.
        if not (on_gpu and failed):
            # What is left of wrapped modules in circles of references would hold the group's threads.
            gc.collect()
            dist.destroy_process_group()


def rank() -> int:
    """Returns this process's number, from 0 on."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Returns the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Returns whether this process is the one that writes files and shows progress."""
    return rank() == 0


def wait_for_all() -> None:
    """Waits until every process has come to this call."""
    if dist.is_initialized():
        dist.barrier()


def total(values: Tensor, device: torch.device) -> Tensor:
    """Returns the sum of the values over all processes, on ``device``; in a single process returns the same tensor."""
    if not dist.is_initialized():
        return values
    result = values.to(device, copy=True)
    dist.all_reduce(result)
    return result


def share_buffers(module: nn.Module) -> None:
    """Copies the first process's buffers, such as running statistics of batch normalization, to all processes."""
    if dist.is_initialized():
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def parallelize(module: nn.Module) -> nn.Module:
    """Wraps the module so that gradients are averaged over the processes; in a single process returns it unchanged."""
    if not dist.is_initialized():
        return module
    # Buffers are shared here, and not in every step. A step changes only running statistics, which no step reads; they
    # are shared again before an epoch is scored and saved.
    share_buffers(module)
    # find_unused_parameters keeps the order in which gradients are packed for the sum over processes. Otherwise it
    # would change after the first step, and with it the sums of three or more processes, so that a resumed run would
    # differ from an uninterrupted one.
    warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
    return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True)
