import errno
import math
import os
import pathlib
from collections import OrderedDict

import numpy as np
import pytest
import torch
from path import Path
from torch import nn

from files.atomic import keep_copy
from files.errors import InputError
from models import NetworkSpec, build, checkpoint, complete
from models.checkpoint import (
    CRITERIA,
    HIGHER_IS_BETTER,
    checkpoint_content,
    checkpoint_file,
    find_checkpoint,
    is_better,
    load_checkpoint,
    load_model,
    load_optimizer,
    load_weights,
    save_checkpoint,
)
from models.disp_net import DispNet
from models.pose_exp_net import PoseExpNet

SMALL = 1 / 16
OPTIONS = {"data": "x", "name": "a", "start_from": [], "learning_rate": 1e-3}
RECORD = {"height": 64, "width": 96, "snippets": 8, "processes": 1, "total_steps": 9, "scenes": ["a", "b"]}
STANDING = {
    "step": 7,
    "skipped": 1,
    "validation_due": True,
    "best": {"abs_rel": {"value": 0.3, "step": 5}},
    "damaged": ["a/1.jpg: truncated"],
}
POSE = {"rotation": "quaternion", "translation_scale": 0.1, "rotation_scale": 0.2, "orbit_depth": 0.8}


def make_model(sources=4, **pose_arguments):
    """A small model, its specification and its optimiser after one step."""
    torch.manual_seed(0)
    specs = {
        "depth": complete(checkpoint.DEPTH_NETS, NetworkSpec("disp_net", {"width": SMALL})),
        "pose": complete(
            checkpoint.POSE_NETS,
            NetworkSpec("pose_exp_net", {"sources": sources, "width": SMALL, **POSE} | pose_arguments),
        ),
        "camera": NetworkSpec("given"),
    }
    model = build(specs["depth"], specs["pose"], specs["camera"])
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return model, specs, optimizer


@pytest.fixture(scope="module")
def run():
    return make_model()


@pytest.fixture
def content(run):
    """A checkpoint's content, to change."""
    content = checkpoint_content(*run, dict(OPTIONS), dict(RECORD), dict(STANDING))
    content["model"] = OrderedDict(content["model"])
    state = content["optimizer"]["state"]
    moments = {index: dict(entry) for index, entry in state.items()}
    return content | {"optimizer": content["optimizer"] | {"state": moments}}


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


def refusal(file: Path, load=load_checkpoint) -> str:
    """The line by which a checkpoint is refused."""
    with pytest.raises(InputError) as caught:
        load(file)
    line = str(caught.value)
    assert line.startswith(f"{file}: ")
    assert len(line.splitlines()) == 1
    assert len(line) < len(file) + 250
    return line.removeprefix(f"{file}: ")


# A checkpoint of this project ----------------------------------------------------------------------------------------


def test_a_checkpoint_is_the_whole_run(run, tmp_path):
    model, specs, optimizer = run
    file = Path(tmp_path) / "last.pt"
    save_checkpoint(file, checkpoint_content(*run, OPTIONS, RECORD, STANDING))
    content = load_checkpoint(file)
    assert {name: content[name] for name in STANDING} == STANDING
    assert (content["format"], content["version"]) == ("sfmlearner", 2)
    assert (content["options"], content["record"]) == (OPTIONS, RECORD)
    assert content["networks"]["depth"] == {"name": "disp_net", "arguments": specs["depth"].arguments}
    assert content["networks"]["camera"] == {"name": "given", "arguments": {}}
    assert equal(model, content["model"])
    state = optimizer.state_dict()["state"]
    for index, moments in content["optimizer"]["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(tensor, state[index][name])
    assert not file.parent.files("*.part")


def test_model_and_optimiser_go_on_from_it_to_the_last_bit(run, content, write):
    model, _, optimizer = run
    loaded = load_checkpoint(write(content))
    again, _, other = make_model()
    for parameter in again.parameters():
        nn.init.zeros_(parameter)
    load_weights(again, loaded["model"], "file.pt", "the model")
    load_optimizer(other, loaded["optimizer"], "file.pt")
    for optimiser, network in ((optimizer, model), (other, again)):
        torch.manual_seed(1)
        before = [parameter.detach().clone() for parameter in network.parameters()]
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimiser.step()
        assert not any(torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))
    assert equal(again, model.state_dict())


