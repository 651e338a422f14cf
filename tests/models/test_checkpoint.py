import errno
import os

import pytest
import torch
from path import Path

from files.errors import InputError
from models import DispNet, PoseExpNet, checkpoint
from models.checkpoint import keep_copy, load_checkpoint, load_networks, save_checkpoint

CONFIG = {"height": 64, "width": 96, "rotation": "quaternion", "name": "a", "start_from": [], "data": "x"}


@pytest.fixture(scope="module")
def run():
    """Networks and their optimiser after one step."""
    torch.manual_seed(0)
    disp_net, pose_exp_net = DispNet(), PoseExpNet(4)
    parameters = [*disp_net.predict_disp4.parameters(), *pose_exp_net.parameters()]
    optimizer = torch.optim.Adam(parameters, 1e-3, fused=True)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return disp_net, pose_exp_net, optimizer


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    file = Path(tmp_path_factory.mktemp("run") / "last.pt")
    save_checkpoint(file, *run, 7, CONFIG, {"abs_rel": {"value": 0.3, "step": 5}})
    return file


@pytest.fixture
def write(tmp_path):
    """Save a content with torch, beside this project's own way."""

    def write(content, **options):
        file = Path(tmp_path) / "file.pt"
        torch.save(content, file, **options)
        return file

    return write


def equal(network, weights) -> bool:
    return all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


def test_a_checkpoint_is_the_whole_run(run, saved):
    disp_net, pose_exp_net, optimizer = run
    content = load_checkpoint(saved)
    assert (content["step"], content["config"], content["best"]["abs_rel"]["value"]) == (7, CONFIG, 0.3)
    assert equal(disp_net, content["disp_net"])
    assert equal(pose_exp_net, content["pose_exp_net"])
    state = optimizer.state_dict()["state"]
    for index, moments in content["optimizer"]["state"].items():
        assert torch.equal(moments["exp_avg"], state[index]["exp_avg"])
    assert not saved.parent.files("*.part")


def test_networks_are_rebuilt_from_it_alone(run, saved):
    networks = load_networks(saved, torch.device("cpu"))
    assert equal(networks.disp_net, run[0].state_dict())
    assert equal(networks.pose_exp_net, run[1].state_dict())
    assert (networks.pose_exp_net.sources, networks.pose_exp_net.explainability) == (4, True)
    assert not networks.disp_net.training
    assert not networks.pose_exp_net.training
    assert (networks.height, networks.width, networks.rotation, networks.step) == (64, 96, "quaternion", 7)


def test_the_scales_of_poses_are_the_trainings(run, tmp_path):
    file, units = Path(tmp_path) / "last.pt", {"translation_scale": 0.1, "rotation_scale": 0.2, "fixation_depth": 0.8}
    for config, expected in ((CONFIG, (0.01, 0.01, None)), (CONFIG | units, (0.1, 0.2, 0.8))):
        save_checkpoint(file, *run, 7, config, {})
        network = load_networks(file).pose_exp_net
        assert (network.translation_scale, network.rotation_scale, network.fixation_depth) == expected
    for name, damage in (("rotation_scale", "x"), ("rotation_scale", -1), ("fixation_depth", float("nan"))):
        save_checkpoint(file, *run, 7, CONFIG | {name: damage}, {})
        with pytest.raises(InputError, match=rf"last.pt: damaged checkpoint: its {name} is .*, expected"):
            load_networks(file)


def test_the_width_of_networks_is_that_of_their_weights(run, tmp_path):
    file, networks = Path(tmp_path) / "last.pt", (DispNet(width=1 / 16), PoseExpNet(4, width=0.25))
    save_checkpoint(file, *networks, run[2], 7, CONFIG, {})
    loaded = load_networks(file)
    assert (loaded.disp_net.width, loaded.pose_exp_net.width) == (1 / 16, 0.25)
    assert equal(loaded.disp_net, networks[0].state_dict())
    assert equal(loaded.pose_exp_net, networks[1].state_dict())


@pytest.mark.parametrize("legacy", [False, True])
def test_the_ports_disp_net_loads(run, write, legacy):
    file = write({"epoch": 9, "state_dict": run[0].state_dict()}, _use_new_zipfile_serialization=not legacy)
    networks = load_networks(file)
    assert networks.pose_exp_net is None
    assert equal(networks.disp_net, run[0].state_dict())
    assert (networks.height, networks.rotation) == (None, "euler")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("sources", "explainability"), [(2, True), (4, False)])
def test_the_ports_pose_exp_net_loads(write, legacy, sources, explainability):
    network = PoseExpNet(sources, explainability)
    file = write({"epoch": 9, "state_dict": network.state_dict()}, _use_new_zipfile_serialization=not legacy)
    networks = load_networks(file)
    assert networks.disp_net is None
    assert (networks.pose_exp_net.sources, networks.pose_exp_net.explainability) == (sources, explainability)
    assert equal(networks.pose_exp_net, network.state_dict())


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("content", [Evil(), {"state_dict": Evil()}, {"format": "sfmlearner", "config": Evil()}])
def test_a_checkpoint_that_would_run_code_is_refused_and_runs_nothing(write, tmp_path, monkeypatch, content, legacy):
    monkeypatch.chdir(tmp_path)
    file = write(content, _use_new_zipfile_serialization=not legacy)
    for load in (load_networks, load_checkpoint):
        with pytest.raises(InputError, match="could run code"):
            load(file)
    assert os.listdir() == ["file.pt"]


