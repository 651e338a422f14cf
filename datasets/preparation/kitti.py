"""A camera's recording of a KITTI drive as a scene of the prepared layout."""

from dataclasses import dataclass, field

import numpy as np
import torch
from path import Path

from datasets.formats import kitti, kitti_folders
from datasets.formats.kitti_folders import Calibration, Recording
from datasets.layout import NO_DEPTH, number_gaps, write_depth, write_poses
from datasets.preparation.jobs import Plan, SceneJob, check_aspect
from files.errors import InputError
from files.images import image_size, read_image, resize_area
from geometry.camera import scale_intrinsics
from geometry.rigid import relative_to_first, to_3x4


@dataclass(frozen=True, kw_only=True)
class KittiScene(SceneJob):
    """The scene of a recording; `static` is "none", "list", "speed" or "images".

    Frames get depth where the calibration has the LiDAR's and there is a scan.
    """

    recording: Recording
    calibration: Calibration = field(repr=False)
    with_poses: bool
    with_depth: bool
    min_speed: float  # m/s, for "speed"
    listed_static: frozenset[int] = field(repr=False)  # frame numbers, for "list"

    def inputs(self) -> dict[str, dict[int, Path]]:
        return {"images": self.images, "scans": self.recording.scans, "packets": self.recording.packets}

    def find_frames(self) -> Plan:
        recording = self.recording
        packets: dict[int, np.ndarray] = {}
        problems: dict[int, str] = {}
        want_poses = self.with_poses and recording.has_poses
        want_speed = self.static == "speed" and bool(recording.packets)
        if recording.layout == "raw" and (want_poses or want_speed):
            packets, problems = kitti_folders.read_packets(recording)
        poses = None
        if want_poses:
            poses, without_pose = kitti_folders.camera_poses(recording, self.calibration, packets)
            problems |= without_pose
        static = set(self.listed_static) & set(recording.images) if self.static == "list" else set()
        if want_speed:
            static = {frame for frame, packet in packets.items() if kitti.oxts_speed(packet) < self.min_speed}
        problems = {frame: problem for frame, problem in problems.items() if frame not in static}
        frames = [frame for frame in recording.images if frame not in static and frame not in problems]
        late = kitti.time_gaps(kitti_folders.read_seconds(recording))
        without_scan = set(frames) - recording.scans.keys() if self.with_depth else set()
        return Plan(frames, static, problems, poses, number_gaps(recording.images), late, without_scan)

    def prepare_frames(self, frames: list[int]) -> dict[int, str]:
        problems = {}
        velo_to_cam = self.calibration.velo_to_cam
        for frame in frames:
            file = self.image_file(frame).with_suffix(".npy")
            if velo_to_cam is not None and frame in self.recording.scans and not file.exists():
                try:
                    depth = self._depth_map(self.recording.scans[frame], velo_to_cam)
                except (InputError, OSError) as error:
                    problems[frame] = f"{NO_DEPTH}{error}"
                else:
                    write_depth(file, depth)
        without_image = super().prepare_frames(frames)
        self.remove(without_image)
        return problems | without_image

    def make_image(self, frame: int) -> np.ndarray:
        image = read_image(self.images[frame])
        check_aspect(image, self.images[frame], *self._original_size())
        return resize_area(image, self.height, self.width)

    def write_poses(self, plan: Plan, frames: list[int]) -> None:
        if plan.poses is not None:
            first_from_camera = relative_to_first(np.stack([plan.poses[frame] for frame in frames]))
            write_poses(self.folder / "poses.txt", to_3x4(first_from_camera))

    def intrinsics(self) -> np.ndarray:
        height, width = self._original_size()
        original = torch.from_numpy(np.ascontiguousarray(self.calibration.projection[:, :3]))
        return scale_intrinsics(original, self.width / width, self.height / height).numpy()

    def _original_size(self) -> tuple[int, int]:
        """(height, width) of the images that the calibration's K is for."""
        size = self.calibration.cam_to_cam.get(f"S_rect_{self.recording.camera}")
        if size is not None:
            return int(size[1]), int(size[0])
        for file in self.recording.images.values():  # odometry's calibration lacks the size
            try:
                return image_size(file)
            except InputError:
                continue
        raise InputError(f"{self.recording.folder}: not one image of camera {self.recording.camera} can be read")

    def _depth_map(self, scan: Path, velo_to_cam: np.ndarray) -> np.ndarray:
        height, width = self._original_size()
        camera = self.recording.camera
        cam_to_cam = self.calibration.cam_to_cam | {f"S_rect_{camera}": np.array([width, height], dtype=np.float64)}
        points, shape = kitti.read_velodyne(scan), (self.height, self.width)
        # Without the minus 1 of the published depth maps: this depth fits cam.txt.
        return kitti.lidar_depth_map(points, velo_to_cam, cam_to_cam, camera, shape, as_published=False)
