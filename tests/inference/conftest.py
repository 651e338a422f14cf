"""Pictures, a network whose answers are known, and a rendered drive with its truth."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from path import Path

from datasets.synthetic import WorldOptions, list_drives, make_drive_renderer
from files.disk_array import DiskArray
from inference.clip import PredictedClip


class BrightnessNet(torch.nn.Module):
    """A depth network that takes the first channel for the disparity: (x + 1) / 2 + 0.5, from 0.5 to 1.5."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, image):
        return [(image[:, :1] + 1) / 2 + 0.5]


@pytest.fixture
def brightness_net():
    return BrightnessNet()


@pytest.fixture
def noise():
    """`noise(count, height, width)`: pictures uint8 [count, height, width, 3] that all differ."""

    def make(count, height=32, width=48):
        return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)

    return make


@dataclass(frozen=True)
class RenderedDrive:
    """Frames of the synthetic world with all that is true of them."""

    images: np.ndarray  # uint8 [F, H, W, 3]
    depth: np.ndarray  # float32 [F, H, W], metres; 0 = the sky
    world_from_camera: np.ndarray  # [F, 3, 4]
    intrinsics: np.ndarray  # K [3, 3]

    def predicted(self, folder, disparity: np.ndarray, mirror_difference: np.ndarray | None = None) -> PredictedClip:
        """A clip for which a network predicted these disparities [F, H, W]."""
        shape = self.depth.shape[1:]
        arrays = {}
        differences = np.zeros_like(disparity) if mirror_difference is None else mirror_difference
        grey = self.images.mean(-1).round()
        for name, values, kind in (
            ("d", disparity, np.float32), ("m", differences, np.float32), ("g", grey, np.uint8)
        ):  # fmt: skip
            arrays[name] = DiskArray(Path(folder), shape, kind)
            for one in values:
                arrays[name].append(one)
        names = [f"{number:07d}" for number in range(len(disparity))]
        times = [number / 10 for number in range(len(disparity))]
        return PredictedClip(
            names, times, arrays["d"], arrays["m"], None, np.zeros(1), 1.0, grey=arrays["g"], views=arrays["g"]
        )


@pytest.fixture(scope="session")
def rendered_drive():
    """Ten frames of a drive, 208 x 64."""
    options = WorldOptions(drives=2, frames=10, width=208, height=64, halts=False)
    drive = list_drives(options)[1]
    renderer = make_drive_renderer(options, drive)
    images, depth = (
        np.stack([render(number, drive.intrinsics, 64, 208) for number in range(10)])
        for render in (renderer.image, renderer.depth)
    )
    poses = np.asarray(renderer.scene.world_from_camera)[:10, :3]
    return RenderedDrive(images, depth, poses, drive.intrinsics)
