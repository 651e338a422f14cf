"""The judge that needs no truth: on a rendered drive, and on real frames with LiDAR where they are at hand."""

import os
from collections import Counter

import numpy as np
import pytest
import torch
from path import Path
from scipy.spatial import cKDTree
from torch import nn

from datasets.layout import read_depth, write_depth, write_intrinsics
from datasets.snippets import SnippetDataset
from datasets.synthetic import WorldOptions, list_drives, make_drive_renderer
from datasets.view_pairs import find_pair
from evaluation.structure import (
    DAMAGED,
    Structure,
    StructurePoints,
    find_structure,
    rank_correlation,
    sample_at,
    score_structure,
)
from files.atomic import write_text
from files.images import write_jpeg
from geometry.two_view import NO_MOTION, NO_TEXTURE

HEIGHT, WIDTH, FRAMES = 64, 208, 10


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """A prepared drive with dense depth, as validation data."""
    root = Path(tmp_path_factory.mktemp("drive"))
    options = WorldOptions(drives=2, frames=FRAMES, width=WIDTH, height=HEIGHT, halts=False)
    drive = list_drives(options)[1]
    renderer = make_drive_renderer(options, drive)
    write_scene(root, "drive", [renderer.image(k, drive.intrinsics, HEIGHT, WIDTH) for k in range(FRAMES)], drive)
    for k in range(FRAMES):
        write_depth(root / "drive" / f"{k:07d}.npy", renderer.depth(k, drive.intrinsics, HEIGHT, WIDTH))
    return root


def write_scene(root: Path, name: str, images: list[np.ndarray], drive) -> None:
    (root / name).makedirs_p()
    for k, image in enumerate(images):
        write_jpeg(root / name / f"{k:07d}.jpg", image)
    write_intrinsics(root / name / "cam.txt", getattr(drive, "intrinsics", drive))
    write_text(root / "val.txt", f"{name}\n")


def dataset(root: Path) -> SnippetDataset:
    return SnippetDataset(root, "val.txt", 3)


@pytest.fixture(scope="module")
def structure(drive):
    return find_structure(dataset(drive))


class Predicts(nn.Module):
    """Disparities by the order in which frames are asked for."""

    def __init__(self, disparities: list[np.ndarray]):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.disparities, self.asked = [torch.from_numpy(np.float32(d)) for d in disparities], 0

    def forward(self, images):
        start, self.asked = self.asked, self.asked + len(images)
        return [torch.stack(self.disparities[start : self.asked])[:, None]]


def true_disparities(structure: Structure) -> list[np.ndarray]:
    depths = [read_depth(frame.frame.with_suffix(".npy")) for frame in structure.frames]
    return [np.where(depth > 0, 1 / np.maximum(depth, 1e-3), 0) for depth in depths]


def score(structure: Structure, disparities: list[np.ndarray], batch_size: int = 3) -> float:
    return score_structure(Predicts(disparities), structure, batch_size)["structure"]


def test_true_depth_of_the_world_scores_above_0_9(structure):
    true = true_disparities(structure)
    assert len(structure.frames) == FRAMES - 2  # the target frames of snippets of 3
    assert score(structure, true) > 0.9
    assert score(structure, [3 * disparity + 0.2 for disparity in true]) > 0.9


def test_constant_depth_scores_below_0_1_and_inverted_depth_below_minus_0_5(structure):
    true = true_disparities(structure)
    assert abs(score(structure, [np.full((HEIGHT, WIDTH), 0.3)] * len(true))) < 0.1
    noise = np.random.default_rng(0).normal(0.3, 0.01, (len(true), HEIGHT, WIDTH))
    assert abs(score(structure, list(noise))) < 0.1
    assert score(structure, [1 / np.maximum(disparity, 0.01) for disparity in true]) < -0.5
    assert score(structure, [-disparity for disparity in true]) < -0.9


def test_depth_of_other_frames_scores_less_than_their_own(structure):
    true = true_disparities(structure)
    assert score(structure, true[::-1]) < score(structure, true) - 0.05


def test_a_prediction_that_is_not_finite_counts_as_without_structure(structure):
    assert score(structure, [np.full((HEIGHT, WIDTH), np.nan)] * len(structure.frames)) == 0


def test_the_score_does_not_depend_on_the_batches(structure):
    true = true_disparities(structure)
    scores = [score_structure(Predicts(true), structure, batch) for batch in (1, 3, 50)]
    assert scores[0] == scores[1] == scores[2]
    assert scores[0]["structure_pairs"] == len(structure.frames)
    assert scores[0]["structure_points"] == structure.points > 500


def test_a_frame_that_vanished_is_left_out(structure, tmp_path):
    gone = StructurePoints(Path(tmp_path) / "gone.jpg", 1, 3.0, np.zeros((30, 2)), np.arange(30.0))
    frames = [structure.frames[0], gone]
    scores = score_structure(Predicts(true_disparities(structure)), Structure(frames), 1)
    assert scores["structure_pairs"] == 1
    assert score_structure(Predicts([]), Structure([gone]), 1) == {}
    assert score_structure(Predicts([]), Structure(), 1) == {}