def test_networks_are_rebuilt_from_it_alone(run, content, write):
    loaded, model = load_model(write(content)), run[0]
    assert equal(loaded.depth_net, model.depth_net.state_dict())
    assert equal(loaded.pose_net, model.pose_net.state_dict())
    pose_net = loaded.pose_net
    assert (pose_net.sources, pose_net.explainability, pose_net.rotation, pose_net.orbit_depth) == (
        *(4, True, "quaternion", 0.8),
    )
    assert torch.equal(pose_net.pose_scales, torch.tensor([0.1] * 3 + [0.2] * 3))
    assert not any(network.training for network in (loaded.depth_net, loaded.pose_net, loaded.camera))
    assert (loaded.height, loaded.width, loaded.step) == (64, 96, 7)
    assert (loaded.data, loaded.scenes, loaded.specs) == ("x", ["a", "b"], run[1])


def test_arguments_that_the_code_had_not_yet_get_their_default(content, write):
    del content["networks"]["pose"]["arguments"]["orbit_depth"]
    for name in ("skipped", "validation_due", "damaged"):
        del content[name]
    loaded = load_model(write(content))
    assert loaded.pose_net.orbit_depth is None
    assert load_checkpoint(write(content))["skipped"] == 0


def test_a_checkpoint_that_says_less_of_its_training(content, write):
    content["record"], content["options"] = {"scenes": None}, {}
    loaded = load_model(write(content))
    assert (loaded.height, loaded.width, loaded.data, loaded.scenes) == (None, None, None, None)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(value):
    run = make_model()
    with torch.no_grad():
        run[0].pose_net.conv3[0].bias[0] = value
    with pytest.raises(InputError, match="step 7: the weights are not finite; the checkpoint before it is kept"):
        checkpoint_content(*run, OPTIONS, RECORD, STANDING)


def _hidden_by_torch() -> RuntimeError:
    error = RuntimeError("unexpected pos 803776 vs 803664")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), _hidden_by_torch()])
def test_a_full_disk_leaves_the_checkpoint_before_as_it_was(content, tmp_path, monkeypatch, error):
    file = Path(tmp_path) / "last.pt"
    file.write_bytes(b"the one before")

    def fail(content, stream):
        stream.write(b"half of it")
        raise error

    monkeypatch.setattr(checkpoint.torch, "save", fail)
    with pytest.raises(
        InputError, match=r"could not be written \(No space left on device\); the checkpoint before it is untouched"
    ):
        save_checkpoint(file, content)
    assert file.read_bytes() == b"the one before"
    assert [name.name for name in Path(tmp_path).files()] == ["last.pt"]


@pytest.mark.parametrize("links", [True, False])
def test_a_copy_keeps_its_content_when_the_file_is_replaced(tmp_path, monkeypatch, links):
    folder = Path(tmp_path)
    if not links:

        def refuse(*names):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    for content in (b"first", b"second"):
        (folder / "new").write_bytes(content)
        (folder / "new").rename(folder / "last.pt")
        if content == b"first":
            keep_copy(folder / "last.pt", folder / "best.pt")
    assert (folder / "best.pt").read_bytes() == b"first"
    keep_copy(folder / "last.pt", folder / "best.pt")
    assert (folder / "best.pt").read_bytes() == b"second"
    assert sorted(file.name for file in folder.files()) == ["best.pt", "last.pt"]


def test_a_run_s_checkpoints_are_found_by_their_names(tmp_path):
    folder = Path(tmp_path)
    with pytest.raises(InputError, match=r"last.pt: no such file, found no checkpoint of a run in this folder"):
        find_checkpoint(folder, "last")
    for name in ("last.pt", "best_ate.pt"):
        (folder / name).touch()
    assert find_checkpoint(folder, "last") == folder / "last.pt"
    assert find_checkpoint(folder, "ate") == folder / "best_ate.pt"
    with pytest.raises(InputError, match=r"best_abs_rel.pt: no such file, found only --which last, ate"):
        find_checkpoint(folder, "abs_rel")
    assert checkpoint_file(folder) == checkpoint_file(folder / "last.pt") == folder / "last.pt"


@pytest.mark.parametrize("kind", [str, pathlib.Path, Path])
def test_a_name_may_be_of_any_kind(run, content, write, kind):
    """A plain str was an AttributeError, though docs/training.md shows it."""
    file = write(content)
    assert equal(run[0].depth_net, load_model(kind(file)).depth_net.state_dict())
    assert load_checkpoint(kind(file))["step"] == content["step"]
    assert load_model(kind("world")).height == 64
    with pytest.raises(InputError, match="nowhere: no such file, expected a checkpoint"):
        load_model(kind("nowhere"))


