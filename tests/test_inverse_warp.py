import numpy as np
import pytest
import torch
from torch.nn import functional

from geometry.camera import project, unproject
from geometry.pose import ROTATIONS, pose_to_matrix
from inverse_warp import inverse_warp, sample
from tests.oracles import load, sources
from tests.oracles import warp as warp_oracle


def make_scene(height=12, width=17, sources=2, dtype=torch.float64):
    """Random images, depths, small motions; the camera's field of view is KITTI's."""
    images = torch.rand(2, sources, 3, height, width, dtype=dtype) * 2 - 1
    depth = torch.rand(2, 1, height, width, dtype=dtype) * 10 + 2
    pose = torch.randn(2, sources, 6, dtype=dtype) * 0.03
    f, cx, cy = 0.58 * width, 0.49 * width, 0.46 * height
    intrinsics = torch.tensor([[f, 0, cx], [0, f, cy], [0, 0, 1]], dtype=dtype).repeat(2, 1, 1)
    return images, depth, pose, intrinsics


def readable_warp(sources, depth, source_from_target, intrinsics, padding="zeros"):
    """What `inverse_warp` computes, step by step and source by source, with its own sampler's coordinates."""
    height, width = depth.shape[2:]
    warped, valid = [], []
    for image, transform in zip(sources.unbind(1), source_from_target.unbind(1), strict=True):
        points = unproject(depth, intrinsics).flatten(2)
        points = transform[:, :3, :3] @ points + transform[:, :3, 3:]
        x, y = project(points, intrinsics).view(-1, 2, height, width).unbind(1)
        grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
        warped.append(functional.grid_sample(image, grid, padding_mode=padding, align_corners=True))
        in_front = points[:, 2].view(-1, height, width) > 0
        valid.append(in_front & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1))
    return torch.stack(warped, 1), torch.stack(valid, 1)


@pytest.fixture(scope="module", params=sources("inverse_warp"))
def reference(request):
    return {key: torch.from_numpy(value) for key, value in load("inverse_warp", request.param, warp_oracle).items()}


@pytest.mark.parametrize(
    ("rotation", "padding", "image", "mask"),
    [
        ("euler", "zeros", "warped_zeros", "valid"),
        ("euler", "border", "warped_border", "valid"),
        ("quaternion", "zeros", "warped_quat", "valid_quat"),
    ],
)
def test_agrees_with_the_reference(reference, rotation, padding, image, mask):
    source_from_target = pose_to_matrix(reference["pose"][:, None], rotation)
    depth = reference["depth"][:, None]
    warped, valid = inverse_warp(
        reference["source"][:, None], depth, source_from_target, reference["intrinsics"], padding
    )
    torch.testing.assert_close(warped[:, 0], reference[image], rtol=0, atol=1e-9)
    assert torch.equal(valid[:, 0], reference[mask])


def test_gradients_agree_with_the_reference(reference):
    depth, pose = (reference[key][:, None].requires_grad_() for key in ("depth", "pose"))
    warped, _ = inverse_warp(reference["source"][:, None], depth, pose_to_matrix(pose), reference["intrinsics"])
    (warped[:, 0] * reference["cotangent"]).sum().backward()
    for tensor, key in ((depth, "grad_depth"), (pose, "grad_pose")):
        assert (tensor.grad[:, 0] - reference[key]).abs().max() < 1e-8 * reference[key].abs().max()


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_equals_the_readable_warp_in_value_and_gradient(padding):
    images, depth, pose, intrinsics = make_scene()
    pose[1, 1, 3:] *= 10  # some of it outside
    intrinsics[1, 0, 1] = 0.3  # skew
    inputs = [tensor.requires_grad_() for tensor in (images, depth, pose, intrinsics)]
    cotangent = torch.randn_like(images)
    results = []
    for warp in (inverse_warp, readable_warp):
        warped, valid = warp(images, depth, pose_to_matrix(pose), intrinsics, padding)
        results.append([warped, *torch.autograd.grad(warped, inputs, cotangent), valid])
    assert 0.2 < results[0][-1].double().mean() < 1
    for fast, readable in zip(*results, strict=True):
        if fast is results[0][4]:  # the gradient of K, whose lower triangle is 0 by definition
            fast, readable = fast.triu(), readable.triu()
        torch.testing.assert_close(fast, readable, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (37, 51), (128, 416)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-4), (torch.float64, 1e-12)])
def test_the_identity_gives_the_image_back_at_any_depth(dtype, tolerance, size, padding):
    images, depth, pose, intrinsics = make_scene(*size, dtype=dtype)
    depth = 10 ** (torch.rand_like(depth) * 30 - 5)  # 1e-5 .. 1e25
    for rotation in ROTATIONS:
        warped, valid = inverse_warp(images, depth, pose_to_matrix(0 * pose, rotation), intrinsics, padding)
        assert valid.all()
        torch.testing.assert_close(warped, images, rtol=0, atol=tolerance)


