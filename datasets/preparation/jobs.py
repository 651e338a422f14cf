"""Preparation of data sets: one job for each scene, several processes, resumable after any stop.

A `SceneJob` makes one scene of the prepared layout (`datasets/layout.py`) from a download. A script calls
`claim_folder`, `prepare_scenes`, `write_lists` and `report`, in this order.
"""

import errno
import json
import os
import signal
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from hashlib import sha256
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from path import Path
from tqdm import tqdm

from datasets.layout import (
    NO_DEPTH,
    RECORD_FILE,
    describe_gap,
    is_image_name,
    read_record,
    write_intrinsics,
    write_scene_names,
)
from datasets.preparation.static_frames import find_static_frames
from files.atomic import write_text
from files.errors import InputError, WriteError
from files.images import read_image, write_jpeg
from files.lock import FolderLock, hold
from files.memory import keep_freed_memory
from files.parallel import end_with_parent, signals_held
from files.text import printable, read_json

OPTIONS_FILE = "prepare.json"  # the options that a folder was prepared with; marks a folder as prepared by this code
REPORT_FILE = "prepare_report.txt"
SHORTEST_SCENE = 3  # frames: the shortest snippet
LARGEST_CHUNK = 16  # frames per task
MOST_NAMED = 3  # scenes in a printed line
_ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True)
class Plan:
    """The frames of a scene, as far as they are known before its images are opened."""

    frames: list[int]  # to prepare
    static: set[int]  # left out because the camera stands
    problems: dict[int, str]  # left out because a file is missing or damaged, with the reason
    poses: dict[int, np.ndarray] | None = None  # world_from_camera [4, 4] by frame; None: no poses.txt
    gaps: list[tuple[int, int]] = field(default_factory=list)  # first and last number of each run without images
    time_gaps: dict[int, float] = field(default_factory=dict)  # by frame that comes late: seconds since the one before
    without_scan: set[int] = field(default_factory=set)  # frames that get no depth although it was asked for