# The port's checkpoints ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("width", [SMALL, 1])
def test_the_ports_disp_net_loads(write, legacy, parallel, width):
    network = DispNet(width=width)
    weights = (nn.DataParallel(network) if parallel else network).state_dict()
    assert any(name.startswith("module.") for name in weights) == parallel
    loaded = load_model(write({"epoch": 9, "state_dict": weights}, _use_new_zipfile_serialization=not legacy))
    assert (loaded.pose_net, loaded.camera, loaded.height, loaded.step) == (None, None, None, None)
    assert loaded.depth_net.width == width
    assert equal(loaded.depth_net, network.state_dict())


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(("sources", "explainability"), [(2, True), (4, False)])
def test_the_ports_pose_exp_net_loads(write, legacy, parallel, sources, explainability):
    network = PoseExpNet(sources, explainability, width=0.25)
    weights = (nn.DataParallel(network) if parallel else network).state_dict()
    loaded = load_model(write({"epoch": 9, "state_dict": weights}, _use_new_zipfile_serialization=not legacy))
    assert loaded.depth_net is None
    assert (
        loaded.specs["pose"].arguments
        == complete(
            checkpoint.POSE_NETS,
            NetworkSpec("pose_exp_net", {"sources": sources, "explainability": explainability, "width": 0.25}),
        ).arguments
    )
    assert (loaded.pose_net.sources, loaded.pose_net.explainability) == (sources, explainability)
    assert equal(loaded.pose_net, network.state_dict())


def test_numbers_of_numpy_beside_the_weights_are_read(write, content):
    network = DispNet(width=SMALL)
    beside = {"best_error": np.float64(0.3), "epoch": np.int64(3), "state_dict": network.state_dict()}
    assert equal(load_model(write(beside)).depth_net, network.state_dict())
    content["best"]["abs_rel"]["value"] = np.float64(0.25)
    assert load_checkpoint(write(content))["best"]["abs_rel"]["value"] == 0.25


# Checkpoints of version 1 --------------------------------------------------------------------------------------------

CONFIG_1 = {
    **{"data": "prepared", "name": "run", "runs": "runs", "recipe": "paper-pose", "sequence_length": 5},
    **{"photometric_weight": 1.0, "smoothness_weight": 0.1, "smoothness_decay": 2.0, "smoothed": "depth"},
    **{"explainability": True, "explainability_weight": 0.2, "rotation": "quaternion", "network_width": 0.0625},
    **{"pose_net_width": 0.125, "start_from": [], "first_disparity": 1.2, "translation_scale": 0.1},
    **{"rotation_scale": 0.2, "fixation_depth": 0.83, "steps": 20, "epochs": None, "batch_size": 2},
    **{"learning_rate": 0.001, "schedule": "constant", "beta1": 0.9, "beta2": 0.999, "augmentation": "flip"},
    **{"no_check": True, "seed": 3, "skip_non_finite": False, "accumulate": 1, "device": "cpu"},
    **{"precision": "float32", "compile": False, "channels_last": False, "workers": 0, "log_every": 50},
    **{"pictures_every": 500, "validate_every": None, "save_every": 10, "height": 64, "width": 96, "snippets": 8},
    **{"processes": 1, "scenes": ["a", "b"], "total_steps": 20},
}


