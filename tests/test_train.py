import faulthandler
import itertools
import json
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from cli.flags import run_script

import numpy as np
import pytest
import torch
from path import Path
from torch.nn import functional

import train
from datasets.layout import write_depth, write_intrinsics, write_poses
from datasets.loading import load_batches
from datasets.packing import pack
from datasets.snippets import SnippetDataset
from files.atomic import write_text
from files.errors import InputError, UsageError
from files.images import write_jpeg
from geometry.snippets import Snippets
from models import DEPTH_NETS, pose_exp_net
from models.checkpoint import load_checkpoint, load_model
from tests.tools.file_server import serve
from tests.tools.kill_and_resume import train_in_copy
from training import distributed, start, validation
from training import run as training_run
from training import steps as training_steps
from training.adam import FusedAdam
from training.guard import NonFiniteGuard
from training.logger import read_metrics, tensorboard_tag
from training.options import TrainOptions

ROOT = Path(__file__).absolute().parent.parent
HEIGHT, WIDTH = 64, 96
SCENES = {"a": 7, "b": 5, "val": 4}  # frames; a and b are trained on
SMALL = 1 / 16  # width of the networks: 1 to 32 channels a layer, and the loop is the same


@pytest.fixture
def data(tmp_path):
    return write_data(Path(tmp_path) / "data")


def write_data(root: Path) -> Path:
    """A prepared data set: smooth pictures that move by two pixels a frame; `val` has depth and poses."""
    random = torch.Generator().manual_seed(0)
    for name, count in SCENES.items():
        (root / name).makedirs()
        write_intrinsics(root / name / "cam.txt", np.array([[56.0, 0, 47.5], [0, 56, 31.5], [0, 0, 1]]))
        noise = torch.rand(1, 3, 9, 14, generator=random) * 255
        wide = functional.interpolate(noise, (HEIGHT, WIDTH + 2 * count), mode="bicubic").clamp(0, 255).byte()
        for k in range(count):
            write_jpeg(root / name / f"{k:07d}.jpg", wide[0, :, :, 2 * k : 2 * k + WIDTH].permute(1, 2, 0).numpy())
    write_text(root / "train.txt", "a\nb\n")
    write_text(root / "val.txt", "val\n")
    poses = np.tile(np.eye(3, 4), (4, 1, 1))
    poses[:, 0, 3] = np.arange(4)
    write_poses(root / "val" / "poses.txt", poses)
    write_depth(root / "val" / "0000001.npy", 5 + np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) / 1000)
    return root


@pytest.fixture
def run(data, tmp_path, monkeypatch, capsys):
    """Run train.py as typed: (exit status, standard output, standard error).

    The networks are small and the data are not checked, unless said; a check takes as long as some steps.
    """

    def run(*arguments, **options):
        flags = {"runs": tmp_path / "runs", "name": "run", "batch-size": 2, "workers": 0, "device": "cpu"}
        flags |= {} if "--depth-net" in arguments else {"network-width": SMALL}
        resume, check = options.pop("resume", False), options.pop("check", False)
        arguments += () if resume or check else ("--no-check",)
        flags = options if resume else flags | options
        given = [text for name, value in flags.items() for text in (f"--{name}", value)]
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, [*arguments, *given])])
        return type_train(), *capsys.readouterr()

    return run


def type_train() -> int:
    """Run train.py with the command line of `sys.argv` in this process, which stays as it was; its exit status."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)}
    try:
        run_script(train.main)
        return 0
    except SystemExit as end:
        return end.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of one step. It is read alone; `stopped` is a copy."""
    root = Path(tmp_path_factory.mktemp("finished"))
    flags = ["--runs", root / "runs", "--name", "run", "--batch-size", 2, "--workers", 0, "--device", "cpu"]
    flags += ["--network-width", SMALL, "--no-check", "--steps", 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *map(str, [write_data(root / "data"), *flags])])
        assert type_train() == 0
    return root / "runs" / "run"


@pytest.fixture
def stopped(finished, tmp_path):
    """A run of one step, to be resumed."""
    shutil.copytree(finished, tmp_path / "runs" / "run")
    return Path(tmp_path) / "runs" / "run"


def test_a_run_folder_that_tensorboard_cannot_open_is_refused(run, data, tmp_path):
    status, _, errors = run(data, "--steps", 1, runs=tmp_path / os.fsdecode(b"\xff"))
    assert status == 2
    assert "its name is not UTF-8, which TensorBoard needs; choose another --runs or --name" in errors
    assert not list(tmp_path.glob("*/run"))


def metrics(folder: Path, split: str) -> list[dict]:
    return [line for line in read_metrics(folder / "metrics.jsonl") if line["split"] == split]


