"""Every recipe and every network: trained for some steps, killed, resumed to the bit, loaded, with the same output."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from path import Path
from torch.nn import functional

from datasets.layout import write_intrinsics
from files.atomic import write_text
from files.images import write_jpeg
from models import NetworkSpec, build
from models.checkpoint import load_checkpoint, load_model
from models.published import publish
from train import train, train_step
from training import recipes as training_recipes
from training.options import new_options
from training.run import Run, open_run, read_stopped_run, resumed_options, save_run
from training.steps import after_step, before_step, take_step

HEIGHT, WIDTH = 32, 64
STEPS, STOP = (60, 31) if os.environ.get("SFMLEARNER_ALL_RECIPES") else (3, 1)
TINY = {"batch_size": 2, "workers": 0, "device": "cpu", "check": False, "validate_every": 2, "log_every": 1}
# Each recipe, and the flags that make it tiny. No weights are downloaded.
FROM_SCRATCH = {"encoder_weights": "none", "batch_size": 2}
RECIPES: dict[str, dict] = {name: FROM_SCRATCH for name in training_recipes.RECIPES}

DISP_NET = NetworkSpec("disp_net", {"width": 1 / 16})
POSE_EXP_NET = NetworkSpec("pose_exp_net", {"width": 1 / 16})


def pair(encoder: str, **arguments) -> NetworkSpec:
    return NetworkSpec("pair_pose_net", {"encoder": encoder} | arguments)


# Each network of `models.DEPTH_NETS` and `models.POSE_NETS`, and each kind of encoder in both places. The networks of
# timm whose names begin with test_ are made for tests.
NETWORKS = {
    "paper": (DISP_NET, POSE_EXP_NET),
    "resnet18": (NetworkSpec("resnet18", {"channels": "32,16,16,8,8", "statistics": "monodepth2"}), POSE_EXP_NET),
    "mobilenet_v2": (NetworkSpec("mobilenet_v2"), pair("mobilenet_v2")),
    "timm": (NetworkSpec("timm:test_convnext"), pair("timm:test_resnet", order="target-first", rotation="euler")),
    "resnet50": (NetworkSpec("resnet50", {"channels": "16,16,8,8,4"}), POSE_EXP_NET),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared data set: smooth pictures that move by two pixels a frame."""
    root = Path(tmp_path_factory.mktemp("data"))
    random = torch.Generator().manual_seed(0)
    for name, count in (("a", 8), ("val", 5)):
        (root / name).makedirs()
        write_intrinsics(root / name / "cam.txt", np.array([[30.0, 0, 31.5], [0, 30, 15.5], [0, 0, 1]]))
        noise = torch.rand(1, 3, 5, 12, generator=random) * 255
        wide = functional.interpolate(noise, (HEIGHT, WIDTH + 2 * count), mode="bicubic").clamp(0, 255).byte()
        for k in range(count):
            write_jpeg(root / name / f"{k:07d}.jpg", wide[0, :, :, 2 * k : 2 * k + WIDTH].permute(1, 2, 0).numpy())
    write_text(root / "train.txt", "a\n")
    write_text(root / "val.txt", "val\n")
    return root


