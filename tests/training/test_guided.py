import math

import pytest
import torch
from path import Path

from files.errors import InputError
from geometry.camera import unproject
from geometry.snippets import Snippets
from training import guided


def make_snippets(batch=3, height=24, width=40):
    """Snippets in [0, 1] whose red channel is the depth of the target, divided by 100 metres."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    depth = 10 + 30 * x + 20 * y + torch.arange(batch)[:, None, None]
    images = torch.rand(batch, 3, 3, height, width, generator=generator)
    images[:, 0, 0] = depth / 100
    intrinsics = torch.tensor([[30.0, 0, 20], [0, 30.0, 12], [0, 0, 1]]).expand(batch, 3, 3)
    return Snippets(images[:, 0], images[:, 1:], intrinsics), depth[:, None]


def test_true_depth_costs_nothing_and_a_common_scale_little():
    _, depth = make_snippets()
    disparities = [guided.UNIT / depth] * 3
    assert guided.depth_guidance(disparities, depth).abs() < 1e-6
    scaled = guided.depth_guidance([2 * disparity for disparity in disparities], depth)
    # Each scale s counts 1 / 2^s.
    torch.testing.assert_close(scaled, torch.tensor(guided.SCALE_WEIGHT * math.log(2) * 1.75))


def test_the_sky_may_be_anywhere_beyond_80_metres():
    _, depth = make_snippets()
    depth[:, :, :6] = 0
    known = guided.UNIT / depth.clamp(min=1)
    far, near = known.clone(), known.clone()
    far[:, :, :6], near[:, :, :6] = guided.UNIT / 300, guided.UNIT / 40
    assert guided.depth_guidance([far], depth) < 1e-6
    torch.testing.assert_close(
        guided.depth_guidance([near], depth), torch.tensor(guided.SKY_WEIGHT * math.log(2) * 6 / 24), rtol=1e-4, atol=0
    )


def test_depth_stays_with_the_image_and_the_camera():
    snippets, depth = make_snippets(batch=16)
    changed, new_depth = guided.enlarge_and_flip(snippets, depth, torch.Generator().manual_seed(1))
    assert (changed.target - snippets.target).abs().max() > 0.1
    # The red channel has depth, interpolated; depth takes the nearest pixel's.
    assert (100 * changed.target[:, :1] - new_depth).abs().max() < 1.0
    # A point has the height over the camera's axis that it had: y is not mirrored, and depth is in metres.
    points = unproject(new_depth, changed.intrinsics)
    y = points[:, 1] / points[:, 2]
    old = (torch.arange(24) - 12)[None, :, None] / 30
    assert y.min() >= old.min() - 0.02
    assert y.max() <= old.max() + 0.02


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


def test_a_world_without_drives_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no drive of 3 frames, expected a world"):
        guided.read_world(Path(tmp_path))
