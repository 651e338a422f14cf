"""All frames of a data set in memory, decoded once: batches are gathered from them instead of read from files."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path as SystemPath

import numpy as np
import torch
from path import Path
from torch import Tensor
from tqdm import tqdm

from datasets.loading import Batch, as_batch
from datasets.snippets import DamagedFrame, SnippetDataset
from files.parallel import in_parallel

GPU_SHARE = 0.5  # of a GPU's free memory that frames may take; the rest is the training's
HOST_SHARE = 0.8  # likewise of the host's


class FramesInMemory:
    """The frames of a data set as one uint8 tensor [F, H, W, 3], and which of them are damaged.

    Snippets, their replacement where a frame is damaged, and the lines that name it are those of `SnippetDataset`.
    """

    def __init__(self, dataset: SnippetDataset) -> None:
        self._dataset = dataset
        self.files = [frame for scene in dataset.scenes for frame in scene.frames]
        self.shape = (len(self.files), dataset.height, dataset.width, 3)
        self._rows = {file: np.array(row) for row, file in enumerate(self.files)}
        self._damaged: dict[Path, str] = {}
        self._frames = torch.empty(0)

    def fill(self, frames: Tensor, workers: int, part: int = 0, parts: int = 1, quiet: bool = False) -> dict[Path, str]:
        """Decode this part of the frames to their rows of `frames`: uint8, on the CPU, of `self.shape`.

        Args:
            frames: where the frames go.
            workers: threads that decode.
            part, parts: processes may share the decoding.
            quiet: without a progress bar.

        Returns:
            The damaged files of this part, with a line for each.

        Raises:
            InputError: a frame of another size.
        """
        damaged = {}
        rows = range(part, len(self.files), parts)
        images = in_parallel(self._decode, (self.files[row] for row in rows), max(1, workers))
        for row, image in zip(tqdm(rows, desc="frames into memory", disable=quiet, leave=False), images, strict=True):
            if isinstance(image, str):
                damaged[self.files[row]] = image
            else:
                frames[row] = torch.from_numpy(image)
        return damaged

    def take(self, frames: Tensor, damaged: dict[Path, str]) -> None:
        """Use these frames, which `fill` has filled; they may lie on a GPU."""
        self._frames, self._damaged = frames, damaged

    def batches(self, batches: Iterable[list[int]], pin_memory: bool) -> Iterator[Batch]:
        """Batches of these indices in their order, as `datasets.loading.load_batches` gives them, bit for bit."""
        length, middle = self._dataset.length, self._dataset.length // 2
        order = [middle, *(k for k in range(length) if k != middle)]
        for indices in batches:
            rows = np.empty((len(indices), length, 1), np.int64)
            items = [
                self._dataset.read(index, list(places), self._row) for index, places in zip(indices, rows, strict=True)
            ]
            rows = rows[:, order, 0]
            block = self._gather(np.append(rows[:, 0], rows[:, 1:]), pin_memory)
            yield as_batch(self._dataset, block, items, pin_memory)

    def _gather(self, rows: np.ndarray, pin_memory: bool) -> Tensor:
        """These frames, one behind the other: uint8 [bytes]. From frames on a GPU the host does not wait for them."""
        numbers = torch.from_numpy(rows)
        if self._frames.is_cuda:
            numbers = numbers.pin_memory().to(self._frames.device, non_blocking=True)
            return self._frames.index_select(0, numbers).view(-1)
        block = torch.empty(len(rows), *self.shape[1:], dtype=torch.uint8, pin_memory=pin_memory)
        return torch.index_select(self._frames, 0, numbers, out=block).view(-1)

    def _row(self, file: Path) -> np.ndarray:
        if file in self._damaged:
            raise DamagedFrame(self._damaged[file])
        return self._rows[file]

    def _decode(self, file: Path) -> np.ndarray | str:
        try:
            return self._dataset.read_frame(file)
        except DamagedFrame as error:
            return str(error)


def free_host_memory(group: SystemPath = SystemPath("/sys/fs/cgroup")) -> int:
    """Bytes that this process can still take: of the machine, or of the container (cgroup 2) that it runs in."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, StopIteration):
        lines = SystemPath("/proc/meminfo").read_text().splitlines()
        free = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    with suppress(OSError, ValueError, KeyError):  # ValueError: "max", no limit
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        usage = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        cache = int(usage["inactive_file"]) + int(usage["active_file"])  # the system frees it when memory is needed
        free = min(free, limit - used + cache)
    return free
