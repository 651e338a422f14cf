"""From snippets to batches: their order, and the processes that read them."""

import atexit
import gc
import math
import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.snippets import SnippetDataset
from files.errors import InputError
from files.parallel import signals_held
from geometry.snippets import Snippets

_AHEAD = 2  # batches that each worker process is ahead
SHARDS_AHEAD = 64  # batches before it is read in which a shard is fetched


@dataclass(frozen=True)
class Batch:
    """A batch of snippets as the loader gives it."""

    snippets: Snippets  # uint8 images
    indices: list[int]  # of the snippets in the data set
    damaged: list[str]  # a line for each image that could not be read
    depth: Tensor | None = None  # float32 [B, H, W], of the targets, 0 = unknown
    poses: Tensor | None = None  # float64 [B, L, 3, 4], world_from_camera of all frames in order of time


def read_batch(dataset: SnippetDataset, indices: Sequence[int], pin_memory: bool = False) -> Batch:
    """The snippets of these indices as a batch; the middle frame of each is its target.

    Args:
        pin_memory: page-locked memory, from which a copy to a GPU does not make the host wait.
    """
    block = torch.empty(_block_size(dataset, len(indices)), dtype=torch.uint8, pin_memory=pin_memory)
    return as_batch(dataset, block, _read_items(dataset, block, indices, slice(None)), pin_memory)


def _read_items(dataset: SnippetDataset, block: Tensor, indices: Sequence[int], part: slice) -> list[dict[str, Any]]:
    """Read these snippets of a batch; their images are decoded to the batch's block of memory."""
    middle = dataset.length // 2
    targets, sources = (images.numpy()[part] for images in _parts(dataset, block, len(indices)))
    return [
        dataset.read(index, [*others[:middle], target, *others[middle:]])
        for index, target, others in zip(indices[part], targets, sources, strict=True)
    ]


def as_batch(dataset: SnippetDataset, block: Tensor, items: list[dict[str, Any]], pin_memory: bool = False) -> Batch:
    """A batch of items of `SnippetDataset.read`; their images lie in a block of memory, the targets' first."""
    target, sources = _parts(dataset, block, len(items))
    depth, poses = (_stack(items, name) if name in items[0] else None for name in ("depth", "poses"))
    intrinsics, camera = _stack(items, "intrinsics"), torch.tensor([item["camera"] for item in items])
    if pin_memory:
        intrinsics, camera = intrinsics.pin_memory(), camera.pin_memory()
    return Batch(
        Snippets(target.permute(0, 3, 1, 2), sources.permute(0, 1, 4, 2, 3), intrinsics, camera),
        [item["index"] for item in items],
        [line for item in items for line in item["damaged"]],
        depth,
        poses,
    )


def _stack(items: list[dict[str, Any]], name: str) -> Tensor:
    return torch.from_numpy(np.stack([item[name] for item in items]))


# Pixels stay interleaved in memory, as the decoder gives them: the training device puts channels in planes faster.