@pytest.mark.slow
def test_a_run_as_typed_stopped_by_ctrl_c_leaves_its_folder(data, tmp_path):
    """The whole thing as a user has it: the real networks, worker processes, Ctrl-C as a terminal sends it."""
    command = [sys.executable, ROOT / "train.py", data, "--name", "mine", "--log-every", "1", "--validate-every", "2"]
    command += ["--batch-size", "2", "--workers", "1", "--device", "cpu", "--steps", "1000000"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    folder = Path(tmp_path) / "runs" / "mine"
    try:
        deadline = time.monotonic() + 300
        while not ((folder / "last.pt").exists() and len(metrics(folder, "train")) >= 3):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # to the workers, too
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 0, err
    assert "Traceback" not in err
    steps = metrics(folder, "train")[-1]["step"]
    assert out.splitlines()[-1] == f"stopped at step {steps}; go on with: python train.py --resume runs/mine"

    config = json.loads((folder / "config.json").read_text())
    assert (config["options"]["batch_size"], config["options"]["recipe"]) == (2, "paper-depth")
    assert config["record"]["height"] == HEIGHT
    assert [line["step"] for line in metrics(folder, "train")] == list(range(1, steps + 1))
    assert {"photometric", "photometric_identity", "abs_rel", "a1", "ate"} <= metrics(folder, "validation")[0].keys()
    assert load_checkpoint(folder / "last.pt")["step"] == steps
    for criterion in ("abs_rel", "ate", "photometric"):
        loaded = load_model(folder / f"best_{criterion}.pt")
        assert (loaded.height, loaded.width, loaded.depth_net is not None) == (HEIGHT, WIDTH, True)
    assert len(folder.files("events.out.tfevents.*")) == 1
    assert not folder.files("*.part")


def test_tensorboard_shows_what_metrics_jsonl_has_and_pictures(run, data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    status, out, _ = run(data, "--log-every", 2, "--pictures-every", 3, "--validate-every", 3, steps=4)
    assert status == 0
    assert out.splitlines()[-1] == f"done: step 4; {tmp_path}/runs/run/last.pt"
    folder = Path(tmp_path) / "runs" / "run"
    assert [line["step"] for line in metrics(folder, "train")] == [1, 2, 4]
    assert [line["step"] for line in metrics(folder, "validation")] == [3, 4]
    events = EventAccumulator(folder)
    events.Reload()
    logged = metrics(folder, "train")[-1]
    for name, value in logged.items():
        if name not in ("split", "step"):
            tag = tensorboard_tag("train", name)
            assert events.Scalars(tag)[-1].value == pytest.approx(value)
            assert events.Scalars(tag)[-1].step == 4
    ratio = logged["photometric/warp"] / logged["photometric/identity_warp"]
    assert logged["photometric/warp_over_identity"] == pytest.approx(ratio)
    assert "1_validation/abs_rel" in events.Tags()["scalars"]
    first, *others = sorted(events.Tags()["images"])
    assert first == "1_validation/target_disparity_truth"
    assert [event.step for event in events.Images(first)] == [3, 4]
    assert len(others) == 8
    assert all(name.startswith("2_training/") for name in others)
    assert [event.step for event in events.Images(others[0])] == [1, 3]
    assert logged["objective/loss"] == pytest.approx(
        sum(logged[f"objective/{name}"] * weight for name, weight in WEIGHTS.items())
    )
    assert sum(logged[f"share/{name}"] for name in WEIGHTS) == pytest.approx(1)


WEIGHTS = {"photometric": 1.0, "smoothness": 0.5, "explainability": 0.2}


def test_the_seed_alone_decides(run, data, tmp_path):
    runs = {}
    for name, workers, seed in (("alone", 0, 3), ("helped", 2, 3), ("other", 0, 4)):
        assert (
            run(data, "--log-every", 1, "--validate-every", 4, name=name, workers=workers, seed=seed, steps=9)[0] == 0
        )
        folder = Path(tmp_path) / "runs" / name
        runs[name] = [
            {key: value for key, value in line.items() if not key.startswith("speed/")}
            for line in metrics(folder, "train") + metrics(folder, "validation")
        ]
    assert len(runs["alone"]) == 9 + 3  # a validation after steps 4, 8 and 9; 8 snippets: two epochs and a bit
    assert runs["alone"] == runs["helped"]
    assert runs["alone"] != runs["other"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("module", "moment", "call"),
    [
        (training_run, "make_run_folder", 1),
        (train, "normalise_snippets", 2),
        (training_steps, "report_damaged", 2),
        (training_run, "keep_copy", 2),
    ],
)
def test_a_signal_at_any_moment_ends_in_order(run, data, tmp_path, monkeypatch, number, module, moment, call):
    plain, calls = getattr(module, moment), []

    def signalled(*arguments):
        calls.append(None)
        if len(calls) == call:
            signal.raise_signal(number)
        return plain(*arguments)

    monkeypatch.setattr(module, moment, signalled)
    status, out, err = run(data, "--validate-every", 2, steps=1000)
    assert status == 0
    assert "Traceback" not in err
    step = load_checkpoint(Path(tmp_path) / "runs" / "run" / "last.pt")["step"]
    assert step in (call, call + 1)
    assert out.splitlines()[-1] == f"stopped at step {step}; go on with: python train.py --resume {tmp_path}/runs/run"


def test_a_learned_camera_is_trained_logged_saved_and_resumed(run, data, tmp_path):
    """Scenes a and b have a camera each; val has that of a. All start at 60 degrees, whatever their cam.txt says."""
    write_intrinsics(data / "b" / "cam.txt", np.array([[70.0, 0, 47.5], [0, 70, 31.5], [0, 0, 1]]))
    view = {"name": "a", "size": [192, 160], "box": [0, 0, 192, 128]}  # of a film that data/prepare_video.py cropped
    (data / "inputs").mkdir_p()
    write_text(data / "inputs/a.json", json.dumps({"whole": view["size"], "box": view["box"]}))
    flags = [data, "--camera", "learned", "--fov", 60, "--camera-rate", 0.01, "--log-every", 1, "--validate-every", 4]
    folder = Path(tmp_path) / "runs" / "run"
    start = WIDTH / 2 / math.tan(math.radians(30))
    status, out, err = run(*flags, "--steps", 4)
    assert status == 0, err
    first, *_, last = metrics(folder, "train")
    assert first["camera/0/fx_over_width"] == pytest.approx(start / WIDTH, rel=0.011)
    for camera in (0, 1):
        assert last[f"camera/{camera}/fx_over_width"] != pytest.approx(start / WIDTH, rel=1e-3)
    loaded = load_model(folder / "last.pt")
    assert loaded.views == [view]
    matrices = loaded.camera.matrices()
    assert matrices[1, 0, 0].item() == pytest.approx(WIDTH * last["camera/1/fx_over_width"], rel=1e-6)
    assert load_checkpoint(folder / "last.pt")["record"]["cameras"] == [["a"], ["b"]]
    lines = [line for line in out.splitlines() if line.startswith("learned camera ")]
    assert [line.partition(":")[0] for line in lines] == ["learned camera 0", "learned camera 1"]
    assert f"fx {matrices[0, 0, 0]:.2f}, " in lines[0]

    assert run("--resume", folder, "--steps", 6, resume=True)[0] == 0
    assert run(*flags, "--steps", 6, name="whole")[0] == 0
    assert_same_run(folder, Path(tmp_path) / "runs" / "whole")


def test_epochs_and_no_augmentation_and_five_frames(run, data, tmp_path):
    status, out, _ = run(data, "--recipe", "paper-pose", "--no-explainability", "--augmentation", "none", epochs=2)
    # Scenes of 7 and 5 frames: 4 snippets of 5 frames. The validation scene has only 4: no snippet.
    assert status == 1
    write_text(data / "val.txt", "")
    status, out, _ = run(data, "--recipe", "paper-pose", "--no-explainability", "--augmentation", "none", epochs=2)
    assert status == 0
    assert "4 snippets of 5 frames" in out
    assert "validation: none" in out
    assert out.splitlines()[-1].startswith("done: step 4;")
    config = json.loads((Path(tmp_path) / "runs" / "run" / "config.json").read_text())
    options, record = config["options"], config["record"]
    assert (options["sequence_length"], options["objective"]["explainability"]) == (5, False)
    assert record["total_steps"] == 4


COSINE = TrainOptions(schedule="cosine", learning_rate=1e-3)


def test_the_step_schedule_falls_once():
    options = TrainOptions(schedule="step", learning_rate=1e-4, decay_after=0.75, decay_factor=0.1)
    rates = [training_steps.learning_rate(1e-4, options, step, 20) for step in range(20)]
    assert rates == pytest.approx([1e-4] * 15 + [1e-5] * 5)


def test_the_learning_rate_rises_and_falls_by_the_step_alone(run, data, monkeypatch):
    rates = [training_steps.learning_rate(1e-3, COSINE, step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-3 / 20)
    assert max(rates) == pytest.approx(1e-3, rel=2e-3)
    assert rates.index(max(rates)) in (19, 20)
    assert rates[500] == pytest.approx(0.5e-3)
    assert all(later < sooner for sooner, later in itertools.pairwise(rates[20:]))
    assert 0 < rates[-1] < 1e-8
    assert {training_steps.learning_rate(1e-3, TrainOptions(), step, 1000) for step in range(1000)} == {1e-3}

    used = []

    class Watched(FusedAdam):
        def step(self, *arguments, **options):
            used.append(self.param_groups[0]["lr"])
            return super().step(*arguments, **options)

    monkeypatch.setattr(start, "FusedAdam", Watched)
    assert run(data, "--schedule", "cosine", "--learning-rate", 1e-3, steps=4)[0] == 0
    assert used == [training_steps.learning_rate(1e-3, COSINE, step, 4) for step in range(4)]


def test_a_truncated_image_is_skipped_counted_and_named_once(run, data, tmp_path):
    for file in (data / "a" / "0000003.jpg", data / "val" / "0000003.jpg"):
        file.write_bytes(file.read_bytes()[:-40])
    status, out, _ = run(data, "--log-every", 1, "--validate-every", 4, steps=8)
    assert status == 0
    assert out.count("a/0000003.jpg: truncated or damaged JPEG") == 1
    assert out.count("val/0000003.jpg: truncated or damaged JPEG") == 1
    folder = Path(tmp_path) / "runs" / "run"
    assert metrics(folder, "train")[-1]["speed/damaged_files"] == 2
    _, out, _ = run("--resume", folder, "--steps", 9, resume=True)
    assert "truncated or damaged" not in out
    assert metrics(folder, "train")[-1]["speed/damaged_files"] == 2


def expect_one_line(result, message, status=1):
    got_status, _, err = result
    assert got_status == status
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("train.py: error: ")


def spoil(data: Path, how: str) -> None:
    if how == "empty list":
        write_text(data / "train.txt", "")
    elif how == "no list":
        (data / "train.txt").remove()
    elif how == "no frames":
        for file in (data / "a").files("*.jpg"):
            file.remove()
    elif how == "cam.txt":
        write_text(data / "b" / "cam.txt", "1 2 3\n")
    elif how == "sizes":
        write_jpeg(data / "b" / "0000001.jpg", np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8))
    elif how == "all damaged":
        for file in data.walkfiles("*.jpg"):
            file.write_bytes(b"")
    elif how == "val of another size":
        for file in (data / "val").files("*.jpg"):
            write_jpeg(file, np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8))
    elif how == "val with ..":
        write_text(data / "val.txt", "../data/val\n")


@pytest.mark.parametrize(
    ("how", "flags", "message"),
    [
        ("empty list", [], "train.txt: the list is empty"),
        ("no list", [], "train.txt: no such file"),
        ("no frames", [], "a: no frames, expected images"),
        ("cam.txt", [], "b/cam.txt: 1 lines of 3 numbers, expected K as 3 x 3"),
        ("sizes", [], "0000001.jpg: 97 x 64 pixels, but "),
        ("all damaged", [], "train.txt: not one of the frames of its scenes can be read"),
        ("val of another size", [], "val.txt: its scenes have 97 x 64 pixels"),
        ("val with ..", [], "val.txt, line 1: '../data/val' leads out of its folder"),
        ("", ["--sequence-length", "9"], "no snippet of 9 frames: the longest of 2 scenes, a, has 7"),
        ("", ["--batch-size", "99"], "the data set has 8 snippets, fewer than the batch size of 99"),
        ("", ["--device", "tpu"], "--device tpu: no such device"),
        ("", ["--start-from", "nowhere.pt"], "nowhere.pt: no such file, expected a checkpoint"),
        ("", ["--start-from", __file__], "test_train.py: not a checkpoint"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_anything_is_written(run, data, tmp_path, how, flags, message):
    spoil(data, how)
    options = dict(zip([flag[2:] for flag in flags[::2]], flags[1::2], strict=True))
    expect_one_line(run(data, **options), message)
    assert not (tmp_path / "runs").exists()


def test_no_such_folder(run, tmp_path):
    expect_one_line(run(tmp_path / "nowhere"), "nowhere: no such folder, expected a prepared data set")


def test_images_that_are_all_damaged_inside_end_the_run_in_one_line(run, data):
    for file in data.walkfiles("*.jpg"):
        file.write_bytes(file.read_bytes()[:-40])  # their headers are whole
    status, _, err = run(data, steps=2)
    assert status == 1
    assert "not one snippet has all its images whole" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "the folder of the prepared data set is missing"),
        (("data", "--recipe", "mine"), "argument --recipe: invalid choice: 'mine' (choose from"),
        (("data", "--steps", "0"), "argument --steps: got '0', expected a whole number greater than 0"),
        (("data", "--steps", "3", "--epochs", "1"), "--steps 3 --epochs 1: expected one of them"),
        (("data", "--beta1", "1"), "argument --beta1: got '1', expected a number greater than 0 and less than 1"),
        (("data", "--seed", "9" * 30), "expected a whole number of 0 or more and less than 9.22337e+18"),
        (("data", "--sequence-length", "4"), "--sequence-length 4: expected an odd number of frames from 3 on"),
        (("data", "--explainability-weight", "0"), "expected a weight above 0, or --no-explainability"),
        (("data", "--depth-net", "unet"), "--depth-net unknown network 'unet', expected one of disp_net"),
        (("data", "--pose-net", "pose_exp_net", "depth=1"), "pose_exp_net: unknown argument 'depth', expected"),
    ],
)
def test_wrong_use(run, flags, message):
    status, _, err = run(*flags)
    assert status == 2
    assert message in err.splitlines()[-1]


def test_a_run_that_is_there_is_refused_and_untouched(run, data, tmp_path):
    folder = Path(tmp_path) / "runs" / "run"
    folder.makedirs()
    (folder / "config.json").write_text("mine")
    expect_one_line(run(data, steps=1), "run: is there already, expected a new folder for the run")
    assert [file.name for file in folder.files()] == ["config.json"]
    assert (folder / "config.json").read_text() == "mine"
    (folder / "config.json").write_text('{"total_steps": 1}')
    for name in ("notes.txt", "metrics.jsonl"):
        (folder / name).write_text("mine")
        expect_one_line(run(data, steps=1), "run: is there already, expected a new folder for the run")
        assert (folder / name).read_text() == "mine"
        (folder / name).remove()
    (folder / "config.json").remove()
    (folder / "events.out.tfevents.1").write_text("mine")
    expect_one_line(run(data, steps=1), "run: is there already, expected a new folder for the run")
    assert (folder / "events.out.tfevents.1").read_text() == "mine"


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(run, data, tmp_path, monkeypatch):
    folder = Path(tmp_path) / "runs" / "run"
    with monkeypatch.context() as killed:
        killed.setattr(training_steps, "save_run", lambda run: sys.exit(9))
        assert run(data, steps=2)[0] == 9
    assert "config.json" in [file.name for file in folder.files()]
    expect_one_line(run("--resume", folder, resume=True), "it ended before its first checkpoint; start it anew")
    assert run(data, "--log-every", 1, steps=2)[0] == 0
    assert [line["step"] for line in metrics(folder, "train")] == [1, 2]
    assert len(folder.files("events.out.tfevents.*")) == 1


def test_a_run_is_one_process_s(run, data, tmp_path):
    assert run(data, steps=2)[0] == 0
    folder = Path(tmp_path) / "runs" / "run"
    hold = "import sys; from files.lock import hold; x = hold(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, folder]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        before = {file: file.read_bytes() for file in folder.files()}
        result = run("--resume", folder, "--steps", 3, resume=True)
        expect_one_line(result, "run: another process is at work there")
        assert {file: file.read_bytes() for file in folder.files()} == before
        other.stdin.close()
    assert run("--resume", folder, "--steps", 3, resume=True)[0] == 0


def spoil_steps(monkeypatch, *numbers):
    """Make the frames of these steps (the first is 1) NaN."""
    plain, calls = train.normalise_snippets, []

    def spoilt(snippets):
        calls.append(None)
        snippets = plain(snippets)
        factor = float("nan") if len(calls) in numbers else 1
        return snippets._replace(target=snippets.target * factor, sources=snippets.sources * factor)

    monkeypatch.setattr(train, "normalise_snippets", spoilt)


@pytest.fixture(params=[False, True], ids=["at once", "late"])
def late(request, monkeypatch):
    """The host looks at each step at once, as on a CPU, or one step late, as on a GPU."""
    plain = training_run.NonFiniteGuard
    monkeypatch.setattr(
        training_run,
        "NonFiniteGuard",
        lambda model, optimizer, skip, late: plain(model, optimizer, skip, request.param),
    )


def test_a_loss_that_is_not_finite_stops_the_run_before_a_weight_changes(run, data, tmp_path, monkeypatch, late):
    assert run(data, name="whole", steps=3)[0] == 0
    spoil_steps(monkeypatch, 4)
    status, _, err = run(data, "--validate-every", 100, steps=100)
    assert status == 1
    assert "Traceback" not in err
    assert "step 4: the loss is nan (photometric nan, smoothness nan" in err
    assert err.count(".jpg to 0000") == 2  # the snippets of a batch
    folder = Path(tmp_path) / "runs" / "run"
    assert f"the weights of step 3 are in {folder}/last.pt" in err
    assert f"--resume {folder} --skip-non-finite" in err
    assert_same_run(Path(tmp_path) / "runs" / "whole", folder, ["model", "optimizer", "step"])


def test_by_flag_such_a_batch_is_skipped_and_counted(run, data, tmp_path, monkeypatch, late):
    spoil_steps(monkeypatch, 2, 4)
    status, out, _ = run(data, "--skip-non-finite", "--log-every", 1, steps=6)
    assert status == 0
    assert out.count("skipped: step ") == 2
    assert "2 steps were skipped" in out
    content = load_checkpoint(Path(tmp_path) / "runs" / "run" / "last.pt")
    assert (content["step"], content["skipped"]) == (6, 2)
    assert {int(state["step"]) for state in content["optimizer"]["state"].values()} == {4}
    lines = metrics(Path(tmp_path) / "runs" / "run", "train")
    assert [(line["step"], line["speed/skipped_steps"]) for line in lines] == [(1, 0), (3, 1), (5, 2), (6, 2)]


def test_a_gradient_that_is_not_finite_counts_too(run, data, monkeypatch):
    class Spoils(torch.autograd.Function):
        @staticmethod
        def forward(ctx, tensor):
            return tensor.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("inf")

    plain = pose_exp_net.pose_to_matrix
    monkeypatch.setattr(pose_exp_net, "pose_to_matrix", lambda poses, rotation: plain(Spoils.apply(poses), rotation))
    status, _, err = run(data, steps=3)
    assert status == 1
    assert "gradient nan) on" in err or "gradient inf) on" in err


def test_a_full_disk_stops_with_one_line_and_leaves_the_checkpoint_before(run, data, tmp_path, monkeypatch):
    assert run(data, steps=2)[0] == 0
    folder = Path(tmp_path) / "runs" / "run"
    before = (folder / "last.pt").read_bytes()
    plain = os.open

    def full(file, *flags):
        return plain("/dev/full", os.O_WRONLY) if ".last.pt." in str(file) else plain(file, *flags)

    monkeypatch.setattr(os, "open", full)
    status, _, err = run("--resume", folder, "--steps", 4, resume=True)
    assert status == 1
    assert "No space left on device); the checkpoint before it is untouched" in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("train.py: error: ")
    assert "Traceback" not in err
    assert (folder / "last.pt").read_bytes() == before


def assert_same_run(folder: Path, other: Path, names=("model", "optimizer", "step", "best")):
    contents = [load_checkpoint(where / "last.pt") for where in (folder, other)]
    for name in names:
        assert_equal(*(content[name] for content in contents))


def assert_equal(value, other):
    if isinstance(value, dict):
        assert value.keys() == other.keys()
        for key in value:
            assert_equal(value[key], other[key])
    elif isinstance(value, torch.Tensor):
        assert torch.equal(value, other)  # to the last bit
    else:
        assert value == other


def without_speed(folder: Path) -> list[dict]:
    return [
        {name: value for name, value in line.items() if not name.startswith("speed/")}
        for split in ("train", "validation")
        for line in metrics(folder, split)
    ]


def scalars(folder: Path) -> dict[str, list[int]]:
    """The steps of each of TensorBoard's curves."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(folder, purge_orphaned_data=True)
    events.Reload()
    return {
        tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"] if "waiting" not in tag
    }


@pytest.mark.parametrize("stop", [3, 4, 6])
def test_a_run_that_was_stopped_goes_on_exactly(run, data, tmp_path, monkeypatch, stop):
    """Stopped in the middle of an epoch (of 4 steps), at an epoch's end where a validation is due, and after it.

    Nothing that is drawn elsewhere matters: every step of the resumed run begins with other global random states.
    """
    flags = [data, "--log-every", 1, "--validate-every", 4, "--steps", 10]
    assert run(*flags, name="whole")[0] == 0
    plain, calls = train.normalise_snippets, []

    def signalled(frames):
        calls.append(None)
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(1000 + len(calls))
        if len(calls) == stop:
            signal.raise_signal(signal.SIGTERM)
        return plain(frames)

    monkeypatch.setattr(train, "normalise_snippets", signalled)
    status, out, _ = run(*flags, name="parts")
    whole, folder = (Path(tmp_path) / "runs" / name for name in ("whole", "parts"))
    assert status == 0
    assert out.splitlines()[-1] == f"stopped at step {stop}; go on with: python train.py --resume {folder}"
    # As if it had gone on for a while after its checkpoint, and was killed while it wrote a line.
    with open(folder / "metrics.jsonl", "a") as stream:
        stream.write('{"split": "train", "step": 7, "objective/loss": 99}\n{"split": "train", "step": 8, "objec')
    shutil.move(data, tmp_path / "moved")
    status, out, err = run(tmp_path / "moved", "--resume", folder, "--workers", 1, resume=True)
    assert status == 0, err
    assert f", from step {stop} on" in out
    assert out.splitlines()[-1].startswith("done: step 10;")
    assert_same_run(whole, folder)
    assert sorted(without_speed(folder), key=str) == sorted(without_speed(whole), key=str)
    assert [line["step"] for line in metrics(folder, "train")] == list(range(1, 11))
    assert [line["step"] for line in metrics(folder, "validation")] == [4, 8, 10]
    assert scalars(folder) == scalars(whole)
    labels = json.loads((folder / "best.json").read_text())
    best = load_checkpoint(folder / "last.pt")["best"]
    for criterion in ("abs_rel", "ate", "photometric"):
        content = load_checkpoint(folder / f"best_{criterion}.pt")
        assert content["step"] == best[criterion]["step"]
        assert labels[f"best_{criterion}.pt"] == {"criterion": criterion} | best[criterion]


def test_a_signal_in_the_last_step_leaves_its_validation_to_do(run, data, tmp_path, monkeypatch):
    with monkeypatch.context() as asked:
        plain = train.normalise_snippets
        asked.setattr(train, "normalise_snippets", lambda x: (signal.raise_signal(signal.SIGTERM), plain(x))[1])
        status, out, _ = run(data, "--validate-every", 5, steps=1)
    folder = Path(tmp_path) / "runs" / "run"
    assert out.splitlines()[-1] == f"stopped at step 1; go on with: python train.py --resume {folder}"
    assert metrics(folder, "validation") == []
    status, out, _ = run("--resume", folder, resume=True)
    assert status == 0
    assert out.splitlines()[-1].startswith("done: step 1;")
    assert [line["step"] for line in metrics(folder, "validation")] == [1]
    assert (folder / "best_abs_rel.pt").is_file()


def test_a_validation_that_was_logged_is_not_made_again(run, data, tmp_path, monkeypatch):
    """Killed between the validation's log and the next checkpoint."""
    flags = [data, "--validate-every", 2, "--log-every", 1]
    assert run(*flags, steps=4, name="whole")[0] == 0
    saved = []

    def die_at_step_2(state):
        if state.step == 2 and not state.validation_due and not saved:
            saved.append(load_checkpoint(state.folder / "last.pt"))
            sys.exit(9)
        plain(state)

    plain = training_steps.save_run
    with monkeypatch.context() as dying:
        # The checkpoint before the validation is the one that a stop at that step would have written.
        stop = training_steps.validate
        dying.setattr(training_steps, "save_run", die_at_step_2)
        dying.setattr(training_steps, "validate", lambda *given: (plain(caught[0]), stop(*given))[1])
        caught: list = []
        opened = train.open_run
        dying.setattr(train, "open_run", lambda *given: caught.append(opened(*given)) or caught[0])
        assert run(*flags, steps=4)[0] == 9
    assert saved[0]["validation_due"]
    folder, whole = (Path(tmp_path) / "runs" / name for name in ("run", "whole"))
    assert [line["step"] for line in metrics(folder, "validation")] == [2]
    assert run("--resume", folder, resume=True)[0] == 0
    assert [line["step"] for line in metrics(folder, "validation")] == [2, 4]
    assert scalars(folder) == scalars(whole)
    assert_same_run(whole, folder)


def test_a_worker_that_is_killed_ends_the_run_saved(run, data, tmp_path, monkeypatch):
    plain, calls = training_steps.report_damaged, []

    def kill(*given):
        calls.append(None)
        if len(calls) == 3:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)
        return plain(*given)

    monkeypatch.setattr(training_steps, "report_damaged", kill)
    status, _, err = run(data, "--validate-every", 1000, workers=1, steps=1000)
    folder = Path(tmp_path) / "runs" / "run"
    step = load_checkpoint(folder / "last.pt")["step"]
    assert status == 1
    assert 3 <= step <= 6  # some batches were read before
    line = err.splitlines()[-1]
    assert line.startswith("train.py: error: a process that reads images was killed")
    assert line.endswith(f"step {step} is saved, go on with: python train.py --resume {folder}")
    assert "Traceback" not in err


