"""What the scripts that prepare data share: scenes as jobs of many processes that can be stopped at any moment.

A `SceneJob` makes one scene of the prepared layout (`datasets/layout.py`) from a download. `claim_folder`,
`prepare_scenes`, `write_lists` and `report` are the steps of a script, in this order.
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
from typing import IO, Any

import numpy as np
import torch
from path import Path
from tqdm import tqdm

from datasets.layout import write_intrinsics, write_scene_names, write_text
from datasets.preparation.static_frames import find_static_frames
from files.errors import InputError
from files.images import read_image, write_jpeg
from files.lock import hold
from files.text import read_lines
from files.workers import end_with_parent

OPTIONS_FILE = "prepare.json"  # what a prepared folder was made with; the mark of a folder of ours
REPORT_FILE = "prepare_report.txt"
RECORD_FILE = "prepared.json"  # in a scene's folder: that it is complete, and what was left out
SHORTEST_SCENE = 3  # frames; less holds no snippet
LARGEST_CHUNK = 16  # frames a task
_ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True)
class Plan:
    """What is known of a scene before its images are opened."""

    frames: list[int]  # to prepare
    static: set[int]  # left out because the camera stands
    problems: dict[int, str]  # left out because something is missing or damaged, and what
    poses: dict[int, np.ndarray] | None = None  # world_from_camera [4, 4] of the frames, where wanted and there


@dataclass(frozen=True, kw_only=True)
class SceneJob:
    """One scene to make: first `plan`, then `prepare_frames` in any order and pieces, then `finish`.

    Each file is written whole or not at all, and what is there is not made again: stopped anywhere, the three
    steps again give the same scene. A data set's own job says what `inputs`, `find_frames`, `make_image` and
    `intrinsics` are.
    """

    scene: str  # the scene's name
    group: str  # scenes of one group (the cameras of a drive, a city) are all for training or all for validation
    folder: Path  # the scene's
    images: dict[int, Path] = field(repr=False)  # by frame number
    height: int
    width: int
    static: str  # "images": what shows no motion is left out; anything else is for `find_frames`

    def inputs(self) -> dict[str, dict[int, Path]]:
        """The files that the scene is made from, by kind and frame."""
        return {"images": self.images}

    def find_frames(self) -> Plan:
        """Which frames there are, without opening the images."""
        raise NotImplementedError

    def make_image(self, frame: int) -> np.ndarray:
        """A frame as it is written: uint8 [height, width, 3]. InputError if its file is missing or damaged."""
        raise NotImplementedError

    def intrinsics(self) -> np.ndarray:
        """K of the images as they are written: [3, 3]."""
        raise NotImplementedError

    def read_record(self) -> dict | None:
        """What was noted when the scene was complete; None where it isn't."""
        try:
            record = json.loads((self.folder / RECORD_FILE).read_text())
            return record if {"source", "frames", "static", "problems"} <= set(record) else None
        except (OSError, ValueError, TypeError):
            return None

    def is_complete(self) -> bool:
        """Is there nothing to do? Not if the download has grown since, or a damaged file was replaced."""
        record = self.read_record()
        if record is None or record["source"] != self._source():
            return False
        # The change time and not the modification time, which unpacking an archive sets to that of the archive.
        noted = os.stat(self.folder / RECORD_FILE).st_mtime
        kinds = self.inputs().values()
        sources = [files[int(frame)] for frame in record["problems"] for files in kinds if int(frame) in files]
        if any(os.stat(file).st_ctime > noted for file in sources):
            return False
        return record["frames"] == sum(name.endswith(".jpg") for name in os.listdir(self.folder))

    def _source(self) -> dict[str, int]:
        return {kind: len(files) for kind, files in self.inputs().items()}

    def image_file(self, frame: int) -> Path:
        return self.folder / f"{frame:07d}.jpg"

    def plan(self) -> Plan:
        self.folder.makedirs_p()
        for file in self.folder.files("*.part"):  # what a stopped run left
            file.remove()
        for name in (RECORD_FILE, "poses.txt", "cam.txt"):  # until it is complete again it is no scene
            (self.folder / name).remove_p()
        plan = self.find_frames()
        self.remove(plan.static | set(plan.problems))
        return plan

    def prepare_frames(self, frames: list[int]) -> dict[int, str]:
        """Write the images that aren't there; returns what was wrong with which frame."""
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
        """Leave out static frames by their images; write poses, camera and, last, the record."""
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
        record = {"source": self._source(), "frames": len(frames), "static": sorted(static), "problems": problems}
        write_text(self.folder / RECORD_FILE, json.dumps(record) + "\n")

    def write_poses(self, plan: Plan, frames: list[int]) -> None:
        """poses.txt of these frames, where the data set has poses."""

    def remove(self, frames: Iterable[int]) -> None:
        for frame in frames:
            self.image_file(frame).remove_p()
            self.image_file(frame).with_suffix(".npy").remove_p()