@pytest.fixture(autouse=True)
def _signals():
    """A run listens for signals; put the handlers back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def begin(data, folder, **given) -> Run:
    options = new_options(
        TINY | {"data": str(data), "runs": str(folder.parent), "name": str(folder.name), "steps": STEPS} | given
    )
    return open_run(options, None, torch.device("cpu"))


def kill_after(run: Run, step: int) -> None:
    """Leave a run after its checkpoint of this step, in the middle of the next step."""
    while before_step(run):
        if run.step == step:
            save_run(run)
        take_step(run, train_step)
        if run.step == step:
            break
        after_step(run)


def resume(folder) -> Run:
    stopped = read_stopped_run(folder)
    return open_run(resumed_options(stopped, {}), stopped, torch.device("cpu"))


def assert_equal(content, other) -> None:
    """The same weights, running statistics and state of Adam, to the bit."""
    assert content["step"] == other["step"] == STEPS
    assert content["model"].keys() == other["model"].keys()
    assert [k for k, tensor in content["model"].items() if not torch.equal(tensor, other["model"][k])] == []
    for index, entry in content["optimizer"]["state"].items():
        assert all(torch.equal(value, other["optimizer"]["state"][index][k]) for k, value in entry.items())


# All recipes with all networks where SFMLEARNER_ALL_RECIPES is set, which takes minutes; else each of both, but for
# resnet50, which is resnet18 with other blocks of the same encoder. timm's networks have the recipes of encoders.
ALL = bool(os.environ.get("SFMLEARNER_ALL_RECIPES"))
CASES = [
    (name, recipe)
    for recipe in RECIPES
    for name in NETWORKS
    if ALL
    or (recipe == "paper-depth" and name not in ("resnet50", "timm"))
    or name == ("paper" if recipe.startswith(("paper", "small")) else "timm")
]


@pytest.mark.parametrize(("networks", "recipe"), CASES)
def test_train_kill_resume_load_and_predict(data, tmp_path, networks, recipe):
    depth, pose = NETWORKS[networks]
    given = {"recipe": recipe, "depth_net": depth, "pose_net": pose, **RECIPES[recipe]}
    given |= {} if pose.name == "pose_exp_net" else {"explainability": False}
    whole, parts = Path(tmp_path) / "whole", Path(tmp_path) / "parts"
    with begin(data, whole, **given) as run:
        first = {name: tensor.clone() for name, tensor in run.weights.state_dict().items()}
        train(run)
    with begin(data, parts, **given) as run:
        kill_after(run, STOP)
    assert load_checkpoint(parts / "last.pt")["step"] == STOP
    with resume(parts) as run:
        train(run)
    content = load_checkpoint(whole / "last.pt")
    assert_equal(content, load_checkpoint(parts / "last.pt"))
    unchanged = [k for k, tensor in content["model"].items() if torch.equal(tensor, first[k])]
    assert len(unchanged) < 0.1 * len(first), unchanged

    loaded = load_model(parts / "last.pt")
    publish(content, whole / "weights.safetensors")
    published = load_model(whole / "weights.safetensors")
    model = build(loaded.specs["depth"], loaded.specs["pose"], loaded.specs["camera"]).eval()
    model.load_state_dict(content["model"])
    frames = torch.rand(2, 1 + loaded.pose_net.sources, 3, 37, 50) * 2 - 1
    with torch.no_grad():
        expected = [*model.depth_net(frames[:, 0]), model.pose_net(frames[:, 0], frames[:, 1:])[0]]
        for other in (loaded, published):
            found = [*other.depth_net(frames[:, 0]), other.pose_net(frames[:, 0], frames[:, 1:])[0]]
            assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert [tuple(x.shape[2:]) for x in expected[:4]] == [(37, 50), (19, 25), (10, 13), (5, 7)]


def test_a_step_that_is_not_finite_leaves_no_trace_in_running_statistics(data, tmp_path):
    """The forward pass has changed them already when the loss is known. Skipped, the step is as if it were not made."""
    given = {"depth_net": NETWORKS["timm"][0], "pose_net": NETWORKS["timm"][1], "explainability": False}
    with begin(data, Path(tmp_path) / "run", skip_non_finite=True, **given) as run:
        objective = run.objective
        states = []
        while before_step(run):
            broken = run.step == 1

            def lose(*arguments, broken=broken):
                loss = objective(*arguments)
                return replace(loss, total=loss.total * float("nan")) if broken else loss

            run.objective = lose
            take_step(run, train_step)
            after_step(run)
            states.append({name: tensor.clone() for name, tensor in run.weights.state_dict().items()})
    assert run.skipped == 1
    first, skipped, last = states
    changed = [
        {name for name in first if not torch.equal(before[name], after[name])}
        for before, after in ((first, skipped), (skipped, last))
    ]
    assert changed[0] == set()
    assert {name for name in first if name.endswith(("running_mean", "running_var", "num_batches_tracked"))} <= changed[
        1
    ]
