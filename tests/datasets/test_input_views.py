import json

import pytest
from path import Path

from datasets.input_views import InputView, input_view, read_input_views

VIEW = {"name": "drive", "size": [960, 540], "box": [0, 20, 960, 480]}


def test_a_view_comes_back_from_its_plain_form():
    view = InputView("drive", (960, 540), (0, 20, 960, 480))
    assert view.plain() == VIEW
    assert input_view(VIEW) == view


@pytest.mark.parametrize(
    "damage",
    [{"box": [0, 20, 961, 480]}, {"box": [0, 480, 960, 480]}, {"box": [0, 20, 960]}, {"size": None}, {"name": 3}]
    + [{"box": [0, True, 960, 480]}, {"size": [2**40, 540]}],
)  # fmt: skip
def test_what_is_no_part_of_a_picture_is_no_view(damage):
    assert input_view(VIEW | damage) is None
    assert input_view([VIEW]) is None


def test_views_of_a_prepared_set(tmp_path):
    """Records without a size (of earlier versions), damaged ones and those of an undone distortion have no view."""
    root = Path(tmp_path)
    assert read_input_views(root) == []
    (root / "inputs").makedirs()
    pinhole = {"whole": [960, 540], "box": [0, 20, 960, 480], "camera": {"source": "focal"}}
    undistorted = pinhole | {"camera": {"source": "calibration", "model": "fisheye"}}
    for name, record in {"b": pinhole, "a": pinhole, "lens": undistorted, "old": {"box": [0, 0, 9, 9]}}.items():
        (root / f"inputs/{name}.json").write_text(json.dumps(record))
    (root / "inputs/damaged.json").write_text("{")
    assert [view.name for view in read_input_views(root)] == ["a", "b"]
    assert read_input_views(root)[0].box == (0, 20, 960, 480)