def first_weights(count):
    return dict(list(DispNet().state_dict().items())[:count])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "it holds a list, expected a dict"),
        (torch.zeros(3), "it holds a Tensor"),
        ({}, "not a checkpoint of DispNet or PoseExpNet: it has no entries"),
        ({"model": {}, "a": 1, "b": 1, "c": 1, "d": 1}, "it has the entries a, b, c, d, ..."),
        ({"state_dict": first_weights(5)}, "no checkpoint of DispNet: it lacks conv2.0.bias"),
        ({"state_dict": {"conv1.0.weight": torch.zeros(64, 3, 7, 7)}}, r"is \[64, 3, 7, 7\], expected \[32, 3, 7, 7\]"),
        ({"state_dict": {"conv1.0.weight": "a"}}, "it lacks conv1.0.weight"),
        ({"state_dict": {"pose_pred.weight": torch.zeros(7, 256, 1, 1)}}, "no checkpoint of PoseExpNet: pose_pred"),
        ({"state_dict": {"pose_pred.weight": torch.zeros(6 * 10**6, 1, 1, 1)}}, "no checkpoint of PoseExpNet"),
        ({"format": "sfmlearner", "version": 99}, "checkpoint version 99, this code reads version 1"),
        ({"format": "sfmlearner", "version": 1, "step": 1}, "lacks best, config, disp_net, optimizer, pose_exp_net"),
        (
            {"format": "sfmlearner", "version": 1, "step": 1, "config": 3, "best": {}, "optimizer": {}}
            | {"disp_net": {}, "pose_exp_net": {}},
            "its config is of type int, expected dict",
        ),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_in_one_line(write, content, message):
    file = write(content)
    with pytest.raises(InputError, match=message) as caught:
        load_networks(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(run, write, value):
    weights = run[1].state_dict() | {"conv3.0.bias": torch.full((64,), value)}
    with pytest.raises(InputError, match=r"conv3.0.bias of PoseExpNet holds values that are not finite"):
        load_networks(write({"state_dict": weights}))


def test_surplus_weights_are_refused(run, write):
    weights = run[1].state_dict() | {"conv9.weight": torch.zeros(1)}
    with pytest.raises(InputError, match=r"it has conv9.weight, too"):
        load_networks(write({"state_dict": weights}))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(write, legacy, share):
    file = write({"state_dict": PoseExpNet(2).state_dict()}, _use_new_zipfile_serialization=not legacy)
    file.write_bytes(file.read_bytes()[: int(share * file.size)])
    with pytest.raises(InputError, match=r"file\.pt: "):
        load_networks(file)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n", b"<html>", b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_another_file_is_refused(tmp_path, content):
    file = Path(tmp_path) / "file.pt"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"file\.pt: "):
        load_networks(file)


def test_no_file_and_a_folder_are_refused(tmp_path):
    for file in (Path(tmp_path), Path(tmp_path) / "nothing.pt"):
        with pytest.raises(InputError, match="no such file, expected a checkpoint"):
            load_networks(file)


def _hidden_by_torch() -> RuntimeError:
    error = RuntimeError("unexpected pos 803776 vs 803664")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), _hidden_by_torch()])
def test_a_full_disk_leaves_the_checkpoint_before_as_it_was(run, tmp_path, monkeypatch, error):
    file = Path(tmp_path) / "last.pt"
    file.write_bytes(b"the one before")

    def fail(content, stream):
        stream.write(b"half of it")
        raise error

    monkeypatch.setattr(checkpoint.torch, "save", fail)
    with pytest.raises(
        InputError, match=r"could not be written \(No space left on device\); the checkpoint before it is untouched"
    ):
        save_checkpoint(file, *run, 8, CONFIG, {})
    assert file.read_bytes() == b"the one before"
    assert [name.name for name in Path(tmp_path).files()] == ["last.pt"]


@pytest.mark.parametrize("links", [True, False])
def test_a_copy_keeps_its_content_when_the_file_is_replaced(tmp_path, monkeypatch, links):
    folder = Path(tmp_path)
    if not links:

        def refuse(*names):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(checkpoint.os, "link", refuse)
    for content in (b"first", b"second"):
        (folder / "new").write_bytes(content)
        (folder / "new").rename(folder / "last.pt")
        if content == b"first":
            keep_copy(folder / "last.pt", folder / "best.pt")
    assert (folder / "best.pt").read_bytes() == b"first"
    keep_copy(folder / "last.pt", folder / "best.pt")
    assert (folder / "best.pt").read_bytes() == b"second"
    assert sorted(file.name for file in folder.files()) == ["best.pt", "last.pt"]


def test_names_from_a_damaged_file_stay_in_one_short_line(tmp_path):
    file = Path(tmp_path) / "file.pt"
    torch.save({"\rormat": 1, "x" * 3000: 2}, file)
    with pytest.raises(InputError) as caught:
        load_networks(file)
    assert "it has the entries \\rormat, xxx" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400
