import dataclasses

import numpy as np
import pytest
import torch

from geometry.camera import pixel_grid, project, scale_intrinsics, unproject
from geometry.pose import pose_to_matrix
from loss_functions import _reduce as reduce_to
from loss_functions import explainability_loss, objective, photometric_loss, smoothness_loss, split_snippet
from training.recipes import RECIPES, SMOOTHED, get_recipe

K = torch.tensor([[[20.0, 0, 15.5], [0, 20, 7.5], [0, 0, 1]]]).double()


@pytest.fixture(scope="module")
def reference(shared):
    data = {key: torch.from_numpy(np.asarray(value)) for key, value in np.load(shared / "reference/losses.npz").items()}
    data["frames"] = torch.stack([data["source_0"], data["target"], data["source_1"]], 1)
    for name in ("disparity", "explainability_logits", "grad_disparity"):
        data[name] = [data[f"{name}_{scale}"] for scale in range(4)]
    return data


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got - expected).abs().max() / expected.abs().max()).item()


def test_masked_photometric_loss_and_its_gradients_agree_with_the_reference(reference):
    disparities = [disparity.clone().requires_grad_() for disparity in reference["disparity"]]
    pose = reference["pose"].clone().requires_grad_()
    loss, _ = photometric_loss(
        reference["frames"],
        [1 / disparity for disparity in disparities],
        pose_to_matrix(pose),
        reference["explainability_logits"],
        reference["intrinsics"],
    )
    loss.backward()
    assert relative(loss, reference["photometric_masked"]) < 1e-8
    assert relative(pose.grad, reference["grad_pose"]) < 1e-8
    for disparity, gradient in zip(disparities, reference["grad_disparity"], strict=True):
        assert relative(disparity.grad, gradient) < 1e-8


def test_photometric_loss_agrees_with_the_reference_at_every_scale(reference):
    pose = pose_to_matrix(reference["pose"])
    depths = [1 / disparity for disparity in reference["disparity"]]
    loss, warps = photometric_loss(reference["frames"], depths, pose, None, reference["intrinsics"])
    assert relative(loss, reference["photometric_unmasked"]) < 1e-8
    per_scale = [photometric_loss(reference["frames"], [d], pose, None, reference["intrinsics"])[0] for d in depths]
    assert relative(torch.stack(per_scale), reference["photometric_unmasked_per_scale"]) < 1e-8
    assert [warp.valid.shape[2:] for warp in warps] == [depth.shape[2:] for depth in depths]


def test_regularisers_agree_with_the_reference(reference):
    depths = [1 / disparity for disparity in reference["disparity"]]
    for got, key in (
        (explainability_loss(reference["explainability_logits"]), "explainability"),
        (smoothness_loss(reference["disparity"], 2), "smoothness_disparity_2"),
        (smoothness_loss(depths, 2.3), "smoothness_depth_2.3"),
    ):
        assert relative(got, reference[key]) < 1e-8


