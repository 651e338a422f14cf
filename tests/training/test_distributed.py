"""What one process does alone, and what several would be told; two real processes train in tests/test_train.py."""

import pytest
import torch
from torch import nn

from files.errors import InputError
from models.disp_net import DispNet
from models.pose_exp_net import PoseExpNet
from models.sfm_learner import SfMLearner
from training import distributed


def test_one_process_is_the_first_of_one_and_keeps_what_it_has():
    model, tensor = nn.Linear(2, 3), torch.ones(3)
    assert (distributed.rank(), distributed.count()) == (0, 1)
    assert distributed.gather({"a": 1}) == [{"a": 1}]
    assert distributed.total(tensor) is tensor
    assert distributed.share_gradients(model, some_unused=False) is model
    distributed.share_next_gradients(model, share=False)
    model(torch.ones(2)).sum().backward()
    assert model.weight.grad is not None


def test_one_process_makes_no_group(monkeypatch):
    monkeypatch.setattr(distributed.dist, "init_process_group", pytest.fail)
    with distributed.processes("cpu") as device:
        assert device == torch.device("cpu")
    with pytest.raises(RuntimeError, match="connection of a bug"), distributed.processes("cpu"):
        raise RuntimeError("connection of a bug")


@pytest.fixture
def several(monkeypatch):
    """The environment of the second of two processes, without their group."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    groups = []
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda kind, timeout: groups.append(kind))
    monkeypatch.setattr(distributed.dist, "barrier", lambda: groups.append("waited"))
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: groups.append("left"))
    monkeypatch.setattr(distributed.os, "_exit", lambda status: groups.append(status))
    return groups


def test_several_processes_join_and_leave_their_group(several):
    """The process ends at once then, since threads of the group could abort it while the interpreter ends."""
    with distributed.processes("cpu") as device:
        assert device == torch.device("cpu")
        assert several == ["gloo"]
    assert several == ["gloo", "waited", "left", 0]


def test_a_process_that_lost_the_others_says_so(several):
    with pytest.raises(InputError, match=r"process 0 lost the others .*: one of them has ended; its error is above"):
        with distributed.processes("cpu"):
            raise RuntimeError("[gloo] Connection closed by peer")
    with pytest.raises(RuntimeError, match="a bug"), distributed.processes("cpu"):
        raise RuntimeError("a bug")


def test_devices_of_several_processes(several, monkeypatch):
    for flag in ("cuda:1", "mps", "tpu"):
        with pytest.raises(InputError, match=f"--device {flag}: on several processes expected cuda .* or cpu"):
            with distributed.processes(flag):
                pass
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="process 1 finds no GPU of its own: this machine shows 1 to PyTorch"):
        with distributed.processes("cuda"):
            pass


class WithBatchNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)


def test_running_statistics_are_those_of_the_first_process(monkeypatch):
    """PoseExpNet's scales are a buffer, too, but one that never changes."""
    monkeypatch.setattr(distributed, "count", lambda: 2)
    monkeypatch.setattr(distributed, "DistributedDataParallel", lambda model, **options: options)
    small = SfMLearner(DispNet(width=1 / 16), PoseExpNet(2, width=1 / 16))
    assert dict(small.named_buffers())
    assert not distributed.share_gradients(small, some_unused=False)["broadcast_buffers"]
    small.depth_net = WithBatchNorm()
    assert distributed.share_gradients(small, some_unused=False)["broadcast_buffers"]


def test_all_processes_get_the_statistics_that_checkpoints_store(monkeypatch):
    model = WithBatchNorm()
    model.register_buffer("constant", torch.ones(1), persistent=False)
    sent = []
    monkeypatch.setattr(distributed.dist, "broadcast", lambda tensor, source: sent.append((tensor, source)))
    distributed.share_statistics(model)
    assert sent == []  # one process has nothing to share
    monkeypatch.setattr(distributed, "count", lambda: 2)
    distributed.share_statistics(model)
    buffers = [model.norm.running_mean, model.norm.running_var, model.norm.num_batches_tracked]
    assert all(found is buffer and source == 0 for (found, source), buffer in zip(sent, buffers, strict=True))
