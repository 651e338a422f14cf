"""Pictures, and a network whose answers are known."""

import numpy as np
import pytest
import torch


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