def test_the_same_points_are_found_each_time_and_one_line_describes_them(drive, structure):
    again = find_structure(dataset(drive))
    assert [frame.frame for frame in again.frames] == [frame.frame for frame in structure.frames]
    for first, second in zip(again.frames, structure.frames, strict=True):
        np.testing.assert_array_equal(first.pixels, second.pixels)
        np.testing.assert_array_equal(first.inverse_depth, second.inverse_depth)
    line = str(structure)
    assert "\n" not in line
    assert f"{structure.points} triangulated points in 8 of 8 validation frames" in line
    assert f"the image row alone has {structure.row_score:.2f}" in line


@pytest.mark.parametrize(
    ("frames", "points", "without", "expected"),
    [
        (4, 50, 60, False),
        (4, 49, 60, True),
        (3, 500, 60, True),
        (0, 0, 16, True),
        (0, 0, 15, False),
        (32, 20, 0, False),
    ],
)
def test_too_little_to_judge_by_is_told_from_a_short_validation(frames, points, without, expected):
    one = StructurePoints(Path("a.jpg"), 1, 3.0, np.zeros((points, 2)), np.zeros(points))
    assert Structure(frames * [one], Counter({NO_TEXTURE: without})).is_too_little == expected


def test_a_sample_is_taken_of_a_large_set(drive):
    few = find_structure(dataset(drive), most_pairs=2)
    assert len(few.frames) == 2
    assert find_structure(dataset(drive), most_frames=3).problems.total() + len(few.frames) <= 3


def test_data_that_cannot_judge_say_why(tmp_path):
    root, intrinsics = Path(tmp_path), np.array([[120.0, 0, 104], [0, 120, 32], [0, 0, 1]])
    random = np.random.default_rng(0)
    still = np.repeat(random.integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8), 4, 0).repeat(4, 1)
    write_scene(root, "tripod", [still] * 6, intrinsics)
    structure = find_structure(dataset(root))
    assert (structure.frames, structure.problems) == ([], {NO_MOTION: 4})
    assert str(structure).endswith(f"no points in 4 validation frames: 4 x {NO_MOTION}")
    assert score_structure(Predicts([]), structure, 2) == {}
    write_scene(root, "lens_cap", [np.full((HEIGHT, WIDTH, 3), 7, np.uint8)] * 6, intrinsics)
    assert find_structure(dataset(root)).problems == {NO_TEXTURE: 4}
    for k in range(6):
        (root / "lens_cap" / f"{k:07d}.jpg").write_bytes(b"\xff\xd8\xff")
    (root / "tripod" / "0000000.jpg").copy(root / "lens_cap" / "0000000.jpg")
    assert find_structure(dataset(root)).problems == {DAMAGED: 4}


def test_rank_correlation():
    numbers = np.array([1.0, 2, 3, 4])
    assert rank_correlation(numbers, numbers**3) == pytest.approx(1)
    assert rank_correlation(-numbers, numbers) == pytest.approx(-1)
    assert rank_correlation(np.ones(4), numbers) == rank_correlation(numbers, np.ones(4)) == 0
    assert rank_correlation(np.array([1, 2, 3, np.inf]), numbers) == 0


def test_samples_are_at_pixel_centres():
    values = torch.arange(12.0).view(1, 3, 4)
    pixels = np.array([[0.0, 0], [3, 2], [1.5, 1], [2, 0.25]])
    np.testing.assert_allclose(sample_at(values, pixels), [0, 11, 5.5, 3], rtol=1e-6)


@pytest.fixture
def real_drive(shared, script_here, tmp_path):
    """Frames 28 to 56 of a real KITTI drive at 416 x 128, every fourth with the depth of its LiDAR scan."""
    raw, prepared = Path(tmp_path) / "raw", Path(tmp_path) / "prepared"
    name = Path("2011_09_26") / "2011_09_26_drive_0000_sync"
    for folder, suffix in (("image_02/data", ".png"), ("velodyne_points/data", ".bin")):
        (raw / name / folder).makedirs()
        for number in range(28, 57):
            file = shared / "kitti_raw" / name / folder / f"{number:010d}{suffix}"
            if file.exists():
                os.symlink(file, raw / name / folder / file.name)
    for file in (shared / "kitti_raw" / name.parent).files("calib_*.txt"):
        os.symlink(file, raw / name.parent / file.name)
    flags = ["--with-depth", "--cameras", "02", "--static", "none", "--keep-test-scenes", "--jobs", "1"]
    script_here("data/prepare_kitti.py", raw, prepared, *flags)
    (prepared / "train.txt").copy(prepared / "val.txt")
    return prepared


def test_lidar_of_a_real_drive_scores_above_0_7(real_drive):
    """A point has the depth of the nearest LiDAR point within 1.5 pixels; points farther from one do not count."""
    data = dataset(real_drive)
    scores = []
    for number in range(0, 29, 4):
        scene = data.scenes[0]
        _, views = find_pair(scene.frames, number, scene.intrinsics)
        if views.problem is None:
            depth = read_depth(scene.frames[number].with_suffix(".npy"))
            rows, columns = np.nonzero(depth)
            distance, nearest = cKDTree(np.column_stack([columns, rows])).query(views.pixels)
            near = distance < 1.5
            truth = 1 / depth[rows[nearest[near]], columns[nearest[near]]]
            assert near.sum() > 50
            scores.append(rank_correlation(truth, views.inverse_depth[near]))
    assert len(scores) >= 6
    assert np.median(scores) > 0.7
    assert min(scores) > 0.4
