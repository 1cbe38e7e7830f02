"""Several processes, as ``torchrun`` starts them. Without it there is one, and everything here does nothing.

``group`` is entered once, around the work; each process then has a rank, and owns its share of the images.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

# Its functions hold the default group of the time when it is imported. DistributedDataParallel would import it within
# the group, whose threads would then outlive it, and now and then abort the process as it ends.
import torch.distributed.nn.functional
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

# A process that has done its share waits for the others, whose blocks of an evaluation may take hours more.
LONGEST_WAIT = timedelta(days=7)


@contextmanager
def group(device: torch.device) -> Iterator[None]:
    """Joins the processes that ``torchrun`` started: gloo on CPU, nccl on GPU, where each has a device of its own."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    # Without the device, the first barrier would guess one.
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=LONGEST_WAIT, device_id=device if on_gpu else None)
    failed = True
    try:
        yield
        failed = False
    finally:
        # nccl leaves together: a process that failed would wait for those that wait for it, and never say why.
        if not (on_gpu and failed):
            dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes files and shows progress."""
    return rank() == 0


def wait_for_all() -> None:
    if dist.is_initialized():
        dist.barrier()


def total(values: Tensor, device: torch.device) -> Tensor:
    """The sum over all processes, which talk through the device; a new tensor where there are several."""
    if not dist.is_initialized():
        return values
    summed = values.to(device, copy=True)
    dist.all_reduce(summed)
    return summed


def share_buffers(module: nn.Module) -> None:
    """Gives every process the first one's buffers, among them the running statistics of batch normalization."""
    if dist.is_initialized():
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def parallel(module: nn.Module) -> nn.Module:
    """The module itself, or wrapped so that its gradients are averaged over the processes."""
    if not dist.is_initialized():
        return module
    # Once, not in every step: those that a step changes, the running statistics, are read by no other step, and are
    # shared again before an epoch is scored and saved.
    share_buffers(module)
    # Without this flag gradients are packed in another order after the first step, in which three processes or more
    # add them up otherwise: a run that goes on would not repeat one that was not stopped. It warns where all is used.
    warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
    return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True)
