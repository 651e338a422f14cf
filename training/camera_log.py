"""What is logged of a learned camera: its numbers, and whether the drives turn enough to tell its focal length."""

import torch
from torch import Tensor, nn

from models.learned_camera import LearnedCamera
from models.sfm_learner import GivenCamera, Prediction

TURN = "camera/turn_degrees"


@torch.no_grad()
def camera_values(camera: nn.Module, prediction: Prediction, height: int, width: int) -> dict[str, float]:
    """The logged values of a camera with parameters; none for a given camera.

    A `LearnedCamera` has fx and cx over the width and fy and cy over the height of the training images, for each
    recording camera. Another camera has the mean focal lengths of the batch, whose images may be augmented.

    Args:
        prediction: of a batch of augmented snippets.
        height, width: of the training images in pixels.
    """
    if isinstance(camera, GivenCamera):
        return {}
    values = {TURN: float(torch.rad2deg(turns(prediction.source_from_target).square().mean().sqrt()))}
    sizes = torch.tensor([width, height, width, height], dtype=torch.float64)
    if isinstance(camera, LearnedCamera):
        k = camera.matrices().double().cpu()
        numbers = torch.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], 1) / sizes
        names = ("fx_over_width", "fy_over_height", "cx_over_width", "cy_over_height")
        for number, row in enumerate(numbers.tolist()):
            values |= {f"camera/{number}/{name}": value for name, value in zip(names, row, strict=True)}
    else:
        k = prediction.intrinsics.double().mean(0).cpu()
        values["camera/focal_x_over_width"] = float(k[0, 0]) / width
        values["camera/focal_y_over_width"] = float(k[1, 1]) / width
    return values


def turns(source_from_target: Tensor) -> Tensor:
    """The angle between the optical axes of target and source, radians [...], of transforms [..., 4, 4].

    A rotation about the optical axis shows no focal length and does not count.
    """
    axis = source_from_target[..., :3, 2]
    return torch.atan2(axis[..., :2].norm(dim=-1), axis[..., 2])


def describe_cameras(camera: LearnedCamera) -> list[str]:
    """A line for each camera: K, and how far its focal lengths are from where they started."""
    lines = []
    for number, (k, start) in enumerate(zip(camera.matrices().tolist(), camera.start.tolist(), strict=True)):
        (fx, _, cx), (_, fy, cy), _ = k
        change = ", ".join(
            f"{name} {100 * (new / old - 1):+.1f} %"
            for name, new, old in (("fx", fx, start[0][0]), ("fy", fy, start[1][1]))
        )
        lines.append(
            f"learned camera {number}: fx {fx:.2f}, fy {fy:.2f}, cx {cx:.2f}, cy {cy:.2f} pixels "
            f"({change} since the start)"
        )
    return lines
