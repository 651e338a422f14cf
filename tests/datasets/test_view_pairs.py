"""The nearest frame with enough motion."""

from path import Path

from datasets.layout import read_scene, write_intrinsics
from datasets.synthetic import WorldOptions, list_drives, make_drive_renderer
from datasets.view_pairs import LARGEST_GAP, find_pair, next_gap
from files.images import write_jpeg

HEIGHT, WIDTH = 64, 208


def test_a_slow_camera_is_paired_with_a_frame_farther_away(tmp_path):
    options = WorldOptions(drives=2, frames=20, width=WIDTH, height=HEIGHT, halts=False)
    drive = list_drives(options)[1]
    renderer = make_drive_renderer(options, drive)
    start, end = renderer.scene.world_from_camera[4], renderer.scene.world_from_camera[5]
    poses = [start.copy() for _ in range(12)]
    for k, pose in enumerate(poses):
        pose[:3, 3] += 0.2 * k * (end - start)[:3, 3]
    images = [renderer.image(4, drive.intrinsics, HEIGHT, WIDTH, pose) for pose in poses]
    folder = Path(tmp_path)
    for k, image in enumerate(images):
        write_jpeg(folder / f"{k:07d}.jpg", image)
    write_intrinsics(folder / "cam.txt", drive.intrinsics)
    scene = read_scene(folder)
    gap, views = find_pair(scene.frames, 5, scene.intrinsics)
    assert 2 <= gap <= 6
    assert views.problem is None
    assert views.motion >= 2
    gap, views = find_pair(scene.frames, 11, scene.intrinsics)  # the last one
    assert gap < 0
    assert views.problem is None


def test_gaps_grow_with_what_motion_demands_and_end():
    assert next_gap(1, 16, 0.5, 2.0) == 4
    assert next_gap(1, 16, 1.99, 2.0) == 2
    assert next_gap(4, 16, 1.9, 2.0) == 5
    assert next_gap(1, 16, 0.01, 2.0) == next_gap(1, 16, 0.0, 2.0) == 16
    assert next_gap(1, 3, 0.5, 2.0) == 3
    assert next_gap(16, 16, 1.0, 2.0) == 17 > LARGEST_GAP
