import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from geometry.pose import (
    ROTATIONS,
    axis_angle_to_matrix,
    compose,
    euler_to_matrix,
    invert,
    pose_to_matrix,
    quaternion_to_matrix,
    rotation_angle,
    snippet_poses,
    transform_from,
)
from tests.oracles import load, sources, warp


def random_poses(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, 6, dtype=torch.float64)


@pytest.mark.parametrize(("to_matrix", "key"), [(euler_to_matrix, "euler"), (quaternion_to_matrix, "quat")])
@pytest.mark.parametrize("source", sources("inverse_warp"))
def test_matrices_agree_with_the_reference(source, to_matrix, key):
    reference = load("inverse_warp", source, warp)
    matrices = to_matrix(torch.from_numpy(reference["pose"][:, 3:]))
    np.testing.assert_allclose(matrices, reference[f"{key}_matrices"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("to_matrix", "quarter"),
    [(euler_to_matrix, math.pi / 2), (quaternion_to_matrix, 1.0), (axis_angle_to_matrix, math.pi / 2)],
)
def test_a_quarter_turn_about_an_axis_turns_the_next_axis_into_the_one_after(to_matrix, quarter, axis):
    vector = torch.zeros(3, dtype=torch.float64)
    vector[axis] = quarter
    unit = torch.eye(3, dtype=torch.float64)
    turned = to_matrix(vector) @ unit[(axis + 1) % 3]
    torch.testing.assert_close(turned, unit[(axis + 2) % 3], rtol=0, atol=1e-15)


def test_euler_angles_are_rx_ry_rz_in_that_order():
    angles = torch.randn(5, 3, dtype=torch.float64)
    about = [euler_to_matrix(angles * torch.eye(3, dtype=torch.float64)[axis]) for axis in range(3)]
    torch.testing.assert_close(euler_to_matrix(angles), about[0] @ about[1] @ about[2])


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_transforms_are_rigid_and_small_vectors_are_rotation_vectors(rotation):
    transforms = pose_to_matrix(random_poses(4, 2), rotation)
    matrices = transforms[..., :3, :3]
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3, dtype=torch.float64).expand_as(matrices))
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(4, 2, dtype=torch.float64))
    assert transforms[..., 3, :].unique(dim=0).tolist() == [[[0, 0, 0, 1]] * 2]
    small = pose_to_matrix(torch.tensor([0, 0, 0, 1e-6, 2e-6, 3e-6], dtype=torch.float64), rotation)
    factor = 2 if rotation == "quaternion" else 1  # the vector part of a unit quaternion is half the rotation vector
    expected = factor * torch.tensor([[0, -3e-6, 2e-6], [3e-6, 0, -1e-6], [-2e-6, 1e-6, 0]], dtype=torch.float64)
    torch.testing.assert_close(small[:3, :3] - torch.eye(3, dtype=torch.float64), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_zero_is_the_identity_to_the_last_bit_and_has_a_gradient(rotation):
    pose = torch.zeros(2, 6, requires_grad=True)
    transform = pose_to_matrix(pose, rotation)
    assert torch.equal(transform, torch.eye(4).expand(2, 4, 4))
    (gradient,) = torch.autograd.grad(transform[:, :3].sin().sum(), pose)
    assert gradient.isfinite().all()


# Around 0.5 the series gives way to the sine; at pi the axis has two signs; 1e-200 squares to 0.
ANGLES = (0.0, 1e-200, 1e-12, 1e-6, 1e-3, 0.1, 0.4999, 0.5001, 0.9999, 1.0001, 2.0, math.pi - 1e-9, math.pi, 5.0, 40.0)


@pytest.mark.parametrize("angle", ANGLES)
def test_axis_angle_agrees_with_scipy_and_with_the_matrix_exponential(angle):
    vectors = angle * torch.nn.functional.normalize(torch.randn(8, 3, dtype=torch.float64), dim=-1)
    matrices = axis_angle_to_matrix(vectors)
    np.testing.assert_allclose(matrices, Rotation.from_rotvec(vectors.numpy()).as_matrix(), rtol=0, atol=2e-15)
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(-1, 3, 3)
    torch.testing.assert_close(matrices, torch.linalg.matrix_exp(cross), rtol=0, atol=1e-13)
    torch.testing.assert_close(axis_angle_to_matrix(vectors.float()).double(), matrices, rtol=0, atol=1e-5)


@pytest.mark.parametrize("angle", [0.0, 1e-200, 1e-5, 0.49999, 0.50001, 1.0, 3.0])
def test_axis_angle_is_differentiable_twice_everywhere(angle):
    axis = torch.tensor([0.6, -0.48, 0.64], dtype=torch.float64)
    vector = (angle * axis).requires_grad_()
    assert torch.autograd.gradcheck(axis_angle_to_matrix, vector, atol=1e-8)
    assert torch.autograd.gradgradcheck(axis_angle_to_matrix, vector, atol=1e-7)


def test_the_inverse_of_axis_angle_is_the_opposite_vector():
    vectors = torch.randn(20, 3, dtype=torch.float64) * 3
    torch.testing.assert_close(axis_angle_to_matrix(-vectors), axis_angle_to_matrix(vectors).mT)


def test_motion_is_inverted_in_float32_under_autocast():
    pose = pose_to_matrix(random_poses(3, 5)[0].float())
    with torch.autocast("cpu", torch.bfloat16):
        inverse = invert(pose)
    assert inverse.dtype == torch.float32
    torch.testing.assert_close(inverse, torch.linalg.inv(pose))


def test_invert_and_compose_are_a_group():
    a, b, c = pose_to_matrix(random_poses(3, 5)).unbind(0)
    identity = torch.eye(4, dtype=torch.float64).expand_as(a)
    torch.testing.assert_close(compose(a, invert(a)), identity)
    torch.testing.assert_close(compose(invert(a), a), identity)
    torch.testing.assert_close(invert(compose(a, b)), compose(invert(b), invert(a)))
    torch.testing.assert_close(compose(compose(a, b), c), compose(a, compose(b, c)))
    torch.testing.assert_close(invert(a), torch.linalg.inv(a))
    assert compose(a[:, None], b).shape == (5, 5, 4, 4)  # batch dimensions broadcast


@pytest.mark.parametrize("sources", [2, 4])
def test_snippet_poses_of_a_drive_straight_on(sources):
    # The camera moves 1 along z a frame. Frame k stands at z = k, so that X_k = X_target + (target - k) z.
    middle = sources // 2
    offsets = [middle - k for k in range(sources + 1) if k != middle]
    pose = torch.zeros(sources, 6, dtype=torch.float64)
    pose[:, 2] = torch.tensor(offsets, dtype=torch.float64)
    expected = torch.eye(4, dtype=torch.float64).repeat(sources + 1, 1, 1)
    expected[:, 2, 3] = torch.arange(sources + 1)
    torch.testing.assert_close(snippet_poses(pose_to_matrix(pose)), expected)


def test_snippet_poses_of_any_motion_are_the_trajectory_seen_from_its_first_frame():
    world_from_frame = pose_to_matrix(random_poses(3, 5))
    sources = [0, 1, 3, 4]
    source_from_target = torch.linalg.inv(world_from_frame[:, sources]) @ world_from_frame[:, 2:3]
    expected = torch.linalg.inv(world_from_frame[:, :1]) @ world_from_frame
    torch.testing.assert_close(snippet_poses(source_from_target), expected)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-3, 0.5, math.pi / 2, 3.0, math.pi - 1e-6])