def test_a_worker_that_is_killed_in_validation_ends_the_run_saved(run, data, tmp_path, monkeypatch):
    plain = training_steps.validate

    def kill(*given):
        monkeypatch.setattr(validation, "load_batches", doomed)
        return plain(*given)

    def doomed(*given):
        loader = load_batches(*given)
        yield next(loader)
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGKILL)
        yield from loader
        raise InputError("a process that reads images was killed")  # where all was read before

    monkeypatch.setattr(training_steps, "validate", kill)
    status, _, err = run(data, "--validate-every", 3, workers=1, steps=1000)
    folder = Path(tmp_path) / "runs" / "run"
    assert status == 1
    assert err.splitlines()[-1].endswith(f"step 3 is saved, go on with: python train.py --resume {folder}")
    content = load_checkpoint(folder / "last.pt")
    assert (content["step"], content["validation_due"]) == (3, True)


@pytest.mark.slow
@pytest.mark.parametrize("signalled", [True, False])
def test_when_nobody_listens_any_more_the_run_ends_in_order(data, tmp_path, signalled):
    """As a terminal's Ctrl-C does it with `train.py ... | tee log`: tee ends first."""
    command = [sys.executable, ROOT / "train.py", data, "--name", "mine", "--steps", "1000000", "--batch-size", "2"]
    command += ["--network-width", str(SMALL), "--workers", "1", "--log-every", "1", "--no-check", "--device", "cpu"]
    folder = Path(tmp_path) / "runs" / "mine"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as listener:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=listener.stdin, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 300
            while not ((folder / "last.pt").exists() and len(metrics(folder, "train")) >= 5):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            listener.kill()
            if signalled:
                process.send_signal(signal.SIGINT)
            assert process.wait(timeout=120) == 0
        finally:
            process.kill()
    steps = metrics(folder, "train")[-1]["step"]
    assert load_checkpoint(folder / "last.pt")["step"] == steps >= 5


