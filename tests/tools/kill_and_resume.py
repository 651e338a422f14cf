"""Kill a training again and again, resume it each time, and see that it ends as one that was never stopped."""

import argparse
import faulthandler
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from typing import Any

import numpy as np
import torch
import torch._dynamo  # by every optimiser: imported here, it need not be imported by each copy of this process
from path import Path
from torch.nn import functional
from tqdm import tqdm

ROOT = Path(__file__).absolute().parent.parent.parent
sys.path.insert(0, ROOT)

from cli.flags import positive_int, run_script

import train
from datasets.layout import write_intrinsics
from files.atomic import write_text
from files.errors import InputError
from files.images import write_jpeg
from models.checkpoint import load_checkpoint
from training.logger import read_metrics

DESCRIPTION = """\
Kill a real training (SIGKILL, at random moments: while it starts, in a step, while it writes a checkpoint), resume it
each time, and compare what it ends with (weights, optimiser, best scores, every logged value but for times) with a run
that was never stopped. Exit status 0 if they are equal to the last bit.

  python tests/tools/kill_and_resume.py --kills 50"""


def main() -> None:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=positive_int, default=50, help="(default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        phases, steps = kill_and_resume(Path(folder), args.kills, args.seed)
    print(
        f"killed {args.kills} times ({', '.join(f'{count} {phase}' for phase, count in phases.items())}), "
        f"then {steps} steps in all: equal to the last bit"
    )


def kill_and_resume(folder: Path, kills: int, seed: int) -> tuple[dict[str, int], int]:
    """Returns how many kills fell where, and the length of the run; InputError where it differs from a whole one."""
    make_data(folder / "data")
    moments = random.Random(seed)
    run, steps = folder / "runs" / "killed", 10
    phases = {"before the first step": 0, "after a step": 0}
    progress = tqdm(total=kills, desc="killing")
    while sum(phases.values()) < kills:
        process = start(folder, "killed", steps, "1e-9")  # a checkpoint at every step
        logged, wait_for_step = count_lines(run), moments.random() < 0.75
        deadline = time.monotonic() + moments.uniform(0, 1)
        while (ended := status(process)) is None:
            if count_lines(run) != logged if wait_for_step else time.monotonic() > deadline:
                break
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5) if wait_for_step else 0)  # over some steps, each with a checkpoint
        ended = status(process) if ended is None else ended
        if ended is None:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            phases["after a step" if count_lines(run) != logged else "before the first step"] += 1
            progress.update()
        elif ended == 0:  # it was at its end
            steps += 10
        else:
            raise InputError(f"a run ended by itself: {(folder / 'stderr.txt').read_text()}")
    progress.close()
    for name in ("killed", "whole"):
        if os.waitpid(start(folder, name, steps), 0)[1] != 0:
            raise InputError(f"the run {name}: {(folder / 'stderr.txt').read_text()}")
    compare(run, folder / "runs" / "whole")
    return phases, steps


def start(folder: Path, name: str, steps: int, save_every: str = "10") -> int:
    """Begin a run in a process of its own, or go on with it where it has a checkpoint; the process's number."""
    run = folder / "runs" / name
    command = ["--steps", str(steps), "--save-every", save_every]
    if (run / "last.pt").exists():
        command += ["--resume", run]
    else:
        run.rmtree_p()  # killed before its first checkpoint
        command += [folder / "data", "--runs", folder / "runs", "--name", name, "--no-check", "--batch-size", "2"]
        command += ["--workers", "1", "--log-every", "1", "--validate-every", "5", "--device", "cpu"]
        command += ["--network-width", "0.0625"]
    return train_in_copy(command, folder / "stderr.txt", 120 + steps)


def train_in_copy(arguments: list[Any], output: Path, seconds: int, **environment: str) -> int:
    """Run train.py in a copy of this process, which has imported PyTorch already: that takes longer than all else.

    Args:
        arguments: the command line.
        output: the file for all that it prints.
        seconds: a copy that takes longer says where it hangs, and ends.
        environment: further environment variables.

    Returns:
        The process's number.
    """
    process = os.fork()
    if process == 0:
        os.setsid()
        os.environ.update(environment)
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w") for number in (1, 2))
        # tqdm's own lock is one semaphore for all copies of a process: killed with it, this one would halt them all.
        tqdm.set_lock(threading.RLock())
        faulthandler.dump_traceback_later(seconds, exit=True)
        sys.argv = ["train.py", *map(str, arguments)]
        code = 1
        try:
            run_script(train.main)
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return process


def status(process: int) -> int | None:
    """The exit status of a process that this one has started; None while it runs. To be asked until it has ended."""
    number, how = os.waitpid(process, os.WNOHANG)
    return None if number == 0 else os.waitstatus_to_exitcode(how)


def count_lines(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def compare(run: Path, other: Path) -> None:
    contents = [load_checkpoint(where / "last.pt") for where in (run, other)]
    for name in ("step", "best", "skipped", "model", "optimizer"):
        if not equal(*(content[name] for content in contents)):
            raise InputError(f"{run}/last.pt: its {name} differs from that of the run that was never stopped")
    logged, expected = (logged_values(where) for where in (run, other))
    if logged != expected:
        raise InputError(f"{run}/metrics.jsonl: {len(logged)} lines, not the {len(expected)} of the whole run")


def equal(value: Any, other: Any) -> bool:
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(equal(value[key], other[key]) for key in value)
    if isinstance(value, list):
        return len(value) == len(other) and all(map(equal, value, other))
    return torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other


def logged_values(run: Path) -> list[str]:
    """The lines of the training and the validation, without times."""
    return sorted(
        str({name: value for name, value in record.items() if not name.startswith("speed/")})
        for record in read_metrics(run / "metrics.jsonl")
        if record["split"] in ("train", "validation")
    )


def make_data(root: Path) -> None:
    """A tiny prepared data set: smooth pictures that move by two pixels a frame."""
    generator = torch.Generator().manual_seed(0)
    for scene, frames in (("a", 9), ("b", 7), ("val", 3)):
        (root / scene).makedirs()
        write_intrinsics(root / scene / "cam.txt", np.array([[28.0, 0, 23.5], [0, 28, 15.5], [0, 0, 1]]))
        noise = torch.rand(1, 3, 5, 9, generator=generator) * 255
        wide = functional.interpolate(noise, (32, 48 + 2 * frames), mode="bicubic").clamp(0, 255).byte()
        for k in range(frames):
            write_jpeg(root / scene / f"{k:07d}.jpg", wide[0, :, :, 2 * k : 2 * k + 48].permute(1, 2, 0).numpy())
    write_text(root / "train.txt", "a\nb\n")
    write_text(root / "val.txt", "val\n")


if __name__ == "__main__":
    run_script(main)
