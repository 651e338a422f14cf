"""One training on several processes that torchrun starts: their ranks, and what they exchange.

In a training on one process these functions do nothing, and no process group is made.
"""

import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn

from cli.flags import choose_device

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from files.errors import InputError

# When a process dies, torchrun stops the others at once. This limit is for a process that hangs. A checkpoint, or the
# first step of a compiled network, takes less.
_TIMEOUT = timedelta(minutes=10)


@contextmanager
def processes(device_flag: str) -> Iterator[torch.device]:
    """Join the processes that torchrun has started, if any; yields this process's device.

    On several processes, what stands after the `with` block is not reached: the process ends with it.

    Args:
        device_flag: value of --device. On several processes "auto" and "cuda" are one GPU for each.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield choose_device(device_flag)
        return
    device = _own_device(device_flag)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield device
        dist.barrier()  # the first process holds the store that the others still use
    except RuntimeError as error:
        if not any(word in str(error) for word in ("gloo", "Gloo", "NCCL", "onnection")):
            raise
        raise InputError(
            f"process {rank()} lost the others ({error}): one of them has ended; its error is above"
        ) from None
    dist.destroy_process_group()
    _end_process()


def _end_process() -> NoReturn:
    """End with status 0, without the interpreter's own cleaning up.

    The group's threads outlive `destroy_process_group`. One that drops a Python object while the interpreter cleans up
    aborts the process ("terminate called without an active exception"), and torchrun reports a failed training.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _own_device(device_flag: str) -> torch.device:
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if device_flag not in ("auto", "cuda", "cpu"):
        raise InputError(f"--device {device_flag}: on several processes expected cuda (a GPU for each) or cpu")
    if device_flag == "cpu" or (device_flag == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise InputError(
            f"process {local_rank} finds no GPU of its own: this machine shows {torch.cuda.device_count()} to PyTorch; "
            "expected --nproc-per-node up to that number, or --device cpu"
        )
    return torch.device("cuda", local_rank)


def rank() -> int:
    """This process's number. Process 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def processes_of_this_machine() -> list[int]:
    """The ranks of the processes on this machine, in order."""
    own = os.environ.get("GROUP_RANK", "0")  # torchrun's number of the machine
    return [rank for rank, group in enumerate(gather(own)) if group == own]


def share_gradients(model: nn.Module, some_unused: bool) -> nn.Module:
    """The model with its gradients averaged over the processes in the backward pass.

    Args:
        some_unused: some parameters have no part in what the model returns. Looking for them takes time in each step.
    """
    if count() == 1:
        return model
    # Running statistics, of BatchNorm for example, are those of the first process. Constants need no broadcast.
    has_statistics = bool(running_statistics(model))
    renamed = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters  # PyTorch 2.14
    broadcast: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": has_statistics}
    return DistributedDataParallel(model, gradient_as_bucket_view=True, find_unused_parameters=some_unused, **broadcast)


def share_statistics(model: nn.Module) -> None:
    """Give all processes the first one's running statistics, which checkpoints store.

    A process's own differ from them after a training step. Only an evaluation uses them.
    """
    if count() > 1:
        for statistics in running_statistics(model):
            dist.broadcast(statistics, 0)


def running_statistics(model: nn.Module) -> list[Tensor]:
    """The buffers of a model that training changes, BatchNorm's for example. Constants are not in the state dict."""
    stored = model.state_dict(keep_vars=True)
    return [buffer for name, buffer in model.named_buffers() if name in stored]


def share_next_gradients(model: nn.Module, share: bool) -> None:
    """Whether the next backward pass averages gradients over the processes.

    Of several accumulated batches only the last one does; the others add up in each process. (DDP's `no_sync` sets
    the same attribute.)
    """
    if isinstance(model, DistributedDataParallel):
        model.require_backward_grad_sync = share


def total(tensor: Tensor) -> Tensor:
    """The sum over the processes."""
    if count() > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def gather(value: Any) -> list[Any]:
    """The values that the processes give, in order of their ranks: any plain value. The host waits here."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values
