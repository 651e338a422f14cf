"""From snippets to batches: their order, and the processes that read them."""

import atexit
import gc
import multiprocessing
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from datasets.snippets import SnippetDataset
from files.errors import InputError
from geometry.snippets import Snippets


@dataclass(frozen=True)
class Batch:
    """A batch of snippets as the loader gives it."""

    snippets: Snippets  # uint8 images
    indices: list[int]  # of the snippets in the data set
    damaged: list[str]  # a line for each image that could not be read
    depth: Tensor | None = None  # float32 [B, H, W], of the targets, 0 = unknown
    poses: Tensor | None = None  # float64 [B, L, 3, 4], world_from_camera of all frames in order of time

    def pin_memory(self) -> "Batch":
        """The DataLoader calls it: page-locked memory, from which a copy to a GPU does not make the host wait."""
        return replace(self, snippets=self.snippets.pin_memory())


def collate(items: list[dict[str, Any]]) -> Batch:
    """Items of a `SnippetDataset` as a batch; the middle frame of each becomes its target."""
    # Pixels stay interleaved in memory, as the decoder gives them: the training device puts channels in planes faster.
    frames = torch.stack([item["frames"].permute(0, 2, 3, 1) for item in items]).permute(0, 1, 4, 2, 3)
    middle = frames.shape[1] // 2
    sources = torch.cat([frames[:, :middle], frames[:, middle + 1 :]], 1)
    return Batch(
        Snippets(
            frames[:, middle],
            sources,
            torch.stack([item["intrinsics"] for item in items]),
            torch.tensor([item.get("camera", 0) for item in items]),
        ),
        [item["index"] for item in items],
        [line for item in items for line in item["damaged"]],
        torch.stack([item["depth"] for item in items]) if "depth" in items[0] else None,
        torch.stack([item["poses"] for item in items]) if "poses" in items[0] else None,
    )


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
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=_begin_worker,
    )
    try:
        yield from _begin(loader)
    except (RuntimeError, ConnectionError, FileNotFoundError, EOFError) as error:
        # A worker was killed: PyTorch says so, or the last batch that it sent cannot be fetched any more. The message
        # of an error that a worker raised begins with "Caught".
        named = any(words in str(error) for words in ("DataLoader worker", "Pin memory thread exited"))
        killed = named or not isinstance(error, RuntimeError)
        if not workers or not killed or str(error).startswith("Caught"):
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


def _begin(loader: DataLoader) -> Iterator[Batch]:
    with _signals_held():
        iterator = iter(loader)
    if loader.num_workers and threading.current_thread() is threading.main_thread():
        # PyTorch's handler would raise the death of a worker at any point of the training, in the middle of a step,
        # too. Without the handler, the request for the next batch raises it within seconds.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return iterator


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back while workers start, so that a new worker cannot die of them before it ignores them.

    The training process gets them afterwards.
    """
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
