"""OXTS packets agree with the poses."""

import numpy as np

from datasets.formats import kitti
from datasets.synthetic import list_drives
from datasets.synthetic.sensors import FRAME_TIME


def test_oxts_and_odometry_poses_agree(world, options):
    for drive in list_drives(options):
        date = (world / "raw" / drive.name).parent
        files = sorted((world / "raw" / drive.name / "oxts" / "data").files("*.txt"))
        world_from_imu = kitti.oxts_to_poses(np.stack([kitti.read_oxts(file) for file in files]))
        calibration = kitti.read_raw_calibration(date, "02")
        velo_to_cam = kitti.read_rigid_calibration(date / "calib_velo_to_cam.txt")
        imu_to_velo = kitti.read_rigid_calibration(date / "calib_imu_to_velo.txt")
        camera_from_imu = kitti.camera_from_velodyne(calibration, velo_to_cam, "02") @ imu_to_velo
        poses = camera_from_imu @ world_from_imu @ np.linalg.inv(camera_from_imu)
        expected = kitti.read_poses(world / "odometry" / "poses" / f"{drive.sequence}.txt")
        assert np.abs(poses[:, :3, 3] - expected[:, :, 3]).max() < 0.001
        turned = np.swapaxes(expected[:, :, :3], 1, 2) @ poses[:, :3, :3]
        angle = np.linalg.norm(turned - np.eye(3), axis=(1, 2)) / np.sqrt(2)
        assert np.degrees(angle).max() < 0.001
        assert np.linalg.norm(expected[-1, :, 3]) > 2  # it drives


def test_oxts_speed_is_that_of_the_poses(world, options):
    drive = list_drives(options)[0]
    files = sorted((world / "raw" / drive.name / "oxts" / "data").files("*.txt"))
    speed = kitti.oxts_speed(np.stack([kitti.read_oxts(file) for file in files]))
    poses = kitti.read_poses(world / "odometry" / "poses" / f"{drive.sequence}.txt")
    steps = np.linalg.norm(np.diff(poses[:, :, 3], axis=0), axis=1) / FRAME_TIME
    np.testing.assert_allclose(speed[1:-1], (steps[1:] + steps[:-1]) / 2, rtol=0.1)
