import dataclasses

import numpy as np
import pytest
import torch

from files.errors import UsageError
from geometry.camera import pixel_grid, project, scale_intrinsics, unproject
from geometry.pose import pose_to_matrix
from geometry.snippets import Snippets
from loss_functions import (
    SMOOTHED,
    ObjectiveOptions,
    explainability_loss,
    objective,
    photometric_loss,
    smoothness_loss,
)
from loss_functions import _reduce as reduce_to
from models.sfm_learner import Prediction

K = torch.tensor([[[20.0, 0, 15.5], [0, 20, 7.5], [0, 0, 1]]]).double()


@pytest.fixture(scope="module")
def reference(shared):
    data = {key: torch.from_numpy(np.asarray(value)) for key, value in np.load(shared / "reference/losses.npz").items()}
    sources = torch.stack([data["source_0"], data["source_1"]], 1)
    data["snippets"] = Snippets(data["target"], sources, data["intrinsics"])
    for name in ("disparity", "explainability_logits", "grad_disparity"):
        data[name] = [data[f"{name}_{scale}"] for scale in range(4)]
    return data


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got - expected).abs().max() / expected.abs().max()).item()


def test_masked_photometric_loss_and_its_gradients_agree_with_the_reference(reference):
    disparities = [disparity.clone().requires_grad_() for disparity in reference["disparity"]]
    pose = reference["pose"].clone().requires_grad_()
    prediction = Prediction(
        disparities, pose_to_matrix(pose), reference["explainability_logits"], reference["intrinsics"]
    )
    loss, _ = photometric_loss(reference["snippets"], [1 / disparity for disparity in disparities], prediction)
    loss.backward()
    assert relative(loss, reference["photometric_masked"]) < 1e-8
    assert relative(pose.grad, reference["grad_pose"]) < 1e-8
    for disparity, gradient in zip(disparities, reference["grad_disparity"], strict=True):
        assert relative(disparity.grad, gradient) < 1e-8


def test_photometric_loss_agrees_with_the_reference_at_every_scale(reference):
    transforms, snippets = pose_to_matrix(reference["pose"]), reference["snippets"]
    prediction = Prediction(reference["disparity"], transforms, None, reference["intrinsics"])
    depths = [1 / disparity for disparity in reference["disparity"]]
    loss, warps = photometric_loss(snippets, depths, prediction)
    assert relative(loss, reference["photometric_unmasked"]) < 1e-8
    per_scale = [photometric_loss(snippets, [depth], prediction)[0] for depth in depths]
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


