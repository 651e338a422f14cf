"""The sensors on the car: frame rate, cameras, LiDAR and OXTS unit, and the calibration between them.

Frames are KITTI's: LiDAR and IMU have x forward, y left, z up; cameras have x right, y down, z forward. The colour
cameras 02 and 03 and the grey cameras 00 and 01 coincide in pairs: 00 = 02 on the left, 01 = 03 on the right.
"""

import numpy as np

from geometry.rigid import axis_rotation, transform_from

FRAME_TIME = 0.1  # seconds from one frame to the next
CAMERA_HEIGHT = 1.65  # metres above the ground
CAMERA_AHEAD = 1.2  # metres from the rear axle forward to the camera
BASELINE = 0.54  # metres from the left camera (image_02) to the right one (image_03)

LIDAR_RANGE = 100.0  # metres
LIDAR_ELEVATIONS = np.radians(np.linspace(2.0, -24.8, 64))  # the 64 beams of the Velodyne HDL-64E, radians
LIDAR_AZIMUTHS = np.radians(np.arange(-180, 180, 0.25))  # radians, ascending over a whole turn


def _rotation(x: float, y: float, z: float) -> np.ndarray:
    """Rz Ry Rx of three angles in degrees: [3, 3]."""
    about_x, about_y, about_z = (axis_rotation(axis, np.radians(angle)) for axis, angle in enumerate((x, y, z)))
    return about_z @ about_y @ about_x


# (rotation [3, 3], translation [3] in metres). As on KITTI's car the sensors are mounted slightly askew, so that code
# that forgets one of these rotations gives visibly wrong results.
RECTIFICATION = _rotation(0.25, -0.4, 0.55)  # R_rect_00: rectified from unrectified camera 00
_CAMERA_AXES_FROM_VELODYNE = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
UNRECTIFIED_FROM_VELODYNE = (
    _rotation(-0.35, 0.45, -0.6) @ _CAMERA_AXES_FROM_VELODYNE,
    np.array([-0.004, -0.076, -0.27]),
)
VELODYNE_FROM_IMU = _rotation(0.85, 0.12, -0.05), np.array([-0.81, 0.32, -0.8])


def camera_from_velodyne() -> np.ndarray:
    """[4, 4] from the LiDAR to the left rectified camera (00 and 02), as the calibration files state it."""
    return transform_from(RECTIFICATION, np.zeros(3)) @ transform_from(*UNRECTIFIED_FROM_VELODYNE)


def camera_from_imu() -> np.ndarray:
    """[4, 4] from the OXTS unit to the left rectified camera (00 and 02)."""
    return camera_from_velodyne() @ transform_from(*VELODYNE_FROM_IMU)


def projection(intrinsics: np.ndarray, offset: float) -> np.ndarray:
    """P = K [I | (-offset, 0, 0)], [3, 4], of a rectified camera `offset` metres to the right of camera 00."""
    return intrinsics @ np.array([[1, 0, 0, -offset], [0, 1, 0, 0], [0, 0, 1, 0]])