def test_a_finished_run_says_so_and_goes_on_for_more_steps(run, data, tmp_path):
    assert run(data, "--log-every", 1, steps=3)[0] == 0
    folder = Path(tmp_path) / "runs" / "run"
    status, out, _ = run("--resume", folder, resume=True)
    assert status == 0
    assert out.splitlines()[-1].startswith("done: step 3;")
    expect_one_line(
        run("--resume", folder, "--steps", 2, resume=True), "3 steps are done; expected a length of as many"
    )
    assert run("--resume", folder, "--steps", 5, resume=True)[0] == 0
    assert [line["step"] for line in metrics(folder, "train")] == [1, 2, 3, 4, 5]
    assert json.loads((folder / "config.json").read_text())["record"]["total_steps"] == 5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learning-rate", "1e-3"], "--learning-rate 0.001: the run in"),
        (["--seed", "7"], "--seed 7: the run in"),
        (["--smoothed", "depth"], "--smoothed depth: the run in"),
        (["--recipe", "paper-pose"], "--recipe paper-pose: the run in"),
        (["--name", "other"], "--name other: the run in"),
        (["--start-from", "a.pt"], "--start-from"),
        (["--batch-size", "4"], "the run has 2 snippets per step; a resumed run keeps that number"),
        (["--precision", "bf16"], "--precision bf16: the run in"),
    ],
)
def test_what_would_be_another_training_is_refused(run, stopped, flags, message):
    before = {file: file.read_bytes() for file in stopped.files()}
    expect_one_line(run("--resume", stopped, *flags, resume=True), message)
    assert {file: file.read_bytes() for file in stopped.files()} == before


