"""The motion found by direct alignment."""

import pytest
import torch
from torch.nn import functional

from geometry.pose import pose_to_matrix
from inverse_warp import inverse_warp
from models.direct_alignment import align, displacement, solve

K = torch.tensor([[60.0, 0, 47.5], [0, 55, 30.5], [0, 0, 1]]).double()[None]
MOTION = torch.tensor([[0.1, -0.05, 0.3, 0.01, 0.02, -0.01], [0.05, 0.1, -0.2, -0.01, -0.015, 0.02]]).double()[None]


def smooth(channels: int, height: int = 62, width: int = 96, cells: int = 8) -> torch.Tensor:
    """Random values that change over about `cells` pixels: [1, channels, height, width] in [-1, 1]."""
    coarse = torch.rand(1, channels, height // cells + 3, width // cells + 3).double() * 2 - 1
    return functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True).clamp(-1, 1)


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A target, two sources that see it, its depth between 4 and 12, and the true motion.

    The target is what the first source looks like from there. So each source has a scene of its own: a batch of 2.
    """
    sources = torch.cat([smooth(3), smooth(3)])[:, None]
    depth = 8 + 4 * torch.cat([smooth(1, cells=16), smooth(1, cells=16)])
    motion = pose_to_matrix(MOTION[0])[:, None]
    target, _ = inverse_warp(sources, depth, motion, K.expand(2, 3, 3))
    return target[:, 0], sources, depth, motion


def test_it_finds_the_motion_that_made_the_target():
    target, sources, depth, motion = scene()
    start = torch.eye(4).double().expand(2, 1, 4, 4)
    found = align(target, sources, depth, start, K.expand(2, 3, 3), steps=10)
    off = displacement(depth, start, motion, K).mean((1, 2, 3))
    left = displacement(depth, found, motion, K).mean((1, 2, 3))
    assert (off > 1).all()  # pixels
    assert (left < 0.05).all()
    again = align(target, sources, depth, found, K.expand(2, 3, 3), steps=10)
    assert (displacement(depth, again, motion, K).mean((1, 2, 3)) <= left + 0.01).all()


def test_from_the_true_motion_it_goes_nowhere():
    target, sources, depth, motion = scene()
    found = align(target, sources, depth, motion, K.expand(2, 3, 3), steps=3)
    assert displacement(depth, found, motion, K).mean() < 0.02


def test_depth_and_translation_share_their_unit():
    target, sources, depth, _ = scene()
    start = torch.eye(4).double().expand(2, 1, 4, 4)
    near, far = (align(target, sources, unit * depth, start, K.expand(2, 3, 3), steps=4) for unit in (1, 50))
    near[..., :3, 3] *= 50
    torch.testing.assert_close(far, near)


def test_every_source_of_a_snippet_is_aligned_on_its_own():
    target, sources, depth, _ = scene()
    both = torch.cat([sources[:1], sources[:1].flip(-1)], 1)
    start = torch.eye(4).double().expand(1, 2, 4, 4)
    together = align(target[:1], both, depth[:1], start, K, steps=3)
    alone = [align(target[:1], both[:, [n]], depth[:1], start[:, [n]], K, steps=3) for n in range(2)]
    torch.testing.assert_close(together, torch.cat(alone, 1))


def test_it_gives_the_motion_back_where_nothing_is_better():
    target, sources, depth, motion = scene()
    flat = align(0 * target, 0 * sources, depth, motion, K.expand(2, 3, 3), steps=3)  # no texture
    torch.testing.assert_close(flat, motion)
    away = motion.clone()
    away[..., 2, 3] = -1e3  # every point is behind the source
    torch.testing.assert_close(align(target, sources, depth, away, K.expand(2, 3, 3), steps=3), away)
    noise = torch.rand_like(target)
    found = align(noise, sources, depth, motion, K.expand(2, 3, 3), steps=3)
    assert found.isfinite().all()


@pytest.mark.parametrize("size", [(2, 3), (7, 5)])
def test_any_size_of_image_gives_a_finite_motion(size):
    start = pose_to_matrix(MOTION)
    images = torch.rand(1, 3, 3, *size).double()
    found = align(images[:, 0], images[:, 1:], torch.rand(1, 1, *size).double() + 0.1, start, K, steps=3)
    assert found.isfinite().all()


def test_the_solver_solves():
    factor = torch.randn(5, 2, 6, 9).double()
    hessian, right = factor @ factor.mT, torch.randn(5, 2, 6, 1).double()
    damped = hessian + torch.diag_embed(1e-3 * hessian.diagonal(dim1=-2, dim2=-1) + 1e-6)
    torch.testing.assert_close(solve(hessian, right), torch.linalg.solve(damped, right)[..., 0])


def test_displacement_by_hand():
    still = torch.eye(4).double().expand(1, 1, 4, 4)
    right = still.clone()
    right[..., 0, 3] = 0.5
    depth = torch.full((1, 1, 4, 5), 10.0).double()
    found = displacement(depth, still, right, K)
    assert found.shape == (1, 1, 2, 20)
    torch.testing.assert_close(found[:, :, 0], torch.full((1, 1, 20), 60 * 0.5 / 10).double())
    assert found[:, :, 1].abs().max() < 1e-12
    motion = pose_to_matrix(MOTION).requires_grad_()
    displacement(depth, motion, still.expand(1, 2, 4, 4), K).mean().backward()
    assert motion.grad is not None
    assert (motion.grad[..., :3, :].abs() > 0).any()
