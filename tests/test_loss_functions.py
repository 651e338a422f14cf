import dataclasses

import numpy as np
import pytest
import torch

from files.errors import UsageError
from geometry.camera import pixel_grid, project, scale_intrinsics, unproject
from geometry.pose import invert, pose_to_matrix, transform_from
from geometry.snippets import Snippets
from geometry.structural_similarity import dissimilarity
from inverse_warp import depth_in_source
from loss_functions import (
    SMOOTHED,
    ObjectiveOptions,
    compare,
    corrected,
    edge_aware_smoothness,
    explainability_loss,
    make_view,
    objective,
    photometric_error,
    prior_distance,
    reversed_view,
    second_order_smoothness,
)
from loss_functions import _comparable as comparable
from loss_functions import _reduce as reduce_to
from models.sfm_learner import Prediction
from tests import oracles
from tests.oracles import losses as losses_oracle

K = torch.tensor([[[20.0, 0, 15.5], [0, 20, 7.5], [0, 0, 1]]]).double()


@pytest.fixture(scope="module", params=oracles.sources("losses"))
def reference(request):
    figures = oracles.load("losses", request.param, losses_oracle)
    data = {key: torch.from_numpy(np.asarray(value)) for key, value in figures.items()}
    sources = torch.stack([data["source_0"], data["source_1"]], 1)
    data["snippets"] = Snippets(data["target"], sources, data["intrinsics"])
    for name in ("disparity", "explainability_logits", "grad_disparity"):
        data[name] = [data[f"{name}_{scale}"] for scale in range(4)]
    return data


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got - expected).abs().max() / expected.abs().max()).item()


def photometric_loss(snippets, disparities, prediction, **changes):
    """The photometric term of the paper's objective for these disparities, and the warps."""
    prediction = prediction._replace(disparities=disparities)
    loss = objective(snippets, prediction, ObjectiveOptions(**changes))
    return loss.terms["photometric"], loss.warps


def test_masked_photometric_loss_and_its_gradients_agree_with_the_reference(reference):
    disparities = [disparity.clone().requires_grad_() for disparity in reference["disparity"]]
    pose = reference["pose"].clone().requires_grad_()
    prediction = Prediction(
        disparities, pose_to_matrix(pose), reference["explainability_logits"], reference["intrinsics"]
    )
    loss, _ = photometric_loss(reference["snippets"], disparities, prediction)
    loss.backward()
    assert relative(loss, reference["photometric_masked"]) < 1e-8
    assert relative(pose.grad, reference["grad_pose"]) < 1e-8
    for disparity, gradient in zip(disparities, reference["grad_disparity"], strict=True):
        assert relative(disparity.grad, gradient) < 1e-8


def test_photometric_loss_agrees_with_the_reference_at_every_scale(reference):
    transforms, snippets = pose_to_matrix(reference["pose"]), reference["snippets"]
    prediction = Prediction(reference["disparity"], transforms, None, reference["intrinsics"])
    loss, warps = photometric_loss(snippets, reference["disparity"], prediction)
    assert relative(loss, reference["photometric_unmasked"]) < 1e-8
    per_scale = [photometric_loss(snippets, [disparity], prediction)[0] for disparity in reference["disparity"]]
    assert relative(torch.stack(per_scale), reference["photometric_unmasked_per_scale"]) < 1e-8
    assert [warp.valid.shape[2:] for warp in warps] == [scale.shape[2:] for scale in reference["disparity"]]


def over_scales(function, maps, decay=1.0):
    return torch.stack([function(values) / decay**scale for scale, values in enumerate(maps)]).sum()