@pytest.mark.parametrize(
    ("spoil_it", "message"),
    [
        (lambda content: content["options"].update(batch_size="many"), "batch_size is 'many', expected a whole number"),
        (lambda content: content["options"].update(learning_rate=[1]), "learning_rate is a list, expected a number"),
        (lambda content: content["options"].update(schedule="x"), "schedule is 'x', expected one of constant, cosine"),
        (lambda content: content["record"].update(snippets=9), "snippets 8, but the run began with 9"),
        (lambda content: content["record"].update(scenes=["a"]), "the run began without the scene b"),
        (lambda content: content["optimizer"]["state"][0].pop("exp_avg"), "the optimiser's exp_avg of parameter 0"),
        (
            lambda content: content.update(best={"abs_rel": 0.3}),
            "its best 'abs_rel' is 0.3, expected a value and a step",
        ),
        (lambda content: content.update(best={"x/../../../evil": {"value": 0.3, "step": 1}}), "its best 'x/../../.."),
        (lambda content: content.update(best={"ate": {"value": 0.3, "step": 1, "x": torch.ones(1)}}), "its best 'ate'"),
        (lambda content: content.update(step=-1), "step -1"),
        (lambda content: content.update(step=10**30), "step 1000"),
        (lambda content: content.update(damaged="all"), "its damaged is of type str, expected list"),
        (lambda content: content["record"].update(height=torch.zeros(2)), "its height is a Tensor, expected pixels"),
        (lambda content: content["record"].update(scenes=torch.zeros(2)), "its scenes are a Tensor, expected names"),
        (lambda content: content["options"].update(seed=10**40), "seed is 1000"),
        (lambda content: content.update(optimizer=3), "its optimizer is of type int, expected dict"),
        (lambda content: content["model"].clear(), "it lacks depth_net.conv1.0.weight"),
    ],
)
def test_a_damaged_checkpoint_is_refused(run, stopped, spoil_it, message):
    content = load_checkpoint(stopped / "last.pt")
    spoil_it(content)
    torch.save(content, stopped / "last.pt")
    expect_one_line(run("--resume", stopped, "--steps", 2, resume=True), message)


