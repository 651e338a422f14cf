"""What the command-line scripts share: their device, their flags' types, and how they end."""

import argparse
import dataclasses
import difflib
import io
import os
import signal
import sys
import typing
from collections.abc import Callable, Collection, Iterable
from typing import Any, NoReturn

import torch
from path import Path

from files.errors import InputError, UsageError
from files.options import base_type, expectation, flag_name, is_allowed
from models import CAMERAS, DEPTH_NETS, POSE_NETS, NetworkSpec, complete
from models.checkpoint import CRITERIA, find_checkpoint


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, whose errors are one line, with the flag that was probably meant."""

    def error(self, message: str) -> NoReturn:
        _, unknown, words = message.partition("unrecognized arguments: ")
        flags = [word.partition("=")[0] for word in words.split() if word.startswith("-")] if unknown else []
        meant = [flag for word in flags for flag in difflib.get_close_matches(word, self._option_string_actions, 1)]
        if meant:
            message += f" (did you mean {' '.join(meant)}?)"
        self.exit(2, f"{self.prog}: error: {message}; {self.prog} --help lists the flags\n")


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; what a user can cause ends in one line, never in a traceback.

    Exit status: 0 done, 1 failure (`InputError`, the GPU's memory full, or the operating system's word: no such file,
    no permission, disk full), 2 wrong use (argparse's), 130 Ctrl-C. Anything else is a bug of ours and keeps its
    traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks is shown escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
    except UsageError as error:
        _fail(str(error), status=2)
    except InputError as error:
        _fail(str(error))
    except BrokenPipeError:  # `... | head`: nobody listens any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.strerror is None:
            raise
        _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    except torch.OutOfMemoryError as error:
        _fail(f"the GPU's memory is full ({str(error).partition('. ')[0]}); take a smaller --batch-size")
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _fail(message: str, status: int = 1) -> None:
    print(f"{os.path.basename(sys.argv[0])}: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def add_device_flag(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--device",
        default="auto",
        help="cuda, cuda:1, mps or cpu; auto takes the first of CUDA, MPS, CPU that is there (default: auto)",
    )


def add_average_flags(add: Callable[..., Any], predicted: str) -> None:
    """The flags of predictions that are means of several: --flip-average and --size-average.

    Args:
        add: `add_argument` of a parser or of a group of flags.
        predicted: what is predicted, for example "depth".
    """
    flip = f"predict {predicted} for the images and for their mirror images, and take the mean"
    add("--flip-average", action="store_true", help=flip)
    sizes = f"predict {predicted} at 3/4, 1 and 5/4 of the network's size, and take the mean; for networks that were "
    sizes += "trained on several sizes, such as weights/world.safetensors"
    add("--size-average", action="store_true", help=sizes)


def add_test_flags(parser: argparse.ArgumentParser, kind: str, overlap: bool = True) -> None:
    """The flags that the test scripts have in common.

    Args:
        kind: ends the name of the saved predictions.
        overlap: whether the tested data can be what a network was trained on.
    """
    parser.add_argument(
        "checkpoint",
        nargs="?",
        type=Path,
        help="a training's checkpoint or its run's folder, or one of the PyTorch port",
    )
    parser.add_argument(
        "--which",
        choices=("last", *CRITERIA),
        help="which checkpoint of a run's folder: the last, or the best in validation by a criterion (default: last)",
    )
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="score this file; no checkpoint is needed")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help=f"where the predictions go (default: CHECKPOINT_{kind}.npz beside it)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result for machines, too")
    parser.add_argument("--height", type=positive_int, help="of the network's input (default: the training's)")
    parser.add_argument("--width", type=positive_int, help="of the network's input (default: the training's)")
    parser.add_argument("--batch-size", type=positive_int, default=16, help="(default: 16)")
    parser.add_argument(
        "--workers",
        type=positive_int,
        default=min(8, os.cpu_count() or 1),
        help="threads that read files (default: one a core, 8 at most)",
    )
    if overlap:
        parser.add_argument(
            "--allow-training-overlap",
            action="store_true",
            help="score drives that the checkpoint was trained on, too; the result then says so (default: an error)",
        )
    add_device_flag(parser)


def parse_test_flags(parser: argparse.ArgumentParser, instead: str | None = None) -> argparse.Namespace:
    """Parse the command line; wrong use unless there is one thing to score: a checkpoint, a file of predictions, or
    what the flag `--instead` names. Flags of predicting go with a checkpoint alone."""
    args = parser.parse_args()
    given = [args.checkpoint, args.predictions] + ([getattr(args, instead)] if instead else [])
    if sum(one is not None for one in given) != 1:
        more = f", or --{instead} FILE" if instead else ""
        parser.error(
            f"give either a CHECKPOINT (before the flags) to predict with, or --predictions FILE to score{more}"
        )
    if args.checkpoint is None and args.save:
        parser.error("--save goes with a CHECKPOINT: --predictions FILE are saved already")
    predicting = ("height", "width", "batch_size", "device")
    unused = [name for name in predicting if getattr(args, name) != parser.get_default(name)]
    if args.checkpoint is None and unused:
        flags = " and ".join(map(flag_name, unused))
        parser.error(f"{flags}: only with a CHECKPOINT, here nothing is predicted")
    if args.which and (args.checkpoint is None or args.checkpoint.is_file()):
        parser.error("--which goes with a run's folder in place of a CHECKPOINT")
    if args.predictions is not None and args.predictions.is_dir():
        raise InputError(f"--predictions {args.predictions}: is a folder, expected a file of predictions")
    if args.checkpoint is not None and args.checkpoint.is_dir():
        args.checkpoint = find_checkpoint(args.checkpoint, args.which or "last")
    return args


def choose_device(name: str) -> torch.device:
    """The torch device of a `--device` flag's value; InputError where the machine has no such device.

    cuda:N becomes PyTorch's current device, to which new streams, events and graphs belong.
    """
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
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def add_option_flags(
    parser: argparse.ArgumentParser,
    options: type,
    positional: str | None = None,
    names: Collection[str] | None = None,
) -> None:
    """A flag for each field of an options dataclass (see `files.options`), in the groups that the fields name.

    A flag that is not given leaves no attribute in the parsed arguments, so that `vars` has the given ones alone.

    Args:
        options: the class.
        positional: the field that is no flag but the argument without a name.
        names: the fields that get a flag; None for all.
    """
    groups: dict[str, argparse._ArgumentGroup] = {}

    def group_of(title: str) -> argparse._ActionsContainer:
        if not title:
            return parser
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        return groups[title]

    current = ""
    for field in dataclasses.fields(options):
        current = field.metadata.get("group", current)
        if names is not None and field.name not in names:
            continue
        if dataclasses.is_dataclass(field.type) and field.type is not NetworkSpec:
            for inner in dataclasses.fields(field.type):
                _add_option_flag(group_of(current), inner)
            continue
        if field.name == positional:
            parser.add_argument(field.name, nargs="?", default=argparse.SUPPRESS, help=field.metadata["help"])
        elif field.type is NetworkSpec:
            _add_network_flag(group_of("networks"), field)
        else:
            _add_option_flag(group_of(current), field)


def _add_option_flag(group: argparse._ActionsContainer, field: dataclasses.Field) -> None:
    kind, _ = base_type(field)
    meaning, flag = field.metadata["help"], flag_name(field.name)
    if field.default not in (None, ()) and kind is not bool:
        meaning += f" (default: {field.default:g})" if kind in (int, float) else f" (default: {field.default})"
    if kind is bool:
        if field.default is not None:
            meaning += f" (default: {'on' if field.default else 'off'})"
        group.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=meaning)
    elif typing.get_origin(kind) is tuple:
        metavar = field.metadata["metavar"]
        group.add_argument(flag, action=_TupleAction, default=argparse.SUPPRESS, metavar=metavar, help=meaning)
    elif field.metadata["choices"]:
        choices = field.metadata["choices"]
        group.add_argument(flag, choices=choices, default=argparse.SUPPRESS, help=meaning)
    else:
        metavar = field.metadata["metavar"] or {int: "N", float: "X"}.get(kind, "TEXT")
        group.add_argument(flag, type=_typed(field), metavar=metavar, default=argparse.SUPPRESS, help=meaning)


def _typed(field: dataclasses.Field) -> Callable[[str], Any]:
    """The argparse type of a field: parses the text and checks type and range."""
    kind, _ = base_type(field)

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not is_allowed(field, value):
            raise argparse.ArgumentTypeError(f"got {text!r}, expected {expectation(field)}")
        return value

    return parse


class _TupleAction(argparse.Action):
    """A flag that may be given several times, as a tuple."""

    def __call__(self, parser: Any, namespace: Any, values: Any, flag: Any = None) -> None:
        setattr(namespace, self.dest, (*getattr(namespace, self.dest, ()), values))


class _NetworkAction(argparse.Action):
    """`NAME KEY=VALUE ...` as a `NetworkSpec`."""

    def __call__(self, parser: Any, namespace: Any, values: Any, flag: Any = None) -> None:
        name, *settings = values
        for setting in settings:
            if "=" not in setting:
                parser.error(f"{flag}: {setting!r} is no KEY=VALUE (the data set comes before the flags)")
        setattr(namespace, self.dest, NetworkSpec(name, dict(setting.split("=", 1) for setting in settings)))


def _add_network_flag(group: argparse._ActionsContainer, field: dataclasses.Field) -> None:
    networks = {"depth_net": DEPTH_NETS, "pose_net": POSE_NETS, "camera": CAMERAS}[field.name]
    names = []
    for name in networks:
        arguments = complete(networks, NetworkSpec(name)).arguments
        shown = NetworkSpec(name, {k: v for k, v in arguments.items() if k not in ("sources", "explainability")})
        names.append(str(shown))
    meaning = f"name and arguments of the {field.name.replace('_', ' ')}; with their defaults: {'; '.join(names)}"
    group.add_argument(
        flag_name(field.name),
        nargs="+",
        action=_NetworkAction,
        default=argparse.SUPPRESS,
        metavar=("NAME", "KEY=VALUE"),
        help=f"{meaning} (default: {field.default})",
    )


def add_hidden_flags(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """Flags that --help does not show, for the names of an older version."""
    for name in names:
        parser.add_argument(flag_name(name), default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def positive_int(text: str) -> int:
    return _number(text, int, lambda value: value > 0, "a whole number above 0")


def snippet_length(text: str) -> int:
    return _number(text, int, lambda value: value >= 3 and value % 2 == 1, "an odd number of frames from 3 on")


def non_negative_int(text: str) -> int:
    return _number(text, int, lambda value: value >= 0, "a whole number from 0 on")


def positive_float(text: str) -> float:
    return _number(text, float, lambda value: 0 < value < float("inf"), "a number above 0")


def non_negative_float(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value < float("inf"), "a number from 0 on")


def fraction(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value < 1, "a share from 0 to below 1")


def crop_or(*words: str) -> Callable[[str], str | tuple[int, int, int, int]]:
    """The argparse type of a crop: LEFT,TOP,RIGHT,BOTTOM in pixels, or one of these words."""

    def parse(text: str) -> str | tuple[int, int, int, int]:
        if text in words:
            return text
        sides = text.split(",")
        if len(sides) != 4 or not all(side.strip().isdecimal() and len(side) < 7 for side in sides):
            expected = f"{', '.join(words)}, or LEFT,TOP,RIGHT,BOTTOM in pixels"
            raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}")
        left, top, right, bottom = map(int, sides)
        return left, top, right, bottom

    return parse


def _number(text, kind, accept, expected):  # argparse turns the error into its own line and exit status 2
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not accept(value):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}")
    return value