def test_the_angle_of_a_rotation_about_any_axis(angle):
    axes = torch.nn.functional.normalize(torch.randn(4, 3, dtype=torch.float64), dim=-1)
    rotations = quaternion_to_matrix(axes * math.tan(angle / 2))
    torch.testing.assert_close(rotation_angle(rotations), torch.full((4,), angle).double(), rtol=1e-7, atol=1e-9)
    inverse = rotations.transpose(-1, -2)
    torch.testing.assert_close(rotation_angle(inverse), rotation_angle(rotations), rtol=0, atol=1e-12)


def test_the_angle_of_half_a_turn_and_of_a_small_one_in_float32():
    half = torch.diag(torch.tensor([1.0, -1, -1]))
    assert rotation_angle(half).item() == pytest.approx(math.pi)
    small = euler_to_matrix(torch.tensor([[[1e-5, 0, 0], [0, -2e-6, 0]]]))
    # The arc cosine of the trace would round both to 0.
    torch.testing.assert_close(rotation_angle(small), torch.tensor([[1e-5, 2e-6]]), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (euler_to_matrix, [torch.zeros(2, 4)]),
        (quaternion_to_matrix, [torch.zeros(2, 4)]),
        (pose_to_matrix, [torch.zeros(2, 7)]),
        (axis_angle_to_matrix, [torch.zeros(2, 4)]),
        (pose_to_matrix, [torch.zeros(2, 6), "matrix"]),
        (invert, [torch.zeros(2, 3, 4)]),
        (compose, [torch.eye(4), torch.eye(3)]),
        (snippet_poses, [torch.zeros(2, 3, 4)]),
    ],
)
def test_wrong_arguments_say_got_and_expected(function, arguments):
    with pytest.raises(ValueError, match="expected"):
        function(*arguments)


def test_dtype_is_kept():
    for dtype in (torch.float32, torch.float64):
        assert pose_to_matrix(torch.zeros(6, dtype=dtype)).dtype == dtype
        assert transform_from(torch.eye(3, dtype=dtype), torch.zeros(3, dtype=dtype)).dtype == dtype