@pytest.fixture
def version_1():
    """The content of a checkpoint of version 1, to change, and its networks and optimiser."""
    torch.manual_seed(0)
    networks = DispNet(1.2, SMALL), PoseExpNet(4, width=0.125)
    parameters = [*networks[0].parameters(), *networks[1].parameters()]
    optimizer = torch.optim.Adam(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    content = {
        **{"format": "sfmlearner", "version": 1, "torch": "2.8.0", "step": 7, "config": dict(CONFIG_1)},
        **{"best": {"ate": {"value": 0.5, "step": 4}}, "skipped": 2, "validation_due": True, "damaged": ["a.jpg: cut"]},
        **{"disp_net": networks[0].state_dict(), "pose_exp_net": networks[1].state_dict()},
        "optimizer": optimizer.state_dict(),
    }
    return content, *networks, optimizer


def test_a_checkpoint_of_version_1_is_read_as_one_of_version_2(version_1, write):
    plain, disp_net, pose_exp_net, optimizer = version_1
    content = load_checkpoint(write(plain))
    assert content["version"] == 2
    for name in ("step", "best", "skipped", "validation_due", "damaged"):
        assert content[name] == plain[name]
    assert content["record"] == {
        **{"height": 64, "width": 96, "snippets": 8, "processes": 1, "total_steps": 20, "scenes": ["a", "b"]}
    }
    loaded = load_model(write(plain))
    assert equal(loaded.depth_net, disp_net.state_dict())
    assert equal(loaded.pose_net, pose_exp_net.state_dict())
    assert loaded.specs["pose"] == NetworkSpec(
        "pose_exp_net",
        {
            **{"sources": 4, "explainability": True, "translation_scale": 0.1, "rotation_scale": 0.2},
            **{"orbit_depth": 0.83, "width": 0.125, "rotation": "quaternion"},
        },
    )
    assert (loaded.depth_net.width, loaded.height, loaded.scenes, loaded.data) == (SMALL, 64, ["a", "b"], "prepared")

    model = build(*(loaded.specs[role] for role in ("depth", "pose", "camera")))
    resumed = torch.optim.Adam(model.parameters())
    load_weights(model, content["model"], "file.pt", "the model")
    load_optimizer(resumed, content["optimizer"], "file.pt")
    for optimiser in (optimizer, resumed):
        for parameter in optimiser.param_groups[0]["params"]:
            parameter.grad = torch.ones_like(parameter)
        optimiser.step()
    assert equal(model.depth_net, disp_net.state_dict())
    assert equal(model.pose_net, pose_exp_net.state_dict())


def test_a_checkpoint_of_the_very_first_version_1(version_1, write):
    content = version_1[0]
    for name in ("skipped", "validation_due", "damaged"):
        del content[name]
    content["config"] = {"height": 64, "width": 96}
    loaded = load_model(write(content))
    assert (loaded.pose_net.rotation, loaded.pose_net.orbit_depth, loaded.scenes) == ("euler", None, None)
    assert load_checkpoint(write(content))["damaged"] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("optimizer"), "damaged checkpoint: it lacks optimizer"),
        (lambda c: [c.pop(name) for name in ("best", "config")], "damaged checkpoint: it lacks best, config"),
        (lambda c: c.update(config=3), "its config is of type int, expected dict"),
        (lambda c: c.update(disp_net=[1]), "its disp_net is of type list, expected dict"),
        (lambda c: c.update(pose_exp_net="x"), "its pose_exp_net is of type str, expected dict"),
        (lambda c: c["config"].update(rotation_scale="x"), "rotation_scale is 'x', expected float"),
        (lambda c: c["config"].update(rotation_scale=-1), r"rotation_scale is -1.0, expected a number greater than 0"),
        (lambda c: c["config"].update(fixation_depth=float("nan")), "orbit_depth is nan, expected a number greater"),
        (lambda c: c["config"].update(rotation="x" * 10**6), "rotation is 'xxx"),
        (lambda c: c["config"].update(rotation=["euler"]), "rotation is a list, expected str"),
        (lambda c: c["disp_net"].clear(), "no checkpoint of disp_net: it lacks conv1.0.weight"),
        (lambda c: c["pose_exp_net"].clear(), "no checkpoint of PoseExpNet: pose_pred.weight is missing"),
    ],
)
def test_a_damaged_checkpoint_of_version_1_is_refused(version_1, write, change, message):
    content = version_1[0]
    change(content)
    assert message in refusal(write(content), load_model)


# What is refused -----------------------------------------------------------------------------------------------------


