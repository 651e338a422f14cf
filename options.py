"""What the command-line scripts share: their device, their flags' types, and how they end."""

import argparse
import os
import signal
import sys
from collections.abc import Callable

import torch

from errors import InputError


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; what a user can cause ends in one line, never in a traceback.

    Exit status: 0 done, 1 failure (`InputError`, or the operating system's word: no such file, no permission, disk
    full), 2 wrong use (argparse's), 130 Ctrl-C. Anything else is a bug of ours and keeps its traceback.
    """
    try:
        main()
    except InputError as error:
        _fail(str(error))
    except BrokenPipeError:  # `... | head`: nobody listens any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.strerror is None:
            raise
        _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _fail(message: str) -> None:
    print(f"{os.path.basename(sys.argv[0])}: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)


def add_device_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        default="auto",
        help="cuda, cuda:1, mps or cpu; auto takes the first of CUDA, MPS, CPU that is there (default: auto)",
    )


def choose_device(name: str) -> torch.device:
    """The torch device of a `--device` flag's value; InputError where the machine has no such device."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cuda", "mps", "cpu"):
        raise InputError(f"--device {name}: no such device, expected auto, cuda, cuda:N, mps or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: this machine shows {torch.cuda.device_count()} CUDA devices to PyTorch")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps: PyTorch finds no Metal device on this machine")
    return device


def positive_int(text: str) -> int:
    return _number(text, int, lambda value: value > 0, "a whole number above 0")


def non_negative_int(text: str) -> int:
    return _number(text, int, lambda value: value >= 0, "a whole number from 0 on")


def positive_float(text: str) -> float:
    return _number(text, float, lambda value: 0 < value < float("inf"), "a number above 0")


def non_negative_float(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value < float("inf"), "a number from 0 on")


def _number(text, kind, accept, expected):  # argparse turns the error into its own line and exit status 2
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not accept(value):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}")
    return value
