"""Memory of preparation, evaluation and prediction does not grow with the number of frames."""

import gc
import sys
import tracemalloc

import pytest
from path import Path

from benchmarks import memory
from data import prepare_kitti

FEW, MANY = 5, 30
# Frames are read up to 32 ahead in prediction, which is the same for all numbers from there on. Few images of an
# evaluation may not meet in its two threads.
OF_JOB = {"prediction": (40, 70), "evaluation": (30, 60)}
MOST_PER_FRAME = 20_000  # bytes: names, times, metrics; the smallest array of a frame has 53,000


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(memory, "HEIGHT", 64)
    monkeypatch.setattr(memory, "WIDTH", 208)
    monkeypatch.setattr(sys, "argv", [])


def prepare_in_this_process(folder: Path, frames: int):
    memory.prepare(folder, frames)
    args = prepare_kitti.parse_arguments()
    (job,) = prepare_kitti.make_jobs(args, prepare_kitti.choose_recordings(args, "raw", "images", []), "images")

    def run():
        plan = job.plan()
        job.finish(plan, job.prepare_frames(plan.frames))

    return run


JOBS = {"preparation": prepare_in_this_process, "evaluation": memory.evaluate, "prediction": memory.predict_folder}


def peak(job, folder: Path, frames: int) -> int:
    folder.makedirs()
    run = job(folder, frames)
    gc.collect()
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_memory_does_not_grow_with_the_frames(tmp_path, name):
    job = JOBS[name]
    fewer, more = OF_JOB.get(name, (FEW, MANY))
    peak(job, Path(tmp_path) / "first", 3)  # what is imported and cached once
    few, many = (peak(job, Path(tmp_path) / str(frames), frames) for frames in (fewer, more))
    assert many - few < MOST_PER_FRAME * (more - fewer)


def test_growth_would_be_seen(tmp_path):
    """A job that keeps every frame fails the test above."""

    def keep(folder, frames):
        return lambda: [bytes(64 * 208 * 4) for _ in range(frames)]

    assert peak(keep, Path(tmp_path) / "b", MANY) - peak(keep, Path(tmp_path) / "a", FEW) > MOST_PER_FRAME * (
        MANY - FEW
    )
