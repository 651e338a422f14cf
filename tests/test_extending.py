"""The examples of docs/extending.md, read from the page and run."""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import types
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from path import Path
from PIL import Image
from torch.nn import functional

import models
from datasets.layout import read_intrinsics, write_intrinsics
from files.atomic import write_text
from files.errors import InputError
from files.images import write_jpeg
from geometry.pose import pose_to_matrix
from geometry.snippets import Snippets
from loss_functions import ObjectiveOptions, objective
from models.checkpoint import load_checkpoint, load_model
from training.logger import read_metrics
from training.options import new_options
from training.start import make_model

ROOT = Path(__file__).absolute().parent.parent
PAGE = ROOT / "docs" / "extending.md"
HEIGHT, WIDTH = 64, 96
TINY = ["--steps", "2", "--batch-size", "2", "--workers", "0", "--device", "cpu", "--log-every", "1", "--no-check"]


@dataclass
class Example:
    """A section of the page."""

    code: list[tuple[str, str]]  # (what the first line's comment says: the file, and the place in it; the block)
    commands: list[str]

    def file(self, name: str) -> str:
        """The whole new file of this name."""
        (block,) = [block for title, block in self.code if title == name]
        return block


def read_example(title: str) -> Example:
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    code = [(block.split("\n")[0].removeprefix("# "), block) for language, block in blocks if language == "python"]
    commands = [line for language, block in blocks if language == "" for line in block.splitlines()]
    return Example(code, commands)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with a prepared data set in prepared/mine: pictures that move by two pixels a frame."""
    root = Path(tmp_path) / "prepared" / "mine"
    random = torch.Generator().manual_seed(0)
    for name, count in (("a", 7), ("val", 5)):
        (root / name).makedirs()
        write_intrinsics(root / name / "cam.txt", np.array([[56.0, 0, 47.5], [0, 56, 31.5], [0, 0, 1]]))
        noise = torch.rand(1, 3, 9, 14, generator=random) * 255
        wide = functional.interpolate(noise, (HEIGHT, WIDTH + 2 * count), mode="bicubic").clamp(0, 255).byte()
        for k in range(count):
            write_jpeg(root / name / f"{k:07d}.jpg", wide[0, :, :, 2 * k : 2 * k + WIDTH].permute(1, 2, 0).numpy())
    write_text(root / "train.txt", "a\n")
    write_text(root / "val.txt", "val\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return Path(tmp_path)


@pytest.fixture
def type_command(place, script_here):
    """Run a command of the page in this process, with more flags."""

    def type_command(line: str, *more: str) -> None:
        python, script, *arguments = shlex.split(line)
        assert python == "python"
        file = os.path.abspath(script) if os.path.exists(script) else script
        script_here(file, *arguments, *more)

    return type_command


def install(example: Example, name: str, monkeypatch) -> types.ModuleType:
    """Make the example's new module models/NAME.py, and its line in models/__init__.py, part of the project."""
    module = types.ModuleType(f"models.{name}")
    exec(compile(example.file(f"models/{name}.py"), f"models/{name}.py", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    scope = dict(vars(models))
    exec(example.file("models/__init__.py, among the imports"), scope)
    (place,) = [title for title, _ in example.code if title.startswith("models/__init__.py, in ")]
    networks = getattr(models, place.removeprefix("models/__init__.py, in "))
    ((key, network),) = eval(f"{{{example.file(place)}}}", scope).items()
    assert key == name
    assert key not in networks
    monkeypatch.setitem(networks, key, network)
    return module


def moved(before: torch.nn.Module, after: torch.nn.Module) -> list[str]:
    """The names of the parameters that training has changed."""
    weights = dict(after.named_parameters())
    return [name for name, weight in before.named_parameters() if not torch.equal(weight, weights[name])]


@pytest.mark.slow
def test_a_loss_term(place, type_command):
    example = read_example("A loss term")
    text = (ROOT / "loss_functions.py").read_text()
    insertions = {
        "loss_functions.py, in ObjectiveOptions": "\n    def __post_init__(self)",
        "loss_functions.py, in objective": "    total = torch.stack([weights",
    }
    for title, block in example.code:
        if title == "loss_functions.py":
            text += "\n\n" + block
        else:
            assert text.count(insertions[title]) == 1
            text = text.replace(insertions[title], block + insertions[title])
    write_text(place / "loss_functions.py", text)

    velocity_loss = runpy.run_path(place / "loss_functions.py")["velocity_loss"]
    after = pose_to_matrix(torch.tensor([[0.1, 0.2, 0.3, 0.01, 0.02, 0.03]]))
    assert velocity_loss(torch.stack([torch.linalg.inv(after), after], 1)) < 1e-7
    assert velocity_loss(torch.stack([after, after], 1)) > 0.01

    (command,) = example.commands
    type_command("python train.py prepared/mine --name old --network-width 0.0625", *TINY)
    flags = [*TINY, "--name", "run", "--network-width", "0.0625"]
    run_with_changed_files(place, f"{command} {shlex.join(flags)}", "python train.py --resume runs/old --steps 3")
    values = [line for line in read_metrics(place / "runs/run/metrics.jsonl") if line["split"] == "train"][-1]
    assert values["step"] == 2
    velocity = values["objective/velocity"]
    assert velocity > 0
    assert values["share/velocity"] == pytest.approx(0.5 * velocity / values["objective/loss"], rel=1e-5)
    new, old = (load_checkpoint(place / f"runs/{name}/last.pt") for name in ("run", "old"))
    assert new["options"]["objective"]["velocity_weight"] == 0.5
    assert (old["step"], old["options"]["objective"]["velocity_weight"]) == (3, 0)


def run_with_changed_files(folder: Path, *lines: str) -> None:
    """Run commands in a new process, which imports the modules of `folder` in place of the project's."""
    program = ["import runpy, sys"]
    for line in lines:
        _, script, *arguments = shlex.split(line)
        program.append(f"sys.argv = {[script, *arguments]}")
        program.append(f"runpy.run_path({str(ROOT / script)!r}, run_name='__main__')")
    paths = os.pathsep.join([str(folder), str(ROOT)])
    command = [sys.executable, "-c", "\n".join(program)]
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}  # tests run side by side
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def test_a_depth_network(place, type_command, monkeypatch):
    example = read_example("A depth network")
    module = install(example, "small_net", monkeypatch)
    (command,) = example.commands
    type_command(command, *TINY, "--name", "run", "--pose-net", "pose_exp_net", "width=0.0625")

    loaded = load_model(place / "runs/run/last.pt")
    assert type(loaded.depth_net) is module.SmallNet
    assert loaded.specs["depth"] == models.NetworkSpec("small_net", {"width": 32})
    torch.manual_seed(0)
    fresh = module.SmallNet(32)
    # A shift before BatchNorm changes nothing; all other weights learn.
    shifts = {name for name, _ in fresh.named_parameters() if re.fullmatch(r"(halve|join)\.\d\.0\.bias", name)}
    assert set(moved(fresh, loaded.depth_net)) >= {name for name, _ in fresh.named_parameters()} - shifts

    sizes = [tuple(disparity.shape) for disparity in loaded.depth_net(torch.zeros(2, 3, 37, 50))]
    assert sizes == [(2, 1, 37, 50), (2, 1, 19, 25), (2, 1, 10, 13), (2, 1, 5, 7)]
    type_command("python train.py --resume runs/run --steps 3")
    assert load_checkpoint(place / "runs/run/last.pt")["step"] == 3


def test_the_number_of_scales_is_free_without_masks():
    pose_net = models.make(
        models.POSE_NETS, models.NetworkSpec("pose_exp_net", {"explainability": False, "width": 0.125})
    )
    model = models.SfMLearner(_OneScale(), pose_net)
    snippets = Snippets(torch.rand(1, 3, 32, 48), torch.rand(1, 2, 3, 32, 48), torch.eye(3)[None] * 30)
    loss = objective(snippets, model(snippets), ObjectiveOptions(explainability=False))
    assert loss.total.isfinite()
    assert len(loss.warps) == 1


class _OneScale(torch.nn.Module):
    def forward(self, image):
        return [image[:, :1].abs() + 0.1]


def test_a_pose_network(place, type_command, monkeypatch):
    example = read_example("A pose network")
    module = install(example, "small_pose_net", monkeypatch)
    (command,) = example.commands
    type_command(command, *TINY, "--name", "run", "--depth-net", "disp_net", "width=0.0625", "--sequence-length", "5")

    loaded = load_model(place / "runs/run/last.pt")
    assert type(loaded.pose_net) is module.SmallPoseNet
    assert loaded.pose_net.sources == 4
    torch.manual_seed(0)
    models.make(models.DEPTH_NETS, loaded.specs["depth"])
    fresh = module.SmallPoseNet(4)
    assert moved(fresh, loaded.pose_net) == [name for name, _ in fresh.named_parameters()]
    target, sources = torch.rand(2, 3, HEIGHT, WIDTH), torch.rand(2, 4, 3, HEIGHT, WIDTH)
    transforms, masks = loaded.pose_net(target, sources)
    assert masks is None
    assert transforms.shape == (2, 4, 4, 4)
    swapped, _ = loaded.pose_net(target, sources.flip(1))
    torch.testing.assert_close(swapped, transforms.flip(1))

    # It has no last layer with scales of motion, as the project's own pose networks have.
    networks = {"depth_net": loaded.specs["depth"], "pose_net": models.NetworkSpec("small_pose_net")}
    given = {**networks, "sequence_length": 5, "explainability": False, "start_from": ("runs/run/last.pt",)}
    started, _ = make_model(new_options(given))
    assert moved(started.pose_net, loaded.pose_net) == []
    given["pose_net"] = models.NetworkSpec("small_pose_net", {"scale": 0.02})
    with pytest.raises(InputError, match=r"its pose network is small_pose_net sources=4 scale=0\.01, the options' is"):
        make_model(new_options(given))


def test_a_learned_camera(place, type_command, monkeypatch, capsys):
    example = read_example("A learned camera")
    module = install(example, "learned_focal", monkeypatch)
    (command,) = example.commands
    type_command(command, *TINY, "--network-width", "0.0625")

    loaded = load_model(place / "runs/mine/last.pt")
    assert type(loaded.camera) is module.LearnedFocal
    factor = loaded.camera.log_factor.exp().item()
    assert factor == pytest.approx(0.8, rel=3e-3)  # two steps of --camera-rate, 1e-3
    assert factor != pytest.approx(0.8, rel=1e-6)
    capsys.readouterr()
    exec(example.file("read_focal.py"), {})
    assert capsys.readouterr().out == f"{factor}\n"
    intrinsics = torch.tensor([[[50.0, 2, 20], [0, 60, 10], [0, 0, 1]]])
    k = loaded.camera(Snippets(torch.zeros(1), torch.zeros(1), intrinsics))
    torch.testing.assert_close(k, torch.tensor([[[50 * factor, 2 * factor, 20], [0, 60 * factor, 10], [0, 0, 1]]]))


@pytest.mark.slow
def test_a_data_set_to_train_on(place, type_command, capsys):
    example = read_example("A data set to train on")
    (place / "prepared").rmtree()
    (place / "data").mkdir()
    write_text(place / "data/prepare_mine.py", example.file("data/prepare_mine.py"))
    random = torch.Generator().manual_seed(0)
    for name in ("monday", "tuesday", "wednesday"):
        (place / "recordings" / name).makedirs()
        write_text(place / "recordings" / name / "calibration.txt", "400 410 415.5 127.5\n")
        noise = torch.rand(1, 3, 40, 120, generator=random) * 255
        wall = functional.interpolate(noise, (256, 832), mode="bicubic").clamp(0, 255)
        for k in range(20):  # the camera moves towards a wall
            seen = wall[:, :, 2 * k : 256 - 2 * k, 6 * k : 832 - 6 * k]
            image = functional.interpolate(seen, (256, 832), mode="bilinear").byte()[0].permute(1, 2, 0)
            Image.fromarray(image.numpy()).save(place / "recordings" / name / f"{k:03d}.png")

    prepare, check, train = example.commands
    type_command(prepare)
    type_command(check)
    assert "motion" in capsys.readouterr().out
    type_command(train, *TINY, "--network-width", "0.0625", "--name", "run")
    assert (place / "prepared/mine/train.txt").read_text() == "monday\ntuesday\n"
    expected = [[200, 0, 207.5], [0, 205, 63.5], [0, 0, 1]]  # half the size: c' = (c + 0.5) / 2 - 0.5
    np.testing.assert_allclose(read_intrinsics(place / "prepared/mine/monday/cam.txt"), expected)
    assert load_checkpoint(place / "runs/run/last.pt")["step"] == 2


@pytest.mark.slow
def test_a_data_set_to_test_on(place, type_command):
    example = read_example("A data set to test on")
    for folder in ("datasets", "evaluation"):
        shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
    write_text(place / "datasets/formats/rgbd.py", example.file("datasets/formats/rgbd.py"))
    text = (place / "evaluation/ground_truth.py").read_text()
    places = {
        "among the imports": "from datasets.formats.depth_archive import",
        "in TRUTHS": '    "npy": ',
        'in truth_files, after the kind "npy"': "    date, drive, camera, frame = split_name(name)\n    if kind in",
        'in read_truth, after the kind "npy"': '    if kind in ("improved", "dense"):\n        return known_depth(',
    }
    for where, anchor in places.items():
        assert text.count(anchor) == 1, anchor
        text = text.replace(anchor, example.file(f"evaluation/ground_truth.py, {where}") + anchor)
    write_text(place / "evaluation/ground_truth.py", text)

    type_command("python train.py prepared/mine --name mine --network-width 0.0625", *TINY)
    depth = 2 + np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) / 1000
    depth[:8] = 0  # unknown
    for part in ("rgb", "depth"):
        (place / "rooms/kitchen" / part).makedirs()
    for name in ("9", "12"):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 100, np.uint8)).save(place / f"rooms/kitchen/rgb/{name}.png")
        Image.fromarray((1000 * depth).round().astype(np.uint16)).save(place / f"rooms/kitchen/depth/{name}.png")
    write_text(place / "rooms/test.txt", "kitchen/rgb/9.png\nkitchen/rgb/12.png\n")
    (command,) = example.commands
    run_with_changed_files(place, f"{command} --device cpu --workers 1 --save predicted.npz --json result.json")
    (result,) = json.loads((place / "result.json").read_text())["protocols"].values()
    assert result["ground_truth"] == "rgbd"
    assert result["images"]["found"] == 2
    # This baseline predicts the same depth everywhere, so that the true depths alone decide its figures.
    known = depth[8:].round(3)
    expected = np.mean(np.abs(np.median(known) - known) / known)
    assert result["baselines"]["best_constant"]["abs_rel"] == pytest.approx(expected, rel=1e-6)


def test_the_page_has_no_example_without_a_test():
    titles = re.findall(r"^## (.*)$", PAGE.read_text(), re.MULTILINE)
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_a_")}
    assert {title.lower().replace(" ", "_") for title in titles} == tested
