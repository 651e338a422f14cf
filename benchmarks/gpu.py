"""Measure everything that was built for a GPU, in under eight minutes: one script, one report."""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch
from path import Path

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, ROOT)

from cli.flags import ArgumentParser, positive_float, run_script

from benchmarks.surroundings import device_name
from files.atomic import write_json
from files.errors import InputError

DESCRIPTION = """\
Run the benchmarks and the tests of the GPU, one after the other, and print and write what they measure: the step as
written and captured, at several batch sizes and precisions; the warp; frames from files and in memory; time to depth.

  python benchmarks/gpu.py --json gpu.json

Each command has a share of the time. One that takes longer is ended, and the report says so."""

STEP = ["benchmarks/train_step.py", "--device", "cuda", "--rounds", 3, "--steps", 10]
FAST = ["--precision", "bf16", "--channels-last"]
# Name, seconds at most, and command; in order of what matters most.
TASKS: list[tuple[str, int, list[Any]]] = [
    ("tests", 60, ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]),
    ("step, batch 4, as written", 25, [*STEP, "--batch-size", 4, "--no-graph"]),
    ("step, batch 4, captured", 25, [*STEP, "--batch-size", 4]),
    ("step, batch 4, captured, bf16", 25, [*STEP, "--batch-size", 4, *FAST]),
    ("step, batch 32, as written", 30, [*STEP, "--batch-size", 32, "--no-graph", "--data-in-memory"]),
    ("step, batch 32, captured", 30, [*STEP, "--batch-size", 32, "--data-in-memory"]),
    ("step, batch 32, captured, bf16", 30, [*STEP, "--batch-size", 32, *FAST, "--data-in-memory"]),
    ("step, batch 128, captured, bf16", 40, [*STEP, "--batch-size", 128, *FAST, "--data-in-memory"]),
    ("step, batch 32, captured, frames from files", 35, [*STEP, "--batch-size", 32, "--workers", 14]),
    ("warp, batch 4", 15, ["benchmarks/warp.py", "--device", "cuda"]),
    ("warp, batch 32", 15, ["benchmarks/warp.py", "--device", "cuda", "--batch-size", 32]),
    (
        "time to depth",
        110,
        [
            *("benchmarks/time_to_depth.py", "--devices", "cuda", "--recipes", "small", "--minutes", 0.8),
            *("--points", 4, "--drives", 6, "--frames", 24, "--width", 208, "--height", 64, "--data-in-memory"),
        ],
    ),
    ("step, batch 32, captured, compiled, bf16", 90, [*STEP, "--batch-size", 32, *FAST, "--compile"]),
]


def main() -> None:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report for machines, too")
    parser.add_argument("--minutes", type=positive_float, default=7.5, help="at most, for all (default: 7.5)")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise InputError("no CUDA device: this script measures on one")
    print(f"{device_name(torch.device('cuda'))}, torch {torch.__version__}, CUDA {torch.version.cuda}\n", flush=True)
    end = time.monotonic() + 60 * args.minutes
    report = [run(name, seconds, command, end) for name, seconds, command in TASKS]
    print(f"\n{'':45s}{'ms a step':>10s}{'images/s':>10s}{'GiB':>8s}")
    for entry in report:
        if figures := entry["figures"]:
            columns = (figures.get("step"), figures.get("images per second"), figures.get("peak memory"))
            print(f"{entry['name']:45s}" + "".join(f"{value or '-':>10}" for value in columns))
    if args.json:
        write_json(
            args.json, {"device": device_name(torch.device("cuda")), "torch": torch.__version__, "tasks": report}
        )


def run(name: str, seconds: int, command: list[Any], end: float) -> dict[str, Any]:
    """Run a command of the project within its time, and print and return what it says."""
    seconds = int(min(seconds, end - time.monotonic()))
    start, output, status = time.monotonic(), "", "there was no time left for it"
    if seconds > 5:
        with tempfile.TemporaryFile("w+") as stream:
            words = [sys.executable, *map(str, command)]
            try:
                code = subprocess.run(words, cwd=ROOT, stdout=stream, stderr=stream, timeout=seconds, check=False)
                status = "done" if code.returncode == 0 else f"failed with status {code.returncode}"
            except subprocess.TimeoutExpired:
                status = f"ended after {seconds} s"
            stream.seek(0)
            output = stream.read()
    lines = [line.rpartition("\r")[2] for line in output.splitlines()]
    print(f"## {name}: {status} ({time.monotonic() - start:.0f} s)", *lines[-25:], "", sep="\n", flush=True)
    return {"name": name, "status": status, "output": lines[-60:], "figures": find_figures("\n".join(lines))}


def find_figures(output: str) -> dict[str, str]:
    """The figures of `benchmarks/train_step.py` in its output."""
    titles = "step", "images per second", "peak memory"
    found = {title: re.search(rf"^{title} +([\d.]+)(?: |$)", output, re.MULTILINE) for title in titles}
    return {title: match[1] for title, match in found.items() if match}


if __name__ == "__main__":
    run_script(main)