def test_regularisers_agree_with_the_reference(reference):
    depths = [1 / disparity for disparity in reference["disparity"]]
    for got, key in (
        (over_scales(explainability_loss, reference["explainability_logits"]), "explainability"),
        (over_scales(second_order_smoothness, reference["disparity"], 2), "smoothness_disparity_2"),
        (over_scales(second_order_smoothness, depths, 2.3), "smoothness_depth_2.3"),
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


def test_photometric_error_counts_sources_scales_and_masks():
    """Sources that are 0.25 brighter than the target, cameras that stand: 2 sources x 4 scales x 0.25."""
    snippets, prediction = example()
    snippets = snippets._replace(sources=(snippets.target + 0.25)[:, None].repeat(1, 2, 1, 1, 1))
    logits, still = prediction.mask_logits, torch.eye(4).double().expand(1, 2, 4, 4)
    prediction = prediction._replace(source_from_target=still, mask_logits=None)
    loss, warps = photometric_loss(snippets, prediction.disparities, prediction)
    assert all(warp.valid.all() for warp in warps)
    assert loss.item() == pytest.approx(2 * 4 * 0.25)
    half = prediction._replace(mask_logits=[0 * x for x in logits])  # sigmoid(0) = 1 / 2
    assert photometric_loss(snippets, half.disparities, half)[0].item() == pytest.approx(4 * 0.25)
    away = still.clone()
    away[:, 1, 0, 3] = 1e4  # the second source sees nothing of it: its error is 0, the mean is over all pixels
    away = prediction._replace(source_from_target=away)
    loss, warps = photometric_loss(snippets, away.disparities, away)
    assert not warps[0].valid[:, 1].any()
    assert loss.item() == pytest.approx(4 * 0.25)


@pytest.mark.parametrize("largest", [None, 0.5])
def test_the_mean_difference_is_what_autograd_derives(largest):
    torch.manual_seed(0)
    inputs = [torch.rand(size, dtype=torch.float64, requires_grad=True) for size in ((2, 3, 5, 7), (2, 2, 3, 5, 7))]
    cotangent = torch.randn(2, 2, 5, 7, dtype=torch.float64)
    target, images = inputs
    got, difference = photometric_error(target, images, ObjectiveOptions(largest_difference=largest))
    assert got is difference
    expected = (target[:, None] - images).abs().clamp(max=largest or 1).mean(2)
    torch.testing.assert_close(got, expected)
    gradients = [torch.autograd.grad(value, inputs, cotangent) for value in (got, expected)]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():
        assert torch.equal(photometric_error(target, images, ObjectiveOptions(largest_difference=largest))[0], got)


@pytest.mark.parametrize("size", [(12, 20), (6, 20), (6, 10), (6, 5), (4, 4), (1, 1)])
def test_a_reduced_pixel_is_the_mean_of_its_area(size):
    images = torch.rand(2, 3, 12, 20, dtype=torch.float64)
    height, width = size
    areas = images.view(2, 3, height, 12 // height, width, 20 // width)
    torch.testing.assert_close(reduce_to(images, height, width), areas.mean((3, 5)))


def test_the_camera_of_the_warp_is_the_prediction_s():
    """A learned camera may differ from the snippets' K."""
    snippets, prediction = example()
    other = prediction._replace(intrinsics=K * torch.tensor([2.0, 2, 1]).view(3, 1))
    before, after = (photometric_loss(snippets, one.disparities, one)[0] for one in (prediction, other))
    assert abs(after - before) > 1e-3
    assert photometric_loss(snippets._replace(intrinsics=0 * K), other.disparities, other)[0] == after


def test_a_camera_learns_at_the_finest_scale_alone():
    snippets, prediction = example()
    gradients = []
    for disparities in (prediction.disparities, prediction.disparities[:1]):
        k = prediction.intrinsics.clone().requires_grad_()
        changed = prediction._replace(disparities=disparities, intrinsics=k, mask_logits=None)
        objective(snippets, changed, ObjectiveOptions(explainability=False, smoothness_weight=0.0)).total.backward()
        gradients.append(k.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients)


def test_with_alignment_the_images_teach_depth_and_the_corrected_motion_teaches_the_pose_network():
    snippets, prediction = example(height=32, width=64)
    pose = prediction.source_from_target.clone().requires_grad_()
    disparities = [scale.clone().requires_grad_() for scale in prediction.disparities]
    prediction = prediction._replace(source_from_target=pose, disparities=disparities, mask_logits=None)
    options = ObjectiveOptions(explainability=False, align_steps=2)
    loss = objective(snippets, prediction, options)
    motion, distance = corrected(snippets, prediction, 2)
    assert loss.terms["motion"] == distance > 0
    assert not motion.source_from_target.requires_grad
    plain = objective(snippets, motion, dataclasses.replace(options, align_steps=0))
    assert loss.terms["photometric"] == plain.terms["photometric"]
    (by_pose,) = torch.autograd.grad(loss.terms["photometric"], pose, retain_graph=True, allow_unused=True)
    assert by_pose is None
    assert torch.autograd.grad(loss.terms["photometric"], disparities[0], retain_graph=True)[0].abs().max() > 0
    assert torch.autograd.grad(loss.terms["motion"], pose, retain_graph=True)[0].abs().max() > 0
    (by_depth,) = torch.autograd.grad(loss.terms["motion"], disparities[1], allow_unused=True)
    assert by_depth is None


def test_the_scale_s_term_is_least_at_a_mean_disparity_of_one_and_touches_nothing_but_scale():
    snippets, prediction = example()
    options = ObjectiveOptions(scale_weight=0.1)
    for factor in (0.1, 1.0, 10.0):
        disparity = prediction.disparities[0]
        disparity = (factor / disparity.mean() * disparity).requires_grad_()
        loss = objective(snippets, prediction._replace(disparities=[disparity]), options)
        assert loss.terms["scale"].item() == pytest.approx(np.log(factor) ** 2, abs=1e-6)
        (gradient,) = torch.autograd.grad(loss.terms["scale"], disparity)
        assert gradient.std() < 1e-6  # the same for every pixel: structure does not change
        assert np.sign(gradient.mean().item()) == np.sign(np.log(factor)) or factor == 1


def test_the_masks_penalty_is_a_mean_over_the_sources():
    """The authors' code sums, as the help of --explainability-weight says. The PyTorch port and version 1 do not."""
    snippets, prediction = example()
    twice = snippets._replace(sources=snippets.sources.repeat(1, 2, 1, 1, 1))
    of_twice = prediction._replace(
        source_from_target=prediction.source_from_target.repeat(1, 2, 1, 1),
        mask_logits=[logits.repeat(1, 2, 1, 1) for logits in prediction.mask_logits],
    )
    once, doubled = (objective(*pair, ObjectiveOptions()).terms for pair in ((snippets, prediction), (twice, of_twice)))
    torch.testing.assert_close(doubled["photometric"], 2 * once["photometric"])
    torch.testing.assert_close(doubled["explainability"], once["explainability"])


@pytest.mark.parametrize("scales", [1, 2, 4])
def test_alignment_is_at_half_the_size_first_with_any_number_of_scales(scales, monkeypatch):
    snippets, prediction = example()
    prediction = prediction._replace(mask_logits=None, disparities=prediction.disparities[:scales])
    sizes = []

    def watched(target, sources, depth, motion, intrinsics, steps):
        sizes.append((tuple(target.shape[2:]), tuple(depth.shape[2:]), steps))
        return motion

    monkeypatch.setattr("loss_functions.align", watched)
    objective(snippets, prediction, ObjectiveOptions(explainability=False, align_steps=3, scales=scales))
    height, width = snippets.target.shape[2:]
    half = (-(-height // 2), -(-width // 2))
    assert sizes == [(half, half, 3), ((height, width), (height, width), 1)]


def test_alignment_does_not_go_with_the_geometry_consistency():
    with pytest.raises(UsageError, match="--align-steps 3: does not go with"):
        ObjectiveOptions(align_steps=3, geometry_weight=0.5)


def test_smoothness_by_hand():
    # f = x^2 + 3 x y on 3 x 3: |f_xx| = 2, |f_yy| = 0, |f_xy| = |f_yx| = 3, everywhere.
    y, x = torch.meshgrid(torch.arange(3.0), torch.arange(3.0), indexing="ij")
    values = (x * x + 3 * x * y)[None, None]
    assert second_order_smoothness(values).item() == pytest.approx(2 + 3 + 3)
    assert second_order_smoothness(5 * x[None, None] - 2 * y).item() == 0  # a plane is smooth
    assert second_order_smoothness(values[..., :2, :]).item() == 0  # two rows have no second derivative


def test_explainability_by_hand():
    logits = torch.tensor([0.0, 0, np.log(3), np.log(3)]).view(1, 1, 2, 2)
    assert explainability_loss(logits).item() == pytest.approx((np.log(2) + np.log(4 / 3)) / 2)
    assert explainability_loss(0 * logits).item() == pytest.approx(np.log(2))
    assert explainability_loss(torch.full((1, 1, 2, 2), -1e4)).item() == 1e4  # no overflow


@pytest.mark.parametrize("length", [3, 5])
@pytest.mark.parametrize(
    "changes",
    [{}, {"explainability": False}, {"smoothness_weight": 0.0}, {"photometric_weight": 0.3}, {"smoothness_decay": 2.3}]
    + [{"align_steps": 2}, {"align_steps": 1, "motion_weight": 0.3}, {"scale_weight": 0.1}]
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
    maps = [1 / scale if "smoothed" in changes else scale for scale in prediction.disparities]
    assert loss.terms["smoothness"] == over_scales(second_order_smoothness, maps, changes.get("smoothness_decay", 2.0))
    assert loss.terms["explainability"] == over_scales(explainability_loss, prediction.mask_logits)
    photometric, warps = photometric_loss(snippets, prediction.disparities, prediction)
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
    for name in ("normalised-disparity", "normalised-depth"):
        assert smoothness[name, 3] == pytest.approx(smoothness[name, 1])


def test_depth_and_translation_share_their_unit():
    snippets, prediction = example()
    larger = prediction.source_from_target.clone()
    larger[..., :3, 3] *= 7
    before, _ = photometric_loss(snippets, prediction.disparities, prediction)
    scaled = prediction._replace(source_from_target=larger)
    after, _ = photometric_loss(snippets, [scale / 7 for scale in prediction.disparities], scaled)
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


# --- monodepth2 and SC-SfMLearner, against what their authors' code computes --------------------------------------

MONODEPTH2 = {
    **{"photometric_error": "ssim", "error_range": "unit", "over_scales": "mean", "padding": "border"},
    **{"explainability": False, "smoothness_weight": 0.0},
}
SC = {
    **{"error_range": "normalised", "largest_difference": 1.0, "over_pixels": "valid", "explainability": False},
    **{"smoothness": "edge-aware", "smoothed": "normalised-depth", "smoothness_weight": 0.1, "geometry_weight": 0.5},
}
MOTION = ("axisangle", "translation")
# The authors' code divides by z + 1e-7 and by mean + 1e-7, this project by z and by the mean.
EPSILON = 1e-7


def load(file) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(np.asarray(value)) for key, value in np.load(file).items()}


@pytest.fixture(scope="module")
def monodepth2(shared):
    data = load(shared / "reference/monodepth2_objective.npz")
    sources = torch.stack([data["source_0"], data["source_1"]], 1)
    data["snippets"] = Snippets(2 * data["target"] - 1, 2 * sources - 1, data["intrinsics"])
    data["transforms"] = torch.stack([data["source_from_target_0"], data["source_from_target_1"]], 1)
    return data


def monodepth2_prediction(data, sigmoids, transforms, scale, size) -> Prediction:
    """With K t increased by (0, 0, 1e-7), which is what adding 1e-7 to every z does."""
    shrink = 1 / 2**scale if size == "own" else 1.0
    inverse = torch.linalg.inv(scale_intrinsics(data["intrinsics"], shrink, shrink))
    moved = transforms.clone()
    moved[..., :3, 3] += EPSILON * inverse[:, None, :, 2]
    return Prediction([0.01 + 9.99 * sigmoid for sigmoid in sigmoids], moved, None, data["intrinsics"])


@pytest.mark.parametrize(("size", "key"), [("own", "native"), ("full", "full")])
def test_monodepth2_s_errors_minimum_and_auto_mask(monodepth2, size, key):
    sigmoids = [monodepth2[f"sigmoid_{scale}"] for scale in range(4)]
    for over, auto_mask in (("mean", "off"), ("minimum", "off"), ("minimum", "minimum")):
        options = ObjectiveOptions(**MONODEPTH2, over_sources=over, auto_mask=auto_mask, scale_size=size)
        for scale in range(4):
            prediction = monodepth2_prediction(monodepth2, sigmoids, monodepth2["transforms"], scale, size)
            view = make_view(comparable(monodepth2["snippets"], options), prediction, scale, options)
            error, _, warps = compare(view, options)
            name = f"{key}_{over}{'_automask' if auto_mask != 'off' else ''}_{scale}"
            assert relative(error, monodepth2[name]) < 1e-12
            each, _ = photometric_error(view.target, warps.warped, options)
            assert relative(each, monodepth2[f"{key}_error_{scale}"]) < 1e-10
            if size == "full":
                assert relative(warps.warped, monodepth2[f"warped_{scale}"]) < 1e-10
            if auto_mask == "minimum":
                assert torch.equal(warps.auto_mask[:, 0].double(), monodepth2[f"{key}_moving_{scale}"])


def test_monodepth2_s_dissimilarity_and_smoothness(monodepth2):
    sources = (monodepth2["snippets"].sources + 1) / 2
    for channel in range(3):
        one = slice(channel, channel + 1)
        got = dissimilarity(monodepth2["target"][:, one], sources[:, :, one])[:, 0]
        assert relative(got, monodepth2["ssim_target_source_0"][:, channel]) < 1e-10
    identity, _ = photometric_error(monodepth2["target"], sources, ObjectiveOptions(**MONODEPTH2))
    assert relative(identity, monodepth2["identity_error"]) < 1e-12
    for scale in range(4):
        values = normalised(monodepth2[f"sigmoid_{scale}"])
        got = edge_aware_smoothness(values, reduce_to(monodepth2["target"], *values.shape[2:]))
        assert relative(got, monodepth2[f"edge_aware_smoothness_{scale}"]) < 1e-12


def normalised(values: torch.Tensor) -> torch.Tensor:
    return values / (values.mean((2, 3), keepdim=True) + EPSILON)


@pytest.mark.parametrize(("size", "key"), [("own", "native"), ("full", "full")])
def test_monodepth2_s_total_and_its_gradients(monodepth2, size, key):
    """Its smoothness is that of the sigmoid, hence the sum here."""
    options = ObjectiveOptions(**MONODEPTH2, over_sources="minimum", auto_mask="minimum", scale_size=size)
    sigmoids = [monodepth2[f"sigmoid_{scale}"].clone().requires_grad_() for scale in range(4)]
    axes, shifts = ([monodepth2[f"{name}_{n}"].clone().requires_grad_() for n in (0, 1)] for name in MOTION)
    poses = [transform_from(their_rotation(axis), shift) for axis, shift in zip(axes, shifts, strict=True)]
    transforms = torch.stack([invert(poses[0]), poses[1]], 1)  # source 0 lies before the target
    assert relative(transforms, monodepth2["transforms"]) < 1e-12
    ours = pose_to_matrix(torch.cat([shifts[1], axes[1]], 1), "axis-angle")
    assert relative(ours, poses[1]) < 1e-6
    total = 0
    for scale, sigmoid in enumerate(sigmoids):
        prediction = monodepth2_prediction(monodepth2, sigmoids, transforms, scale, size)
        view = make_view(comparable(monodepth2["snippets"], options), prediction, scale, options)
        smooth = edge_aware_smoothness(normalised(sigmoid), reduce_to(monodepth2["target"], *sigmoid.shape[2:]))
        total = total + (compare(view, options)[0] + 1e-3 * smooth / 2**scale) / 4
    assert relative(total, monodepth2[f"{key}_total"]) < 1e-12
    total.backward()
    for scale, sigmoid in enumerate(sigmoids):
        assert relative(sigmoid.grad, monodepth2[f"{key}_grad_sigmoid_{scale}"]) < 1e-8
    for name, leaves in zip(MOTION, (axes, shifts), strict=True):
        for n, leaf in enumerate(leaves):
            assert relative(leaf.grad, monodepth2[f"{key}_grad_{name}_{n}"][:, 0]) < 1e-8


def their_rotation(vector: torch.Tensor) -> torch.Tensor:
    """Rodrigues' formula with the axis as the authors' code has it: v / (|v| + 1e-7)."""
    angle = vector.norm(dim=1)[:, None, None]
    axis = vector / (vector.norm(dim=1, keepdim=True) + EPSILON)
    x, y, z = axis.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    outer = axis[:, :, None] * axis[:, None]
    return angle.cos() * torch.eye(3, dtype=vector.dtype) + angle.sin() * cross + (1 - angle.cos()) * outer


def test_the_objective_is_the_mean_of_monodepth2_s_scales(monodepth2):
    options = ObjectiveOptions(**MONODEPTH2, over_sources="minimum", auto_mask="minimum")
    disparities = [0.01 + 9.99 * monodepth2[f"sigmoid_{scale}"] for scale in range(4)]
    prediction = Prediction(disparities, monodepth2["transforms"], None, monodepth2["intrinsics"])
    mean = sum(monodepth2[f"native_minimum_automask_{scale}"] for scale in range(4)) / 4
    assert relative(objective(monodepth2["snippets"], prediction, options).total, mean) < 1e-6  # z + 1e-7


@pytest.fixture
def sc(shared):
    data = load(shared / "reference/scsfm_objective.npz")
    leaves = (
        "target_depth",
        "source_depth_0",
        "source_depth_1",
        "pose_0",
        "pose_1",
        "inverse_pose_0",
        "inverse_pose_1",
    )
    for name in leaves:
        data[name].requires_grad_()
    sources = torch.stack([data["source_0"], data["source_1"]], 1)
    data["snippets"] = Snippets(2 * data["target"] - 1, 2 * sources - 1, data["intrinsics"])
    data["prediction"] = Prediction(
        [1 / data["target_depth"]],
        pose_to_matrix(torch.stack([data["pose_0"], data["pose_1"]], 1)),
        None,
        data["intrinsics"],
        [1 / torch.stack([data["source_depth_0"], data["source_depth_1"]], 1)],
        pose_to_matrix(torch.stack([data["inverse_pose_0"], data["inverse_pose_1"]], 1)),
    )
    return data


def test_sc_s_warp_and_depths(sc):
    options = ObjectiveOptions(**SC, photometric_error="ssim", geometry_mask=True)
    view = make_view(comparable(sc["snippets"], options), sc["prediction"], 0, options)
    _, _, warps = compare(view, options)
    assert relative(warps.warped[:, 0], sc["warped_0"]) < 1e-10
    assert torch.equal(warps.valid[:, :1].float(), sc["valid_0"])
    computed = depth_in_source(view.depth, view.source_from_target, view.intrinsics)[:, :1]
    assert relative(computed, sc["computed_source_depth_0"]) < 1e-12
    disagreement = (computed - sc["sampled_source_depth_0"]).abs() / (computed + sc["sampled_source_depth_0"])
    valid = warps.valid[:, :1]
    assert relative((1 - warps.geometry_mask[:, :1])[valid], disagreement.clamp(0, 1)[valid]) < 1e-10


@pytest.mark.parametrize("auto", [0, 1])
@pytest.mark.parametrize("mask", [0, 1])
@pytest.mark.parametrize("ssim", [0, 1])
def test_sc_s_terms(sc, ssim, mask, auto):
    changes = {"photometric_error": ("l1", "ssim")[ssim], "geometry_mask": bool(mask)}
    options = ObjectiveOptions(**SC, **changes, auto_mask=("off", "exclude")[auto])
    loss = objective(sc["snippets"], sc["prediction"], options)
    assert relative(loss.terms["photometric"], sc[f"photometric_ssim{ssim}_mask{mask}_auto{auto}"]) < 1e-10
    assert relative(loss.terms["smoothness"], sc["smoothness"]) < 1e-7  # mean + 1e-7
    geometry = loss.terms["geometry"]
    if auto:  # the authors' code counts means over 10,000 pixels or less as 0: here all but the first direction's
        view = make_view(comparable(sc["snippets"], options), sc["prediction"], 0, options)
        counts = compare(view, options)[2].auto_mask.sum((0, 2, 3))
        back = [compare(reversed_view(view, sc["prediction"], n), options)[2].auto_mask.sum() for n in (0, 1)]
        assert [int(count) > 10_000 for count in (*counts, *back)] == [True, False, False, False]
        first = view.__class__(
            **{**vars(view), "sources": view.sources[:, :1], "source_depth": view.source_depth[:, :1]}
        )
        first = dataclasses.replace(first, source_from_target=view.source_from_target[:, :1])
        geometry = compare(first, options)[1]
    assert relative(geometry, sc[f"geometry_auto{auto}"]) < 1e-10


def test_sc_s_total_and_its_gradients(sc):
    options = ObjectiveOptions(**SC, photometric_error="ssim", geometry_mask=True)
    total = objective(sc["snippets"], sc["prediction"], options).total
    assert relative(total, sc["total"]) < 1e-8
    total.backward()
    for name in ("target_depth", "source_depth_0", "source_depth_1", "pose_0", "pose_1"):
        assert relative(sc[name].grad, sc[f"grad_{name}"]) < 1e-8
    for source in (0, 1):
        name = f"inverse_pose_{source}"
        assert relative(sc[name].grad, sc[f"grad_{name}"]) < 1e-8


# --- laws of the new terms, without any file ----------------------------------------------------------------------


def still(prediction: Prediction) -> Prediction:
    transforms = torch.eye(4, dtype=torch.float64).expand_as(prediction.source_from_target)
    return prediction._replace(source_from_target=transforms, mask_logits=None)


def test_the_minimum_takes_the_source_that_sees_a_pixel():
    """Source 0 is the target but for its left half, source 1 but for its right half: together they explain all."""
    snippets, prediction = example()
    sources = snippets.target[:, None].repeat(1, 2, 1, 1, 1)
    sources[:, 0, :, :, :16], sources[:, 1, :, :, 16:] = 1, -1
    snippets = snippets._replace(sources=sources)
    plain = {"explainability": False, "smoothness_weight": 0.0, "scales": 1}
    values = {
        over: objective(snippets, still(prediction), ObjectiveOptions(**plain, over_sources=over)).total.item()
        for over in ("sum", "mean", "minimum")
    }
    assert values["minimum"] < 1e-12
    assert values["sum"] == pytest.approx(2 * values["mean"])
    assert values["mean"] > 0.1


@pytest.mark.parametrize("over_pixels", ["all", "valid"])
def test_a_pixel_that_no_source_sees_counts_as_nothing(over_pixels):
    snippets, prediction = example()
    transforms = still(prediction).source_from_target.clone()
    transforms[:, :, 0, 3] = 1e4
    options = ObjectiveOptions(
        over_sources="minimum", over_pixels=over_pixels, explainability=False, smoothness_weight=0.0
    )
    prediction = prediction._replace(source_from_target=transforms, mask_logits=None)
    prediction.disparities[0].requires_grad_()
    loss = objective(snippets, prediction, options)
    assert loss.total == 0
    loss.total.backward()
    assert not prediction.disparities[0].grad.any()


def test_the_mean_over_valid_pixels_does_not_depend_on_how_many_there_are():
    """Sources 0.25 brighter see half of the target. Over all pixels the error halves, over valid ones it stays."""
    snippets, prediction = example()
    snippets = snippets._replace(sources=(snippets.target + 0.25)[:, None].repeat(1, 2, 1, 1, 1))
    # A camera that moved so that everything lies 16 pixels further right, of 32: at depth 1 that is t = 16 / f.
    flat = prediction._replace(disparities=[torch.ones(1, 1, 16, 32).double()])
    transforms = still(flat).source_from_target.clone()
    transforms[:, :, 0, 3] = 16 / 20
    moved = flat._replace(source_from_target=transforms, mask_logits=None)
    snippets = snippets._replace(
        sources=torch.cat(
            [snippets.sources[..., :16], snippets.target[:, None, :, :, :16].repeat(1, 2, 1, 1, 1) + 0.25], -1
        )
    )
    plain = {"explainability": False, "smoothness_weight": 0.0, "over_sources": "mean"}
    half = objective(snippets, moved, ObjectiveOptions(**plain)).total.item()
    whole = objective(snippets, moved, ObjectiveOptions(**plain, over_pixels="valid")).total.item()
    assert (half, whole) == pytest.approx((0.125, 0.25))


def test_the_auto_mask_hides_what_does_not_move():
    """Sources equal to the target: the identity's error is 0 everywhere, and no gradient reaches the depth."""
    snippets, prediction = example()
    snippets = snippets._replace(sources=snippets.target[:, None].repeat(1, 2, 1, 1, 1))
    prediction.disparities[0].requires_grad_()
    plain = {"explainability": False, "smoothness_weight": 0.0, "scales": 1}
    for auto_mask, over in (("minimum", "minimum"), ("minimum", "sum"), ("exclude", "sum"), ("exclude", "minimum")):
        options = ObjectiveOptions(**plain, auto_mask=auto_mask, over_sources=over)
        loss = objective(snippets, prediction._replace(mask_logits=None), options)
        assert not loss.warps[0].auto_mask.any()
        assert loss.total == 0
        (gradient,) = torch.autograd.grad(loss.total, prediction.disparities[0])
        assert not gradient.any()
        without = objective(
            snippets, prediction._replace(mask_logits=None), ObjectiveOptions(**plain, over_sources=over)
        )
        assert without.total > 0


def test_noise_breaks_the_ties_of_the_auto_mask():
    snippets, prediction = example()
    options = ObjectiveOptions(auto_mask="minimum", over_sources="minimum", explainability=False)
    shares = []
    for noise in (None, torch.randn(16, 32).double()):
        loss = objective(snippets, still(prediction), options, noise)
        shares.append([warps.auto_mask.double().mean().item() for warps in loss.warps])
    assert min(shares[0]) > 0.9  # a warp by the identity is the identity up to rounding, and wins ties
    assert 0.4 < shares[1][0] < 0.6
    with_noise = objective(snippets, still(prediction), options, torch.randn(16, 32).double())
    without = objective(snippets, still(prediction), options)
    assert abs(with_noise.total - without.total) < 1e-4


def test_border_padding_compares_what_is_outside():
    snippets, prediction = example()
    transforms = still(prediction).source_from_target.clone()
    transforms[:, :, 0, 3] = 1e4  # every pixel projects to the right of the sources
    moved = prediction._replace(source_from_target=transforms, mask_logits=None)
    plain = {"explainability": False, "smoothness_weight": 0.0, "over_sources": "mean", "scales": 1}
    border = objective(snippets, moved, ObjectiveOptions(**plain, padding="border")).total
    expected = (snippets.target[:, None] - snippets.sources[..., -1:]).abs().mean()
    torch.testing.assert_close(border, expected)
    assert objective(snippets, moved, ObjectiveOptions(**plain)).total == 0


def consistent(depth: float, tz: float) -> tuple[Snippets, Prediction]:
    """A wall at `depth` in front of the target; cameras moved by tz towards it, whose depth is right."""
    snippets, prediction = example()
    transforms = torch.eye(4).double().repeat(1, 2, 1, 1)
    transforms[..., 2, 3] = -tz
    back = transforms.clone()
    back[..., 2, 3] = tz
    disparities = [torch.full_like(scale, 1 / depth) for scale in prediction.disparities]
    of_sources = [torch.full_like(scale, 1 / (depth - tz))[:, None].repeat(1, 2, 1, 1, 1) for scale in disparities]
    return snippets, Prediction(disparities, transforms, None, prediction.intrinsics, of_sources, back)


def test_geometry_consistency_by_hand():
    options = ObjectiveOptions(geometry_weight=1.0, explainability=False, over_pixels="valid", scales=2)
    snippets, prediction = consistent(10, 2)
    loss = objective(snippets, prediction, options)
    assert loss.terms["geometry"].item() == pytest.approx(0, abs=1e-12)
    warps = loss.warps[0]
    torch.testing.assert_close(warps.geometry_mask[warps.valid], torch.ones(int(warps.valid.sum())).double())
    # Sources that say 12 where 8 is right: |8 - 12| / 20 forth, and back |10 - 14| / 24 (12 + 2 against 10).
    wrong = prediction._replace(source_disparities=[scale * 8 / 12 for scale in prediction.source_disparities])
    loss = objective(snippets, wrong, options)
    expected = 2 * 2 * (4 / 20 + 4 / 24)  # sources, scales
    assert loss.terms["geometry"].item() == pytest.approx(expected)
    assert loss.weights["geometry"] == 1
    with pytest.raises(ValueError, match="no depth of the sources"):
        objective(snippets, wrong._replace(source_disparities=None, target_from_source=None), options)


def test_the_geometry_mask_weighs_the_photometric_error():
    snippets, prediction = consistent(10, 2)
    wrong = prediction._replace(source_disparities=[scale * 8 / 12 for scale in prediction.source_disparities])
    plain = {"explainability": False, "smoothness_weight": 0.0, "geometry_weight": 1e-9, "scales": 1}
    without = objective(snippets, wrong, ObjectiveOptions(**plain)).terms["photometric"]
    masked = objective(snippets, wrong, ObjectiveOptions(**plain, geometry_mask=True)).terms["photometric"]
    options = ObjectiveOptions(**plain)
    view = make_view(snippets, wrong, 0, options)
    forth = compare(view, options)[0]
    torch.testing.assert_close(masked, (1 - 4 / 20) * forth + (1 - 4 / 24) * (without - forth))


COMBINATIONS = [
    {**error, **sources, **auto, **sizes, **smooth, **geometry, **masks}
    for error in ({}, {"photometric_error": "ssim", "error_range": "unit"})
    for sources in ({}, {"over_sources": "minimum", "padding": "border"})
    for auto in ({}, {"auto_mask": "minimum"}, {"auto_mask": "exclude", "over_pixels": "valid"})
    for sizes in ({}, {"scale_size": "full", "over_scales": "mean"})
    for smooth in ({}, {"smoothness": "edge-aware", "smoothed": "normalised-disparity"})
    for geometry in ({}, {"geometry_weight": 0.5, "geometry_mask": True})
    for masks in ({}, {"explainability": False})
]


@pytest.mark.parametrize("changes", COMBINATIONS[::5])
def test_any_combination_runs_and_has_finite_gradients(changes):
    options = ObjectiveOptions(**changes)
    snippets, prediction = example(batch=2, height=34, width=46)
    inputs = [*prediction.disparities, prediction.source_from_target]
    if options.explainability:
        inputs += prediction.mask_logits
    else:
        prediction = prediction._replace(mask_logits=None)
    if options.compares_depth:
        of_sources = [scale[:, None].repeat(1, 2, 1, 1, 1) * 1.1 for scale in prediction.disparities]
        prediction = prediction._replace(
            source_disparities=of_sources, target_from_source=torch.linalg.inv(prediction.source_from_target)
        )
        inputs += of_sources
    for tensor in inputs:
        tensor.requires_grad_()
    loss = objective(snippets, prediction, options, torch.randn(34, 46).double())
    assert loss.total.isfinite()
    assert ("geometry" in loss.terms) == options.compares_depth
    for gradient in torch.autograd.grad(loss.total, inputs):
        assert gradient.isfinite().all()
    for warps in loss.warps:
        assert not warps.warped.requires_grad
        assert (warps.auto_mask is not None) == (options.auto_mask != "off")
        assert (warps.geometry_mask is not None) == options.compares_depth


def test_the_prior_is_blind_to_the_scale_and_sees_all_else():
    generator = torch.Generator().manual_seed(3)
    prior = torch.rand(2, 1, 6, 8, generator=generator, dtype=torch.float64) + 0.1
    scale = torch.tensor([0.2, 7.0], dtype=torch.float64)[:, None, None, None]
    assert prior_distance(scale * prior, prior) < 1e-12
    half = prior.clone()
    half[:, :, :, :4] *= 4  # half of the pixels four times as near: log 2 from the mean on either side
    torch.testing.assert_close(prior_distance(half, prior), torch.tensor(np.log(2), dtype=torch.float64))
    disparity = (prior + 0.3 * torch.rand(prior.shape, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda d: prior_distance(d, prior), disparity)
