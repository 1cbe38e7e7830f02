"""Several processes, as ``torchrun`` starts them; in a single process all functions here do nothing.

``group`` is entered once, around all work. Inside, each process has a rank and its share of the images.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

# DistributedDataParallel imports this module, whose functions keep the default group that exists at that time. If that
# happened inside a group, the group's threads would outlive it and sometimes abort the process at its end.
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
        # Processes leave nccl together: one that failed would wait for the others, which wait for it, and its error
        # would never be shown.
        if not (on_gpu and failed):
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
    """Returns when every process has come to this call."""
    if dist.is_initialized():
        dist.barrier()


def total(values: Tensor, device: torch.device) -> Tensor:
    """Returns the sum of the values over all processes, on ``device``; a single process gets its own tensor back."""
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
    """Wraps the module so that gradients are averaged over the processes; a single process gets it back as it is."""
    if not dist.is_initialized():
        return module
    # Buffers are shared here and not in every step. A step changes only running statistics, which no other step reads;
    # they are shared again before an epoch is scored and saved.
    share_buffers(module)
    # find_unused_parameters keeps the order in which gradients are packed. Otherwise it changes after the first step,
    # and sums of three or more processes with it, so that a resumed run would differ from an uninterrupted one.
    warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
    return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True)