def test_what_is_no_run_cannot_go_on(run, data, tmp_path):
    expect_one_line(run("--resume", tmp_path / "nowhere", resume=True), "no such folder, expected the folder of a run")
    expect_one_line(run("--resume", data, resume=True), "has no last.pt")


def test_a_schedule_is_one_of_all_its_steps(run, data, tmp_path):
    assert run(data, "--schedule", "cosine", steps=2)[0] == 0
    result = run("--resume", Path(tmp_path) / "runs" / "run", "--steps", 4, resume=True)
    expect_one_line(result, "the cosine schedule of the run in")


def test_checkpoints_are_written_in_between(run, data, tmp_path, monkeypatch):
    saved = []
    plain = training_run.save_checkpoint
    monkeypatch.setattr(training_run, "save_checkpoint", lambda *given: (saved.append(given[1]["step"]), plain(*given)))
    assert run(data, "--save-every", 1e-9, "--validate-every", 100, steps=4)[0] == 0
    assert saved == [0, 1, 2, 3, 4]
    saved.clear()
    assert run(data, "--validate-every", 100, name="seldom", steps=4)[0] == 0
    assert saved == [0, 4]


def test_accumulated_batches_are_one_larger_batch(run, data, tmp_path):
    for name, flags in (("one", {"batch-size": 6}), ("three", {"batch-size": 2, "accumulate": 3})):
        assert run(data, "--log-every", 1, "--validate-every", 100, name=name, steps=4, **flags)[0] == 0
    one, three = (without_speed(Path(tmp_path) / "runs" / name) for name in ("one", "three"))
    for line, other in zip(one, three, strict=True):
        assert other.pop("split") == line.pop("split")
        assert other == pytest.approx(line, rel=1e-4, abs=1e-7)


def test_accumulated_batches_give_the_gradient_of_the_larger_one(run, data, monkeypatch):
    """In float64: in float32 the L1 error's sign flips with the last bit here and there."""
    write_text(data / "val.txt", "")
    gradients = []
    check, normalise, build = NonFiniteGuard.check, train.normalise_snippets, start.build

    def watched(self, *given, **options):
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in self._parameters]))
        check(self, *given, **options)

    monkeypatch.setattr(NonFiniteGuard, "check", watched)
    monkeypatch.setattr(start, "build", lambda *given: build(*given).double())

    def in_double(snippets):
        snippets = normalise(snippets)
        return Snippets(*(part.double() for part in snippets[:3]), *snippets[3:])

    monkeypatch.setattr(train, "normalise_snippets", in_double)
    for name, flags in (("one", {"batch-size": 6}), ("three", {"batch-size": 2, "accumulate": 3})):
        assert run(data, name=name, steps=1, **flags)[0] == 0
    assert (gradients[0] - gradients[1]).norm() <= 1e-6 * gradients[0].norm()


def test_a_recipe_is_printed_without_data(run):
    status, out, _ = run("--recipe", "paper-pose", "--smoothed", "depth", "--print-recipe")
    assert status == 0
    printed = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (printed["sequence_length"], printed["smoothed"], printed["smoothness_weight"]) == ("5", "depth", "0.5")


def test_a_checkpoint_names_its_training_scenes_and_those_of_what_it_started_from(run, data, tmp_path, monkeypatch):
    assert run(data, name="first", steps=1)[0] == 0
    first = tmp_path / "runs" / "first" / "last.pt"
    assert load_checkpoint(first)["record"]["scenes"] == ["a", "b"]
    write_text(data / "train.txt", "b\nval\n")
    for known, expected in ((["a", "elsewhere"], ["a", "b", "elsewhere", "val"]), (None, None)):
        loaded = load_model(first)
        loaded.scenes = known
        monkeypatch.setattr(start, "load_model", lambda file, loaded=loaded: loaded)
        name = "known" if expected else "unknown"
        assert run(data, "--start-from", first, name=name, steps=1)[0] == 0
        assert load_checkpoint(tmp_path / "runs" / name / "last.pt")["record"]["scenes"] == expected


def test_frames_in_memory_change_no_step(run, data, tmp_path):
    """Whatever the run began with, files or memory, it may go on with the other."""
    folder = Path(tmp_path) / "runs"
    assert run(data, name="files", steps=4)[0] == 0
    status, out, err = run(data, "--data-in-memory", name="memory", steps=2)
    assert status == 0, err
    assert "GiB, in the host's memory" in out
    for flag, steps in (("--no-data-in-memory", 3), ("--data-in-memory", 4)):
        assert run("--resume", folder / "memory", flag, "--steps", steps, resume=True)[0] == 0
    files, memory = (load_checkpoint(folder / name / "last.pt") for name in ("files", "memory"))
    assert files["step"] == memory["step"] == 4
    assert all(torch.equal(value, memory["model"][key]) for key, value in files["model"].items())


