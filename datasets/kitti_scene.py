"""One camera's recording of a KITTI drive on its way to a scene of the prepared layout."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from path import Path

from datasets import kitti, kitti_layout
from datasets.images import image_size, read_image, resize_area, write_jpeg
from datasets.kitti_layout import Calibration, Recording
from datasets.layout import write_depth, write_intrinsics, write_poses, write_text
from datasets.static_frames import find_static_frames
from errors import InputError
from geometry.camera import scale_intrinsics

RECORD_FILE = "prepared.json"  # in a scene's folder: that it is complete, and what was left out
_ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True)
class Plan:
    """What is known of a scene before its images are opened."""

    frames: list[int]  # to prepare
    static: set[int]  # left out because the camera stands
    problems: dict[int, str]  # left out because something is missing or damaged, and what
    poses: dict[int, np.ndarray] | None  # world_from_camera [4, 4] of the frames, where they are wanted and there


@dataclass(frozen=True)
class SceneJob:
    """What to make of a recording: first `plan`, then `prepare_frames` in any order and pieces, then `finish`.

    Each file is written whole or not at all, and what is there is not made again: stopped anywhere, the three
    steps again give the same scene.
    """

    recording: Recording
    calibration: Calibration = field(repr=False)
    folder: Path
    height: int
    width: int
    with_depth: bool
    with_poses: bool
    static: str  # "none", "list", "speed" or "images"
    min_speed: float  # m/s, for "speed"
    listed_static: frozenset[int] = field(repr=False)  # for "list"

    def read_record(self) -> dict | None:
        """What was noted when the scene was complete; None where it isn't."""
        try:
            record = json.loads((self.folder / RECORD_FILE).read_text())
            return record if {"source", "frames", "static", "problems"} <= set(record) else None
        except (OSError, ValueError, TypeError):
            return None

    def is_complete(self) -> bool:
        """Is there nothing to do? Not if the download has grown since, or a damaged file was replaced."""
        record = self.read_record()
        if record is None or record["source"] != self._source():
            return False
        # The change time and not the modification time, which unpacking an archive sets to that of the archive.
        noted = os.stat(self.folder / RECORD_FILE).st_mtime
        if any(os.stat(file).st_ctime > noted for frame in record["problems"] for file in self._files(int(frame))):
            return False
        return record["frames"] == sum(name.endswith(".jpg") for name in os.listdir(self.folder))

    def _source(self) -> dict[str, int]:
        found = self.recording
        return {"images": len(found.images), "scans": len(found.scans), "packets": len(found.packets)}

    def _files(self, frame: int) -> list[Path]:
        kinds = (self.recording.images, self.recording.scans, self.recording.packets)
        return [files[frame] for files in kinds if frame in files]

    def image_file(self, frame: int) -> Path:
        return self.folder / f"{frame:07d}.jpg"

    def plan(self) -> Plan:
        self.folder.makedirs_p()
        for file in self.folder.files("*.part"):  # what a stopped run left
            file.remove()
        for name in (RECORD_FILE, "poses.txt", "cam.txt"):  # until it is complete again it is no scene
            (self.folder / name).remove_p()
        recording = self.recording
        packets: dict[int, np.ndarray] = {}
        problems: dict[int, str] = {}
        want_poses = self.with_poses and recording.has_poses
        want_speed = self.static == "speed" and bool(recording.packets)
        if recording.layout == "raw" and (want_poses or want_speed):
            packets, problems = kitti_layout.read_packets(recording)
        poses = None
        if want_poses:
            poses, without_pose = kitti_layout.camera_poses(recording, self.calibration, packets)
            problems |= without_pose
        static = set(self.listed_static) & set(recording.images) if self.static == "list" else set()
        if want_speed:
            static = {frame for frame, packet in packets.items() if kitti.oxts_speed(packet) < self.min_speed}
        problems = {frame: problem for frame, problem in problems.items() if frame not in static}
        for frame in set(range(min(recording.images), max(recording.images))) - set(recording.images):
            problems[frame] = f"{recording.folder}: no image {frame} of camera {recording.camera}"
        self._remove(static | set(problems))
        frames = [frame for frame in recording.images if frame not in static and frame not in problems]
        return Plan(frames, static, problems, poses)

    def prepare_frames(self, frames: list[int]) -> dict[int, str]:
        """Write images and depth maps, as far as they aren't there; returns what was wrong with which frame."""
        problems = {}
        for frame in frames:
            file = self.image_file(frame)
            depth_file = file.with_suffix(".npy")
            if self.with_depth and frame in self.recording.scans and not depth_file.exists():
                try:
                    depth = self._depth_map(self.recording.scans[frame])
                except (InputError, OSError) as error:
                    problems[frame] = f"no depth: {error}"
                else:
                    write_depth(depth_file, depth)
            if file.exists():
                continue
            try:
                image = read_image(self.recording.images[frame])
                self._check_aspect(image, self.recording.images[frame])
            except (InputError, OSError) as error:
                problems[frame] = str(error)
                depth_file.remove_p()
            else:
                write_jpeg(file, resize_area(image, self.height, self.width))
        return problems

    def finish(self, plan: Plan, problems: dict[int, str]) -> None:
        """Leave out static frames by their images; write poses, camera and, last, the record."""
        frames = [frame for frame in plan.frames if self.image_file(frame).exists()]
        static = set(plan.static)
        if self.static == "images":
            still = find_static_frames(read_image(self.image_file(frame)) for frame in frames)
            static |= {frame for frame, is_still in zip(frames, still, strict=True) if is_still}
            self._remove(static)
            frames = [frame for frame in frames if frame not in static]
        if frames:
            if plan.poses is not None:
                poses = kitti_layout.relative_to_first([plan.poses[frame] for frame in frames])
                write_poses(self.folder / "poses.txt", poses)
            write_intrinsics(self.folder / "cam.txt", self._intrinsics())
        record = {"source": self._source(), "frames": len(frames), "static": sorted(static), "problems": problems}
        write_text(self.folder / RECORD_FILE, json.dumps(record) + "\n")

    def _remove(self, frames: Iterable[int]) -> None:
        for frame in frames:
            self.image_file(frame).remove_p()
            self.image_file(frame).with_suffix(".npy").remove_p()

    def _original_size(self) -> tuple[int, int]:
        """Height and width that the calibration's K belongs to."""
        size = self.calibration.cam_to_cam.get(f"S_rect_{self.recording.camera}")
        if size is not None:
            return int(size[1]), int(size[0])
        for file in self.recording.images.values():  # odometry's calibration doesn't tell
            try:
                return image_size(file)
            except InputError:
                continue
        raise InputError(f"{self.recording.folder}: not one image of camera {self.recording.camera} can be read")

    def _check_aspect(self, image: np.ndarray, file: Path) -> None:
        """Images may have been resized since KITTI took them, but not cropped: K would be wrong."""
        height, width = self._original_size()
        if abs(image.shape[1] * height / (image.shape[0] * width) - 1) > _ASPECT_TOLERANCE:
            raise InputError(
                f"{file}: {image.shape[1]} x {image.shape[0]} pixels, calibration is for {width} x {height}"
            )

    def _intrinsics(self) -> np.ndarray:
        height, width = self._original_size()
        original = torch.from_numpy(np.ascontiguousarray(self.calibration.projection[:, :3]))
        return scale_intrinsics(original, self.width / width, self.height / height).numpy()

    def _depth_map(self, scan: Path) -> np.ndarray:
        height, width = self._original_size()
        camera = self.recording.camera
        cam_to_cam = self.calibration.cam_to_cam | {f"S_rect_{camera}": np.array([width, height], dtype=np.float64)}
        if self.calibration.velo_to_cam is None:
            raise ValueError("the calibration was read without the LiDAR's")
        shape = (self.height, self.width)
        # Not the published map's minus 1: depth must fit cam.txt.
        return kitti.lidar_depth_map(
            kitti.read_velodyne(scan), self.calibration.velo_to_cam, cam_to_cam, camera, shape, as_published=False
        )
