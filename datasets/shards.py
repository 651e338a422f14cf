"""Snippets from shards: a prepared data set as tar files, in a folder or at a URL (`datasets.packing` writes them).

    shards.jsonl       the index, a JSON object per line: the set, its scenes, its shards
    train-00000.tar    SCENE/0000000.jpg ... of the training scenes, in order
    val-00000.tar      SCENE/* of the validation scenes: frames, depth, cam.txt, poses.txt ...

A shard holds frames that follow each other. Where a scene is cut, the first frames behind the cut are in both shards,
`overlap` of them, so that each snippet lies in one shard: the one that its first frame belongs to.
"""

import io
import math
import os
import queue
import re
import tarfile
import threading
import weakref
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, overload

import numpy as np
import torch
from path import Path
from tqdm import tqdm

from datasets.layout import Scene, check_intrinsics_fit, write_scene_names
from datasets.loading import SHARDS_AHEAD, ShuffledBatches, seeded
from datasets.snippets import SnippetDataset
from files.atomic import write_bytes
from files.errors import InputError
from files.images import decode_image
from files.remote import fetch, is_url
from files.untrusted import check_pixels, one_line, parse_json

INDEX_FILE = "shards.jsonl"
KINDS = ("train", "val")
VERSION = 1
OPEN_SHARDS = 32  # that a step mixes at least; part of the order of the snippets
_THREADS = 2  # that fetch shards, in each process
_LARGEST_INDEX = 2**30  # bytes
_LARGEST_SHARD = 2**32
_SHARD_NAME = re.compile(r"[\w-][\w.-]*\.tar")
_NUMBERED = re.compile(r"(.*?)(\d{1,18})(\.\w+)", re.DOTALL)


def is_sharded(data: str) -> bool:
    """Whether training data are shards: a URL, or a folder with an index."""
    return is_url(data) or os.path.isfile(os.path.join(data, INDEX_FILE))


class FrameNames(Sequence[Path]):
    """The frames of a scene, of which only runs of consecutive numbers are kept in memory.

    Args:
        folder: of the scene.
        runs: (first name, count) of each run: ("0000007.jpg", 2) is 0000007.jpg, 0000008.jpg.
    """

    def __init__(self, folder: Path, runs: Sequence[tuple[str, int]]) -> None:
        self._folder = folder
        self._runs = runs
        self._ends = np.cumsum([0, *(count for _, count in runs)]).tolist()
        self._span = range(self._ends[-1])

    def __len__(self) -> int:
        return len(self._span)

    @overload
    def __getitem__(self, place: int) -> Path: ...
    @overload
    def __getitem__(self, place: slice) -> "FrameNames": ...
    def __getitem__(self, place: int | slice) -> "Path | FrameNames":
        if isinstance(place, slice):
            part = FrameNames(self._folder, self._runs)
            part._span = self._span[place]
            return part
        number = self._span[place]
        run = bisect_right(self._ends, number) - 1
        return self._folder / later_name(self._runs[run][0], number - self._ends[run])


def later_name(name: str, steps: int) -> str:
    """The name of a frame whose number is larger by `steps`: 0000009.jpg of 0000007.jpg and 2."""
    match = _NUMBERED.fullmatch(name)
    if match is None or steps == 0:
        return name
    before, number, suffix = match.groups()
    return f"{before}{int(number) + steps:0{len(number)}d}{suffix}"


@dataclass(frozen=True)
class Shard:
    """A tar file of a packed set."""

    place: str
    size: int  # bytes
    crc32: int
    frames: int  # that belong to it, without those of the overlap

    def read(self) -> dict[str, bytes]:
        """Its files by name; InputError if it is missing, damaged, or cannot be fetched."""
        return read_tar(fetch(self.place, self.size, self._check), self.place)

    def _check(self, content: bytes) -> None:
        if len(content) != self.size or zlib.crc32(content) != self.crc32:
            found = f"at least {len(content)}" if len(content) > self.size else f"{len(content)}"
            raise InputError(
                f"{self.place}: damaged: {found} bytes, expected {self.size} with the checksum of {INDEX_FILE}"
            )


@dataclass(frozen=True)
class ShardIndex:
    """What the index of a packed set says."""

    root: str  # folder or URL
    height: int
    width: int
    overlap: int
    scenes: list[Scene]  # of the training
    shards: list[Shard]
    validation_scenes: list[str]
    validation_shards: list[Shard]