@dataclass(frozen=True, kw_only=True)
class SceneJob:
    """Makes one scene: first `plan`, then `prepare_frames` in pieces and in any order, then `finish`.

    Each file is written whole or not at all, and existing files are not made again: after a stop at any moment, the
    three steps give the same scene. A subclass for each data set implements `find_frames`, `make_image` and
    `intrinsics`, and extends `inputs` and `write_poses` where it has more than images.
    """

    scene: str  # the scene's name
    group: str  # scenes of one group (the cameras of a drive, a city) are all for training or all for validation
    folder: Path  # the folder that the scene is written to
    images: dict[int, Path] = field(repr=False)  # source files by frame number, ascending
    height: int  # of the prepared images
    width: int
    static: str  # "images" leaves out frames that show no motion; other values are for `find_frames`

    def inputs(self) -> dict[str, dict[int, Path]]:
        """The files that the scene is made from, by kind and frame."""
        return {"images": self.images}

    def find_frames(self) -> Plan:
        """The frames to prepare, found without opening the images."""
        raise NotImplementedError

    def make_image(self, frame: int) -> np.ndarray:
        """The prepared image of a frame: uint8 [height, width, 3]. InputError if its file is missing or damaged."""
        raise NotImplementedError

    def intrinsics(self) -> np.ndarray:
        """K of the prepared images: [3, 3]."""
        raise NotImplementedError

    def read_record(self) -> dict | None:
        """The record of a complete scene (see `finish`); None if the scene is not complete, or the record damaged."""
        try:
            return read_record(self.folder)
        except (InputError, OSError):
            return None

    def is_complete(self) -> bool:
        """False also if the download has grown since the scene was made, or a damaged file was replaced."""
        record = self.read_record()
        if record is None or record["source"] != self._source():
            return False
        if any(self._can_be_opened(frame) for frame in record.get("not_opened", [])):
            return False
        # The change time and not the modification time, which unpacking an archive sets to that of the archive.
        noted = os.stat(self.folder / RECORD_FILE).st_mtime
        sources = [file for frame in record["problems"] for file in self._sources(int(frame)) if os.path.exists(file)]
        if any(os.stat(file).st_ctime > noted for file in sources):
            return False
        return record["frames"] == sum(is_image_name(name) for name in os.listdir(self.folder))

    def _source(self) -> dict[str, int]:
        return {kind: len(files) for kind, files in self.inputs().items()}

    def _sources(self, frame: int) -> list[Path]:
        return [files[frame] for files in self.inputs().values() if frame in files]

    def _can_be_opened(self, frame: int) -> bool:
        """False if a file of the frame is a dangling link, for instance to a disk that is not mounted."""
        return all(os.path.exists(file) for file in self._sources(frame))

    def image_file(self, frame: int) -> Path:
        return self.folder / f"{frame:07d}.jpg"

    def plan(self) -> Plan:
        self.folder.makedirs_p()
        for file in self.folder.files("*.part"):  # left by a killed run (".*.part"; "*.part" by version 1)
            file.remove()
        for name in (RECORD_FILE, "poses.txt", "cam.txt"):  # without them the folder is no scene until it is complete
            (self.folder / name).remove_p()
        plan = self.find_frames()
        self.remove(plan.static | set(plan.problems))
        return plan

    def prepare_frames(self, frames: list[int]) -> dict[int, str]:
        """Write the images that do not exist yet; returns the reasons for those that could not be made, by frame."""
        problems = {}
        for frame in frames:
            if self.image_file(frame).exists():
                continue
            try:
                image = self.make_image(frame)
            except (InputError, OSError) as error:
                problems[frame] = str(error)
            else:
                write_jpeg(self.image_file(frame), image)
        return problems

    def finish(self, plan: Plan, problems: dict[int, str]) -> None:
        """Leave out static frames by their images; write poses, K and, last, the record.

        Args:
            problems: by frame, why it was left out or has no depth. The record also has the frames of them with a file
                that could not be found, the gaps between the frames' numbers and times, and the frames without a scan.
        """
        frames = [frame for frame in plan.frames if self.image_file(frame).exists()]
        static = set(plan.static)
        if self.static == "images":
            still = find_static_frames(read_image(self.image_file(frame)) for frame in frames)
            static |= {frame for frame, is_still in zip(frames, still, strict=True) if is_still}
            self.remove(static)
            frames = [frame for frame in frames if frame not in static]
        if frames:
            self.write_poses(plan, frames)
            write_intrinsics(self.folder / "cam.txt", self.intrinsics())
        record = {
            "source": self._source(),
            "frames": len(frames),
            "static": sorted(static),
            "problems": problems,
            "not_opened": [frame for frame in problems if not self._can_be_opened(frame)],
            "gaps": plan.gaps,
            "time_gaps": plan.time_gaps,
            "without_scan": [frame for frame in frames if frame in plan.without_scan],
        }
        write_text(self.folder / RECORD_FILE, json.dumps(record) + "\n")

    def write_poses(self, plan: Plan, frames: list[int]) -> None:
        """Write poses.txt for these frames, if the data set has poses."""

    def remove(self, frames: Iterable[int]) -> None:
        for frame in frames:
            self.image_file(frame).remove_p()
            self.image_file(frame).with_suffix(".npy").remove_p()


def check_aspect(image: np.ndarray, file: Path, height: int, width: int) -> None:
    """InputError unless an image has the aspect of the calibrated size, height x width.

    Images may have been resized since the calibration, but not cropped: K would be wrong.
    """
    if abs(image.shape[1] * height / (image.shape[0] * width) - 1) > _ASPECT_TOLERANCE:
        raise InputError(f"{file}: {image.shape[1]} x {image.shape[0]} pixels, calibration is for {width} x {height}")


