"""The logs of a run: its configuration, `metrics.jsonl` and TensorBoard events, in one folder."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from path import Path
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from files.atomic import is_leftover, write_text
from files.errors import InputError
from files.lock import FolderLock, hold
from files.text import read_json
from files.untrusted import parse_json

# TensorBoard's groups, in the order in which a person reads them; it sorts them by name.
_GROUPS = {
    "warning": "0_warning",
    "validation": "1_validation",
    "photometric": "2_photometric",
    "objective": "3_objective",
    "share": "4_share_of_loss",
    "disparity": "5_disparity",
    "pose": "6_pose",
    "camera": "6_pose",
    "explainability": "7_masks",
    "masks": "7_masks",
    "gradient": "8_gradient",
    "speed": "9_speed",
    "epoch": "9_speed_by_epoch",
}
_PICTURES = {"validation": "1_validation", "train": "2_training"}
# Files that a run writes before its first checkpoint.
_BEGINNINGS = ("config.json", "metrics.jsonl", ".lock")


class Logger:
    """Writes scalars to `metrics.jsonl` (a line a call) and to TensorBoard, pictures to TensorBoard."""

    def __init__(self, folder: Path | None, resumed_from: int | None = None) -> None:
        """Open the logs of a run's folder.

        Args:
            folder: of the run; None logs nothing, as in all processes but the first.
            resumed_from: the step after which a resumed run goes on. Entries of later steps are removed;
                TensorBoard's are marked as void.
        """
        self.records: list[dict[str, Any]] = []  # the entries of metrics.jsonl, in a resumed run
        self._metrics: IO[str] | None = None
        self._tensorboard: SummaryWriter | None = None
        if folder is None:
            return
        self.folder = folder
        threading.excepthook = _quiet_about_files
        file = folder / "metrics.jsonl"
        if resumed_from is not None:
            self.records = cut_metrics(file, resumed_from)
        self._metrics = file.open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(folder, purge_step=None if resumed_from is None else resumed_from + 1)

    def scalars(self, split: str, step: int, values: dict[str, float]) -> None:
        """Log values at a step; `split` is "train", "validation" or "epoch"."""
        if not self._tensorboard:
            return
        with self._writing():
            for name, value in values.items():
                self._tensorboard.add_scalar(tensorboard_tag(split, name), value, step)
            self._tensorboard.flush()  # the values are on the disk, however the run ends
            self._line({"split": split, "step": step} | values)  # last: a step with a line is in TensorBoard, too

    def warning(self, step: int, name: str, text: str) -> None:
        """Log a warning that holds from this step on."""
        if not self._tensorboard:
            return
        with self._writing():
            self._tensorboard.add_scalar(tensorboard_tag("warning", name), 1, step)
            self._tensorboard.add_text(tensorboard_tag("warning", name), text, step)
            self._tensorboard.flush()
            self._line({"split": "warning", "step": step, "name": name, "message": text})

    def pictures(self, split: str, step: int, pictures: dict[str, Tensor]) -> None:
        """Log pictures, uint8 [3, H, W], of the validation or the training, in TensorBoard alone."""
        if not self._tensorboard:
            return
        with self._writing():
            for name, picture in pictures.items():
                self._tensorboard.add_image(f"{_PICTURES[split]}/{name}", picture, step)
            self._tensorboard.flush()

    def text(self, name: str, text: str) -> None:
        """Log a text, in TensorBoard alone."""
        if self._tensorboard:
            with self._writing():
                self._tensorboard.add_text(name, text)

    def sync(self) -> None:
        """Wait until the entries are on the disk. A checkpoint must not be there before the entries up to its step."""
        if self._metrics:
            with self._writing():
                os.fsync(self._metrics.fileno())

    def close(self) -> None:
        if self._metrics and self._tensorboard:
            with self._writing():
                self._metrics.close()
                self._tensorboard.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self.folder}: the logs could not be written ({error.strerror or error}); the last checkpoint is "
                f"safe, go on with: python train.py --resume {self.folder}"
            ) from None

    def _line(self, record: dict[str, Any]) -> None:
        if self._metrics:
            self._metrics.write(json.dumps(record) + "\n")
            self._metrics.flush()


def tensorboard_tag(split: str, name: str) -> str:
    """The name of a logged value in TensorBoard: `2_photometric/warp` of `photometric/warp` in metrics.jsonl."""
    group, _, rest = name.partition("/") if split == "train" else (split, "/", name)
    return f"{_GROUPS.get(group, group)}/{rest}"


def _quiet_about_files(args: threading.ExceptHookArgs) -> None:
    """Hide the traceback of TensorBoard's thread: its error is raised again at the training's next entry."""
    if not (isinstance(args.exc_value, OSError) and type(args.thread).__name__ == "_AsyncWriterThread"):
        threading.__excepthook__(args)


def make_run_folder(folder: Path, config: dict[str, Any]) -> FolderLock:
    """Make the folder of a new run with its `config.json`, and lock it until the returned lock is closed.

    The files of a run that ended before its first checkpoint are removed.

    Raises:
        InputError: the folder holds something else, or another process works there.
    """
    _check_is_new(folder)
    folder.makedirs_p()
    lock = hold(folder)
    _check_is_new(folder)
    for file in folder.files():
        if file.name != ".lock":
            file.remove()
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    return lock


def _check_is_new(folder: Path) -> None:
    """InputError if the folder holds more than the files of a run that ended before its first checkpoint."""
    if not folder.exists() or (folder.is_dir() and _has_only_a_beginning(folder)):
        return
    raise InputError(f"{folder}: is there already, expected a new folder for the run; choose another --name")


def _has_only_a_beginning(folder: Path) -> bool:
    sizes = {str(file.name): file.size for file in folder.iterdir()}
    if all(name == ".lock" or is_leftover(name) for name in sizes):
        return True
    # Nothing is logged before the first checkpoint.
    known = all(name in _BEGINNINGS or name.startswith("events.out.tfevents.") or is_leftover(name) for name in sizes)
    if not known or "config.json" not in sizes or sizes.get("metrics.jsonl", 0) > 0:
        return False
    try:
        configuration = read_json(folder / "config.json")
        return isinstance(configuration.get("options"), dict) or "total_steps" in configuration  # (version 1)
    except InputError:
        return False


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The entries of a `metrics.jsonl`. Half a line at its end, which a killed run leaves, is left out.

    Raises:
        InputError: no such file, or a line before the last is damaged.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file, expected the metrics of a run")
    *lines, _ = file.read_bytes().split(b"\n")  # after the last line's end comes nothing, or half a line
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = parse_json(line.decode("utf-8"), allow_nan=True)
        except ValueError:
            record = None
        if not isinstance(record, dict) or type(record.get("step")) is not int or "split" not in record:
            raise InputError(f'{file}, line {number}: expected {{"split": ..., "step": ..., ...}}')
        records.append(record)
    return records


def cut_metrics(file: Path, step: int) -> list[dict[str, Any]]:
    """Remove the entries of a `metrics.jsonl` after a step, and half a line at its end; returns those that stay."""
    records = [record for record in read_metrics(file) if record["step"] <= step] if file.is_file() else []
    write_text(file, "".join(json.dumps(record) + "\n" for record in records))
    return records
