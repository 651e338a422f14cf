"""Whether a focal length is that of the images: true ones pass, wrong ones are named, else a line says why not."""

import json
from dataclasses import replace

import numpy as np
import pytest
from path import Path
from PIL import Image

from datasets.layout import read_scene, write_intrinsics, write_scene_names
from datasets.preparation import focal_check
from datasets.preparation.check import check_data
from datasets.preparation.focal_check import FocalCheck, check_focal, find_turns, judge_profile, scaled
from geometry.rigid import axis_rotation
from tests import street
from tests.street import K, picture

FEW = {"most_clips": 6, "most_places": 40}
WRONG = 1.45


@pytest.fixture(scope="module")
def turning(tmp_path_factory):
    """A prepared data set of one drive whose camera turns from side to side by 30 degrees."""
    root = Path(tmp_path_factory.mktemp("turning"))
    (root / "swing").makedirs()
    pose = np.eye(4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(street, "_FINE", 2)  # rays per pixel and axis
        for number in range(40):
            pose[:3, :3] = axis_rotation(1, np.radians(15 * np.sin(2 * np.pi * number / 20)))
            pose[:3, 3] += pose[:3, :3] @ [0, 0, 0.5]
            Image.fromarray(picture(pose, 1.5)[0]).save(root / f"swing/{number:07d}.png")
    write_intrinsics(root / "swing/cam.txt", K)
    write_scene_names(root / "train.txt", ["swing"])
    return root


def scene(root, factor=1.0):
    found = read_scene(root / "swing")
    return replace(found, intrinsics=scaled(found.intrinsics, factor))


@pytest.mark.parametrize(("factor", "wrong"), [(1.0, False), (WRONG, True), (0.7, True)])
def test_the_images_tell_a_wrong_focal_length(turning, factor, wrong):
    found = check_focal([scene(turning, factor)], **FEW)
    assert found.is_wrong == wrong
    assert found.factor * factor == pytest.approx(1, abs=0.03)
    assert found.deviation < 0.02
    assert f"fx in cam.txt is {120 * factor:.1f} pixels" in str(found)


def test_a_focal_length_three_times_too_long_is_named_though_it_lies_beyond_the_range(turning):
    found = check_focal([scene(turning, 3.0)], **FEW)
    assert found.is_wrong
    assert "shows less than" in str(found)


def test_the_check_of_a_data_set_warns_of_it(turning, tmp_path):
    root = Path(tmp_path) / "data"
    turning.copytree(root)
    write_intrinsics(root / "swing/cam.txt", scaled(K, WRONG))
    wrong = check_data(root, 3, 8, most_clips=6)
    assert wrong.notes[-1] == str(wrong.focal)
    assert not wrong.refusals
    (line,) = [warning for warning in wrong.warnings if warning.startswith("wrong focal length: ")]
    assert "--camera learned" in line
    assert "\n" not in line
    assert json.loads(json.dumps(wrong.plain()))["focal"]["factor"] == pytest.approx(1 / WRONG, rel=0.03)


def test_without_a_turn_it_says_so_in_one_line(turning):
    found = check_focal([replace(scene(turning), frames=scene(turning).frames[:1] * 40)])
    assert not found.is_wrong
    assert str(found) == (
        "focal length: cannot be checked by the motion in the images: no 9 frames of a scene in which the view turns"
    )
    assert found.plain()["factor"] is None


def test_damaged_frames_and_short_scenes_are_left_out(turning, tmp_path):
    root = Path(tmp_path) / "data"
    turning.copytree(root)
    for file in (root / "swing").files("*.png")[::5]:
        file.write_text("no image")
    found = check_focal([scene(root)], **FEW)
    assert "clips that turn have enough corners to follow, expected 6" in found.problem
    short = replace(scene(turning), frames=scene(turning).frames[:8])
    assert find_turns([short], 100) == []


def test_where_many_clips_show_no_rigid_scene_nothing_is_said(turning, monkeypatch):
    monkeypatch.setattr(focal_check, "WORST_FIT", 1e-9)
    monkeypatch.setattr(focal_check, "_profile", lambda *clips: np.ones((len(focal_check._GRID), len(clips[0]))))
    assert "0 of 6 clips that turn show one rigid scene" in check_focal([scene(turning)], **FEW).problem


def test_clips_that_disagree_leave_it_open():
    grid = focal_check._GRID
    best = np.log(np.linspace(0.55, 1.8, 8))
    costs = (np.log(grid)[:, None] - best) ** 2
    found = judge_profile(costs, 100.0)
    assert found.factor is None
    assert "8 clips that turn leave it open" in str(found)
    agreed = judge_profile((np.log(grid)[:, None] - np.log(np.linspace(0.66, 0.74, 8))) ** 2, 100.0)
    assert agreed.factor == pytest.approx(0.7, rel=0.01)
    assert agreed.is_wrong


@pytest.mark.parametrize(
    ("factor", "deviation", "wrong"), [(1.1, 0.01, False), (0.9, 0.01, False), (1.3, 0.01, True), (1.3, 0.07, False)]
)
def test_a_difference_counts_beyond_the_tolerance_and_the_uncertainty(factor, deviation, wrong):
    assert FocalCheck(20, 100.0, factor, deviation).is_wrong == wrong