def claim_folder(folder: Path, options: dict) -> FolderLock:
    """Make the output folder, or go on in one that was prepared with the same options; holds its lock.

    Returns:
        The lock. No other process can claim the folder until it is closed.

    Raises:
        InputError: the folder holds something else, was prepared with other options, or another process holds it.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file, expected a folder to write")
    file = folder / OPTIONS_FILE
    if not file.exists():
        if folder.is_dir() and any(entry != ".lock" and not entry.endswith(".part") for entry in os.listdir(folder)):
            raise InputError(
                f"{folder}: holds something else (there is no {OPTIONS_FILE}), expected a new or empty folder"
            )
        folder.makedirs_p()
        lock = hold(folder)
        write_text(file, json.dumps(options, indent=1) + "\n")
        return lock
    before = read_json(file)
    differ = [
        f"{key} was {' '.join(str(before.get(key)).split()):.60}, is now {value}"
        for key, value in options.items()
        if before.get(key) != value
    ]
    if differ:
        raise InputError(f"{folder}: prepared with other options ({'; '.join(differ)}), choose another folder")
    return hold(folder)


def prepare_scenes(jobs: Sequence[SceneJob], processes: int) -> None:
    """Plan, prepare and finish all scenes; the frames of all scenes are spread over the processes."""
    total = sum(len(job.images) for job in jobs)
    chunk = max(1, min(LARGEST_CHUNK, total // (4 * processes)))
    plans: dict[int, Plan] = {}
    problems: dict[int, dict[int, str]] = {}
    unfinished: dict[int, int] = {}  # the number of submitted chunks of a scene that have not ended
    pending: dict[Future, tuple[str, int, int]] = {}  # step, scene, number of frames
    finished: SimpleQueue[Future] = SimpleQueue()

    pool = ProcessPoolExecutor(processes, initializer=_start_worker, initargs=(jobs,))

    def submit(step: str, scene: int, *arguments: Any, frames: int = 0) -> None:
        future = pool.submit(_work, step, scene, *arguments)
        pending[future] = (step, scene, frames)
        future.add_done_callback(finished.put)

    try:
        with signals_held(signal.SIGINT):
            for scene in range(len(jobs)):
                submit("plan", scene)
        # The bar has a thread, and a process with threads should not fork: the workers are started before it.
        with tqdm(total=total, unit="frame", desc="preparing", smoothing=0.05) as bar:
            while pending:
                future = finished.get()
                step, scene, frames = pending.pop(future)
                result = future.result()
                if step == "plan":
                    plans[scene], problems[scene] = result, dict(result.problems)
                    frames = len(jobs[scene].images) - len(result.frames)
                    chunks = [result.frames[i : i + chunk] for i in range(0, len(result.frames), chunk)]
                    unfinished[scene] = len(chunks)
                    for piece in chunks:
                        submit("prepare_frames", scene, piece, frames=len(piece))
                elif step == "prepare_frames":
                    unfinished[scene] -= 1
                    problems[scene] |= result
                if step != "finish" and unfinished[scene] == 0:
                    submit("finish", scene, plans[scene], problems[scene])
                bar.update(frames)
    except (OSError, WriteError) as error:
        if error.errno != errno.ENOSPC:
            raise
        folder = jobs[0].folder.parent
        raise InputError(f"{error}; {folder}: the disk is full; with more room, the same command goes on") from None
    except BrokenProcessPool:
        raise InputError("a process ended from outside (out of memory?); the same command goes on") from None
    finally:  # on an error or Ctrl-C running tasks end, and no further ones are started
        pool.shutdown(cancel_futures=True)


_jobs: list[SceneJob] = []  # In a worker process: all jobs, sent once and not with every task.


def _start_worker(jobs: Sequence[SceneJob]) -> None:
    _jobs[:] = jobs
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    end_with_parent()
    keep_freed_memory()


def _work(step: str, scene: int, *arguments: Any) -> Any:
    return getattr(_jobs[scene], step)(*arguments)


def write_lists(
    folder: Path, jobs: Sequence[SceneJob], records: dict[str, dict], val_fraction: float, seed: int, groups: str
) -> None:
    """Write train.txt and val.txt. The scenes of a group are all in one of them, chosen by a hash of seed and name.

    Because of the hash, groups that are added later leave most others where they are.

    Args:
        records: by scene, from `SceneJob.read_record`.
        groups: the plural noun for a group in messages, such as "drives".

    Raises:
        InputError: no scene is long enough for a snippet.
    """
    scenes: dict[str, list[str]] = {}
    for job in jobs:
        if records[job.scene]["frames"] >= SHORTEST_SCENE:
            scenes.setdefault(job.group, []).append(job.scene)
    if not scenes:
        first = next((f" (e.g. {p})" for r in records.values() for p in r["problems"].values()), "")
        raise InputError(f"{folder}: no scene has {SHORTEST_SCENE} frames or more{first}")
    names = sorted(scenes, key=lambda name: sha256(f"{seed} {name}".encode()).digest())
    count = 0
    if val_fraction > 0 and len(names) > 1:
        count = min(len(names) - 1, max(1, round(val_fraction * len(names))))
    for file, side in (("val.txt", names[:count]), ("train.txt", names[count:])):
        write_scene_names(folder / file, sorted(scene for name in side for scene in scenes[name]))
    print(f"train.txt: {len(names) - count} {groups}, val.txt: {count} {groups}, each whole on one side")
    if count == 0 and val_fraction > 0:
        print(f"note: too few {groups} to split: all scenes are for training, and val.txt is empty")


def find_unlisted(folder: Path, jobs: Sequence[SceneJob]) -> list[str]:
    """The complete scenes of a folder that no list names, since they are of an earlier run that chose others."""
    own = {job.scene for job in jobs}
    unlisted = []
    for scene in sorted(folder.dirs()):
        try:
            record = None if scene.name in own else read_record(scene)
        except (InputError, OSError):  # damaged: training cannot read that scene either
            continue
        if record is not None and record["frames"] >= SHORTEST_SCENE:
            unlisted.append(str(scene.name))
    return unlisted


def describe_unlisted(folder: Path, unlisted: list[str], most: int) -> str:
    """The note about scenes in no list, with the names of `most` of them and the number of the others."""
    more = f" and {len(unlisted) - most} more" if len(unlisted) > most else ""
    scenes = "1 prepared scene" if len(unlisted) == 1 else f"{len(unlisted)} prepared scenes"
    verb = "is" if len(unlisted) == 1 else "are"
    return f"note: {scenes} in {folder} {verb} in no list: {', '.join(unlisted[:most])}{more}"


def report(folder: Path, jobs: Sequence[SceneJob], records: dict[str, dict], done: int) -> None:
    """Print counts; write each frame that was left out or has no depth, with the reason, to prepare_report.txt.

    Scenes of earlier runs that are in no list are noted in both.

    Args:
        records: by scene, from `SceneJob.read_record`.
        done: the number of scenes that this run has made.
    """
    lines = [f"{scene} {int(f):07d}: {text}" for scene, r in records.items() for f, text in r["problems"].items()]
    gaps = [(scene, first, last) for scene, record in records.items() for first, last in record.get("gaps", [])]
    lines += [f"{scene} {first:07d}: {describe_gap(first, last)}" for scene, first, last in gaps]
    late = [(scene, int(f), seconds) for scene, r in records.items() for f, seconds in r.get("time_gaps", {}).items()]
    lines += [f"{scene} {frame:07d}: {seconds:.3g} s after the frame before it" for scene, frame, seconds in late]
    no_scan = [(scene, frame) for scene, record in records.items() for frame in record.get("without_scan", [])]
    lines += [f"{scene} {frame:07d}: {NO_DEPTH}no scan" for scene, frame in no_scan]
    short = [scene for scene, record in records.items() if record["frames"] < SHORTEST_SCENE]
    lines += [f"{scene}: {records[scene]['frames']} frames, in no list: too short for a snippet" for scene in short]
    lines += [f"{scene} {frame:07d}: static" for scene, record in records.items() for frame in record["static"]]
    unlisted = find_unlisted(folder, jobs)
    if unlisted:
        lines.append(describe_unlisted(folder, unlisted, len(unlisted)))
    write_text(folder / REPORT_FILE, printable("".join(f"{line}\n" for line in lines)))

    if unlisted:
        print(printable(describe_unlisted(folder, unlisted, MOST_NAMED)))
    if done == 0:
        print("nothing to do: all scenes are complete")
    frames = sum(record["frames"] for scene, record in records.items() if scene not in short)
    print(f"{frames} frames in {len(jobs) - len(short)} scenes in {folder}")
    if short:
        print(f"{len(short)} scenes with fewer than {SHORTEST_SCENE} frames are in no list: {', '.join(short[:3])}")
    static = sum(len(record["static"]) for record in records.values())
    if static:
        print(f"{static} static frames left out")
    if no_scan:
        print(f"{len(no_scan)} frames have no scan, and so no depth")
    problems = [text for record in records.values() for text in record["problems"].values()]
    without_depth = sum(text.startswith(NO_DEPTH) for text in problems)
    left_out = len(problems) - without_depth + sum(last - first + 1 for _, first, last in gaps)
    if left_out or without_depth:
        print(f"missing or damaged files: {left_out} frames left out, {without_depth} without depth, e.g.")
        for text in [*problems, *(f"{scene}: {describe_gap(first, last)}" for scene, first, last in gaps)][:3]:
            print(f"  {printable(text)}")
    if late:
        scene, frame, seconds = max(late, key=lambda gap: gap[2])
        print(
            f"{len(late)} gaps between the times of frames, the longest {seconds:.3g} s, before {scene} {frame:07d}: "
            "no snippet crosses them"
        )
    if lines:
        print(f"each of them is in {folder / REPORT_FILE}")
