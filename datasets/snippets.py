"""Snippets of a prepared data set, as uint8 from the loader's workers."""

import atexit
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from path import Path
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from datasets.layout import Scene, check_intrinsics_fit, depth_file, read_depth, read_scene, read_scene_names
from files.errors import InputError
from files.images import image_size, read_image


class SnippetDataset(Dataset):
    """All runs of `length` neighbouring frames in the scenes of a prepared data set.

    An item is a dict: `frames` uint8 [L, 3, H, W] in order of time (the middle one is the target), `intrinsics`
    float32 [3, 3], `index`, and `damaged`, a line for each file that could not be read. A snippet with a damaged image
    is replaced by the next one that is whole, so that a batch keeps its size. With `ground_truth` it also has `depth`
    float32 [H, W] of the target (0 = unknown, everywhere where there is no file) and `poses` float64 [L, 3, 4],
    world_from_camera (NaN where the scene has none).
    """

    def __init__(self, root: Path, scene_list: str, length: int, ground_truth: bool = False) -> None:
        if length < 3 or length % 2 == 0:
            raise InputError(f"snippets of {length} frames, expected an odd number from 3 on: the target is the middle")
        root = Path(root)
        if not root.is_dir():
            raise InputError(f"{root}: no such folder, expected a prepared data set (see data/prepare_kitti.py)")
        names = read_scene_names(root / scene_list)
        self.length = length
        self.ground_truth = ground_truth
        self.scenes = [read_scene(root / name) for name in names]
        self.runs = [run for scene in self.scenes for run in scene.runs()]
        counts = [max(0, len(run.frames) - length + 1) for run in self.runs]
        if not any(counts):
            longest = max(self.runs, key=lambda run: len(run.frames))
            raise InputError(
                f"{root / scene_list}: no snippet of {length} frames: the longest of {len(names)} scenes, "
                f"{longest.name}, has {len(longest.frames)}"
            )
        self._ends = np.cumsum(counts)  # number of snippets up to and with each run
        self.height, self.width = self._check_sizes(root / scene_list)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def snippet(self, index: int) -> tuple[Scene, int]:
        """A snippet's scene, or the part of it without a break, and its first frame there."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        scene = self.runs[number]
        return scene, index - int(self._ends[number]) + max(0, len(scene.frames) - self.length + 1)

    def target_file(self, index: int) -> Path:
        """The image in the middle of a snippet."""
        scene, first = self.snippet(index)
        return scene.frames[first + self.length // 2]

    def __getitem__(self, index: int) -> dict[str, Any]:
        damaged: list[str] = []
        for step in range(len(self)):
            item = self._read((index + step) % len(self), damaged)
            if item is not None:
                return item | {"damaged": damaged}
        raise InputError(f"{self.scenes[0].folder.parent}: not one snippet has all its images whole, e.g. {damaged[0]}")

    def _read(self, index: int, damaged: list[str]) -> dict[str, Any] | None:
        scene, first = self.snippet(index)
        files = scene.frames[first : first + self.length]
        images = []
        for file in files:
            try:
                images.append(read_image(file))
            except (InputError, OSError) as error:
                damaged.append(str(error))
                return None
            if images[-1].shape[:2] != (self.height, self.width):
                raise InputError(
                    f"{file}: {_size(images[-1].shape[:2])} pixels, expected {_size((self.height, self.width))}"
                )
        item: dict[str, Any] = {
            "frames": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
            "intrinsics": torch.from_numpy(scene.intrinsics.astype(np.float32)),
            "index": index,
        }
        if self.ground_truth:
            item["depth"] = self._depth(files[self.length // 2], damaged)
            poses = np.full((self.length, 3, 4), np.nan)
            if scene.poses is not None:
                poses = scene.poses[first : first + self.length]
            item["poses"] = torch.from_numpy(poses)
        return item

    def _depth(self, frame: Path, damaged: list[str]) -> Tensor:
        file = depth_file(frame)
        unknown = torch.zeros(self.height, self.width)
        if not os.path.lexists(file):
            return unknown
        try:
            depth = read_depth(file)
        except (InputError, OSError) as error:
            damaged.append(str(error))
            return unknown
        if depth.shape != (self.height, self.width):
            damaged.append(f"{file}: depth of {_size(depth.shape)} pixels, expected {_size(unknown.shape)}")
            return unknown
        return torch.from_numpy(depth)

    def _check_sizes(self, scene_list: Path) -> tuple[int, int]:
        """The one size (height, width) of all frames, from their headers."""
        first: dict[tuple[int, int], Path] = {}
        bar = tqdm(total=sum(len(scene.frames) for scene in self.scenes), desc="checking frames", leave=False, delay=2)
        for scene in self.scenes:
            for frame in scene.frames:
                with suppress(InputError):  # damaged: named and counted when it is to be read
                    first.setdefault(image_size(frame), frame)
            bar.update(len(scene.frames))
        bar.close()
        if not first:
            raise InputError(f"{scene_list}: not one of the frames of its scenes can be read")
        if len(first) > 1:
            (size, frame), (other_size, other_frame) = list(first.items())[:2]
            raise InputError(
                f"{other_frame}: {_size(other_size)} pixels, but {frame} has {_size(size)}; "
                "expected one size for all frames"
            )
        height, width = next(iter(first))
        for scene in self.scenes:
            check_intrinsics_fit(scene.intrinsics, height, width, scene.folder / "cam.txt")
        return height, width


def _size(size: Sequence[int]) -> str:
    return f"{size[1]} x {size[0]}"


@dataclass(frozen=True)
class Batch:
    """Snippets side by side; the tensors as in `SnippetDataset`, with the batch first."""

    frames: Tensor  # uint8 [B, L, 3, H, W]
    intrinsics: Tensor  # float32 [B, 3, 3]
    indices: list[int]
    damaged: list[str]  # one line for each image that could not be read
    depth: Tensor | None = None  # float32 [B, H, W]
    poses: Tensor | None = None  # float64 [B, L, 3, 4]

    def pin_memory(self) -> "Batch":
        """For the loader: page-locked, so that the copy to the GPU does not make the host wait."""
        return replace(self, frames=self.frames.pin_memory(), intrinsics=self.intrinsics.pin_memory())


def collate(items: list[dict[str, Any]]) -> Batch:
    # Pixels stay interleaved in memory, as the decoder gives them: the training device puts channels in planes faster.
    frames = torch.stack([item["frames"].permute(0, 2, 3, 1) for item in items]).permute(0, 1, 4, 2, 3)
    return Batch(
        frames,
        torch.stack([item["intrinsics"] for item in items]),
        [item["index"] for item in items],
        [line for item in items for line in item["damaged"]],
        torch.stack([item["depth"] for item in items]) if "depth" in items[0] else None,
        torch.stack([item["poses"] for item in items]) if "poses" in items[0] else None,
    )


class ShuffledBatches(Sampler):
    """The snippets of training steps `start` .. `stop` - 1, a list of indices for each batch.

    Every epoch is a permutation drawn from (seed, epoch) alone, cut into the steps' snippets: the order does not depend
    on the number of workers, nor on where a run was stopped. A step's snippets are cut into `pieces` batches; this
    process reads every `every`-th of them from the `first` on, so that processes and accumulated batches share a step.
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
        self.whole = batch_size * pieces  # snippets a step

    def __len__(self) -> int:
        return (self.stop - self.start) * len(self.pieces)

    def __iter__(self) -> Iterator[list[int]]:
        steps_per_epoch = self.size // self.whole
        order: list[int] = []
        for step in range(self.start, self.stop):
            epoch, position = divmod(step, steps_per_epoch)
            if position == 0 or not order:
                order = torch.randperm(self.size, generator=seeded(self.seed, 0, epoch)).tolist()
            for piece in self.pieces:
                start = position * self.whole + piece * self.batch_size
                yield order[start : start + self.batch_size]


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator that depends on all these numbers (the seed, the step, ...) and on nothing else."""
    first, second = np.random.SeedSequence(numbers).generate_state(2)
    return torch.Generator().manual_seed(int(first) << 31 ^ int(second))


def load_batches(
    dataset: SnippetDataset, batches: Iterable[list[int]], workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """Batches of these indices, read by `workers` processes (0: by this one), in their order.

    Raises:
        InputError: no snippet is whole, images of another size, or a process was ended from outside.
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
        # A worker that was killed: PyTorch says so, or what it had sent last can't be fetched from it any more. (An
        # error that a worker sent begins with "Caught".)
        told = any(words in str(error) for words in ("DataLoader worker", "Pin memory thread exited"))
        killed = told or not isinstance(error, RuntimeError)
        if not workers or not killed or str(error).startswith("Caught"):
            raise
        error.__traceback__ = None  # see below
        raise InputError(
            f"a process that reads images was ended from outside, perhaps for lack of memory; try fewer --workers than "
            f"{workers}"
        ) from None
    except InputError as error:  # a worker's comes with its traceback in the message; its own line is the last
        # PyTorch raises it from a frame that its traceback holds: a cycle, and in it the workers and their pipes. The
        # garbage collector would close these in any order, some twice, when their numbers may be another loader's.
        error.__traceback__ = None
        raise InputError(str(error).rpartition("InputError: ")[2].strip()) from None


def _begin(loader: DataLoader) -> Iterator[Batch]:
    iterator = iter(loader)
    if loader.num_workers and threading.current_thread() is threading.main_thread():
        # PyTorch would raise the end of a worker wherever the training is at that moment, in the middle of a step, too.
        # Without its handler the one who asks for the next batch learns of it, within seconds.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return iterator


def _begin_worker(worker: int) -> None:
    gc.freeze()  # what was the parent's garbage is not this process's to finalise: see above
    # A terminal sends Ctrl-C to the workers, too, and a scheduler SIGTERM. It is the training process that ends the
    # run, and them with it: they end by themselves when it does, even when it is killed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@atexit.register
def _kill_workers() -> None:
    # After an error that nobody caught the loader is still there, held by the traceback, and so are its workers. Python
    # would send them SIGTERM, which they ignore, and wait for ever. (PyTorch reports each child that is killed.)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in multiprocessing.active_children():
        if process.daemon:  # Python's word for those that are to end with their parent
            process.kill()