def _parts(dataset: SnippetDataset, block: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """The targets [B, H, W, 3] and the sources [B, N, H, W, 3] in a block of memory, targets first."""
    image = (dataset.height, dataset.width, 3)
    size = batch * math.prod(image)
    targets, sources = block[: size * dataset.length].split([size, size * (dataset.length - 1)])
    return targets.view(batch, *image), sources.view(batch, dataset.length - 1, *image)


def _block_size(dataset: SnippetDataset, batch: int) -> int:
    """Bytes of a batch's images."""
    return batch * dataset.length * dataset.height * dataset.width * 3


class _Task(NamedTuple):
    """Some of a batch's snippets, for one worker process."""

    number: int  # of the batch, from 0 on
    part: slice  # of its snippets
    indices: list[int]  # of all its snippets
    soon: list[list[int]]  # later batches that were not named before


class _Tasks(Dataset):
    """What a worker process does: read a batch's images into its block of the memory that all processes share.

    A block is used again as soon as the training process has copied it. New shared memory for each batch costs as much
    time as a third of the decoding, and so does handing over tensors one by one.
    """

    def __init__(self, dataset: SnippetDataset, blocks: Tensor) -> None:
        self._dataset, self._blocks = dataset, blocks

    def __getitem__(self, task: _Task) -> list[dict[str, Any]]:
        self._dataset.expect([index for batch in task.soon for index in batch[task.part]])
        return _read_items(self._dataset, self._blocks[task.number % len(self._blocks)], task.indices, task.part)


class _TaskOrder(Sampler):
    """Each batch as `parts` tasks. Task k goes to worker k modulo their number, so part k is always worker k's."""

    def __init__(self, batches: Iterable[list[int]], parts: int, ahead: int) -> None:
        self._batches, self._parts, self._ahead = batches, parts, ahead

    def __iter__(self) -> Iterator[_Task]:
        for number, (indices, soon) in enumerate(_look_ahead(self._batches, self._ahead)):
            ends = [len(indices) * part // self._parts for part in range(self._parts + 1)]
            for part in map(slice, ends, ends[1:]):
                yield _Task(number, part, indices, soon)


def _look_ahead(batches: Iterable[list[int]], ahead: int) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Each batch, and which of the `ahead` batches behind it were not named before: (a, [a, b]), (b, [c]), (c, [])."""
    waiting: deque[list[int]] = deque()
    new: list[list[int]] = []
    for batch in batches:
        waiting.append(batch)
        new.append(batch)
        if len(waiting) > ahead:
            yield waiting.popleft(), new
            new = []
    for batch in waiting:
        yield batch, new
        new = []


def _as_it_is(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return items


class ShuffledBatches(Sampler):
    """The order of the snippets in training steps `start` to `stop` - 1: a list of indices for each batch.

    Every epoch is a permutation drawn from (seed, epoch) alone, cut into the steps' snippets. So the order depends
    neither on the number of workers nor on the step at which a run was stopped. A step's snippets are cut into
    `pieces` batches. This process reads the pieces `first`, `first + every`, ..., so that processes and accumulated
    batches share a step.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        start: int,
        stop: int,
        pieces: int = 1,
        first: int = 0,
        every: int = 1,
    ) -> None:
        super().__init__()
        if size < batch_size * pieces:
            parts = f" in {pieces} pieces" if pieces > 1 else ""
            raise InputError(
                f"the data set has {size} snippets, fewer than the batch size of {batch_size * pieces}{parts}"
            )
        self.size, self.batch_size, self.seed, self.start, self.stop = size, batch_size, seed, start, stop
        self.pieces = range(first, pieces, every)
        self.snippets_per_step = batch_size * pieces

    def __len__(self) -> int:
        return (self.stop - self.start) * len(self.pieces)

    def __iter__(self) -> Iterator[list[int]]:
        steps_per_epoch = self.size // self.snippets_per_step
        order: list[int] = []
        for step in range(self.start, self.stop):
            epoch, position = divmod(step, steps_per_epoch)
            if position == 0 or not order:
                order = torch.randperm(self.size, generator=seeded(self.seed, 0, epoch)).tolist()
            for piece in self.pieces:
                start = position * self.snippets_per_step + piece * self.batch_size
                yield order[start : start + self.batch_size]


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator that depends on all these numbers (the seed, the step, ...) and on nothing else."""
    first, second = np.random.SeedSequence(numbers).generate_state(2)
    return torch.Generator().manual_seed(int(first) << 31 ^ int(second))


def load_batches(
    dataset: SnippetDataset, batches: Iterable[list[int]], workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """Read batches of these indices in their order, by `workers` processes (0: by this process).

    Raises:
        InputError: no snippet is whole, images have another size, or a worker process was killed.
    """
    ahead, parts = (SHARDS_AHEAD if dataset.sharded else 0), 1
    if not workers:
        for indices, soon in _look_ahead(batches, ahead):
            dataset.expect([index for batch in soon for index in batch])
            yield read_batch(dataset, indices, pin_memory)
        return
    largest = batches.batch_size if isinstance(batches, ShuffledBatches) else max(len(batch) for batch in batches)
    if dataset.sharded:  # each worker reads its own places of every batch, and so its own shards
        parts = workers = min(workers, largest)
    # Of the batches that are ahead, and of the one that is being copied.
    blocks = torch.empty(_AHEAD * workers + 1, _block_size(dataset, largest), dtype=torch.uint8).share_memory_()
    loader = DataLoader(
        _Tasks(dataset, blocks),
        batch_size=None,
        sampler=_TaskOrder(batches, parts, ahead),
        num_workers=workers,
        prefetch_factor=_AHEAD * parts,
        collate_fn=_as_it_is,
        worker_init_fn=_begin_worker,
    )
    try:
        for number, items in enumerate(_join(_begin(loader), parts)):
            shared = blocks[number % len(blocks), : _block_size(dataset, len(items))]
            block = torch.empty_like(shared, pin_memory=pin_memory).copy_(shared)
            yield as_batch(dataset, block, items, pin_memory)
    except (RuntimeError, ConnectionError, FileNotFoundError, EOFError) as error:
        # A worker was killed: PyTorch says so, or the last batch that it sent cannot be fetched any more. The message
        # of an error that a worker raised begins with "Caught".
        named = any(words in str(error) for words in ("DataLoader worker", "Pin memory thread exited"))
        killed = named or not isinstance(error, RuntimeError)
        if not killed or str(error).startswith("Caught"):
            raise
        error.__traceback__ = None  # see below
        raise InputError(
            f"a process that reads images was killed, perhaps for lack of memory; try fewer --workers than {workers}"
        ) from None
    except InputError as error:  # the message of a worker's error holds its traceback; its own line is the last
        # PyTorch raises it from a frame that the traceback refers to: a reference cycle that holds the workers and
        # their pipes. The garbage collector would close the pipes in any order and some twice, when their numbers may
        # belong to another loader.
        error.__traceback__ = None
        raise InputError(str(error).rpartition("InputError: ")[2].strip()) from None


def _join(results: Iterator[list[dict[str, Any]]], parts: int) -> Iterator[list[dict[str, Any]]]:
    """The items of each batch, of which each result has a part."""
    for first in results:
        yield first + [item for _ in range(parts - 1) for item in next(results)]


def _begin(loader: DataLoader) -> Iterator[list[dict[str, Any]]]:
    with signals_held(signal.SIGINT, signal.SIGTERM):
        iterator = iter(loader)
    if loader.num_workers and threading.current_thread() is threading.main_thread():
        # PyTorch's handler would raise the death of a worker at any point of the training, in the middle of a step,
        # too. Without the handler, the request for the next batch raises it within seconds.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return iterator


def _begin_worker(worker: int) -> None:
    gc.freeze()  # the parent's garbage is not this process's to finalise: see `load_batches`
    # A terminal sends Ctrl-C to the workers, too, and a scheduler SIGTERM. The training process ends the run, and the
    # workers end with it, also when it is killed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@atexit.register
def _kill_workers() -> None:
    # After an uncaught error the traceback holds the loader and its workers. Python would send them SIGTERM, which
    # they ignore, and wait for ever. (PyTorch's handler reports each child that is killed.)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
