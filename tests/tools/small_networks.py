"""Networks with the interface of DispNet and PoseExpNet but few weights, and train.py with them.

torchrun --nproc-per-node 2 tests/tools/small_networks.py DATA --steps 20       # as train.py
"""

import os
import sys

import torch
from path import Path
from torch import nn
from torch.nn import functional

sys.path.insert(0, Path(__file__).absolute().parent.parent.parent)

import train
from options import run_script


class SmallDispNet(nn.Module):
    """DispNet's interface without its 33 million weights: what the loop does with it is the same."""

    def __init__(self, first_disparity=5.01, width=1.0):
        super().__init__()
        self.width = width
        self.predict = nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, image):
        return [10 * self.predict(functional.avg_pool2d(image, 2**s)).sigmoid() + 0.01 for s in range(4)]


class SmallPoseExpNet(nn.Module):
    def __init__(self, sources, explainability, translation_scale=0.01, rotation_scale=0.01, width=1.0):
        super().__init__()
        self.sources, self.explainability = sources, explainability
        self.width, self.translation_scale, self.rotation_scale = width, translation_scale, rotation_scale
        self.predict = nn.Conv2d(3 + 3 * sources, 7 * sources, 3, padding=1)

    def forward(self, target, sources):
        output = self.predict(torch.cat([target, sources.flatten(1, 2)], 1))
        poses = 0.01 * output[:, : 6 * self.sources].mean((2, 3)).view(-1, self.sources, 6)
        logits = [functional.avg_pool2d(output[:, 6 * self.sources :], 2**s) for s in range(4)]
        return poses, logits if self.explainability else None


if __name__ == "__main__":
    train.DispNet, train.PoseExpNet = SmallDispNet, SmallPoseExpNet
    if folder := os.environ.get("PROCESS_NUMBERS"):  # who is who, for a test that kills one
        (Path(folder) / os.environ["RANK"]).write_text(str(os.getpid()))
    run_script(train.main)
