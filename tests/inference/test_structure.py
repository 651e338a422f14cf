import numpy as np
import pytest

from files.disk_array import DiskArray
from files.images import resize_area
from geometry.two_view import NO_MOTION
from inference.clip import view_size
from inference.structure import judge_structure, structure_line


def true_disparity(drive):
    return np.where(drive.depth > 0, 1 / np.maximum(drive.depth, 1e-3), 1e-3)


def test_true_depth_has_structure_in_any_unit_and_inverted_depth_is_named(rendered_drive, tmp_path):
    disparity = true_disparity(rendered_drive)
    judged = judge_structure(rendered_drive.predicted(tmp_path, 7 * disparity), rendered_drive.intrinsics)
    assert judged["rank_correlation"] > 0.9
    assert judged["rank_correlation"] > judged["rank_correlation_of_image_row"]
    assert judged["pairs"] == judged["frames_tried"] == 10
    assert judged["points"] > 500
    line = structure_line(judged)
    assert line.startswith(f"structure: {judged['rank_correlation']:.2f}; rank correlation of disparity")
    assert f"in 10 pairs of frames ({judged['points']} points" in line
    inverted = judge_structure(rendered_drive.predicted(tmp_path, 1e-3 / disparity), rendered_drive.intrinsics)
    assert inverted["rank_correlation"] < -0.9
    assert ": depth is upside down" in structure_line(inverted)
    flat = judge_structure(rendered_drive.predicted(tmp_path, np.full_like(disparity, 0.3)), rendered_drive.intrinsics)
    assert flat["rank_correlation"] == 0
    assert ": hardly any structure" in structure_line(flat)


def test_the_disparity_may_have_another_size_and_aspect_than_the_views(rendered_drive, tmp_path):
    disparity = true_disparity(rendered_drive)
    clip = rendered_drive.predicted(tmp_path, disparity)
    whole = judge_structure(clip, rendered_drive.intrinsics)["rank_correlation"]
    clip.disparity = DiskArray(tmp_path, (32, 52), np.float32)
    for one in disparity:
        clip.disparity.append(resize_area(one.astype(np.float32), 32, 52))
    small = judge_structure(clip, rendered_drive.intrinsics)["rank_correlation"]
    assert small > 0.85
    assert abs(whole - small) < 0.08


def test_views_keep_the_aspect():
    assert view_size((540, 960)) == (360, 640)
    assert view_size((1080, 608)) == (640, 360)
    assert view_size((64, 208)) == (64, 208)
    assert view_size((3, 4000)) == (1, 640)


def test_a_clip_without_parallax_says_so(rendered_drive, tmp_path):
    still = type(rendered_drive)(
        rendered_drive.images[[3] * 6],
        rendered_drive.depth[:6],
        rendered_drive.world_from_camera[:6],
        rendered_drive.intrinsics,
    )
    judged = judge_structure(still.predicted(tmp_path, true_disparity(still)), still.intrinsics)
    assert (judged["rank_correlation"], judged["pairs"], judged["points"]) == (None, 0, 0)
    expected = f"structure: not measured: no points could be triangulated in 6 frames (6: {NO_MOTION})"
    assert structure_line(judged) == expected


def test_single_images_have_no_structure(rendered_drive, tmp_path):
    clip = rendered_drive.predicted(tmp_path, true_disparity(rendered_drive))
    clip.views = None
    with pytest.raises(ValueError, match="no views"):
        judge_structure(clip, rendered_drive.intrinsics)