def snippet(length=3, height=16, width=32):
    """Random frames and networks' outputs in float64: arguments of `objective` but for the recipe."""
    frames = torch.rand(1, length, 3, height, width).double() * 2 - 1
    sizes = [(-(-height // 2**scale), -(-width // 2**scale)) for scale in range(4)]
    disparities = [torch.rand(1, 1, *size).double() + 0.1 for size in sizes]
    logits = [torch.randn(1, length - 1, *size).double() for size in sizes]
    pose = 0.01 * torch.randn(1, length - 1, 6).double()
    return frames, disparities, pose_to_matrix(pose), logits, K


def test_photometric_error_counts_sources_scales_and_masks():
    """Sources that are 0.25 brighter than the target, cameras that stand: 2 sources x 4 scales x 0.25."""
    frames, disparities, _, logits, intrinsics = snippet()
    frames = frames[:, :1] + 0.25 * torch.tensor([1.0, 0, 1]).double().view(1, 3, 1, 1, 1)
    depths, still = [1 / d for d in disparities], torch.eye(4).double().expand(1, 2, 4, 4)
    loss, warps = photometric_loss(frames, depths, still, None, intrinsics)
    assert all(warp.valid.all() for warp in warps)
    assert loss.item() == pytest.approx(2 * 4 * 0.25)
    half, _ = photometric_loss(frames, depths, still, [0 * x for x in logits], intrinsics)  # sigmoid(0) = 1 / 2
    assert half.item() == pytest.approx(4 * 0.25)
    away = still.clone()
    away[:, 1, 0, 3] = 1e4  # the second source sees nothing of it: its error is 0, the mean is over all pixels
    loss, warps = photometric_loss(frames, depths, away, None, intrinsics)
    assert not warps[0].valid[:, 1].any()
    assert loss.item() == pytest.approx(4 * 0.25)


def test_smoothness_by_hand():
    # f = x^2 + 3 x y on 3 x 3: |f_xx| = 2, |f_yy| = 0, |f_xy| = |f_yx| = 3, everywhere.
    y, x = torch.meshgrid(torch.arange(3.0), torch.arange(3.0), indexing="ij")
    values = (x * x + 3 * x * y)[None, None]
    assert smoothness_loss([values], 2).item() == pytest.approx(2 + 3 + 3)
    assert smoothness_loss([values] * 3, 2).item() == pytest.approx(8 * (1 + 1 / 2 + 1 / 4))
    assert smoothness_loss([5 * x[None, None] - 2 * y], 2).item() == 0  # a plane is smooth
    assert smoothness_loss([values, values[..., :2, :]], 2).item() == 8  # two rows have no second derivative


def test_explainability_by_hand():
    logits = torch.tensor([0.0, 0, np.log(3), np.log(3)]).view(1, 1, 2, 2)
    assert explainability_loss([logits]).item() == pytest.approx((np.log(2) + np.log(4 / 3)) / 2)
    assert explainability_loss([0 * logits, 0 * logits]).item() == pytest.approx(2 * np.log(2))
    assert explainability_loss([torch.full((1, 1, 2, 2), -1e4)]).item() == 1e4  # no overflow


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(
    "changes",
    [{}, {"explainability": False}, {"smoothness_weight": 0.0}, {"photometric_weight": 0.3}, {"smoothness_decay": 2.3}]
    + [{"smoothed": smoothed} for smoothed in SMOOTHED],
)
def test_terms_sum_to_the_loss(name, changes):
    recipe = get_recipe(name, **changes)
    frames, disparities, transforms, logits, intrinsics = snippet(recipe.sequence_length)
    result = objective(frames, disparities, transforms, logits if recipe.explainability else None, intrinsics, recipe)
    assert result.terms.keys() == result.weights.keys()
    assert ("explainability" in result.terms) == recipe.explainability
    assert ("smoothness" in result.terms) == (recipe.smoothness_weight > 0)
    for term, weight in result.weights.items():
        assert weight == getattr(recipe, f"{term}_weight")
    total = sum(result.weights[term] * value for term, value in result.terms.items())
    torch.testing.assert_close(result.loss, total)


def test_what_is_smoothed():
    frames, disparities, transforms, _, intrinsics = snippet()
    smoothness = {}
    for smoothed in SMOOTHED:
        recipe = get_recipe("paper-depth", smoothed=smoothed, explainability=False)
        for factor in (1, 3):
            scaled = [factor * disparity for disparity in disparities]
            result = objective(frames, scaled, transforms, None, intrinsics, recipe)
            smoothness[smoothed, factor] = result.terms["smoothness"].item()
    assert smoothness["disparity", 3] == pytest.approx(3 * smoothness["disparity", 1])
    assert smoothness["depth", 3] == pytest.approx(smoothness["depth", 1] / 3)
    assert smoothness["normalised-disparity", 3] == pytest.approx(smoothness["normalised-disparity", 1])


def test_depth_and_translation_share_their_unit():
    frames, disparities, transforms, logits, intrinsics = snippet()
    larger = transforms.clone()
    larger[..., :3, 3] *= 7
    depths = [1 / d for d in disparities]
    before, _ = photometric_loss(frames, depths, transforms, logits, intrinsics)
    after, _ = photometric_loss(frames, [7 * d for d in depths], larger, logits, intrinsics)
    torch.testing.assert_close(after, before, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("size", "tolerance"), [((16, 32), 1e-9), ((37, 51), 0.07), ((33, 65), 0.07)])
def test_every_scale_sees_the_same_rays(size, tolerance):
    """A ramp averaged over a coarse pixel's area is its value at the pixel's centre, where the scaled K has it.

    Exactly where the area is made of whole pixels; with parts of pixels up to a fifteenth of a pixel beside it.
    """
    height, width = size
    ramp = pixel_grid(height, width, K)[:2].view(1, 2, height, width)
    for scale in range(1, 4):
        h, w = -(-height // 2**scale), -(-width // 2**scale)
        rays = unproject(torch.ones(1, 1, h, w).double(), scale_intrinsics(K, w / width, h / height))
        torch.testing.assert_close(reduce_to(ramp, h, w), project(rays, K), rtol=0, atol=tolerance)


@pytest.mark.parametrize("length", [3, 5])
def test_the_target_is_the_middle_frame(length):
    frames = torch.arange(length).view(1, length, 1, 1, 1).expand(2, -1, 3, 4, 5)
    target, sources = split_snippet(frames)
    assert target.unique().tolist() == [length // 2]
    assert sources[0, :, 0, 0, 0].tolist() == [k for k in range(length) if k != length // 2]


@pytest.mark.parametrize("size", [(32, 32), (37, 51)])
def test_no_nan_in_training_at_any_size(size):
    frames, disparities, transforms, logits, intrinsics = snippet(3, *size)
    inputs = [tensor.requires_grad_() for tensor in (*disparities, transforms, *logits)]
    result = objective(frames, disparities, transforms, logits, intrinsics, RECIPES["paper-depth"])
    for gradient in torch.autograd.grad(result.loss, inputs):
        assert gradient.isfinite().all()
        assert gradient.any()


def test_the_result_can_be_read_but_not_changed():
    result = objective(*snippet(), RECIPES["paper-depth"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.loss = 0