def example(length=3, height=16, width=32, batch=1) -> tuple[Snippets, Prediction]:
    """Random frames and a random prediction in float64."""
    sources = length - 1
    frames = torch.rand(batch, length, 3, height, width).double() * 2 - 1
    sizes = [(-(-height // 2**scale), -(-width // 2**scale)) for scale in range(4)]
    disparities = [torch.rand(batch, 1, *size).double() + 0.1 for size in sizes]
    logits = [torch.randn(batch, sources, *size).double() for size in sizes]
    transforms = pose_to_matrix(0.01 * torch.randn(batch, sources, 6).double())
    intrinsics = K.repeat(batch, 1, 1)
    return Snippets(frames[:, 0], frames[:, 1:], intrinsics), Prediction(disparities, transforms, logits, intrinsics)


def depths_of(prediction: Prediction) -> list[torch.Tensor]:
    return [1 / disparity for disparity in prediction.disparities]


def test_photometric_error_counts_sources_scales_and_masks():
    """Sources that are 0.25 brighter than the target, cameras that stand: 2 sources x 4 scales x 0.25."""
    snippets, prediction = example()
    snippets = snippets._replace(sources=(snippets.target + 0.25)[:, None].repeat(1, 2, 1, 1, 1))
    logits, still = prediction.mask_logits, torch.eye(4).double().expand(1, 2, 4, 4)
    prediction = prediction._replace(source_from_target=still, mask_logits=None)
    loss, warps = photometric_loss(snippets, depths_of(prediction), prediction)
    assert all(warp.valid.all() for warp in warps)
    assert loss.item() == pytest.approx(2 * 4 * 0.25)
    half = prediction._replace(mask_logits=[0 * x for x in logits])  # sigmoid(0) = 1 / 2
    assert photometric_loss(snippets, depths_of(half), half)[0].item() == pytest.approx(4 * 0.25)
    away = still.clone()
    away[:, 1, 0, 3] = 1e4  # the second source sees nothing of it: its error is 0, the mean is over all pixels
    away = prediction._replace(source_from_target=away)
    loss, warps = photometric_loss(snippets, depths_of(away), away)
    assert not warps[0].valid[:, 1].any()
    assert loss.item() == pytest.approx(4 * 0.25)


def test_the_camera_of_the_warp_is_the_prediction_s():
    """A learned camera may differ from the snippets' K."""
    snippets, prediction = example()
    other = prediction._replace(intrinsics=K * torch.tensor([2.0, 2, 1]).view(3, 1))
    before, after = (photometric_loss(snippets, depths_of(one), one)[0] for one in (prediction, other))
    assert abs(after - before) > 1e-3
    assert photometric_loss(snippets._replace(intrinsics=0 * K), depths_of(other), other)[0] == after


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


@pytest.mark.parametrize("length", [3, 5])
@pytest.mark.parametrize(
    "changes",
    [{}, {"explainability": False}, {"smoothness_weight": 0.0}, {"photometric_weight": 0.3}, {"smoothness_decay": 2.3}]
    + [{"smoothed": smoothed} for smoothed in SMOOTHED],
)
def test_terms_sum_to_the_loss(length, changes):
    options = ObjectiveOptions(**changes)
    snippets, prediction = example(length)
    if not options.explainability:
        prediction = prediction._replace(mask_logits=None)
    loss = objective(snippets, prediction, options)
    assert loss.terms.keys() == loss.weights.keys()
    assert ("explainability" in loss.terms) == options.explainability
    assert ("smoothness" in loss.terms) == (options.smoothness_weight > 0)
    for term, weight in loss.weights.items():
        assert weight == getattr(options, f"{term}_weight")
    total = sum(loss.weights[term] * value for term, value in loss.terms.items())
    torch.testing.assert_close(loss.total, total)
    assert loss.total.shape == ()


@pytest.mark.parametrize("changes", [{"smoothness_decay": 3.0}, {"smoothed": "depth"}])
def test_terms_are_those_of_the_options(changes):
    snippets, prediction = example()
    loss = objective(snippets, prediction, ObjectiveOptions(**changes))
    maps = depths_of(prediction) if "smoothed" in changes else prediction.disparities
    assert loss.terms["smoothness"] == smoothness_loss(maps, changes.get("smoothness_decay", 2.0))
    assert loss.terms["explainability"] == explainability_loss(prediction.mask_logits)
    photometric, warps = photometric_loss(snippets, depths_of(prediction), prediction)
    assert loss.terms["photometric"] == photometric
    for warp, expected in zip(loss.warps, warps, strict=True):
        assert torch.equal(warp.warped, expected.warped)
        assert torch.equal(warp.valid, expected.valid)


def test_the_loss_of_a_batch_is_the_mean_over_its_snippets():
    """So that accumulated batches, and processes, average to the loss of the whole step."""
    snippets, prediction = example(batch=4)
    for smoothed in SMOOTHED:
        options = ObjectiveOptions(smoothed=smoothed)
        parts = [
            objective(
                Snippets(*(tensor[k : k + 2] for tensor in snippets[:3])),
                Prediction(
                    [scale[k : k + 2] for scale in prediction.disparities],
                    prediction.source_from_target[k : k + 2],
                    [scale[k : k + 2] for scale in prediction.mask_logits],
                    prediction.intrinsics[k : k + 2],
                ),
                options,
            ).total
            for k in (0, 2)
        ]
        torch.testing.assert_close(objective(snippets, prediction, options).total, torch.stack(parts).mean())


def test_what_is_smoothed():
    snippets, prediction = example()
    smoothness = {}
    for smoothed in SMOOTHED:
        options = ObjectiveOptions(smoothed=smoothed, explainability=False)
        for factor in (1, 3):
            scaled = [factor * disparity for disparity in prediction.disparities]
            loss = objective(snippets, prediction._replace(disparities=scaled, mask_logits=None), options)
            smoothness[smoothed, factor] = loss.terms["smoothness"].item()
    assert smoothness["disparity", 3] == pytest.approx(3 * smoothness["disparity", 1])
    assert smoothness["depth", 3] == pytest.approx(smoothness["depth", 1] / 3)
    assert smoothness["normalised-disparity", 3] == pytest.approx(smoothness["normalised-disparity", 1])


def test_depth_and_translation_share_their_unit():
    snippets, prediction = example()
    larger = prediction.source_from_target.clone()
    larger[..., :3, 3] *= 7
    depths = depths_of(prediction)
    before, _ = photometric_loss(snippets, depths, prediction)
    scaled = prediction._replace(source_from_target=larger)
    after, _ = photometric_loss(snippets, [7 * depth for depth in depths], scaled)
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


@pytest.mark.parametrize("size", [(32, 32), (37, 51)])
def test_no_nan_in_training_at_any_size(size):
    snippets, prediction = example(3, *size)
    inputs = [*prediction.disparities, prediction.source_from_target, *prediction.mask_logits]
    for tensor in inputs:
        tensor.requires_grad_()
    loss = objective(snippets, prediction, ObjectiveOptions())
    for gradient in torch.autograd.grad(loss.total, inputs):
        assert gradient.isfinite().all()
        assert gradient.any()


def test_the_result_can_be_read_but_not_changed():
    loss = objective(*example(), ObjectiveOptions())
    with pytest.raises(dataclasses.FrozenInstanceError):
        loss.total = 0


def test_masks_without_a_penalty_are_refused():
    with pytest.raises(UsageError, match=r"--explainability-weight 0: .* expected a weight above 0, or --no-explain"):
        ObjectiveOptions(explainability_weight=0.0)
    assert ObjectiveOptions(explainability=False, explainability_weight=0.0).explainability_weight == 0
