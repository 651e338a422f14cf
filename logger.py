"""What a run leaves behind: its configuration, `metrics.jsonl` and TensorBoard events, in one folder."""

import json
from typing import Any

from path import Path
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from errors import InputError


class Logger:
    """Writes scalars to `metrics.jsonl` (a line a call) and to TensorBoard, pictures to TensorBoard."""

    def __init__(self, folder: Path) -> None:
        self._metrics = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(folder)
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
        """Log values of the training (`split` "train") or of the validation ("validation") at a step.

        TensorBoard makes a group of what shares a name up to the slash; the validation is a group of its own.
        """
        self._metrics.write(json.dumps({"split": split, "step": step} | values) + "\n")
        self._metrics.flush()
        for name, value in values.items():
            self._tensorboard.add_scalar(name if split == "train" else f"{split}/{name}", value, step)
        self._tensorboard.flush()  # what was logged is there, however the run ends

    def pictures(self, step: int, pictures: dict[str, Tensor]) -> None:
        """Log pictures, uint8 [3, H, W]."""
        for name, picture in pictures.items():
            self._tensorboard.add_image(f"pictures/{name}", picture, step)
        self._tensorboard.flush()

    def text(self, name: str, text: str) -> None:
        self._tensorboard.add_text(name, text)

    def close(self) -> None:
        self._metrics.close()
        self._tensorboard.close()


def make_run_folder(folder: Path, config: dict[str, Any]) -> None:
    """A new folder for a run, with its `config.json`; InputError if there is something already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there already, expected a new folder for the run; choose another --name")
    folder.makedirs_p()
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
