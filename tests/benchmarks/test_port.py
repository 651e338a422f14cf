import sys

import pytest
import torch
from path import Path

import inverse_warp
import loss_functions
import models
from benchmarks import port as benchmark
from files.errors import InputError

# Stand-ins with the functions and arguments of the port's modules.
NETWORKS = """
from torch import nn


class DispNetS(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 3, padding=1)

    def init_weights(self):
        nn.init.zeros_(self.layer.bias)

    def forward(self, image):
        return [self.layer(image).sigmoid() + 0.1]


class PoseExpNet(nn.Module):
    def __init__(self, nb_ref_imgs, output_exp):
        super().__init__()
        self.layer = nn.Conv2d(3, 7 * nb_ref_imgs, 3, padding=1)
        self.sources = nb_ref_imgs

    def init_weights(self):
        nn.init.zeros_(self.layer.bias)

    def forward(self, target, sources):
        output = self.layer(target + sum(sources)).unflatten(1, (self.sources, 7))
        return [output[:, :, 0].sigmoid()], output[:, :, 1:].mean((3, 4))
"""
LOSSES = """
from inverse_warp import inverse_warp


def photometric_reconstruction_loss(target, sources, intrinsics, depth, masks, poses):
    warped = [inverse_warp(source, depth[0][:, 0], poses[:, n], intrinsics)[0] for n, source in enumerate(sources)]
    differences = [((target - image) * masks[0][:, n : n + 1]).abs().mean() for n, image in enumerate(warped)]
    return sum(differences), warped, None


def explainability_loss(masks):
    return -masks[0].log().mean()


def smooth_loss(depth):
    return depth[0].diff(dim=3).abs().mean()
"""
WARP = """
def inverse_warp(image, depth, pose, intrinsics):
    return image * depth[:, None] * pose.sum() * intrinsics.sum(), depth > 0
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/__init__.py").write_text("from .DispNetS import DispNetS, PoseExpNet\n")
    (tmp_path / "models/DispNetS.py").write_text(NETWORKS)
    (tmp_path / "models/PoseExpNet.py").write_text("")
    (tmp_path / "loss_functions.py").write_text(LOSSES)
    (tmp_path / "inverse_warp.py").write_text(WARP)
    return Path(tmp_path)


def test_modules_of_the_same_names_stay_apart(folder):
    before = dict(sys.modules)
    port = benchmark.load_port(folder)
    assert port.loss_functions.inverse_warp is port.inverse_warp.inverse_warp
    assert port.models.DispNetS is not models.DispNet
    for module in (inverse_warp, loss_functions, models):
        assert sys.modules[module.__name__] is module
    assert {name: module for name, module in sys.modules.items() if name in before} == before
    assert folder not in sys.path


def test_a_step_is_forward_loss_backward_and_update(folder, monkeypatch):
    port = benchmark.load_port(folder)
    made = []
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda *args: made.append(adam(*args)) or made[0])
    step = benchmark.port_step(port, 2, 5, 8, 12, torch.device("cpu"))
    weights = made[0].param_groups[0]["params"]
    before = [weight.detach().clone() for weight in weights]
    step()
    assert len(weights) == 4  # of both networks
    for weight, old in zip(weights, before, strict=True):
        assert torch.isfinite(weight).all()
        assert not torch.equal(weight, old)
    torch.testing.assert_close((weights[0] - before[0]).abs().amax(), torch.tensor(2e-4), rtol=1e-2, atol=0)


def test_its_warp_takes_the_arguments_of_ours(folder):
    image, depth, pose = torch.rand(2, 3, 8, 12), torch.rand(2, 1, 8, 12) + 1, torch.rand(2, 6)
    warped, valid = benchmark.port_warp(benchmark.load_port(folder))(image, depth, pose, torch.eye(3).repeat(2, 1, 1))
    assert warped.shape == image.shape
    assert valid.shape == (2, 8, 12)


def test_a_folder_that_is_no_checkout_is_named(folder):
    (folder / "loss_functions.py").remove()
    with pytest.raises(InputError, match=r"has no loss_functions.py, expected a checkout of the PyTorch port"):
        benchmark.load_port(folder)


def test_a_missing_package_is_named_and_nothing_is_left_behind(folder):
    (folder / "loss_functions.py").write_text("import no_such_package\n")
    with pytest.raises(InputError, match=r"No module named 'no_such_package', which the port needs"):
        benchmark.load_port(folder)
    assert sys.modules["inverse_warp"] is inverse_warp
    assert folder not in sys.path
