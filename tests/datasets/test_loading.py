import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from path import Path

from datasets import loading
from datasets.layout import write_depth, write_intrinsics, write_poses
from datasets.loading import ShuffledBatches, load_batches, read_batch, seeded
from datasets.snippets import SnippetDataset
from files.atomic import write_text
from files.errors import InputError
from files.images import write_jpeg

HEIGHT, WIDTH, FRAMES = 32, 48, 7
K = np.array([[30.0, 0, 23.5], [0, 30, 15.5], [0, 0, 1]])


@pytest.fixture
def root(tmp_path):
    """A scene of grey frames, ever brighter; its second frame has depth, and all have poses."""
    root = Path(tmp_path) / "prepared"
    scene = root / "a"
    scene.makedirs()
    write_intrinsics(scene / "cam.txt", K)
    for k in range(FRAMES):
        write_jpeg(scene / f"{k:07d}.jpg", np.full((HEIGHT, WIDTH, 3), 10 * k, np.uint8))
    write_text(root / "train.txt", "a\n")
    poses = np.tile(np.eye(3, 4), (FRAMES, 1, 1))
    poses[:, 2, 3] = range(FRAMES)
    write_poses(scene / "poses.txt", poses)
    write_depth(scene / "0000001.npy", np.full((HEIGHT, WIDTH), 7, np.float32))
    return root


def damage_all(root: Path) -> None:
    for file in root.walkfiles("*.jpg"):
        file.write_bytes(file.read_bytes()[:-60])


def grey(images: torch.Tensor) -> list:
    """The mean brightness of each image."""
    return images.float().mean((-3, -2, -1)).round().int().tolist()


@pytest.mark.parametrize("length", [3, 5, 7])
def test_the_target_is_the_middle_frame_and_the_sources_are_in_order_of_time(root, length):
    dataset = SnippetDataset(root, "train.txt", length)
    batch = read_batch(dataset, [0, len(dataset) - 1])
    first = len(dataset) - 1
    middle = length // 2
    others = [k for k in range(length) if k != middle]
    assert grey(batch.snippets.target) == [10 * middle, 10 * (first + middle)]
    assert grey(batch.snippets.sources) == [[10 * k for k in others], [10 * (first + k) for k in others]]
    assert batch.snippets.target.shape == (2, 3, HEIGHT, WIDTH)
    assert batch.snippets.sources.shape == (2, length - 1, 3, HEIGHT, WIDTH)
    assert batch.snippets.target.dtype == batch.snippets.sources.dtype == torch.uint8
    assert batch.snippets.intrinsics.equal(torch.from_numpy(K).float().expand(2, 3, 3))
    assert (batch.indices, batch.damaged, batch.depth, batch.poses) == ([0, first], [], None, None)


def test_pixels_are_those_of_the_files(root):
    random = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    write_jpeg(root / "a" / "0000001.jpg", random)
    dataset = SnippetDataset(root, "train.txt", 3)
    item = dataset[0]
    batch = read_batch(dataset, [0])
    assert torch.equal(batch.snippets.target[0], item["frames"][1])
    assert torch.equal(batch.snippets.sources[0, 1], item["frames"][2])
    assert batch.snippets.target.permute(0, 2, 3, 1).is_contiguous()  # channels interleaved, as the decoder gives them


def test_ground_truth_and_damage_come_along(root):
    file = root / "a" / "0000006.jpg"
    file.write_bytes(file.read_bytes()[:-60])
    dataset = SnippetDataset(root, "train.txt", 3, ground_truth=True)
    (batch,) = load_batches(dataset, [[0, 4]], 0, False)  # 4 has the damaged file, and 0 is the next whole snippet
    assert batch.indices == [0, 0]
    assert len(batch.damaged) == 1
    assert "0000006.jpg: truncated" in batch.damaged[0]
    assert batch.depth.unique().tolist() == [7]
    assert batch.poses[:, :, 2, 3].tolist() == [[0, 1, 2]] * 2
    assert (batch.depth.shape, batch.poses.shape) == ((2, HEIGHT, WIDTH), (2, 3, 3, 4))


def test_batches_that_are_kept_stay_as_they_were(root):
    """The workers write to the same blocks of memory again and again."""
    dataset = SnippetDataset(root, "train.txt", 3)
    indices = [[k % 5, 0] if k % 3 else [k % 5] for k in range(20)]
    batches = list(load_batches(dataset, indices, 2, False))
    for expected, batch in zip(indices, batches, strict=True):
        alone = read_batch(dataset, expected)
        assert batch.indices == expected
        assert all(torch.equal(a, b) for a, b in zip(batch.snippets[:4], alone.snippets[:4], strict=True))


@pytest.mark.gpu
def test_page_locked_batches(root):
    (batch,) = load_batches(SnippetDataset(root, "train.txt", 3), [[0, 4]], 0, pin_memory=True)
    assert all(tensor.is_pinned() for tensor in batch.snippets)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_is_one_line(root, workers):
    dataset = SnippetDataset(root, "train.txt", 3)
    damage_all(root)
    with pytest.raises(InputError) as caught:
        next(load_batches(dataset, [[0, 1]], workers, False))
    assert str(caught.value).startswith(f"{root}: not one snippet")
    assert "\n" not in str(caught.value)