def read_index(root: str) -> ShardIndex:
    """The index of a packed set.

    Raises:
        InputError: there is none, or it is damaged or cannot be fetched.
    """
    root = root.rstrip("/")
    place = f"{root}/{INDEX_FILE}"
    content = fetch(place, _LARGEST_INDEX)
    try:
        head, *lines = (parse_json(line) for line in content.decode().splitlines())
        if head["version"] != VERSION:
            raise ValueError(f"version {head['version']!r:.20}, expected {VERSION}; pack the data again")
        height, width, overlap, count = (_whole(head[name]) for name in ("height", "width", "overlap", "scenes"))
        check_pixels(width, height)
        names = [str(name) for name in head["validation"]]
        scenes = [_scene(root, line) for line in lines[:count]]
        shards = {kind: [_shard(root, line) for line in lines[count:] if line["kind"] == kind] for kind in KINDS}
        if not shards["train"] or sum(shard.frames for shard in shards["train"]) != sum(len(s.frames) for s in scenes):
            raise ValueError("its shards have another number of frames than its scenes")
        for scene in scenes:
            check_intrinsics_fit(scene.intrinsics, height, width, scene.folder)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise InputError(f"{place}: damaged, expected the index of data/pack_shards.py ({reason:.200})") from None
    return ShardIndex(root, height, width, overlap, scenes, shards["train"], names, shards["val"])


def _whole(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 2**40:
        raise ValueError(f"{number!r:.40}, expected a whole number")
    return number


def _scene(root: str, line: dict[str, Any]) -> Scene:
    folder = Path(root) / str(line["scene"])
    intrinsics = np.array(line["intrinsics"], dtype=np.float64)
    if intrinsics.shape != (3, 3) or not np.isfinite(intrinsics).all():
        raise ValueError(f"K of {line['scene']!r:.40}")
    frames = FrameNames(folder, [(str(name), _whole(count)) for name, count in line["frames"]])
    breaks = tuple(_whole(place) for place in line["breaks"])
    if sorted({0, *breaks, len(frames)}) != [*dict.fromkeys((0, *breaks, len(frames)))]:
        raise ValueError(f"breaks of {line['scene']!r:.40}")
    return Scene(folder, frames, intrinsics, None, breaks, bool(line["guessed"]))


def _shard(root: str, line: dict[str, Any]) -> Shard:
    name, size = str(line["shard"]), _whole(line["bytes"])
    if not _SHARD_NAME.fullmatch(name) or size > _LARGEST_SHARD:
        raise ValueError(f"shard {name!r:.60} of {size} bytes")
    return Shard(f"{root}/{name}", size, _whole(line["crc32"]), _whole(line["frames"]))


def read_tar(content: bytes, place: str) -> dict[str, bytes]:
    """The files in a tar file by name; InputError if it is damaged or holds anything but plain files."""
    files = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                if not member.isreg() or member.issparse() or member.offset_data + member.size > len(content):
                    raise ValueError(f"{member.name:.60} is no plain file")
                files[member.name] = content[member.offset_data : member.offset_data + member.size]
    except Exception as error:  # tarfile fails on damage in many ways
        raise InputError(f"{place}: no readable tar file ({one_line(error)})") from None
    return files


class ShardedSnippets(SnippetDataset):
    """The training snippets of a packed set: those of the prepared set, in the same order, with the same numbers.

    Each process fetches the shards that it needs, whole, and keeps them in memory until the snippets that were
    announced (`expect`) need them no longer.

    Args:
        index: of the packed set.
        length, fov: as for `SnippetDataset`.
    """

    sharded = True

    def __init__(self, index: ShardIndex, length: int, fov: float | None = None) -> None:
        place = Path(index.root) / INDEX_FILE
        self._begin(place, index.scenes, length)
        if length > index.overlap + 1:
            raise InputError(
                f"{place}: packed for snippets of up to {index.overlap + 1} frames, expected {length}; pack the data "
                f"again with --overlap {length - 1}"
            )
        self._number_cameras(index.height, index.width, fov)
        self.shards = index.shards
        self.first_snippets = self._first_snippets()
        self._root = index.root
        self._open: _OpenShards | None = None

    def _first_snippets(self) -> np.ndarray:
        """The number of snippets before each shard, and behind the last: int64 [shards + 1], ascending."""
        counts = np.diff(self._ends, prepend=0)
        first_frames = np.cumsum([0, *(len(run.frames) for run in self.runs)])[:-1]  # of each run, in the whole set
        ends = np.cumsum([0, *(shard.frames for shard in self.shards)])
        run = (np.searchsorted(first_frames, ends, side="right") - 1).clip(0)
        return self._ends[run] - counts[run] + np.clip(ends - first_frames[run], 0, counts[run])

    def shard_of(self, index: int) -> int:
        """The number of the shard that holds a snippet."""
        return int(np.searchsorted(self.first_snippets, index, side="right")) - 1

    def expect(self, indices: Sequence[int]) -> None:
        """Begin to fetch the shards of these snippets, and drop those that are not used any more."""
        shards = np.searchsorted(self.first_snippets, indices, side="right") - 1
        self._opened().expect(dict.fromkeys(shards.tolist()))

    def reader(self, index: int) -> Callable[[Path], np.ndarray]:
        files = self._opened().get(self.shard_of(index))
        return lambda file: self.decoded(file, partial(self._decode, files, file))

    def read_frame(self, file: Path) -> np.ndarray:
        raise NotImplementedError("a frame of shards is read with its snippet")

    def _decode(self, files: dict[str, bytes], file: Path) -> np.ndarray:
        name = file[len(self._root) + 1 :]
        if name not in files:
            raise InputError(f"{file}: not in its shard")
        return decode_image(files[name], file)

    def _opened(self) -> "_OpenShards":
        if self._open is None or self._open.process != os.getpid():  # a forked process has none of the threads
            self._open = _OpenShards(self.shards)
        return self._open

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}