def first_weights(count):
    return dict(list(DispNet(width=SMALL).state_dict().items())[:count])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "not a checkpoint of a depth or pose network: it has no entries"),
        ({"model": {}, "a": 1, "b": 1, "c": 1, "d": 1}, "it has the entries a, b, c, d, ..."),
        ({"\rormat": 1, "x" * 3000: 2}, "it has the entries \\rormat, xxx"),
        ({"state_dict": []}, "it has the entries state_dict"),
        ({"state_dict": {}}, "no checkpoint of disp_net: it lacks conv1.0.weight"),
        ({"state_dict": first_weights(5) | {"upconv1.0.bias": torch.zeros(1)}}, "it lacks conv2.0.bias"),
        (
            {"state_dict": {"conv1.0.weight": torch.zeros(64, 3, 7, 7)}},
            "conv1.0.weight is [64, 3, 7, 7], expected [32, 3, 7, 7]",
        ),
        ({"state_dict": {"conv1.0.weight": "a"}}, "it lacks conv1.0.weight"),
        ({"state_dict": {"pose_pred.weight": torch.zeros(7, 256, 1, 1)}}, "no checkpoint of PoseExpNet: pose_pred"),
        ({"state_dict": {"pose_pred.weight": torch.zeros(6 * 10**6, 1, 1, 1)}}, "no checkpoint of PoseExpNet"),
        ({"state_dict": {"pose_pred.weight": [1]}}, "no checkpoint of PoseExpNet"),
        ({"state_dict": {"module.a": torch.zeros(1), "b": torch.zeros(1)}}, "no checkpoint of disp_net"),
        ({"format": "sfmlearner"}, "checkpoint version None, this code reads versions 1 and 2"),
        ({"format": "sfmlearner", "version": 99}, "checkpoint version 99, this code reads versions 1 and 2"),
        ({"format": "sfmlearner", "version": torch.ones(2)}, "checkpoint version a Tensor"),
        ({"format": "sfmlearner", "version": True}, "checkpoint version True"),
        ({"format": "sfmlearner", "version": 1, "step": 1}, "lacks best, config, disp_net, optimizer, pose_exp_net"),
        ({"format": "sfmlearner", "version": 2, "step": 1}, "lacks best, model, networks, optimizer, options, record"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_in_one_line(write, content, message):
    assert message in refusal(write(content), load_model)


def test_a_run_is_not_resumed_from_the_ports_checkpoint(write):
    assert "not a checkpoint of this project" in refusal(write({"epoch": 9, "state_dict": first_weights(3)}))


LISTS = [[]]
for _ in range(60):
    LISTS = [LISTS, LISTS]  # small in memory and in the file; printed it has 2^60 brackets


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("model"), "it lacks model"),
        (lambda c: c.update(model=[1]), "its model is of type list, expected dict"),
        (lambda c: c.update(step=-1), "step -1, expected a number of steps"),
        (lambda c: c.update(step=2**2000), "step 1148"),
        (lambda c: c.update(step=7.0), "its step is of type float, expected int"),
        (lambda c: c.update(step=True), "its step is of type bool, expected int"),
        (lambda c: c.update(skipped=-3), "skipped -3, expected a number of steps"),
        (lambda c: c.update(damaged="all"), "its damaged is of type str, expected list"),
        (lambda c: c.update(damaged=LISTS), "its damaged files have no names"),
        (lambda c: c.update(validation_due=1), "its validation_due is of type int, expected bool"),
        (lambda c: c.update(best={"abs_rel": 0.3}), "its best 'abs_rel' is 0.3, expected a value and a step"),
        (lambda c: c.update(best={"abs_rel": LISTS}), "its best 'abs_rel' is a list"),
        (lambda c: c.update(best={"x/../../evil": {"value": 0.3, "step": 1}}), "its best 'x/../../evil' is a dict"),
        (lambda c: c.update(best={"ate": {"value": 0.3, "step": 1, "x": 2}}), "its best 'ate' is a dict"),
        (lambda c: c.update(best={"ate": {"value": float("nan"), "step": 1}}), "its best 'ate' is a dict"),
        (lambda c: c.update(best={"ate": {"value": torch.ones(1), "step": 1}}), "its best 'ate' is a dict"),
        (lambda c: c["record"].update(height=-1), "its height is -1, expected pixels"),
        (lambda c: c["record"].update(width="96"), "its width is '96', expected pixels"),
        (lambda c: c["record"].update(width=10**9), "its width is 1000000000, expected pixels"),
        (lambda c: c["record"].update(height=None), "its height is None, expected pixels"),
        (lambda c: c["record"].update(height=torch.zeros(2)), "its height is a Tensor, expected pixels"),
        (lambda c: c["record"].update(processes=None), "its processes is None, expected a whole number"),
        (lambda c: c["record"].update(total_steps=0), "its total_steps is 0, expected a whole number"),
        (lambda c: c["record"].update(snippets=2.0), "its snippets is 2.0, expected a whole number"),
        (lambda c: c["record"].update(scenes=LISTS), "its scenes are a list, expected names"),
        (lambda c: c["record"].update(scenes="a"), "its scenes are 'a', expected names"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(content, write, change, message):
    change(content)
    file = write(content)
    for load in (load_checkpoint, load_model):
        assert message in refusal(file, load)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n.pop("pose"), "its networks do not say name and arguments of pose"),
        (lambda n: n.update(depth="disp_net"), "its networks do not say name and arguments of depth"),
        (lambda n: n["depth"].update(name=3), "its networks do not say name and arguments of depth"),
        (lambda n: n["depth"].update(arguments=[1]), "its networks do not say name and arguments of depth"),
        (lambda n: n["depth"]["arguments"].update({3: 4}), "its networks do not say name and arguments of depth"),
        (lambda n: n["depth"].update(name="swin"), "depth: unknown network 'swin', expected one of disp_net"),
        (lambda n: n["depth"].update(name="x\n" * 999), "depth: unknown network 'x\\nx"),
        (lambda n: n["pose"]["arguments"].update(size=3), "pose: pose_exp_net: unknown argument 'size', expected"),
        (lambda n: n["pose"]["arguments"].update(sources=LISTS), "pose_exp_net: sources is a list, expected int"),
        (lambda n: n["pose"]["arguments"].update(sources=0), "pose_exp_net: sources is 0, expected 1 or more"),
        (lambda n: n["pose"]["arguments"].update(sources=2), "pose_exp_net: conv1.0.weight is [1, 15, 7, 7], expected"),
        (lambda n: n["pose"]["arguments"].update(sources=10**15), "no checkpoint of pose_exp_net: conv1.0.weight"),
        (lambda n: n["pose"]["arguments"].update(sources=2**70), "damaged checkpoint: pose_exp_net"),
        (lambda n: n["pose"]["arguments"].update(explainability=False), "pose_exp_net: it has predict_mask1.bias, too"),
        (lambda n: n["depth"]["arguments"].update(width=0.3), "disp_net: width is 0.3, expected a multiple"),
        (lambda n: n["depth"]["arguments"].update(width=2.0), "no checkpoint of disp_net: conv1.0.weight is [2, 3, 7"),
        (lambda n: n["depth"]["arguments"].update(width=float("nan")), "disp_net: width is nan, expected a multiple"),
    ],
)
def test_networks_that_do_not_fit_their_weights_are_refused(content, write, change, message):
    change(content["networks"])
    assert message in refusal(write(content), load_model)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.full((4,), float("nan")), "conv3.0.bias of pose_exp_net holds values that are not finite"),
        (torch.full((4,), float("inf")), "conv3.0.bias of pose_exp_net holds values that are not finite"),
        (torch.full((4,), 1e300, dtype=torch.float64), "conv3.0.bias of pose_exp_net holds values that are not finite"),
        (torch.zeros(4, dtype=torch.int64), "conv3.0.bias is torch.int64, expected torch.float32"),
        (torch.zeros(4, dtype=torch.bool), "conv3.0.bias is torch.bool, expected torch.float32"),
        (torch.zeros(5), "conv3.0.bias is [5], expected [4]"),
        (torch.zeros(()), "conv3.0.bias is [], expected [4]"),
        (torch.zeros(4, dtype=torch.complex64), "only dense tensors and plain values are loaded"),
        (torch.zeros(4).to_sparse(), "only dense tensors and plain values are loaded"),
        (torch.zeros(4, device="meta"), "only dense tensors and plain values are loaded"),
        (torch.zeros(4).to(torch.float8_e5m2), "only dense tensors and plain values are loaded"),
        (torch.zeros(1).expand(4), "a tensor claims more values than its storage has"),
        ([0.0] * 4, "it lacks conv3.0.bias"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_weights_that_are_none_are_refused(content, write, tensor, message):
    content["model"]["pose_net.conv3.0.bias"] = tensor
    assert message in refusal(write(content), load_model)
    port = {"state_dict": PoseExpNet(width=SMALL).state_dict() | {"conv3.0.bias": tensor}}
    assert message in refusal(write(port), load_model)


def test_surplus_weights_are_refused(content, write):
    content["model"]["pose_net.conv9.weight"] = torch.zeros(1)
    assert "no checkpoint of pose_exp_net: it has conv9.weight, too" in refusal(write(content), load_model)
    content["model"][7] = torch.zeros(1)
    assert "damaged checkpoint: a weight has no name" in refusal(write(content), load_model)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_another_precision_become_the_network_s(write, dtype):
    weights = {name: tensor.to(dtype) for name, tensor in DispNet(width=SMALL).state_dict().items()}
    loaded = load_model(write({"state_dict": weights})).depth_net.state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    assert all(torch.equal(tensor, weights[name].float()) for name, tensor in loaded.items())


def test_weights_become_the_network_s_own_dense_tensors(content, write):
    """Two weights that share a storage in the file, one of them with stride 0, do not share it in the network."""
    storage = torch.arange(4.0)
    content["model"]["pose_net.conv3.0.bias"] = storage
    content["model"]["pose_net.predict_mask1.bias"] = storage.as_strided((4,), (0,))
    network = load_model(write(content)).pose_net
    with torch.no_grad():
        network.conv3[0].bias += 1
    assert network.conv3[0].bias.tolist() == [1, 2, 3, 4]
    assert network.predict_mask1.bias.tolist() == [0] * 4
    assert all(parameter.is_contiguous() for parameter in network.parameters())


def test_numbers_of_whole_kind_stay_whole():
    """BatchNorm counts its batches."""
    network = nn.BatchNorm2d(3)
    weights = network.state_dict() | {"num_batches_tracked": torch.tensor(7)}
    load_weights(network, weights, "file.pt", "network")
    assert network.num_batches_tracked.item() == 7
    with pytest.raises(InputError, match=r"num_batches_tracked is torch.float32, expected torch.int64"):
        load_weights(network, weights | {"num_batches_tracked": torch.tensor(7.0)}, "file.pt", "network")


def test_no_memory_for_a_network_whose_weights_are_not_in_the_file(content, write, peak_memory):
    arguments = {"width": 2.0, "first_disparity": 5.01}  # 500 MB of weights
    with torch.device("meta"):
        names = [f"depth_net.{name}" for name in DispNet(width=2.0).state_dict()]
    for weights in ({}, dict.fromkeys(names, 0), dict.fromkeys(names, torch.zeros(2, 2))):
        content["model"] = weights
        content["networks"]["depth"] = {"name": "disp_net", "arguments": arguments}
        file = write(content)
        assert peak_memory(lambda file=file: refusal(file, load_model)) < 100


# The optimiser's state -----------------------------------------------------------------------------------------------


@pytest.fixture
def resume(write):
    """Write a content, and load its optimiser's state into a new optimiser."""

    def resume(content):
        model, _, optimizer = make_model()
        load_optimizer(optimizer, load_checkpoint(write(content))["optimizer"], "run/last.pt")
        return model, optimizer

    return resume


@pytest.mark.parametrize("moment", ["exp_avg", "exp_avg_sq"])
def test_moments_become_dense_tensors_of_the_parameters_types(content, resume, moment):
    """A moment of one number and stride 0 would make fused Adam write beyond its memory."""
    state = content["optimizer"]["state"]
    shapes = [state[index][moment].shape for index in range(3)]
    storage = torch.zeros(shapes[0].numel())
    storage[0] = 7
    state[0][moment] = storage.as_strided(shapes[0], (0,) * len(shapes[0]))
    state[1][moment] = state[1][moment].double()
    state[2][moment] = torch.rand(9, *shapes[2])[4].mT  # a part of a larger storage, in another order
    model, optimizer = resume(content)
    for parameter, state in zip(model.parameters(), optimizer.state.values(), strict=True):
        assert state[moment].dtype == parameter.dtype
        assert state[moment].stride() == parameter.stride()
        assert state[moment].untyped_storage().nbytes() == 4 * parameter.numel()
    assert optimizer.state[next(model.parameters())][moment].unique().tolist() == [7]
    addresses = [tensor.data_ptr() for state in optimizer.state.values() for tensor in state.values()]
    assert len(set(addresses)) == len(addresses)
    optimizer.step()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o["state"][0].pop("exp_avg"), "the optimiser's exp_avg of parameter 0"),
        (lambda o: o["state"][3].update(exp_avg=torch.zeros(9)), "the optimiser's exp_avg of parameter 3"),
        (
            lambda o: o["state"][1].update(exp_avg=torch.full((2,), 1e300, dtype=torch.float64)),
            "exp_avg of parameter 1",
        ),
        (lambda o: o["state"][1].update(exp_avg=torch.zeros(1, 2)), "the optimiser's exp_avg of parameter 1"),
        (lambda o: o["state"][1]["exp_avg"].fill_(float("nan")), "the optimiser's exp_avg of parameter 1"),
        (lambda o: o["state"][1]["exp_avg_sq"].fill_(float("inf")), "the optimiser's exp_avg_sq of parameter 1"),
        (lambda o: o["state"][1]["exp_avg_sq"].fill_(-1e-9), "the optimiser's exp_avg_sq of parameter 1"),
        (lambda o: o["state"][1].update(step=torch.tensor(-1.0)), "the optimiser's step of parameter 1"),
        (lambda o: o["state"][1].update(step=torch.tensor([1.0])), "the optimiser's step of parameter 1"),
        (lambda o: o["state"][1].update(step=3), "the optimiser's step of parameter 1"),
        (lambda o: o["state"][1].update(exp_avg=torch.zeros(2, dtype=torch.int64)), "exp_avg of parameter 1"),
        (lambda o: o["state"].update({1: LISTS}), "the optimiser's step of parameter 1"),
        (lambda o: o["state"].update({10**6: {}}), "no state of the optimiser for 98 parameters"),
        (lambda o: o["state"].update({-1: {}}), "no state of the optimiser for 98 parameters"),
        (lambda o: o["state"].update({1.5: {}}), "no state of the optimiser for 98 parameters"),
        (lambda o: o.update(state={1.0: {}}), "no state of the optimiser for 98 parameters"),
        (lambda o: o.update(state={"0": {}}), "no state of the optimiser for 98 parameters"),
        (lambda o: o.update(state={True: {}}), "no state of the optimiser for 98 parameters"),
        (lambda o: o.update(state=LISTS), "no state of the optimiser for 98 parameters"),
        (lambda o: o.clear(), "no state of the optimiser for 98 parameters"),
    ],
)
def test_a_damaged_state_is_refused(content, resume, change, message):
    state = content["optimizer"]["state"]
    state[1] = {name: tensor.clone() for name, tensor in state[1].items()}
    change(content["optimizer"])
    with pytest.raises(InputError, match=rf"^run/last.pt: damaged checkpoint: .*{message}$"):
        resume(content)


