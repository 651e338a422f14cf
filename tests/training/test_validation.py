import numpy as np
import pytest
import torch
from path import Path
from torch import nn

from datasets.layout import write_depth, write_intrinsics, write_poses
from files.atomic import write_text
from files.errors import InputError
from files.images import write_jpeg
from geometry.pose import pose_to_matrix
from loss_functions import Warps
from models.sfm_learner import SfMLearner
from training import validation
from training.validation import open_validation, photometric_errors, report_damaged, validate

HEIGHT, WIDTH, FRAMES = 32, 48, 6
K = np.array([[30.0, 0, 23.5], [0, 30, 15.5], [0, 0, 1]])


class ConstantDisparity(nn.Module):
    """Disparity rises from 1 / 20 at the left to 1 / 10 at the right, whatever the image."""

    def __init__(self):
        super().__init__()
        self.left = nn.Parameter(torch.tensor(0.05))

    def forward(self, image):
        row = torch.linspace(1, 2, image.shape[3]) * self.left
        return [row.expand(len(image), 1, *image.shape[2:])]


class Forwards(nn.Module):
    """Every frame is half a unit further on than the one before."""

    def forward(self, target, sources):
        poses = torch.zeros(len(target), sources.shape[1], 6)
        poses[:, :, 2] = torch.tensor([0.5, -0.5])
        return pose_to_matrix(poses), None


@pytest.fixture
def root(tmp_path):
    root = Path(tmp_path)
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).makedirs()
        write_intrinsics(root / name / "cam.txt", K)
        for k in range(FRAMES):
            write_jpeg(root / name / f"{k:07d}.jpg", random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    write_text(root / "val.txt", "a\nb\n")
    return root


def run(root: Path, batch_size: int = 3) -> dict[str, float]:
    dataset = open_validation(root, 3, (HEIGHT, WIDTH))
    return validate(SfMLearner(ConstantDisparity(), Forwards()), dataset, batch_size, 0, set())


def test_without_ground_truth_there_is_the_photometric_error(root):
    scores = run(root)
    assert scores.keys() == {"photometric", "photometric_identity"}
    # Noise against other noise, uniform in [-1, 1]: 2/3 before JPEG; the warp's interpolation averages some away.
    assert 0.3 < scores["photometric"] < scores["photometric_identity"] < 0.7


def test_the_batch_size_does_not_matter(root):
    assert run(root, 1) == pytest.approx(run(root, 3))  # 8 snippets: the last batch is smaller


class WithBatchNorm(ConstantDisparity):
    """Its BatchNorm sees the images, and says in which mode it did."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.modes = []

    def forward(self, image):
        self.modes.append(self.norm.training)
        return [disparity + 0 * self.norm(image).mean() for disparity in super().forward(image)]


@pytest.mark.parametrize("training", [True, False])
def test_validation_changes_neither_running_statistics_nor_the_mode(root, training):
    network = WithBatchNorm()
    model = SfMLearner(network, Forwards()).train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    validate(model, open_validation(root, 3, (HEIGHT, WIDTH)), 3, 0, set())
    assert network.modes == [False] * 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training == training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_mode_is_restored_where_validation_fails(root):
    model = SfMLearner(WithBatchNorm(), Forwards()).train()
    dataset = open_validation(root, 3, (HEIGHT, WIDTH))
    for file in root.walkfiles("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(InputError, match="not one snippet has all its images whole"):
        validate(model, dataset, 3, 0, set())
    assert all(module.training for module in model.modules())


class LearnedCamera(nn.Module):
    def forward(self, snippets):
        return snippets.intrinsics * torch.tensor([2.0, 2, 1]).view(3, 1)


def test_the_camera_is_the_model_s(root):
    dataset = open_validation(root, 3, (HEIGHT, WIDTH))
    learned = validate(SfMLearner(ConstantDisparity(), Forwards(), LearnedCamera()), dataset, 3, 0, set())
    assert learned["photometric"] != run(root)["photometric"]


def test_ground_truth_as_prediction_scores_no_error(root):
    # In scene a alone. Depth up to one factor, which median scaling finds; motion likewise.
    depth = 3 / (np.linspace(1, 2, WIDTH) * 0.05) * np.ones((HEIGHT, 1))
    for k in (1, 3):
        write_depth(root / "a" / f"{k:07d}.npy", depth)
    poses = np.tile(np.eye(3, 4), (FRAMES, 1, 1))
    poses[:, 2, 3] = 1.5 * np.arange(FRAMES)
    write_poses(root / "a" / "poses.txt", poses)
    scores = run(root)
    assert scores["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert scores["a1"] == 1
    assert scores["ate"] == pytest.approx(0, abs=1e-6)
    write_depth(root / "a" / "0000003.npy", np.full((HEIGHT, WIDTH), 30.0))
    poses[:, 0, 3] = np.arange(FRAMES) ** 2
    write_poses(root / "a" / "poses.txt", poses)
    scores = run(root)
    assert scores["abs_rel"] > 0.05
    assert scores["ate"] > 0.05


def test_damaged_images_are_named_once(root, capsys):
    file = root / "a" / "0000002.jpg"
    file.write_bytes(file.read_bytes()[:-100])
    run(root)
    assert capsys.readouterr().out.count("skipped: ") == 1
    named: set[str] = set()
    for _ in range(2):
        report_damaged(["a: broken", "b: broken", "a: broken"], named)
    assert capsys.readouterr().out == "skipped: a: broken\nskipped: b: broken\n"


def test_photometric_errors_by_hand():
    target, sources = torch.zeros(1, 3, 2, 2), torch.full((1, 2, 3, 2, 2), 0.5)
    valid = torch.tensor([[[[True, False], [False, False]], [[True, True], [False, False]]]])
    warped = torch.full((1, 2, 3, 2, 2), 0.1)
    warped[0, 0, :, 0, 0] = 0.4
    warped[~valid[:, :, None].expand_as(warped)] = 9  # not looked at
    (error,), (identity_error,) = photometric_errors(Warps(target, warped, valid), sources)
    assert error.item() == pytest.approx((0.4 + 0.1 + 0.1) / 3)
    assert identity_error.item() == pytest.approx(0.5)
    nothing = photometric_errors(Warps(target, warped, torch.zeros_like(valid)), sources)
    assert [value.item() for value in nothing] == [1, 1]


@pytest.mark.parametrize("content", [None, "", "# none\n"])
def test_no_scenes_for_validation_is_no_error(root, content):
    (root / "val.txt").remove()
    if content is not None:
        write_text(root / "val.txt", content)
    assert open_validation(root, 3, (HEIGHT, WIDTH)) is None


def test_validation_images_of_another_size_are_refused(root):
    with pytest.raises(InputError, match=r"val.txt: its scenes have 48 x 32 pixels, those of train.txt 96 x 64"):
        open_validation(root, 3, (64, 96))


def test_every_pixel_of_the_prepared_depth_counts():
    assert (validation.PROTOCOL.crop, validation.PROTOCOL.cap) == ("none", 80)
