"""The focal length by structure from motion: when it is believed, and one real run."""

import builtins
import sys

import numpy as np
import pytest
from path import Path
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from datasets.layout import SELF_CALIBRATION
from datasets.preparation import self_calibration
from datasets.preparation.self_calibration import (
    SelfCalibration,
    agree,
    combine,
    judge,
    missing_package,
    reconstruct_all,
)
from datasets.preparation.turns import Section


def run(focal=0.6, registered=30, turn=60.0, error=0.5, points=1000):
    return {
        "registered": registered,
        "points": points,
        "reprojection_error": error,
        "turn_degrees": turn,
        "focal": focal,
    }


def result(*runs, images=30):
    return {"images": images, "runs": list(runs)}


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (result(), "only 0 of 30 images"),
        (result(run(registered=12)), "only 12 of 30 images"),
        (result(run(registered=14), images=20), "only 14 of 20 images"),
        (result(run(turn=8)), "turns by 8 degrees only"),
        (result(run(error=0.9)), "reprojection error is 0.9"),
        (result(run(focal=10.5)), "absurd"),
        (result(run(focal=0.1)), "absurd"),
        (result(run(focal=0.5), run(focal=0.8)), "several focal lengths fit: 0.50 to 0.80"),
        ({"problem": "out of luck"}, "out of luck"),
    ],
)
def test_a_section_that_does_not_tell(found, reason):
    assert reason in judge(found)
    told = combine([found], [Section(0, (0, 90), 0.8)], ["a.mp4"], (384, 128))
    assert isinstance(told, str)
    assert reason in told


def test_the_run_that_fits_best_counts():
    """A run with few images, and one that fits worse, are no rivals."""
    best = run(focal=0.6, error=0.4)
    assert judge(result(run(focal=3.0, registered=5, error=0.1), run(focal=0.9, error=0.6), best)) == best
    assert "several" in judge(result(run(focal=0.9, error=0.45), best))


def test_the_estimate_is_the_median_in_pixels_of_the_input():
    sections = [Section(k, (100 * k, 100 * k + 90), 0.8) for k in range(4)]
    results = [result(run(0.58)), result(run(0.60, turn=80)), result(run(0.595, registered=28)), result(run(turn=3))]
    found = combine(results, sections, ["a.mp4", "b.mp4", "c.mp4", "d.mp4"], (192, 640))
    assert isinstance(found, SelfCalibration)
    assert found.focal == pytest.approx(0.595 * 640)  # over the longer side
    record = found.record
    assert record["source"] == SELF_CALIBRATION
    assert record["spread"] == pytest.approx(0.02 / 0.595)
    assert (record["images"], record["points"], record["turn_degrees"]) == (88, 3000, 80)
    assert record["sections"][1]["input"] == "b.mp4"
    assert record["sections"][1]["frames"] == [100, 190]
    assert record["refused"] == ["the camera turns by 3 degrees only"]
    assert "in 3 sections, which differ by 3.4 %" in str(found)


def test_guesses_that_agree_make_others_needless():
    assert agree([run(0.58), run(0.59)], 30)
    assert not agree([run(0.58), run(0.60)], 30)
    assert not agree([run(0.58), run(0.58, registered=12)], 30)


def test_sections_that_disagree_tell_nothing():
    sections = [Section(0, (0, 90), 0.8), Section(0, (100, 190), 0.8)]
    told = combine([result(run(0.5)), result(run(0.6))], sections, ["a.mp4"] * 2, (1000, 500))
    assert told == "the sections disagree: 500, 600 pixels"


def test_without_pycolmap_a_line_says_how_to_install_it(monkeypatch):
    found = builtins.__import__

    def without(name, *arguments, **keywords):
        if name == "pycolmap":
            raise ModuleNotFoundError("No module named 'pycolmap'", name="pycolmap")
        return found(name, *arguments, **keywords)

    monkeypatch.delitem(sys.modules, "pycolmap", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    assert missing_package() == "pycolmap is not installed (pip install pycolmap)"


def test_a_section_whose_process_dies_is_a_problem_of_that_section(monkeypatch, tmp_path):
    def die_or_fail(folder, count):
        if folder.name == "dies":
            sys.exit(3)
        raise RuntimeError("no\nmatches")

    monkeypatch.setattr(self_calibration, "reconstruct", die_or_fail)
    folders = [Path(tmp_path) / name for name in ("dies", "fails")]
    for folder in folders:
        folder.makedirs()
    found = reconstruct_all(folders, [20, 20], 1)
    assert found == [{"problem": "COLMAP ended without a result"}, {"problem": "no matches"}]


def corridor(yaw, position, focal, size=(256, 96)):
    """A picture, uint8 [height, width], of a corridor with noise on its walls and its floor.

    The camera stands at (x, z) `position` and is turned to the right by `yaw` radians.
    """
    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.uniform(0, 255, (3, 256, 2048)), (0, 2, 2))
    noise = 255 * (noise - noise.min()) / np.ptp(noise)
    width, height = size
    x, y = np.meshgrid((np.arange(width) - (width - 1) / 2) / focal, (np.arange(height) - (height - 1) / 2) / focal)
    rays = np.stack([np.cos(yaw) * x + np.sin(yaw), y, np.cos(yaw) - np.sin(yaw) * x], -1)
    start = np.array([position[0], 0.0, position[1]])
    image, nearest = np.zeros((height, width)), np.full((height, width), np.inf)
    for texture, (axis, at) in zip(noise, ((0, -3.0), (0, 4.0), (1, 1.5)), strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            far = (at - start[axis]) / rays[..., axis]
        hit = (far > 0) & (far < nearest)
        far = np.where(hit, np.minimum(far, 1000), 0)
        points = start + far[..., None] * rays
        across = points[..., 1 if axis == 0 else 0]
        values = map_coordinates(texture, [24 * across % 256, 24 * points[..., 2] % 2048], order=1, mode="wrap")
        faded = 128 + (values - 128) * np.exp(-far / 8)  # far away, the noise is finer than the pixels
        image[hit], nearest[hit] = faded[hit], far[hit]
    return np.uint8(np.rint(image))


@pytest.mark.slow
def test_a_corridor_tells_the_focal_length(tmp_path):
    """All of it: 22 pictures of a camera that goes along a corridor and turns from side to side by 50 degrees."""
    focal, count = 0.62 * 256, 22
    (tmp_path / "images").mkdir()
    for number in range(count):
        yaw = np.radians(25) * np.sin(2 * np.pi * number / count)
        picture = corridor(yaw, (0.3 * np.cos(0.3 * number), 0.4 * number), focal)
        Image.fromarray(picture).save(tmp_path / f"images/{number:07d}.png")
    (result,) = reconstruct_all([Path(tmp_path)], [count], 1)
    found = judge(result)
    assert found["focal"] * 256 == pytest.approx(focal, rel=0.03)
    assert found["turn_degrees"] > 40
