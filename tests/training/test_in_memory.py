import math

import pytest
import torch
from path import Path

from benchmarks.surroundings import make_noise
from datasets.snippets import SnippetDataset
from files.errors import InputError
from training import in_memory


@pytest.fixture
def dataset(tmp_path):
    make_noise(Path(tmp_path), 16, 24, 9)
    return SnippetDataset(Path(tmp_path), "train.txt", 3)


def test_without_a_gpu_they_are_in_the_host_s_memory(dataset):
    memory, line = in_memory.load_frames(dataset, torch.device("cpu"), 1)
    assert line == "9 frames of 24 x 16 take 0.00 GiB, in the host's memory"
    (batch,) = memory.batches([[0, 3]], False)
    assert batch.snippets.target.shape == (2, 3, 16, 24)


def test_too_little_memory_is_one_line(dataset, monkeypatch):
    size = 9 * 16 * 24 * 3
    monkeypatch.setattr(in_memory, "free_host_memory", lambda: math.ceil(size / in_memory.HOST_SHARE) - 1)
    with pytest.raises(InputError, match=r"--data-in-memory: 9 frames .* are free; leave the flag out") as caught:
        in_memory.load_frames(dataset, torch.device("cpu"), 1)
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
def test_they_are_on_the_gpu_where_they_fit(dataset, monkeypatch):
    memory, line = in_memory.load_frames(dataset, torch.device("cuda"), 1)
    assert line.endswith("in cuda")
    (batch,) = memory.batches([[0, 3]], True)
    assert batch.snippets.target.is_cuda
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    memory, line = in_memory.load_frames(dataset, torch.device("cuda"), 1)
    assert "since they would take more than half" in line
    (batch,) = memory.batches([[0, 3]], True)
    assert batch.snippets.target.is_pinned()


def test_processes_of_a_machine_share_the_frames(dataset, monkeypatch):
    """Two processes that wait for each other, each in a thread of its own."""
    import threading

    barrier, slots, local = threading.Barrier(2), [None, None], threading.local()

    def gather(value):
        slots[local.rank] = value
        barrier.wait()
        values = list(slots)
        barrier.wait()
        return values

    monkeypatch.setattr(in_memory.distributed, "gather", gather)
    monkeypatch.setattr(in_memory.distributed, "rank", lambda: local.rank)
    results = {}

    def process(rank):
        local.rank = rank
        memory, _ = in_memory.load_frames(dataset, torch.device("cpu"), 1)
        (results[rank],) = memory.batches([[0, 3]], False)

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert torch.equal(results[0].snippets.sources, results[1].snippets.sources)
    assert results[0].snippets.target.float().std() > 1