def test_the_options_of_the_optimiser_are_not_the_file_s(content, resume):
    content["optimizer"]["param_groups"] = [{"lr": float("nan"), "params": LISTS}]
    _, optimizer = resume(content)
    assert optimizer.param_groups[0]["lr"] == 1e-3
    assert optimizer.param_groups[0]["fused"]


def test_before_the_first_step_there_is_no_state(content, resume):
    content["optimizer"]["state"] = {}
    _, optimizer = resume(content)
    assert not optimizer.state


def test_state_of_channels_last_weights_is_theirs(run, content, write):
    model, _, optimizer = make_model()
    model.to(memory_format=torch.channels_last)
    load_optimizer(optimizer, load_checkpoint(write(content))["optimizer"], "run/last.pt")
    for parameter, expected in zip(model.parameters(), run[2].state.values(), strict=True):
        assert torch.equal(optimizer.state[parameter]["exp_avg"], expected["exp_avg"])
        assert optimizer.state[parameter]["exp_avg"].stride() == parameter.stride()


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_nothing(write, tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return os.mkdir, ("executed",)

    monkeypatch.chdir(tmp_path)
    for content in (Evil(), {"state_dict": Evil()}, {"format": "sfmlearner", "version": 1, "config": Evil()}):
        for load in (load_model, load_checkpoint):
            assert "could run code" in refusal(write(content), load)
    assert os.listdir() == ["file.pt"]


def test_which_value_of_a_criterion_is_better():
    assert is_better("abs_rel", 0.2, None)
    assert is_better("abs_rel", 0.2, 0.3)
    assert not is_better("abs_rel", 0.3, 0.3)
    assert is_better("structure", -0.2, None)
    assert is_better("structure", 0.6, 0.5)
    assert not is_better("structure", 0.5, 0.6)
    for criterion in CRITERIA:
        assert not is_better(criterion, math.nan, None)
        assert not is_better(criterion, math.inf, 0.5)
    assert set(HIGHER_IS_BETTER) <= set(CRITERIA)


def test_weights_alone_are_no_checkpoint_and_are_called_so(tmp_path):
    """They were "not a checkpoint of tensors and plain values" to export.py."""
    file = Path(tmp_path) / "weights.safetensors"
    file.touch()
    with pytest.raises(
        InputError, match=r"weights without their training, expected a checkpoint of train\.py \(last\.pt\)"
    ):
        load_checkpoint(file)
