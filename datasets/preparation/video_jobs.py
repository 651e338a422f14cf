"""The preparation of many inputs: their names, cameras, crops and common size; several processes; lists and report."""

import errno
import hashlib
import multiprocessing
import signal
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import cv2
import torch
from path import Path
from tqdm import tqdm

from datasets.formats.camera_files import Calibration, read_calibration
from datasets.layout import GUESS, write_scene_names
from datasets.preparation.video import VideoJob, read_records
from datasets.preparation.video_inputs import Input, plain_name
from datasets.preparation.view import (
    GUESSED_FIELD_OF_VIEW,
    View,
    default_size,
    fit_calibration,
    focal_length,
    round_to_multiple,
    simple_calibration,
)
from files.errors import InputError, WriteError
from files.parallel import end_with_parent, signals_held

_POLL = 0.2  # seconds between two updates of the progress bar


@dataclass(frozen=True)
class CameraChoice:
    """Where K comes from; nothing given: a guess."""

    field_of_view: float | None = None  # degrees, horizontal, of the picture before any crop
    focal: float | None = None  # pixels of the input
    file: Path | None = None
    name: str | None = None  # of a camera in the file


def choose_camera(choice: CameraChoice, source: Input) -> tuple[Calibration, dict[str, Any]]:
    """The camera of an input's images, and what camera.json says of it.

    Raises:
        InputError: a calibration that cannot be read, or not be that of such images.
    """
    width, height = source.size
    read = read_calibration(choice.file, choice.name) if choice.file is not None else None
    if choice == CameraChoice():
        read = source.calibration
    if read is not None:
        calibration = fit_calibration(read, width, height)
        return calibration, {"source": "calibration", "file": read.name, "model": read.model}
    if choice.focal is not None:
        return simple_calibration(choice.focal, width, height, str(source.path)), {"source": "focal"}
    if choice.field_of_view is not None:
        focal = focal_length(choice.field_of_view, width)
        return simple_calibration(focal, width, height, str(source.path)), {"source": "fov"}
    focal = focal_length(GUESSED_FIELD_OF_VIEW, max(width, height))
    return simple_calibration(focal, width, height, str(source.path)), {"source": GUESS}


def common_size(view: View, width: int | None, height: int | None) -> tuple[int, int]:
    """(width, height) of all prepared images: what is given, the rest from the aspect of the first input's view."""
    if width and height:
        return width, height
    if width:
        return width, round_to_multiple(width * view.height / view.width)
    if height:
        return round_to_multiple(height * view.width / view.height), height
    return default_size(view.width, view.height)


def choose_names(inputs: Sequence[Input], records: dict[str, dict[str, Any]]) -> list[str]:
    """A name for each input: that of its file. Where another input has it, a part of the path's hash is added."""
    taken = {name: record.get("path") for name, record in records.items()}
    names = []
    for source in inputs:
        path = str(source.path.absolute())
        name = plain_name(source.path)
        fingerprint = records.get(name, {}).get("fingerprint")
        if taken.get(name, path) != path and (name in names or fingerprint != source.fingerprint()):
            name = f"{name}-{hashlib.sha256(path.encode('utf-8', 'replace')).hexdigest()[:6]}"
        taken[name] = path
        names.append(name)
    return names


# Processes


class _Shared:
    """What a worker process has from its parent."""

    done: Any  # number of frames
    stop: Any


def run_jobs(jobs: Sequence[VideoJob], processes: int) -> None:
    """Prepare all inputs, several at a time.

    Raises:
        InputError: the disk is full, or a process was ended from outside.
    """
    context = multiprocessing.get_context()
    done, stop = context.Value("q", 0), context.Event()
    total = sum(job.source.expected(job.fps) * (2 if job.looks_for_borders else 1) for job in jobs)
    # OpenCV ends its threads here: a forked worker has none of them, and would wait for them for ever.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker, initargs=(done, stop))
    try:
        with signals_held(signal.SIGINT):
            waiting: set[Future] = {pool.submit(_work, job) for job in jobs}
        # The bar has a thread, and a process with threads should not fork: the workers are started before it.
        with tqdm(total=total, unit="frame", desc="preparing", smoothing=0.05) as bar:
            while waiting:
                ended, waiting = wait(waiting, _POLL, FIRST_COMPLETED)
                bar.update(done.value - bar.n)
                for future in ended:
                    future.result()
    except (OSError, WriteError) as error:
        if error.errno != errno.ENOSPC:
            raise
        raise InputError(
            f"{error}; {jobs[0].root}: the disk is full; with more room, the same command goes on"
        ) from None
    except BrokenProcessPool:
        raise InputError("a process ended from outside (out of memory?); the same command goes on") from None
    finally:  # on an error or Ctrl-C the other inputs are stopped between two frames
        stop.set()
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads)


def _start_worker(done: Any, stop: Any) -> None:
    _Shared.done, _Shared.stop = done, stop
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    end_with_parent()


def _work(job: VideoJob) -> None:
    def count(frames: int) -> None:
        with _Shared.done.get_lock():
            _Shared.done.value += frames

    try:
        job.run(count, _Shared.stop.is_set)
    except KeyboardInterrupt:  # the parent has stopped; nobody waits for the result
        return


# Lists and report


def write_lists(root: Path) -> dict[str, dict[str, Any]]:
    """Write train.txt and val.txt with the scenes of all inputs prepared in a folder; returns the records.

    Raises:
        InputError: there is no scene to train on.
    """
    records = read_records(root)
    scenes = [scene for record in records.values() for scene in record["scenes"]]
    if not any(scene["list"] == "train.txt" for scene in scenes):
        causes = [problem for record in records.values() for problem in record["problems"]]
        causes += [f"left out: {describe_left_out(record)}" for record in records.values() if record["left_out"]]
        why = f" ({causes[0]})" if causes else ""
        raise InputError(f"{root}: no scene has 3 frames or more{why}")
    for scene_list in ("train.txt", "val.txt"):
        write_scene_names(root / scene_list, [scene["name"] for scene in scenes if scene["list"] == scene_list])
    return records


_MEANING = {
    "black": "black or blank",
    "repeated": "that repeat the one before",
    "static": "static (the camera stands)",
    "damaged": "damaged",
    "short": "in pieces of fewer than 3",
    "gap": "between training and validation",
}


def describe_left_out(record: dict[str, Any]) -> str:
    """The frames of an input that were left out, with the reasons, for people."""
    return ", ".join(f"{count} {_MEANING[why]}" for why, count in record["left_out"].items())
