import numpy as np
import pytest
import torch
from path import Path

from datasets.in_memory import FramesInMemory, free_host_memory
from datasets.layout import write_intrinsics
from datasets.loading import ShuffledBatches, load_batches
from datasets.snippets import SnippetDataset
from files.atomic import write_text
from files.errors import InputError
from files.images import write_jpeg

HEIGHT, WIDTH = 16, 24


@pytest.fixture
def root(tmp_path):
    """Two scenes of noise with cameras of their own; one frame is truncated, one is a text."""
    root, random = Path(tmp_path), np.random.default_rng(0)
    for scene, focal in (("a", 20.0), ("b", 25.0)):
        (root / scene).makedirs()
        write_intrinsics(root / scene / "cam.txt", np.array([[focal, 0, 11], [0, focal, 7], [0, 0, 1]]))
        for k in range(9):
            image = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            write_jpeg(root / scene / f"{k:07d}.jpg", image)
    (root / "a/0000006.jpg").write_bytes((root / "a/0000006.jpg").read_bytes()[:-60])
    write_text(root / "train.txt", "a\nb\n")
    return root


def load(dataset: SnippetDataset, parts: int = 1, device: str = "cpu") -> FramesInMemory:
    memory, damaged = FramesInMemory(dataset), {}
    frames = torch.empty(memory.shape, dtype=torch.uint8)
    for part in range(parts):
        damaged |= memory.fill(frames, 2, part, parts, quiet=True)
    memory.take(frames.to(device), damaged)
    return memory


def assert_same_batches(dataset, memory, pin_memory=False):
    order = ShuffledBatches(len(dataset), 3, 0, 0, 12)
    from_files = list(load_batches(dataset, order, 0, False))
    in_memory = list(memory.batches(order, pin_memory))
    assert any(batch.damaged for batch in from_files)
    for ours, theirs in zip(in_memory, from_files, strict=True):
        assert (ours.indices, ours.damaged) == (theirs.indices, theirs.damaged)
        for a, b in zip(ours.snippets[:4], theirs.snippets[:4], strict=True):
            assert a.shape == b.shape
            assert torch.equal(a.cpu(), b)


@pytest.mark.parametrize("length", [3, 5])
@pytest.mark.parametrize("parts", [1, 2])
def test_batches_are_those_of_the_files_bit_for_bit(root, length, parts):
    dataset = SnippetDataset(root, "train.txt", length)
    assert_same_batches(dataset, load(dataset, parts))


@pytest.mark.gpu
def test_so_they_are_on_a_gpu(root):
    dataset = SnippetDataset(root, "train.txt", 3)
    assert_same_batches(dataset, load(dataset, device="cuda"), pin_memory=True)


def test_files_are_read_once(root, monkeypatch):
    dataset = SnippetDataset(root, "train.txt", 3)
    memory = load(dataset)
    monkeypatch.setattr("datasets.snippets.read_image", pytest.fail)
    assert len(list(memory.batches([[0, 1]] * 9, False))) == 9


def test_a_frame_of_another_size_is_refused(root):
    dataset = SnippetDataset(root, "train.txt", 3)
    write_jpeg(root / "b/0000003.jpg", np.zeros((HEIGHT, WIDTH + 2, 3), np.uint8))
    with pytest.raises(InputError, match=r"b/0000003.jpg: 26 x 16 pixels, expected 24 x 16"):
        load(dataset)


def test_a_set_without_a_whole_snippet_is_refused(root):
    for file in root.walkfiles("*.jpg"):
        if int(file.stem) % 3 == 0:
            file.write_bytes(file.read_bytes()[:-60])
    dataset = SnippetDataset(root, "train.txt", 3)
    with pytest.raises(InputError, match="not one snippet has all its images whole"):
        next(load(dataset).batches([[0]], False))


def test_free_memory_is_a_number_of_bytes():
    assert 2**20 < free_host_memory() < 2**50


def test_a_containers_cache_of_files_counts_as_free(tmp_path):
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2900000\n")
    (tmp_path / "memory.stat").write_text("anon 900000\ninactive_file 1500000\nactive_file 500000\n")
    assert free_host_memory(tmp_path) == 2_100_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_host_memory(tmp_path) > 2**20
