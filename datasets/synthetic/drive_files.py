"""One drive on disk: rendered in the layout of KITTI raw data, and linked into that of KITTI odometry.

A drive is written to a folder of its own and moved to its place when it is complete.
"""

import contextlib
import os
from collections.abc import Callable, Iterator

import imageio.v3 as iio
import numpy as np
import torch
from path import Path

from datasets.synthetic.kitti_text import write_oxts, write_poses, write_sequence_texts, write_timestamps
from datasets.synthetic.options import Drive, WorldOptions, drive_variation
from datasets.synthetic.output import write_bytes
from datasets.synthetic.render import Renderer
from datasets.synthetic.scene import Scene, make_scene
from datasets.synthetic.sensors import BASELINE, LIDAR_AZIMUTHS, LIDAR_ELEVATIONS, camera_from_velodyne
from datasets.synthetic.textures import make_textures
from datasets.synthetic.varied_scene import make_varied_scene
from datasets.synthetic.varied_textures import make_varied_textures

UNFINISHED = ".unfinished"  # folder of a world in which drives and sequences are written
_DEPTH_UNIT = 256  # a depth picture holds metres times this number, as KITTI's own annotation


def make_drive_scene(options: WorldOptions, drive: Drive) -> Scene:
    """The scene of a drive; it depends only on the options and the drive's number."""
    rng = np.random.default_rng([options.seed, drive.number, 0])
    if options.varied:
        return make_varied_scene(
            rng,
            options.frames,
            drive_variation(options, drive.number),
            moving_cars=drive.moving_cars,
            halts=options.halts,
            exposure_changes=options.exposure_changes,
            jitter=options.jitter,
        )
    return make_scene(
        rng,
        options.frames,
        moving_cars=drive.moving_cars,
        halts=options.halts,
        exposure_changes=options.exposure_changes,
        jitter=options.jitter,
    )


def make_drive_renderer(options: WorldOptions, drive: Drive, device: str = "cpu") -> Renderer:
    """The renderer of a drive's scene with the drive's textures."""
    rng = np.random.default_rng([options.seed, drive.number, 1])
    if options.varied:
        textures = make_varied_textures(rng, drive_variation(options, drive.number))
    else:
        textures = make_textures(rng)
    return Renderer(make_drive_scene(options, drive), textures, device)


def render_drive(
    world: Path, options: WorldOptions, drive: Drive, device: str, count_frame: Callable[[], object]
) -> None:
    """Write one drive in the raw layout; `count_frame` is called after every frame."""
    unfinished = world / UNFINISHED / drive.scene
    unfinished.makedirs_p()
    with _one_thread():
        renderer = make_drive_renderer(options, drive, device)
        for frame in range(options.frames):
            _render_frame(unfinished, options, drive, renderer, frame)
            count_frame()
    write_oxts(unfinished / "oxts", renderer.scene.world_from_camera)
    write_timestamps(unfinished, drive, options.frames)
    os.rename(unfinished, world / "raw" / drive.name)


def link_sequence(world: Path, options: WorldOptions, drive: Drive, number: str) -> None:
    """Write a drive in the odometry layout, as far as it is missing; its images are hard links to the raw ones."""
    sequence, poses = world / "odometry" / "sequences" / number, world / "odometry" / "poses" / f"{number}.txt"
    if not poses.exists():
        write_poses(poses, make_drive_scene(options, drive).world_from_camera)
    if sequence.exists():
        return
    unfinished = world / UNFINISHED / number
    for camera, name in (("image_02", "image_2"), ("image_03", "image_3")):
        images = world / "raw" / drive.name / camera / "data"
        if images.exists():
            (unfinished / name).makedirs_p()
            for frame in range(options.frames):
                _link(images / f"{frame:010d}.png", unfinished / name / f"{frame:06d}.png")
    write_sequence_texts(unfinished, drive, options.frames)
    sequence.parent.makedirs_p()
    os.rename(unfinished, sequence)


def _render_frame(folder: Path, options: WorldOptions, drive: Drive, renderer: Renderer, frame: int) -> None:
    """Images, depth pictures and the LiDAR scan of one frame, as far as the options want them."""
    size = drive.intrinsics, options.height, options.width
    world_from_camera = renderer.scene.world_from_camera[frame]
    name = f"{frame:010d}.png"
    for camera, offset in (("image_02", 0.0), ("image_03", BASELINE)):
        if camera == "image_03" and not options.stereo:
            continue
        pose = world_from_camera.copy()
        pose[:3, 3] += offset * pose[:3, 0]
        _write_png(folder / camera / "data" / name, renderer.image(frame, *size, pose))
        if options.dense_depth:
            depth = np.round(renderer.depth(frame, *size, pose) * _DEPTH_UNIT)
            depth = np.where(depth < 2**16, depth, 0).astype(np.uint16)
            _write_png(folder / "proj_depth" / "groundtruth" / camera / name, depth)
    if frame % options.scan_every == 0:
        points = renderer.scan(frame, world_from_camera @ camera_from_velodyne(), LIDAR_ELEVATIONS, LIDAR_AZIMUTHS)
        write_bytes(folder / "velodyne_points" / "data" / f"{frame:010d}.bin", points.tobytes())


def _write_png(file: Path, image: np.ndarray) -> None:
    # Encoded in memory: when the disk is full, imageio prints a traceback and Pillow does not name the file.
    write_bytes(file, iio.imwrite("<bytes>", image, extension=".png", compress_level=3))


def _link(file: Path, link: Path) -> None:
    try:
        os.link(file, link)
    except OSError:  # a file system without hard links
        write_bytes(link, file.read_bytes())


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    # With several threads sums are taken in an order that depends on the number of cores.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
