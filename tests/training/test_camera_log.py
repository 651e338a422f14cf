import math

import pytest
import torch
from torch import nn

from geometry.pose import pose_to_matrix
from models.learned_camera import LearnedCamera
from models.sfm_learner import GivenCamera, Prediction
from training.camera_log import TURN, camera_values, describe_cameras, turns

STARTS = torch.tensor([[[52.0, 0, 47.5], [0, 48, 30], [0, 0, 1]], [[104.0, 0, 47.5], [0, 48, 30], [0, 0, 1]]])


def prediction(*angles: tuple[float, float, float]) -> Prediction:
    poses = torch.zeros(1, len(angles), 6)
    poses[0, :, 3:] = torch.tensor(angles)
    return Prediction([], pose_to_matrix(poses), None, 2 * STARTS[:1])


def test_a_roll_is_no_turn():
    """Example: yaw and pitch by 0.1 turn the optical axis by 0.1; roll does not, whatever comes with it."""
    rotations = prediction((0, 0.1, 0), (0.1, 0, 0), (0, 0, 0.7), (0, 0.1, 0.7)).source_from_target[0]
    assert turns(rotations).tolist() == pytest.approx([0.1, 0.1, 0, 0.1], abs=1e-6)


def test_each_camera_is_logged_over_the_size_of_the_images():
    camera = LearnedCamera(2)
    camera.start_from(STARTS)
    values = camera_values(camera, prediction((0, 0.03, 0), (0, 0.04, 0)), 64, 96)
    assert values.pop(TURN) == pytest.approx(math.degrees(math.sqrt(0.00125)), rel=1e-5)
    assert values == pytest.approx(
        {
            **{"camera/0/fx_over_width": 52 / 96, "camera/0/fy_over_height": 0.75},
            **{"camera/0/cx_over_width": 47.5 / 96, "camera/0/cy_over_height": 30 / 64},
            **{"camera/1/fx_over_width": 104 / 96, "camera/1/fy_over_height": 0.75},
            **{"camera/1/cx_over_width": 47.5 / 96, "camera/1/cy_over_height": 30 / 64},
        }
    )
    assert camera_values(GivenCamera(), prediction((0, 1, 0)), 64, 96) == {}


def test_any_other_camera_is_logged_by_its_prediction():
    values = camera_values(nn.Linear(1, 1), prediction((0, 0.1, 0)), 64, 96)
    assert values["camera/focal_x_over_width"] == pytest.approx(104 / 96)
    assert values["camera/focal_y_over_width"] == pytest.approx(1)


def test_a_camera_in_words():
    camera = LearnedCamera()
    camera.start_from(STARTS[:1])
    with torch.no_grad():
        camera.log_focal[0, 0] = math.log(0.75)
    assert describe_cameras(camera) == [
        "learned camera 0: fx 39.00, fy 36.00, cx 47.50, cy 30.00 pixels (fx -25.0 %, fy -25.0 % since the start)"
    ]
