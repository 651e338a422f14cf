"""Compare the speed of this checkout with that of another: its training step, and `import train`."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile

import torch
from path import Path
from tqdm import tqdm

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, ROOT)

from cli.flags import ArgumentParser, choose_device, positive_int, run_script

from benchmarks.surroundings import device_name, make_noise
from files.errors import InputError

DESCRIPTION = """\
Compare this checkout with another one, in turns and in fresh processes: trust the ratios.

Both run their own train.py on the same noise images, with the flags after -- if there are any. The speed is the median
of what train.py logs in the second half of the steps.

  git worktree add ../before COMMIT
  python benchmarks/against_commit.py --other ../before
  python benchmarks/against_commit.py --other ../before -- --network-width 0.25 --recipe paper-pose"""

LOG_EVERY = 5  # steps; one of them computes the diagnostics


def main() -> None:
    args = parse_arguments()
    checkouts = {"this": ROOT, "other": args.other.absolute()}
    for checkout in checkouts.values():
        if not (checkout / "train.py").is_file():
            raise InputError(f"--other {checkout}: has no train.py, expected a checkout of this project")
    steps: dict[str, list[float]] = {name: [] for name in checkouts}
    imports: dict[str, list[float]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        make_noise(Path(folder) / "data", args.height, args.width, 2 + args.steps * args.batch_size)
        for number in tqdm(range(args.rounds), desc="measuring"):
            turns = list(checkouts.items())
            for name, checkout in turns if number % 2 == 0 else reversed(turns):
                imports[name].append(time_import(checkout))
                steps[name].append(time_step(checkout, Path(folder), f"{name}-{number}", args))
    print(
        f"{device_name(choose_device(args.device))}, torch {torch.__version__}; {args.width} x {args.height}, "
        f"batch {args.batch_size} {' '.join(args.flags)}"
    )
    print(f"{'':16s}{'this':>12}{'other':>12}   this / other")
    report("training step", steps)
    report("import train", imports)


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, required=True, metavar="FOLDER", help="the other checkout")
    parser.add_argument("--height", type=positive_int, default=128, help="pixels of the images (default: 128)")
    parser.add_argument("--width", type=positive_int, default=416, help="pixels of the images (default: 416)")
    parser.add_argument("--batch-size", type=positive_int, default=4, help="snippets per step (default: 4)")
    parser.add_argument("--device", default="auto", help="as train.py's (default: auto)")
    parser.add_argument("--rounds", type=positive_int, default=5, help="turns of each checkout (default: 5)")
    parser.add_argument("--steps", type=positive_int, default=40, help="steps in a turn (default: 40)")
    parser.add_argument("flags", nargs="*", help="more flags for both train.py, after --")
    args = parser.parse_args()
    if args.steps < 2 * LOG_EVERY:
        parser.error(f"--steps {args.steps}: expected {2 * LOG_EVERY} or more")
    return args


def time_step(checkout: Path, folder: Path, name: str, args: argparse.Namespace) -> float:
    """Seconds of a training step of a checkout's train.py."""
    command = [sys.executable, "train.py", folder / "data", "--runs", folder, "--name", name, "--no-check"]
    command += ["--steps", str(args.steps), "--batch-size", str(args.batch_size), "--device", args.device]
    command += ["--workers", "0", "--log-every", str(LOG_EVERY), *args.flags]
    run_in(checkout, command)
    lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    speeds = [
        line["speed/images_per_second"] for line in lines if line["split"] == "train" and line["step"] > args.steps / 2
    ]
    (folder / name).rmtree()
    return args.batch_size / statistics.median(speeds)


def time_import(checkout: Path) -> float:
    """Seconds of processor time that a new process takes to import a checkout's train.py."""
    return float(run_in(checkout, [sys.executable, "-c", "import time, train; print(time.process_time())"]))


def run_in(checkout: Path, command: list[str]) -> str:
    """The standard output of a command that runs in a checkout's folder; InputError if it fails."""
    result = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{checkout}: {' '.join(command[1:])}: exit status {result.returncode}: {reason}")
    return result.stdout


def report(title: str, seconds: dict[str, list[float]]) -> None:
    """Print the medians, and the median and the range of the ratios of the rounds."""
    this, other = (1000 * statistics.median(seconds[name]) for name in ("this", "other"))
    ratios = [a / b for a, b in zip(seconds["this"], seconds["other"], strict=True)]
    spread = f"{statistics.median(ratios):.2f} (rounds {min(ratios):.2f} to {max(ratios):.2f})"
    print(f"{title:16s}{this:9.1f} ms{other:9.1f} ms   {spread}")


if __name__ == "__main__":
    run_script(main)