def check_aspect(image: np.ndarray, file: Path, height: int, width: int) -> None:
    """Images may have been resized since the calibration (for height x width), but not cropped: K would be wrong."""
    if abs(image.shape[1] * height / (image.shape[0] * width) - 1) > _ASPECT_TOLERANCE:
        raise InputError(f"{file}: {image.shape[1]} x {image.shape[0]} pixels, calibration is for {width} x {height}")


def claim_folder(folder: Path, options: dict) -> IO[str]:
    """Make the output folder ours, or see that it is; InputError if it is something else, or has other options.

    No other process can have it until the returned file is closed.
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
    try:
        before = json.loads("\n".join(read_lines(file)))
    except ValueError as error:
        raise InputError(f"{file}: {error}, expected the options of an earlier run") from None
    if not isinstance(before, dict):
        raise InputError(f"{file}: expected the options of an earlier run")
    differ = [
        f"{key} was {before.get(key)}, is now {value}" for key, value in options.items() if before.get(key) != value
    ]
    if differ:
        raise InputError(f"{folder}: prepared with other options ({'; '.join(differ)}), choose another folder")
    return hold(folder)


def prepare_scenes(jobs: Sequence[SceneJob], processes: int) -> None:
    """Plan each scene, prepare its frames, finish it: all scenes and frames at once, shared out over the processes."""
    total = sum(len(job.images) for job in jobs)
    chunk = max(1, min(LARGEST_CHUNK, total // (4 * processes)))
    plans: dict[int, Plan] = {}
    problems: dict[int, dict[int, str]] = {}
    unfinished: dict[int, int] = {}  # chunks of a scene that are under way
    pending: dict[Future, tuple[str, int, int]] = {}  # step, scene, frames that are done with it
    finished: SimpleQueue[Future] = SimpleQueue()

    pool = ProcessPoolExecutor(processes, initializer=_start_worker, initargs=(jobs,))

    def submit(step: str, scene: int, *arguments: Any, frames: int = 0) -> None:
        future = pool.submit(_work, step, scene, *arguments)
        pending[future] = (step, scene, frames)
        future.add_done_callback(finished.put)

    try:
        for scene in range(len(jobs)):
            submit("plan", scene)
        # After the processes have begun: the bar has a thread, and a process with threads should not fork.
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
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        folder = jobs[0].folder.parent
        raise InputError(f"{folder}: the disk is full; with more room, the same command goes on") from None
    except BrokenProcessPool:
        raise InputError("a process ended from outside (out of memory?); the same command goes on") from None
    finally:  # on an error or Ctrl-C what has begun is completed, and nothing more is begun
        pool.shutdown(cancel_futures=True)


_jobs: list[SceneJob] = []  # of a worker process: sent once, and not with every task


def _start_worker(jobs: Sequence[SceneJob]) -> None:
    _jobs[:] = jobs
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    end_with_parent()


def _work(step: str, scene: int, *arguments: Any) -> Any:
    return getattr(_jobs[scene], step)(*arguments)


def write_lists(
    folder: Path, jobs: Sequence[SceneJob], records: dict[str, dict], val_fraction: float, seed: int, groups: str
) -> None:
    """train.txt and val.txt: whole groups on either side, chosen by a hash of seed and name.

    Groups that are added later don't move the others about, as they would by a random permutation.

    Args:
        groups: what the groups are, for people: "drives".
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
        print(f"note: a single one of the {groups} can't be split: all of it is for training, and val.txt is empty")


def report(folder: Path, jobs: Sequence[SceneJob], records: dict[str, dict], done: int) -> None:
    """Counts to the terminal; every frame that was left out or has no depth, with its reason, to a file."""
    lines = [f"{scene} {int(f):07d}: {text}" for scene, r in records.items() for f, text in r["problems"].items()]
    short = [scene for scene, record in records.items() if record["frames"] < SHORTEST_SCENE]
    lines += [f"{scene}: {records[scene]['frames']} frames, in no list: too short for a snippet" for scene in short]
    lines += [f"{scene} {frame:07d}: static" for scene, record in records.items() for frame in record["static"]]
    write_text(folder / REPORT_FILE, "".join(f"{line}\n" for line in lines))

    if done == 0:
        print("nothing to do: all scenes are there and complete")
    frames = sum(record["frames"] for scene, record in records.items() if scene not in short)
    print(f"{frames} frames in {len(jobs) - len(short)} scenes in {folder}")
    if short:
        print(f"{len(short)} scenes with fewer than {SHORTEST_SCENE} frames are in no list: {', '.join(short[:3])}")
    static = sum(len(record["static"]) for record in records.values())
    if static:
        print(f"{static} static frames left out")
    problems = [text for record in records.values() for text in record["problems"].values()]
    if problems:
        without_depth = sum(text.startswith("no depth: ") for text in problems)
        print(
            f"missing or damaged files: {len(problems) - without_depth} frames left out, "
            f"{without_depth} without depth, e.g."
        )
        for text in problems[:3]:
            print(f"  {text}")
    if lines:
        print(f"each of them is in {folder / REPORT_FILE}")