@pytest.mark.gpu
def test_a_step_does_not_make_the_host_wait(run, data, monkeypatch):
    """From the batch's arrival to the optimiser's step nothing waits for the device, but for logging."""

    def watched(*arguments, **options):
        for number, batch in enumerate(load_batches(*arguments, **options)):
            torch.cuda.set_sync_debug_mode("error" if number > 2 else "default")  # the first steps log and warm up
            yield batch

    def end_of_step(lines, damaged):
        torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(training_run, "load_batches", watched)
    monkeypatch.setattr(training_steps, "report_damaged", end_of_step)
    try:
        flags = {"device": "cuda", "network-width": 1}
        status, _, err = run(data, "--log-every", 100, "--validate-every", 100, steps=8, **flags)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert status == 0, err


def test_data_that_teach_nothing_are_refused_before_a_folder_is_made(run, data, tmp_path):
    write_intrinsics(data / "b" / "cam.txt", np.array([[56.0, 0, 15.5], [0, 56, 10.5], [0, 0, 1]]))
    status, output, error = run(data, steps=1, check=True)
    assert status == 1
    assert "the data set is refused: wrong K: b: its centre (15.5, 10.5)" in error
    assert "fx fy cx cy" in output
    assert not (tmp_path / "runs").exists()
    status, output, error = run(data, steps=1)
    assert status == 0, error
    assert "fx fy cx cy" not in output


def test_warnings_of_the_data_check_are_printed_and_logged(run, data, tmp_path):
    status, output, error = run(data, steps=1, check=True)
    assert status == 0, error
    assert "WARNING: too few frames: " in output
    logged = {line["name"]: line for line in metrics(tmp_path / "runs/run", "warning")}
    assert logged["data_check/too_few_frames"]["step"] == 0
    assert "too few frames: " in logged["data_check/too_few_frames"]["message"]


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot round denormal numbers to 0")
def test_denormal_numbers_are_rounded_to_zero_in_all_threads():
    """They make a step half as slow again; in a process of its own, since threads inherit it when they begin."""
    look = "lambda: sys.exit(bool((torch.full((1_000_000,), 1e-30) * 1e-9).count_nonzero()))"
    script = f"import sys, torch, train; torch.set_num_threads(2); train.parse_arguments = {look}; train.main()"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


