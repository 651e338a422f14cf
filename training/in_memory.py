"""--data-in-memory: where the frames go, and how the processes of one machine share them."""

import math
import os
import tempfile

import torch
from path import Path

from datasets.in_memory import GPU_SHARE, HOST_SHARE, FramesInMemory, free_host_memory
from datasets.snippets import SnippetDataset
from files.errors import InputError
from training import distributed


def load_frames(dataset: SnippetDataset, device: torch.device, workers: int) -> tuple[FramesInMemory, str]:
    """All frames of a data set in memory: on the device where they fit, else in the host's memory.

    The processes of one machine share the decoding, and the host's memory.

    Returns:
        The frames, and a line that says where they are.

    Raises:
        InputError: the host's memory does not suffice.
    """
    memory = FramesInMemory(dataset)
    size = math.prod(memory.shape)
    group = distributed.processes_of_this_machine()
    leader = group[0] == distributed.rank()
    free = free_host_memory()
    what = f"{len(memory.files)} frames of {dataset.width} x {dataset.height} take {size / 2**30:.2f} GiB"
    if any(distributed.gather(leader and size > HOST_SHARE * free)):
        raise InputError(
            f"--data-in-memory: {what}, and {free / 2**30:.2f} GiB of the host's memory are free; leave the flag out "
            "(frames are then read from files), or prepare smaller images"
        )
    if len(group) > 1:
        frames = _shared(size, leader, group)
    else:
        frames = torch.empty(size, dtype=torch.uint8)
    frames = frames.view(memory.shape)
    rank = distributed.rank()
    parts = distributed.gather(memory.fill(frames, workers, group.index(rank), len(group), quiet=rank > 0))
    damaged = {file: line for number in group for file, line in parts[number].items()}
    where = "the host's memory"
    if device.type == "cuda":
        if size <= GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
            frames, where = frames.to(device), str(device)
        else:
            where = f"the host's memory, since they would take more than half of what {device} has free"
    memory.take(frames, damaged)
    return memory, f"{what}, in {where}"


def _shared(size: int, leader: bool, group: list[int]) -> torch.Tensor:
    """Memory that the processes of this machine share, as a file that has no name any more."""
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
    name = error = ""
    if leader:
        handle, name = tempfile.mkstemp(prefix="frames-", dir=folder)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, size)
        except OSError as failure:
            os.remove(name)
            error = f"--data-in-memory: {folder}: {failure.strerror}, expected room for {size / 2**30:.2f} GiB"
        finally:
            os.close(handle)
    answers = distributed.gather((name, error))
    if errors := [error for _, error in answers if error]:
        raise InputError(errors[0])
    frames = torch.from_file(answers[group[0]][0], shared=True, size=size, dtype=torch.uint8)
    distributed.gather(None)  # all have opened it
    if leader:
        Path(name).remove()
    return frames
