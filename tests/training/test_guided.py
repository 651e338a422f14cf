import math

import pytest
import torch
from path import Path

from files.errors import InputError
from geometry.camera import unproject
from geometry.snippets import Snippets
from training import guided


def make_snippets(batch=3, height=24, width=40):
    """Snippets in [0, 1] whose red channel is the depth of the target, divided by 100 metres, and the truth."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    depth = 10 + 30 * x + 20 * y + torch.arange(batch)[:, None, None]
    images = torch.rand(batch, 3, 3, height, width, generator=generator)
    images[:, 0, 0] = depth / 100
    intrinsics = torch.tensor([[30.0, 0, 20], [0, 30.0, 12], [0, 0, 1]]).expand(batch, 3, 3)
    motion = torch.eye(4).repeat(batch, 2, 1, 1)
    motion[:, :, :3, 3] = torch.tensor([[0.02, 0.01, 0.1], [-0.02, 0.0, -0.1]])
    return Snippets(images[:, 0], images[:, 1:], intrinsics), guided.Truth(depth[:, None], motion)


def test_true_depth_costs_nothing_and_a_common_scale_little():
    depth = make_snippets()[1].depth
    disparities = [guided.UNIT / depth] * 3
    assert guided.depth_guidance(disparities, depth).abs() < 1e-6
    scaled = guided.depth_guidance([2 * disparity for disparity in disparities], depth)
    # Each scale s counts 1 / 2^s.
    torch.testing.assert_close(scaled, torch.tensor(guided.SCALE_WEIGHT * math.log(2) * 1.75))


def test_the_sky_may_be_anywhere_beyond_80_metres():
    depth = make_snippets()[1].depth
    depth[:, :, :6] = 0
    known = guided.UNIT / depth.clamp(min=1)
    far, near = known.clone(), known.clone()
    far[:, :, :6], near[:, :, :6] = guided.UNIT / 300, guided.UNIT / 40
    assert guided.depth_guidance([far], depth) < 1e-6
    torch.testing.assert_close(
        guided.depth_guidance([near], depth), torch.tensor(guided.SKY_WEIGHT * math.log(2) * 6 / 24), rtol=1e-4, atol=0
    )


def test_depth_and_motion_stay_with_the_image_and_the_camera():
    snippets, truth = make_snippets(batch=16)
    changed, now = guided.enlarge_and_flip(snippets, truth, torch.Generator().manual_seed(1))
    assert (changed.target - snippets.target).abs().max() > 0.1
    # The red channel has depth, interpolated; depth takes the nearest pixel's.
    assert (100 * changed.target[:, :1] - now.depth).abs().max() < 1.0
    # A pixel shows the direction that it showed: heights over the camera's axis are within the old ones.
    points = unproject(now.depth, changed.intrinsics)
    heights, old = points[:, 1] / points[:, 2], (torch.arange(24) - 12) / 30
    assert old.min() - 0.02 <= heights.min() <= heights.max() <= old.max() + 0.02
    # A mirrored snippet moves to the other side.
    sideways = now.source_from_target[:, 0, 0, 3]
    assert torch.equal(sideways < 0, changed.mirrored)
    assert 0 < changed.mirrored.sum() < 16
    assert torch.equal(now.source_from_target[:, :, 1:3, 3], truth.source_from_target[:, :, 1:3, 3])


def test_a_smaller_image_shows_the_same_points():
    snippets, truth = make_snippets(batch=2, height=96, width=176)
    small, now = guided.resize(snippets, truth, 0.65)
    assert small.target.shape == (2, 3, 64, 112)
    assert small.sources.shape == (2, 2, 3, 64, 112)
    assert (100 * small.target[:, :1] - now.depth).abs().max() < 1.0
    for before, after in ((truth.depth, now.depth), (snippets.target[:, :1], small.target[:, :1])):
        assert (before.mean() - after.mean()).abs() < 0.01 * before.mean()
    # The corners of both images lie in the same directions.
    corners = [torch.tensor([[w - 0.5], [h - 0.5], [1.0]]) for h, w in ((96, 176), (64, 112))]
    directions = [k.inverse() @ corner for k, corner in zip((snippets[2], small[2]), corners, strict=True)]
    torch.testing.assert_close(*directions)
    assert guided.resize(snippets, truth, 1.0)[0] is snippets


def test_true_motion_costs_nothing_and_a_wrong_turn_what_it_moves():
    snippets, truth = make_snippets()
    assert guided.motion_guidance(truth.source_from_target, truth, snippets.intrinsics) < 1e-5
    turned = truth.source_from_target.clone()
    angle = torch.tensor(0.01)
    turn = torch.eye(4)
    turn[0, 0] = turn[2, 2] = angle.cos()
    turn[0, 2], turn[2, 0] = angle.sin(), -angle.sin()
    loss = guided.motion_guidance(turn @ turned, truth, snippets.intrinsics)
    # A turn of a hundredth moves the middle by 0.3 pixels of 40 to the side, which is half of the two coordinates.
    torch.testing.assert_close(loss, torch.tensor(guided.MOTION_WEIGHT * 0.3 / 40 / 2), rtol=0.25, atol=0)


def test_a_motion_through_a_wall_has_a_finite_loss_and_gradient():
    snippets, truth = make_snippets()
    wrong = truth.source_from_target.clone()
    wrong[:, :, 2, 3] = -100
    wrong.requires_grad_()
    loss = guided.motion_guidance(wrong, truth, snippets.intrinsics)
    loss.backward()
    assert loss.isfinite()
    assert wrong.grad.isfinite().all()


def test_motion_is_from_the_target_to_its_sources():
    world_from_camera = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1).numpy()
    world_from_camera[:, 2, 3] = [0, 1, 3]  # metres ahead
    motion = guided.true_motion(world_from_camera, 1)
    assert motion[:, 2, 3].tolist() == [0.1, -0.2]  # seen from the later frame, things are nearer


def test_colours_change_alike_in_the_frames_of_a_snippet_and_stay_in_range():
    snippets, _ = make_snippets(batch=32)
    same = snippets._replace(sources=snippets.target[:, None].expand(-1, 2, -1, -1, -1))
    changed = guided.change_colours(same, torch.Generator().manual_seed(2))
    images = torch.cat([changed.target[:, None], changed.sources], 1)
    assert -1 <= images.min() <= images.max() <= 1
    noise = (images[:, 0] - images[:, 1]).abs().mean((1, 2, 3))
    assert noise.max() < 0.06
    grey = (images[:, :, 0] - images[:, :, 2]).abs().mean((1, 2, 3)) < 0.03
    assert 1 <= grey.sum() < 24


def test_a_folder_that_is_no_world_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"world\.json: does not hold the options of a world"):
        guided.read_world(Path(tmp_path))
