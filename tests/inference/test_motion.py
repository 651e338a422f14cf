import numpy as np
import pytest
import torch
from path import Path

from evaluation.metrics.pose import snippets
from files.errors import InputError
from geometry.pose import invert, pose_to_matrix
from inference.motion import overlapping_batches, predict_snippets, predicted_distances, snippet_length


def drive(length):
    """world_from_camera float64 [length, 4, 4], every frame's motion its own."""
    random = np.random.default_rng(0)
    steps = torch.tensor(random.normal([0, 0, 1, 0, 0, 0], [0.05, 0.02, 0.2, 0.01, 0.05, 0.01], (length, 6)))
    pose, poses = torch.eye(4, dtype=torch.float64), []
    for previous_from_frame in pose_to_matrix(steps):
        poses.append(pose)
        pose = pose @ previous_from_frame
    return torch.stack(poses)


class PerfectNetwork(torch.nn.Module):
    """Knows the true pose of each frame, which it recognises by its brightness."""

    def __init__(self, sources, world_from_frame):
        super().__init__()
        self.sources = sources
        self.world_from_frame = torch.nn.Parameter(world_from_frame, requires_grad=False)

    def forward(self, target, sources):
        def frame(image):
            return ((image[..., 0, 0, 0] + 1) * 127.5).round().long()

        world_from_target = self.world_from_frame[frame(target)][:, None]
        return invert(self.world_from_frame[frame(sources)]) @ world_from_target, None


def image_of(frame):
    return np.full((3, 2, 2), frame, np.uint8)


@pytest.mark.parametrize("frames", [3, 5])
def test_true_poses_chain_to_the_true_snippets(frames):
    poses = drive(20)
    images = torch.from_numpy(np.stack([image_of(frame) for frame in range(20)]))
    found = predict_snippets(PerfectNetwork(frames - 1, poses), images)
    np.testing.assert_allclose(found.numpy(), snippets(poses[:, :3].numpy(), frames), atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_distances_are_those_from_the_middle_frame(batch_size):
    poses = drive(9)
    around = [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [2, 3, 4, 5, 6]]
    files = [[Path(str(frame)) for frame in frames] for frames in around]
    found = predicted_distances(PerfectNetwork(4, poses), files, lambda file: image_of(int(file)), batch_size, 1)
    places = poses[:, :3, 3].numpy()
    for frames, distances in zip(around, found, strict=True):
        others = [frame for frame in frames if frame != frames[2]]
        expected = np.linalg.norm(places[others] - places[frames[2]], axis=1)
        np.testing.assert_allclose(distances, expected, rtol=1e-6)


def test_batches_overlap_by_what_a_snippet_needs():
    batches = overlapping_batches(iter(np.arange(7)), snippets=2, frames=3)
    assert [batch.tolist() for batch in batches] == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6]]


def test_a_snippet_without_a_middle_is_refused():
    assert snippet_length(PerfectNetwork(2, drive(3)), Path("a.pt")) == 3
    with pytest.raises(InputError, match=r"a\.pt: a pose network of 4 frames, expected an odd number"):
        snippet_length(PerfectNetwork(3, drive(3)), Path("a.pt"))