class _OpenShards:
    """The shards that a process holds in memory, and the threads that fetch them.

    A shard is dropped when none of the last announcements and reads has used it.
    """

    def __init__(self, shards: list[Shard]) -> None:
        self.process = os.getpid()
        self._shards = shards
        wanted: queue.SimpleQueue[tuple[Shard, Future] | None] = queue.SimpleQueue()
        self._wanted = wanted
        self._files: dict[int, Future] = {}
        self._used: dict[int, int] = {}
        self._now = 0
        for _ in range(_THREADS):  # daemons: the end of a process waits for no shard
            threading.Thread(target=_fetch_shards, args=(wanted,), daemon=True).start()
            weakref.finalize(self, wanted.put, None)

    def expect(self, numbers: Sequence[int] | dict[int, Any]) -> None:
        self._now += 1
        for number in numbers:
            self._hold(number)
        for number in [number for number, used in self._used.items() if used < self._now - SHARDS_AHEAD]:
            del self._files[number], self._used[number]

    def get(self, number: int) -> dict[str, bytes]:
        if number not in self._files:  # not announced: it takes the place of one that has not been used for long
            self.expect([number])
        self._hold(number)
        return self._files[number].result()

    def _hold(self, number: int) -> None:
        self._used[number] = self._now
        if number not in self._files:
            self._files[number] = Future()
            self._wanted.put((self._shards[number], self._files[number]))


def _fetch_shards(wanted: "queue.SimpleQueue[tuple[Shard, Future] | None]") -> None:
    while (request := wanted.get()) is not None:
        shard, future = request
        try:
            future.set_result(shard.read())
        except Exception as error:  # raised where the shard is needed
            future.set_exception(error)
        del request, shard, future  # a thread that waits keeps no shard in memory


class ShardedBatches(ShuffledBatches):
    """Like `ShuffledBatches`, in an order that reads each shard once in an epoch, and few shards at a time.

    In each epoch the shards are shuffled, and the snippets of each shard. That row is cut into lanes of equal length,
    `OPEN_SHARDS` or one for each place of a step if those are more, and each place takes its snippets from its own
    lanes in turns. So a process, and a worker that reads some places of each batch, reads its own shards; only a shard
    at the border of two lanes is read for both. The order depends on (seed, epoch) and on the snippets per step:
    neither on the number of processes and workers, nor on where a run was stopped.
    """

    def __init__(self, dataset: ShardedSnippets, *arguments: int) -> None:
        super().__init__(len(dataset), *arguments)
        self._first_snippets = dataset.first_snippets

    def __iter__(self) -> Iterator[list[int]]:
        steps = self.size // self.snippets_per_step  # of an epoch
        turns = math.ceil(OPEN_SHARDS / self.snippets_per_step)  # lanes of a place
        lengths = [len(range(turn, steps, turns)) for turn in range(turns)]
        starts = np.cumsum([0, *lengths]).tolist()
        order: Callable[[int], int] | None = None
        for step in range(self.start, self.stop):
            epoch, position = divmod(step, steps)
            if position == 0 or order is None:
                order = self._order(epoch, 2 * turns * self.snippets_per_step)
            in_place = starts[position % turns] + position // turns
            for piece in self.pieces:
                places = range(piece * self.batch_size, (piece + 1) * self.batch_size)
                yield [order(place * steps + in_place) for place in places]

    def _order(self, epoch: int, kept: int) -> Callable[[int], int]:
        """The snippet at each position of an epoch's row. Orders of `kept` shards stay in memory."""
        counts = np.diff(self._first_snippets)
        shards = torch.randperm(len(counts), generator=seeded(self.seed, 3, epoch)).tolist()
        ends = np.cumsum(counts[shards]).tolist()

        @lru_cache(maxsize=kept)
        def within(shard: int) -> np.ndarray:
            return torch.randperm(int(counts[shard]), generator=seeded(self.seed, 3, epoch, shard)).numpy()

        def snippet(position: int) -> int:
            place = bisect_right(ends, position)
            shard = shards[place]
            before = ends[place - 1] if place else 0
            return int(self._first_snippets[shard] + within(shard)[position - before])

        return snippet


def unpack_validation(index: ShardIndex, folder: Path, quiet: bool = False) -> None:
    """Write the validation scenes of a packed set to a folder, as the prepared data that they were.

    Raises:
        InputError: a shard is missing, damaged or cannot be fetched.
    """
    for shard in tqdm(index.validation_shards, desc="fetching validation scenes", leave=False, delay=2, disable=quiet):
        for name, content in shard.read().items():
            if name.startswith("/") or ".." in name.split("/") or "\\" in name or "\0" in name:
                raise InputError(f"{shard.place}: holds {name!r:.100}, which leads out of its folder")
            (folder / name).parent.makedirs_p()
            write_bytes(folder / name, content)
    write_scene_names(folder / "val.txt", index.validation_scenes)
