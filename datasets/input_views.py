"""What part of the videos and image folders the prepared images show: crops that a prediction should repeat."""

from dataclasses import dataclass
from typing import Any

from path import Path

from files.errors import InputError
from files.text import read_json

RECORDS = "inputs"  # folder of the records of data/prepare_video.py, one for each input
_LENSES = ("radial-tangential", "fisheye")  # whose distortion was undone: no crop of the input gives such images


@dataclass(frozen=True)
class InputView:
    """The part of an input's pictures that was prepared."""

    name: str  # of the input
    size: tuple[int, int]  # (width, height) of its pictures
    box: tuple[int, int, int, int]  # left, top, right, bottom: columns left .. right - 1 are shown

    def plain(self) -> dict[str, Any]:
        """For a checkpoint's record."""
        return {"name": self.name, "size": list(self.size), "box": list(self.box)}


def input_view(plain: Any) -> InputView | None:
    """The view of a record; None where there is none, or no part of a picture."""
    record = plain if isinstance(plain, dict) else {}
    name, size, box = record.get("name"), _pixels(record.get("size")), _pixels(record.get("box"))
    if not isinstance(name, str) or len(size) != 2 or len(box) != 4:
        return None
    (width, height), (left, top, right, bottom) = size, box
    inside = left < right <= width and top < bottom <= height
    return InputView(name, (width, height), (left, top, right, bottom)) if inside else None


def read_input_views(root: Path) -> list[InputView]:
    """The views of the inputs that data/prepare_video.py made a prepared set of, by name; of other sets, none.

    Inputs whose lens distortion was undone have none: no crop of theirs looks like the prepared images.
    """
    folder = Path(root) / RECORDS
    views = []
    for file in sorted(folder.files("*.json")) if folder.is_dir() else []:
        try:
            record = read_json(file)
        except InputError:  # of a preparation that was stopped
            continue
        camera = record.get("camera")
        if isinstance(camera, dict) and camera.get("model") in _LENSES:
            continue
        view = input_view({"name": str(file.stem), "size": record.get("whole"), "box": record.get("box")})
        views += [view] if view is not None else []
    return views


def _pixels(value: Any) -> list[int]:
    """Numbers of pixels; empty where something else stands there."""
    numbers = value if isinstance(value, list) else []
    return numbers if all(type(one) is int and 0 <= one < 2**20 for one in numbers) else []
