"""What a run leaves behind: its configuration, `metrics.jsonl` and TensorBoard events, in one folder."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from path import Path
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from datasets.layout import write_text
from files.errors import InputError
from files.lock import hold
from files.text import read_json

# What a run leaves before its first checkpoint.
_BEGINNINGS = ("config.json", "config.json.part", "metrics.jsonl", "last.pt.part", ".lock")


class Logger:
    """Writes scalars to `metrics.jsonl` (a line a call) and to TensorBoard, pictures to TensorBoard."""

    def __init__(self, folder: Path | None, resumed_from: int | None = None) -> None:
        """A folder's logs, which a resumed run goes on with.

        Args:
            folder: of the run; None logs nothing (the processes of a training but the first).
            resumed_from: the step after which the run goes on. What is logged of later steps is removed, or for
                TensorBoard declared void.
        """
        self.records: list[dict[str, Any]] = []  # of a resumed run
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
        if resumed_from is not None:
            return
        # Curves that only mean something side by side share a chart, in the tab "custom scalars".
        self._tensorboard.add_custom_scalars(
            {
                "judge the run by": {
                    "photometric error of the warp and of the identity warp": ["Multiline", ["photometric/.*warp"]],
                    "shares of the loss": ["Multiline", ["share/.*"]],
                }
            }
        )

    def scalars(self, split: str, step: int, values: dict[str, float]) -> None:
        """Log values of the training (`split` "train"), the validation ("validation") or an epoch ("epoch") at a step.

        TensorBoard makes a group of what shares a name up to the slash; validation and epoch are groups of their own.
        """
        if not self._tensorboard:
            return
        with self._writing():
            for name, value in values.items():
                self._tensorboard.add_scalar(name if split == "train" else f"{split}/{name}", value, step)
            self._tensorboard.flush()  # what was logged is there, however the run ends
            self._line({"split": split, "step": step} | values)  # at last: what has its line is in both

    def warning(self, step: int, name: str, text: str) -> None:
        """Log that something is wrong from this step on."""
        if not self._tensorboard:
            return
        with self._writing():
            self._tensorboard.add_scalar(f"warning/{name}", 1, step)
            self._tensorboard.add_text(f"warning/{name}", text, step)
            self._tensorboard.flush()
            self._line({"split": "warning", "step": step, "name": name, "message": text})

    def pictures(self, step: int, pictures: dict[str, Tensor]) -> None:
        """Log pictures, uint8 [3, H, W]."""
        if not self._tensorboard:
            return
        with self._writing():
            for name, picture in pictures.items():
                self._tensorboard.add_image(f"pictures/{name}", picture, step)
            self._tensorboard.flush()

    def text(self, name: str, text: str) -> None:
        if self._tensorboard:
            with self._writing():
                self._tensorboard.add_text(name, text)

    def sync(self) -> None:
        """Wait until what was logged is on the disk: a checkpoint that is past it must not be there before it."""
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
                f"{self.folder}: the logs could not be written ({error.strerror or error}); what the last checkpoint "
                f"has is safe, go on with: python train.py --resume {self.folder}"
            ) from None

    def _line(self, record: dict[str, Any]) -> None:
        if self._metrics:
            self._metrics.write(json.dumps(record) + "\n")
            self._metrics.flush()


def _quiet_about_files(args: threading.ExceptHookArgs) -> None:
    """TensorBoard writes in a thread, whose error is raised again where the training next logs: once is enough."""
    if not (isinstance(args.exc_value, OSError) and type(args.thread).__name__ == "_AsyncWriterThread"):
        threading.__excepthook__(args)


def make_run_folder(folder: Path, config: dict[str, Any]) -> IO[str]:
    """A new folder for a run, with its `config.json`; no other process can have it until the returned file is closed.

    What a run left that ended before its first checkpoint is removed.

    Raises:
        InputError: there is something else already, or another process is at work there.
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
    """InputError if there is more than what is left of a run that ended before its first checkpoint."""
    if not folder.exists() or (folder.is_dir() and _has_only_a_beginning(folder)):
        return
    raise InputError(f"{folder}: is there already, expected a new folder for the run; choose another --name")


def _has_only_a_beginning(folder: Path) -> bool:
    sizes = {str(file.name): file.size for file in folder.iterdir()}
    if not sizes.keys() - {".lock", "config.json.part"}:
        return True
    # Nothing is logged before the first checkpoint.
    known = all(name in _BEGINNINGS or name.startswith("events.out.tfevents.") for name in sizes)
    if not known or "config.json" not in sizes or sizes.get("metrics.jsonl", 0) > 0:
        return False
    try:
        return "total_steps" in read_json(folder / "config.json")
    except InputError:
        return False


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, to the last whole one: a run that was killed leaves half a line.

    Raises:
        InputError: no such file, or a line before the last is damaged.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file, expected the metrics of a run")
    *lines, _ = file.read_bytes().split(b"\n")  # behind the last line's end is nothing, or half a line
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or type(record.get("step")) is not int or "split" not in record:
            raise InputError(f'{file}, line {number}: expected {{"split": ..., "step": ..., ...}}')
        records.append(record)
    return records


def cut_metrics(file: Path, step: int) -> list[dict[str, Any]]:
    """Remove from a `metrics.jsonl` what is later than a step, and half a line at its end; returns what stays."""
    records = [record for record in read_metrics(file) if record["step"] <= step] if file.is_file() else []
    write_text(file, "".join(json.dumps(record) + "\n" for record in records))
    return records