def test_worked_example_forward_motion():
    """A source camera 1 m nearer to a wall at 10 m sees 9 pixels off the centre what the target sees 9 off, at 10."""
    columns = torch.arange(41, dtype=torch.float64).expand(1, 1, 1, 3, 41)
    intrinsics = torch.tensor([[[30.0, 0, 20], [0, 30, 1], [0, 0, 1]]]).double()
    pose = torch.tensor([[[0, 0, -1.0, 0, 0, 0]]]).double()
    warped, valid = inverse_warp(columns, torch.full((1, 1, 3, 41), 10.0).double(), pose_to_matrix(pose), intrinsics)
    torch.testing.assert_close(warped[0, 0, 0, 1, 29], torch.tensor(30.0).double())
    # The wall's edges leave the picture: 20 off the centre becomes 22.2.
    assert valid[0, 0, 1].tolist() == [2 <= x <= 38 for x in range(41)]


@pytest.mark.parametrize("turn", [np.pi, -np.pi / 2])
def test_what_lies_behind_the_source_camera_is_not_valid(turn):
    images, depth, pose, intrinsics = make_scene()
    pose = torch.zeros_like(pose)
    pose[..., 4] = turn
    warped, valid = inverse_warp(images, depth, pose_to_matrix(pose), intrinsics)
    if turn == np.pi:
        assert not valid.any()
        assert not warped.any()
    pose[..., 2], pose[..., 4] = -20, 0  # the points end up behind it, mirrored into the image
    warped, valid = inverse_warp(images, depth, pose_to_matrix(pose), intrinsics)
    assert not valid.any()
    assert not warped.any()


def test_gradcheck():
    images, depth, pose, intrinsics = make_scene(5, 7)
    inputs = [tensor.requires_grad_() for tensor in (images, depth, pose)]

    def warp(images, depth, pose):
        return inverse_warp(images, depth, pose_to_matrix(pose), intrinsics)[0]

    assert torch.autograd.gradcheck(warp, inputs, eps=1e-7, atol=1e-5, fast_mode=True)


def test_depth_and_translation_share_their_unit():
    images, depth, pose, intrinsics = make_scene()
    scaled = pose * torch.tensor([7.0, 7, 7, 1, 1, 1]).double()
    before = inverse_warp(images, depth, pose_to_matrix(pose), intrinsics)
    after = inverse_warp(images, 7 * depth, pose_to_matrix(scaled), intrinsics)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=1e-12)
    assert torch.equal(after[1], before[1])


HOSTILE_DEPTHS = [0.0, -1.0, 1e-30, 1e-6, 1e-5, 1.0, 1e30, 3e38, float("inf"), -float("inf"), float("nan")]
HOSTILE_POSES = {
    "small": [0.1, 0.2, 0.3, 0.01, 0.02, 0.03],
    "z crosses zero": [0.0, 0, -1.0, 0, 0, 0],
    "z crosses zero far out": [0.0, 0, -1e30, 0, 0, 0],
    "backwards": [0.0, 0, 0, 0, 3.14159274, 0],
    "far": [1e6, -1e6, 1e6, 0, 0, 0],
    "farther": [1e30, -1e30, 1e30, 1e3, -1e3, 1e3],
    "at the end of float32": [3e38, -3e38, 3e38, 1e38, 1e38, 1e38],
    "infinitely far": [float("inf"), 0, -float("inf"), 0, 0, 0],
    "against the end": [-3e38, 3e38, -3e38, -1e38, 0, 0],
}


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("pose", HOSTILE_POSES.values(), ids=list(HOSTILE_POSES))
def test_no_nan_in_value_or_gradient(pose, rotation, padding):
    images, depth, _, intrinsics = make_scene(12, 33, sources=1, dtype=torch.float32)
    depth[:, :, :, : len(HOSTILE_DEPTHS)] = torch.tensor(HOSTILE_DEPTHS)
    pose = torch.tensor(pose)
    if rotation == "quaternion":
        pose[3:].clamp_(-1e15, 1e15)  # beyond, its square is not a float32 any more
    transform = pose_to_matrix(pose.expand(2, 1, 6), rotation)
    inputs = [images, depth, transform, intrinsics]
    for tensor in inputs:
        tensor.requires_grad_()
    warped, valid = inverse_warp(images, depth, transform, intrinsics, padding)
    assert warped.isfinite().all()
    known = (depth > 1e-6).nan_to_num(0).bool()
    assert not (valid & ~known).any()
    for gradient in torch.autograd.grad(warped, inputs, torch.randn_like(warped)):
        assert not gradient.isnan().any()


@pytest.mark.parametrize("bad", ["sources", "depth", "source_from_target", "intrinsics", "padding"])
def test_wrong_arguments_say_got_and_expected(bad):
    images, depth, pose, intrinsics = make_scene()
    arguments = {"sources": images, "depth": depth, "source_from_target": pose_to_matrix(pose)}
    arguments |= {"intrinsics": intrinsics, "padding": "zeros"}
    arguments[bad] = "reflection" if bad == "padding" else arguments[bad][:1, ..., :-1]
    with pytest.raises(ValueError, match="expected"):
        inverse_warp(**arguments)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_sample_speaks_in_pixels(padding):
    image = torch.arange(12.0).view(1, 1, 3, 4)
    x = torch.tensor([[[0.0, 3, 1.5, -0.5, -9, float("inf"), float("nan")]]])
    y = torch.tensor([[[0.0, 2, 0.25, 1, 1, -float("inf"), 1]]])
    inside = [0, 11, 2.5]
    outside = [2, 0, 0, 0] if padding == "zeros" else [4, 4, 3, 4]
    torch.testing.assert_close(sample(image, x, y, padding).flatten(), torch.tensor([*inside, *outside]).float())