@pytest.mark.slow
def test_an_unforeseen_error_ends_the_process(data, tmp_path):
    """Out of memory, say: its traceback holds the loader, whose workers ignore SIGTERM."""
    script = (
        "import train\nfrom training import run\n"
        "def objective(*arguments): raise RuntimeError('unforeseen')\n"
        "run.objective = objective\n"
        "train.main()"
    )
    flags = ["--runs", tmp_path / "runs", "--network-width", SMALL, "--workers", 2, "--no-check", "--device", "cpu"]
    result = subprocess.run(
        [sys.executable, "-c", script, data, *map(str, flags)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.endswith("RuntimeError: unforeseen\n")


@pytest.fixture
def torchrun():
    """Start train.py in several processes; those that still run at the test's end are killed."""
    started = []

    def start(processes: int, *arguments, torchrun_flags=()) -> subprocess.Popen:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
        command += [*torchrun_flags, ROOT / "train.py", *arguments]
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()  # torchrun ends its workers
            process.wait()


@pytest.fixture
def train_in_two(monkeypatch, tmp_path, capsys):
    """Run train.py in this process and a copy of it: (exit status, standard output, standard error) of this one.

    They find each other as those that torchrun starts, which import PyTorch each.
    """

    def train_in_two(*arguments):
        said = Path(tmp_path) / "second.txt"
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        with monkeypatch.context() as patch:
            for name, value in (address | {"WORLD_SIZE": "2", "RANK": "0"}).items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
            patch.setattr(distributed, "_end_process", lambda: None)  # this process goes on with other tests
            faulthandler.cancel_dump_traceback_later()  # the copy would wait for the thread of pytest's timer
            second = train_in_copy(arguments, said, 120, RANK="1", LOCAL_RANK="1")
            try:
                status = type_train()
            finally:
                if torch.distributed.is_initialized():  # a training that fails leaves its group
                    torch.distributed.destroy_process_group()
                ended = os.waitpid(second, 0)[1]  # it fails without the first
        assert os.waitstatus_to_exitcode(ended) == 0, said.read_text()
        assert "done: step" not in said.read_text()  # only the first speaks
        return status, *capsys.readouterr()

    return train_in_two


@pytest.mark.slow
def test_two_processes_train_as_one_even_if_one_is_killed_and_one_goes_on_from_there(
    run, train_in_two, torchrun, data, tmp_path
):
    """2 processes with batch 2 and 1 with batch 4: the same losses to 1e-5 over 20 steps.

    Where a process is killed, torchrun ends the other and starts both again with the same command. They end as the
    group does that nobody killed, to the bit.
    """
    runs = Path(tmp_path) / "runs"
    flags = ["--log-every", 1, "--validate-every", 10, "--workers", 0, "--device", "cpu", "--no-check", "--runs", runs]
    flags += ["--network-width", SMALL]
    group = [data, *flags, "--steps", 20, "--batch-size", 2]
    killed = torchrun(2, *group, "--name", "killed", torchrun_flags=["--max-restarts", 1])
    assert wait_until(lambda: (runs / "killed/metrics.jsonl").is_file() and metrics(runs / "killed", "validation"))
    other = worker_of(killed.pid, local_rank=0)
    os.kill(worker_of(killed.pid, local_rank=1), signal.SIGKILL)
    assert wait_until(lambda: not Path(f"/proc/{other}").exists(), seconds=60)
    out, err = killed.communicate(timeout=300)
    assert killed.returncode == 0, err
    assert re.search(r"from step \d+ on", out)
    assert out.count("done: step 20") == 1  # only one speaks
    status, out, err = train_in_two(*group, "--name", "two")
    assert status == 0, err
    assert "2 processes, cpu" in out
    assert "done: step 20" in out
    assert len((runs / "two").files("events.out.tfevents.*")) == 1  # and writes
    assert_same_run(runs / "two", runs / "killed", ["model", "optimizer", "step", "best"])

    for folder, options in ((runs / "two", {"--resume": runs / "two", "--steps": 24}), (runs / "one", {})):
        if not options:
            options = {"--name": "one", "--steps": 24, "--batch-size": 4}
        given = [text for flag, value in options.items() for text in (flag, value)]
        status, _, err = run(*([] if "--resume" in options else [data, *flags]), *given, resume=True)
        assert status == 0, err
        assert json.loads((folder / "config.json").read_text())["options"]["batch_size"] == 4
    one, two = without_speed(runs / "one"), without_speed(runs / "two")
    one = [line for line in one if (line["split"], line["step"]) != ("validation", 24)]
    two = [line for line in two if line["split"] == "train" or line["step"] in (10, 20)]
    assert len(one) == len(two) == 24 + 2
    for line, other in zip(one, two, strict=True):
        assert (line.pop("split"), line["step"]) == (other.pop("split"), other["step"])
        assert other.keys() == line.keys()
        for name in line:
            exact = name.startswith("objective/") or name.startswith("photometric")
            assert other[name] == pytest.approx(line[name], rel=1e-5 if exact else 1e-3, abs=1e-5), (line["step"], name)


@pytest.fixture
def shards(data, tmp_path, monkeypatch):
    """The data set as shards of about two frames."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    out = (Path(tmp_path) / "packed").makedirs_p()
    training, validation = SnippetDataset(data, "train.txt", 3), SnippetDataset(data, "val.txt", 3, ground_truth=True)
    assert pack(training, validation, data, out, size=5000, overlap=4) > 5
    return out


def test_training_from_shards_resumes_to_the_same_weights(run, data, shards, tmp_path):
    """From a folder without a stop; from a URL with one, with workers then, and validated alike."""
    folder = Path(tmp_path) / "runs"
    assert run(shards, "--validate-every", 3, name="whole", steps=9)[0] == 0
    with serve(shards) as (url, asked):
        assert run(url, "--validate-every", 3, name="stopped", steps=4)[0] == 0
        status, _, error = run("--resume", folder / "stopped", "--steps", 9, "--workers", 2, resume=True)
        assert status == 0, error
    assert any("val-00000.tar" in path for path in asked)
    assert_same_run(folder / "whole", folder / "stopped", ["model", "optimizer", "step"])
    scores = [metrics(folder / name, "validation") for name in ("whole", "stopped")]
    assert scores[0][-1] == scores[1][-1]
    assert {"abs_rel", "ate"} <= scores[0][-1].keys()
    assert not list(Path(tempfile.gettempdir()).glob("validation-*/val"))


def test_a_run_keeps_its_shards(run, data, shards, tmp_path):
    """Their number decides the order of the snippets."""
    assert run(shards, steps=1)[0] == 0
    result = run(data, "--resume", tmp_path / "runs/run", "--steps", 2, resume=True)
    expect_one_line(result, "shards 0, but the run began with ")


def test_what_shards_cannot_do_is_one_line(run, shards):
    expect_one_line(run(shards, "--data-in-memory", steps=1), "are shards; expected the folder of a prepared", status=2)
    expect_one_line(run(shards, "--sequence-length", 7, steps=1), "packed for snippets of up to 5 frames, expected 7")
    (shards / "val-00000.tar").remove()
    expect_one_line(run(shards, steps=1), "val-00000.tar: no such file")
    (shards / "shards.jsonl").remove()
    expect_one_line(run(shards, steps=1), "train.txt: no such file")


def test_a_shard_that_goes_missing_ends_a_run_after_saving_it(run, shards, tmp_path):
    shards.files("train-*.tar")[-1].remove()
    status, _, error = run(shards, steps=9)
    assert status == 1
    assert re.search(r"^train.py: error: .*tar: no such file; step \d is saved, go on with: .*\n$", error, re.MULTILINE)
    assert load_checkpoint(tmp_path / "runs/run/last.pt")["step"] < 4


@pytest.mark.slow
def test_two_processes_train_from_shards_as_one_does(shards, tmp_path, run, train_in_two):
    """The coarsest scale is not used: its heads of disparity and masks get no gradient."""
    flags = ["--runs", tmp_path / "runs", "--network-width", SMALL, "--workers", 0, "--device", "cpu", "--steps", 8]
    flags += ["--no-check", "--scales", 3]
    with serve(shards) as (url, _):
        status, _, err = train_in_two(url, "--name", "two", "--batch-size", 1, "--log-every", 1, *flags)
        assert status == 0, err
        assert run(url, "--log-every", 1, "--scales", 3, name="one", steps=8)[0] == 0
    losses = [
        [line["objective/loss"] for line in metrics(tmp_path / "runs" / name, "train")] for name in ("one", "two")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-3)


def wait_until(condition, seconds: float = 240) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def worker_of(torchrun_process: int, local_rank: int) -> int:
    for number in Path(f"/proc/{torchrun_process}/task/{torchrun_process}/children").read_text().split():
        if f"LOCAL_RANK={local_rank}\0" in Path(f"/proc/{number}/environ").read_text():
            return int(number)
    raise AssertionError("no such worker")


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        ({"name": "a"}, {}, None),
        ({"name": "a", "steps": 3}, {"TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_MAX_RESTARTS": "3"}, "a"),
        ({"name": "a"}, {"TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "3"}, None),
        ({"name": "new"}, {"TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_MAX_RESTARTS": "3"}, None),
        ({"resume": "b"}, {"TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_MAX_RESTARTS": "3"}, "b"),
    ],
)
def test_only_a_restarted_process_with_a_checkpoint_resumes_by_itself(
    tmp_path, monkeypatch, given, environment, expected
):
    monkeypatch.chdir(tmp_path)
    Path("runs/a").makedirs()
    Path("runs/a/last.pt").touch()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    arguments = training_run.restarted_arguments(given)
    assert arguments.get("resume") == (Path("runs/a") if expected == "a" else expected)
    assert "steps" not in arguments


def test_max_restarts_needs_a_name_and_a_store_of_its_own(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    with pytest.raises(UsageError, match="give --name"):
        training_run.restarted_arguments({})
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        training_run.restarted_arguments({"name": "a"})


def test_other_ways_to_compute_a_step_give_nearly_the_same(run, data, tmp_path):
    write_text(data / "val.txt", "")
    runs = Path(tmp_path) / "runs"
    ways = {"plain": [], "bf16": ["--precision", "bf16"], "channels_last": ["--channels-last"]}
    ways = {name: ["--no-channels-last", *flags] for name, flags in ways.items()}
    for name, flags in ways.items():
        whole = {"name": name, "network-width": 1 / 4}  # bfloat16 errs more the more channels it sums over
        assert run(data, "--log-every", 1, *flags, steps=2, **whole)[0] == 0
    plain = without_speed(runs / "plain")
    for name in ("bf16", "channels_last"):
        other = without_speed(runs / name)
        assert plain != other  # bfloat16 is not float32
        for line, another in zip(plain, other, strict=True):
            for value in ("objective/loss", "disparity/mean", "photometric/warp"):
                assert another[value] == pytest.approx(line[value], rel=0.02)
        weights = load_checkpoint(runs / name / "last.pt")["model"]
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


class ConstantNet(torch.nn.Module):
    """One learnt depth for all pixels: the way in which training collapses."""

    def __init__(self) -> None:
        super().__init__()
        self.logit = torch.nn.Parameter(torch.zeros(()))

    def forward(self, image):
        height, width = image.shape[2:]
        disparity = 10 * self.logit.sigmoid() + 0.01
        return [disparity.expand(len(image), 1, height >> scale, width >> scale) for scale in range(4)]


def test_a_constant_depth_sets_off_a_loud_warning(run, data, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setitem(DEPTH_NETS, "constant", ConstantNet)
    write_text(data / "val.txt", "")
    flags = ["--depth-net", "constant", "--pose-net", "pose_exp_net", "width=0.0625"]
    status, out, err = run(data, "--pictures-every", 1000, *flags, steps=200, **{"batch-size": 1})
    assert status == 0, err
    assert "!!!!!!!!!! WARNING, step 200: disparity is the same everywhere" in out
    folder = Path(tmp_path) / "runs" / "run"
    (line,) = metrics(folder, "warning")
    assert (line["step"], line["name"]) == (200, "flat_disparity")
    assert "Likely: the smoothness" in line["message"]
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [event.step for event in events.Scalars("0_warning/flat_disparity")] == [200]