def test_an_error_does_not_keep_the_workers(root):
    """They would be left to the garbage collector, which closes their pipes in any order, and some twice."""
    dataset = SnippetDataset(root, "train.txt", 3)
    damage_all(root)
    with pytest.raises(InputError) as caught:
        next(load_batches(dataset, [[0, 1]], 2, False))
    assert "not one snippet" in str(caught.value)
    assert multiprocessing.active_children() == []


def test_a_worker_that_is_killed_is_one_line(root):
    batches = load_batches(SnippetDataset(root, "train.txt", 3), [[0, 1]] * 1000, 1, False)
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(InputError, match=r"a process that reads images was killed, .* try fewer --workers than 1"):
        list(batches)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_of_ours_keeps_its_traceback(root, monkeypatch, workers):
    def fail(self, index, frames):
        raise RuntimeError("a bug")

    monkeypatch.setattr(SnippetDataset, "read", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        next(load_batches(SnippetDataset(root, "train.txt", 3), [[0, 1]], workers, False))


def test_the_order_is_the_seeds_whatever_the_number_of_workers(root):
    dataset = SnippetDataset(root, "train.txt", 3)

    def run(workers, seed):
        batches = ShuffledBatches(len(dataset), 2, seed, 0, 9)
        return [(batch.indices, batch.snippets) for batch in load_batches(dataset, batches, workers, False)]

    runs = [run(0, 5), run(2, 5), run(0, 6)]
    for (indices, snippets), (other_indices, other_snippets) in zip(*runs[:2], strict=True):
        assert indices == other_indices
        assert all(torch.equal(*pair) for pair in zip(snippets[:4], other_snippets[:4], strict=True))
    assert [indices for indices, _ in runs[0]] != [indices for indices, _ in runs[2]]


@pytest.mark.parametrize(("size", "batch_size"), [(12, 4), (13, 4), (4, 4), (5, 1)])
def test_every_epoch_is_a_permutation_and_the_next_another(size, batch_size):
    steps = size // batch_size
    batches = list(ShuffledBatches(size, batch_size, 0, 0, 3 * steps))
    assert all(len(batch) == batch_size for batch in batches)
    epochs = [[index for batch in batches[k * steps : (k + 1) * steps] for index in batch] for k in range(3)]
    for epoch in epochs:
        assert len(set(epoch)) == steps * batch_size  # no snippet twice
        assert set(epoch) <= set(range(size))
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("start", range(8))
def test_the_order_does_not_depend_on_where_a_run_was_stopped(start):
    whole = list(ShuffledBatches(13, 4, 1, 0, 8))
    batches = ShuffledBatches(13, 4, 1, start, 8)
    assert list(batches) == whole[start:]
    assert len(batches) == 8 - start


def test_too_few_snippets_for_a_batch_are_refused():
    with pytest.raises(InputError, match="has 3 snippets, fewer than the batch size of 4"):
        ShuffledBatches(3, 4, 0, 0, 1)


def test_seeded_depends_on_each_number_and_nothing_else():
    draws = {
        numbers: torch.rand((), generator=seeded(*numbers)).item() for numbers in [(0, 1), (1, 0), (0, 2), (7, 0, 1)]
    }
    assert len(set(draws.values())) == 4
    torch.manual_seed(7)
    assert torch.rand((), generator=seeded(0, 1)).item() == draws[0, 1]


def test_workers_leave_signals_to_the_training_process(monkeypatch):
    ignored = []
    monkeypatch.setattr(loading.signal, "signal", lambda number, action: ignored.append((number, action)))
    monkeypatch.setattr(loading.gc, "freeze", lambda: None)
    loading._begin_worker(0)
    ignore = loading.signal.SIG_IGN
    assert ignored == [(loading.signal.SIGINT, ignore), (loading.signal.SIGTERM, ignore)]


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_processes_and_accumulated_batches_share_a_step(processes, accumulate):
    pieces = processes * accumulate
    steps = list(ShuffledBatches(50, 12, 3, 2, 9))
    shared = [
        list(ShuffledBatches(50, 12 // pieces, 3, 2, 9, pieces, process, processes)) for process in range(processes)
    ]
    assert all(len(batches) == 7 * accumulate for batches in shared)
    assert len(ShuffledBatches(50, 12 // pieces, 3, 2, 9, pieces, 0, processes)) == 7 * accumulate
    for number, step in enumerate(steps):
        parts = [batches[number * accumulate + part] for part in range(accumulate) for batches in shared]
        assert [index for part in parts for index in part] == step


def test_too_few_snippets_for_all_processes_are_refused():
    with pytest.raises(InputError, match="has 7 snippets, fewer than the batch size of 8 in 4 pieces"):
        ShuffledBatches(7, 2, 0, 0, 1, pieces=4)
