"""The learned camera commutes with every augmentation, and finds a focal length where a camera turns."""

import pytest
import torch

from datasets.augmentation import AUGMENTATIONS, augment, draw_augmentation, scale_crop_flip
from geometry.camera import intrinsics_from_fov, pixel_grid
from geometry.pose import pose_to_matrix
from geometry.snippets import Snippets
from inverse_warp import inverse_warp
from models import CAMERAS, NetworkSpec, make
from models.learned_camera import LearnedCamera

HEIGHT, WIDTH, BATCH = 24, 40, 12
STARTS = torch.tensor(
    [[[23.0, 0.4, 18.2], [0, 22.0, 12.9], [0, 0, 1]], [[31.0, 0, 21.2], [0, 30.0, 10.9], [0, 0, 1]]]
).double()


def learned(seed: int = 1) -> LearnedCamera:
    """Two cameras that have learned something."""
    camera = LearnedCamera(2).double()
    camera.start_from(STARTS)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        camera.log_focal.copy_(0.4 * torch.randn(2, 2, generator=random))
        camera.shift.copy_(torch.randn(2, 2, generator=random))
    return camera


def snippets(intrinsics: torch.Tensor, cameras: torch.Tensor | None) -> Snippets:
    images = torch.rand(BATCH, 3, 3, HEIGHT, WIDTH).double()
    return Snippets(images[:, 0], images[:, 1:], intrinsics, cameras)


NUMBERS = torch.arange(BATCH) % 2


def test_it_begins_as_the_given_camera():
    camera = LearnedCamera(2).double()
    camera.start_from(STARTS)
    given = snippets(STARTS[NUMBERS], NUMBERS)
    torch.testing.assert_close(camera(given), given.intrinsics)
    torch.testing.assert_close(camera.matrices(), STARTS)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_it_commutes_with_augmentation(kind):
    """Learning and then augmenting is the same as augmenting and then learning, for each camera and when mirrored."""
    camera = learned()
    random = draw_augmentation(torch.Generator().manual_seed(2), BATCH).double()
    at_start = augment(snippets(STARTS[NUMBERS], NUMBERS), random, kind)
    expected = augment(snippets(camera.matrices().detach()[NUMBERS], NUMBERS), random, kind)
    torch.testing.assert_close(camera(at_start), expected.intrinsics, rtol=1e-12, atol=1e-12)
    if kind != "none":
        assert 2 < at_start.mirrored.sum() < BATCH - 2


def test_it_commutes_with_two_augmentations_one_after_the_other():
    camera = learned()
    one = torch.ones(BATCH).double()
    first = (1.1 * one, 1.05 * one, one, 0.5 * one, (torch.arange(BATCH) % 3 == 0).double())
    second = (1.02 * one, 1.1 * one, 0.3 * one, one, (torch.arange(BATCH) % 2 == 0).double())
    got = scale_crop_flip(scale_crop_flip(snippets(STARTS[NUMBERS], NUMBERS), *first), *second)
    expected = snippets(camera.matrices().detach()[NUMBERS], NUMBERS)
    expected = scale_crop_flip(scale_crop_flip(expected, *first), *second)
    torch.testing.assert_close(camera(got), expected.intrinsics, rtol=1e-12, atol=1e-12)


def test_a_mirrored_image_without_the_mark_would_be_wrong():
    """The test above can fail: the principal point moves to the other side."""
    camera = learned()
    flip = (torch.ones(BATCH).double(), torch.ones(BATCH).double(), *torch.zeros(2, BATCH), torch.ones(BATCH))
    at_start = scale_crop_flip(snippets(STARTS[NUMBERS], NUMBERS), *flip)
    unmarked = at_start._replace(mirrored=None)
    difference = (camera(at_start) - camera(unmarked)).abs()
    assert difference[:, 0, 2].min() > 0.1
    assert difference[:, :, :2].max() == 0


def test_the_numbers_are_read_as_they_are_used():
    """K in pixels by hand: fx = 20 e^0.5, cx moves by fx of the start times 0.1 x shift."""
    camera = LearnedCamera().double()
    camera.start_from(torch.tensor([[[20.0, 0, 19.5], [0, 20, 11.5], [0, 0, 1]]]))
    with torch.no_grad():
        camera.log_focal.copy_(torch.tensor([[0.5, 0.0]]))
        camera.shift.copy_(torch.tensor([[1.0, -0.5]]))
    expected = torch.tensor([[[20 * 1.6487212707, 0, 21.5], [0, 20 * 1.6487212707, 10.5], [0, 0, 1]]]).double()
    torch.testing.assert_close(camera.matrices(), expected)
    torch.testing.assert_close(camera(snippets(camera.start.expand(BATCH, -1, -1), None)), expected.expand(BATCH, 3, 3))


