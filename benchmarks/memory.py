"""Measure the peak memory of preparation, depth evaluation and prediction over the number of frames."""

import argparse
import contextlib
import io
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable

import numpy as np
import torch
from path import Path

sys.path.insert(0, Path(__file__).absolute().parent.parent)

from cli.flags import ArgumentParser, positive_int, run_script

import predict
from benchmarks.evaluation import make_kitti, time_whole_list
from benchmarks.preparation import make_drive
from benchmarks.surroundings import make_noise
from data import prepare_kitti
from models import CAMERAS, DEPTH_NETS, POSE_NETS, NetworkSpec, build, complete
from models.checkpoint import checkpoint_content, save_checkpoint

DESCRIPTION = """\
Measure the peak memory (of the largest process, MiB) of preparation, depth evaluation and prediction, for a number of
frames and for ten times as many. Each measurement has a process of its own.

Evaluation scores a file of predictions.

  python benchmarks/memory.py"""

HEIGHT, WIDTH = 128, 416


def main() -> None:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=positive_int, default=50, help="(default: 50, and 500)")
    parser.add_argument("--job", choices=sorted(JOBS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            run = JOBS[args.job](Path(folder), args.frames)
            with contextlib.redirect_stdout(io.StringIO()):
                run()
        print(peak_memory())
        return
    print(f"{'':14s}{f'{args.frames} frames':>12s}{f'{10 * args.frames} frames':>14s}   MiB")
    for job in JOBS:
        few, many = (measure(job, frames) for frames in (args.frames, 10 * args.frames))
        print(f"{job:14s}{few:12.0f}{many:14.0f}")


def measure(job: str, frames: int) -> float:
    """Peak memory of a job in a process of its own, MiB."""
    command = [sys.executable, __file__, "--job", job, "--frames", str(frames)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak_memory() -> float:
    """Of this process since it began, or of its largest child, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()  # getrusage would count the process that started it
    own = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


def prepare(folder: Path, frames: int) -> Callable[[], object]:
    """Preparation with one worker process, static frames found by the images."""
    make_drive(folder, None, frames)
    sys.argv = ["", *map(str, [folder / "kitti", folder / "out", "--jobs", 1, "--static", "images", "--cameras", "02"])]
    return prepare_kitti.main


def evaluate(folder: Path, frames: int) -> Callable[[], object]:
    """Scoring of a list, the truth made from scans."""
    root = make_kitti(folder, None)
    predicted = np.random.default_rng(0).uniform(2, 60, (HEIGHT, WIDTH)).astype(np.float32)
    return lambda: time_whole_list(root, predicted, np.full((HEIGHT, WIDTH), 15.0), frames, workers=2)


def predict_folder(folder: Path, frames: int) -> Callable[[], object]:
    """Depth, pictures and trajectory of a folder of images, by tiny networks."""
    make_noise(folder, HEIGHT, WIDTH, frames)
    specs = {
        "depth": complete(DEPTH_NETS, NetworkSpec("disp_net", {"width": 1 / 16})),
        "pose": complete(POSE_NETS, NetworkSpec("pose_exp_net", {"width": 1 / 16, "explainability": False})),
        "camera": complete(CAMERAS, NetworkSpec("given")),
    }
    model = build(specs["depth"], specs["pose"], specs["camera"])
    standing = {"step": 0, "skipped": 0, "validation_due": False, "best": {}, "damaged": []}
    record = {"height": HEIGHT, "width": WIDTH}
    save_checkpoint(
        folder / "last.pt",
        checkpoint_content(model, specs, torch.optim.Adam(model.parameters()), {}, record, standing),
    )
    write = ("--write", "depth", "pictures", "trajectory")
    sys.argv = [
        "",
        *map(str, [folder / "last.pt", folder / "noise", "--out", folder / "out", "--device", "cpu"]),
        *write,
    ]
    return predict.main


JOBS: dict[str, Callable[[Path, int], Callable[[], object]]] = {
    "preparation": prepare,
    "evaluation": evaluate,
    "prediction": predict_folder,
}

if __name__ == "__main__":
    run_script(main)