def test_unknown_cameras_keep_their_k():
    numbers = torch.where(NUMBERS == 0, -1, NUMBERS)
    given = snippets(STARTS[NUMBERS], numbers)
    k = learned()(given)
    assert torch.equal(k[numbers == -1], given.intrinsics[numbers == -1])
    assert not torch.equal(k[numbers == 1], given.intrinsics[numbers == 1])


def test_each_camera_learns_from_its_own_snippets():
    camera = learned()
    camera(snippets(STARTS[NUMBERS], torch.ones_like(NUMBERS))).sum().backward()
    for parameter in camera.parameters():
        assert parameter.grad[0].eq(0).all()
        assert parameter.grad[1].ne(0).all()


def test_wrong_use():
    with pytest.raises(ValueError, match="which of 2 cameras"):
        learned()(snippets(STARTS[NUMBERS], None))
    with pytest.raises(ValueError, match=r"got shape \[1, 3, 3\], expected \[2, 3, 3\]"):
        learned().start_from(STARTS[:1])
    with pytest.raises(ValueError, match="cameras=0: expected 1 or more"):
        LearnedCamera(0)
    assert make(CAMERAS, NetworkSpec("learned", {"cameras": "3"})).cameras == 3


def test_bfloat16_does_not_round_k():
    camera = learned().float()
    given = snippets(STARTS[NUMBERS].float(), NUMBERS)
    with torch.autocast("cpu", torch.bfloat16):
        k = camera(given)
    assert torch.equal(k, camera(given))


def scene(rays: torch.Tensor) -> torch.Tensor:
    """Colours of a world that is infinitely far away, by direction: [B, 3, H, W] of rays [B, 3, H, W]."""
    x, y = rays[:, 0] / rays[:, 2], rays[:, 1] / rays[:, 2]
    return torch.stack([torch.sin(7 * x + y), torch.cos(5 * y - 2 * x), torch.sin(3 * x) * torch.cos(6 * y)], 1)


def look(k: torch.Tensor, world_from_camera: torch.Tensor) -> torch.Tensor:
    """The images [B, 3, H, W] of a camera with this K that is turned by these rotations [B, 3, 3]."""
    rays = world_from_camera @ torch.linalg.inv(k) @ pixel_grid(HEIGHT, WIDTH, k)
    return scene(rays.view(-1, 3, HEIGHT, WIDTH))


def fit(turn: float, steps: int = 60) -> float:
    """Fit the camera and the rotations, from 30 % off, to images of a camera that turns; fx over its true value."""
    k = intrinsics_from_fov(80, HEIGHT, WIDTH)
    angles = torch.zeros(4, 6).double()
    angles[:, 3:5] = turn * torch.tensor([[0, 1.0], [0.2, -1], [0.6, 0.9], [-0.5, 0.8]])
    target_from_source = pose_to_matrix(angles)[:, :3, :3]
    target, sources = look(k, torch.eye(3).double().expand(4, 3, 3)), look(k, target_from_source)[:, None]
    start = k.clone()
    start[:2, :2] *= 1.3
    camera = LearnedCamera().double()
    camera.start_from(start[None])
    guess = torch.zeros(4, 1, 6).double().requires_grad_()
    optimizer = torch.optim.Adam([{"params": camera.parameters(), "lr": 0.08}, {"params": [guess], "lr": 0.03}])
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, (0.08, 0.03), strict=True):
            group["lr"] = rate * (1 - step / steps)
        given = Snippets(target, sources, start.expand(4, 3, 3))
        far = torch.full((4, 1, HEIGHT, WIDTH), 1e6).double()
        warped, valid = inverse_warp(sources, far, pose_to_matrix(guess), camera(given))
        loss = ((warped - target[:, None]).abs().mean(2) * valid).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(camera.matrices()[0, 0, 0].detach() / k[0, 0])


def test_turns_tell_the_focal_length():
    assert fit(turn=0.15) == pytest.approx(1, abs=0.01)


def test_without_turns_another_translation_takes_up_any_error():
    """K t / depth is all that a motion without turns shows of K, so t' = K'^-1 K t gives the same images for K'."""
    k, wrong = STARTS
    depth = 2 + torch.rand(1, 1, HEIGHT, WIDTH).double()
    sources = torch.rand(1, 1, 3, HEIGHT, WIDTH).double()
    motion = pose_to_matrix(torch.tensor([[[0.1, -0.05, 0.3, 0, 0, 0]]]).double())
    other = motion.clone()
    other[..., :3, 3:] = torch.linalg.inv(wrong) @ k @ motion[..., :3, 3:]
    expected, expected_valid = inverse_warp(sources, depth, motion, k[None])
    got, valid = inverse_warp(sources, depth, other, wrong[None])
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(valid, expected_valid)
