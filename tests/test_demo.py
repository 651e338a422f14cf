"""The demo's own parts: what is done is not done again, what fails says so; and all of it once, on a tiny world."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from path import Path

import demo
from files.errors import InputError
from files.images import read_image

ROOT = Path(__file__).absolute().parent.parent


@pytest.fixture
def record(tmp_path):
    return Path(tmp_path) / "stages.json"


@pytest.fixture
def ran(monkeypatch):
    """The commands that were run, none of which is."""
    commands = []
    monkeypatch.setattr(demo, "run", commands.append)
    return commands


def test_a_stage_that_is_done_is_not_done_again(record, ran, capsys):
    for _ in range(2):
        demo.stage(record, "world", "some streets", ["a.py", "--drives", 3])
    assert ran == [["a.py", "--drives", 3]]
    assert capsys.readouterr().out.splitlines()[-1] == "[1/7] world: some streets: done before, in 0 s"


def test_another_command_is_another_stage_and_makes_the_later_ones_stale(record, ran):
    for name in ("world", "prepare", "train"):
        demo.stage(record, name, "", [name, 1])
    demo.stage(record, "prepare", "", ["prepare", 2])
    demo.stage(record, "train", "", ["train", 1])
    demo.stage(record, "world", "", ["world", 1])
    assert ran == [["world", 1], ["prepare", 1], ["train", 1], ["prepare", 2], ["train", 1]]


def test_a_stage_that_was_stopped_goes_on_and_its_seconds_add_up(record, ran, monkeypatch):
    seconds = iter([0.0, 10.0, 100.0, 105.0])
    monkeypatch.setattr(demo.time, "perf_counter", lambda: next(seconds))
    with pytest.raises(InputError, match="train was stopped; the same command goes on from there"):
        demo.stage(record, "train", "", ["train"], finished=lambda: False)
    demo.stage(record, "train", "", ["train"], resume=["train", "--resume"])
    assert ran == [["train"], ["train", "--resume"]]
    assert json.loads(record.read_text())["train"] == {"command": "train", "seconds": 15.0, "finished": True}


def test_what_another_command_left_is_removed_and_what_was_stopped_is_kept(record, ran, tmp_path):
    output = Path(tmp_path) / "run"
    output.makedirs()
    with pytest.raises(InputError):
        demo.stage(record, "train", "", ["train", 1], output=output, resume=["resume"], finished=lambda: False)
    assert not output.exists()
    output.makedirs()
    demo.stage(record, "train", "", ["train", 1], output=output, resume=["resume"])
    assert output.exists()
    assert ran == [["train", 1], ["resume"]]


@pytest.mark.parametrize(
    ("speeds", "steps"), [([1, 8], 800), ([1, 8.9], 890), ([1, 1, 6, 12], 800), ([1, 0.1], 500), ([1, 1000], 3000)]
)
def test_as_many_steps_as_there_is_time_for(tmp_path, speeds, steps):
    """By the latter half of the log, and the time that its batches took (6 and 12 a second are 8 on the whole)."""
    file = Path(tmp_path) / "metrics.jsonl"
    lines = [*({"speed/images_per_second": speed} for speed in speeds), {"split": "validation"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert demo.affordable_steps(file, 801) == steps


@pytest.mark.parametrize(
    ("device", "speedup", "flags"),
    [
        ("cpu", 2.5, ["--precision", "bf16", "--channels-last"]),
        ("cpu", 0.7, ["--precision", "float32"]),
        ("cuda", 2.5, ["--precision", "float32"]),
    ],
)
def test_the_precision_is_measured_once(tmp_path, monkeypatch, device, speedup, flags):
    file = Path(tmp_path) / "precision.txt"
    monkeypatch.setattr(demo, "bf16_speedup", lambda: speedup)
    assert demo.precision_flags(file, torch.device(device)) == flags
    monkeypatch.setattr(demo, "bf16_speedup", lambda: 1 / speedup)  # an interrupted demo goes on as it began
    assert demo.precision_flags(file, torch.device(device)) == flags


def test_a_damaged_note_of_the_precision_is_measured_anew(tmp_path, monkeypatch):
    file = Path(tmp_path) / "precision.txt"
    monkeypatch.setattr(demo, "bf16_speedup", lambda: 2.5)
    for damage in (b"--precision bf", b"\xff\x00", b""):
        file.write_bytes(damage)
        assert demo.precision_flags(file, torch.device("cpu")) == ["--precision", "bf16", "--channels-last"]


def test_the_speed_of_bf16_is_measured():
    assert 0.001 < demo.bf16_speedup() < 100


def test_a_damaged_record_is_begun_anew(record, ran):
    record.write_text('{"world": {"comm')
    demo.stage(record, "world", "", ["world"])
    assert ran == [["world"]]
    assert json.loads(record.read_text())["world"]["finished"]


def test_a_script_that_fails_is_named_with_its_status(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(demo, "ROOT", Path(tmp_path))
    (Path(tmp_path) / "bad.py").write_text("import sys; print('bad.py: error: no room', file=sys.stderr); sys.exit(1)")
    with pytest.raises(InputError, match=r"bad.py failed with exit status 1, see above; the same command goes on"):
        demo.run(["bad.py", "--flag", 3])
    out, err = capfd.readouterr()
    assert "$ python bad.py --flag 3" in out
    assert "no room" in err


def test_the_results_stand_beside_what_they_must_beat(tmp_path, capsys):
    folder = Path(tmp_path)
    errors = {"abs_rel": 0.13, "a1": 0.8}, {"abs_rel": 0.26, "a1": 0.6}, {"abs_rel": 0.5, "a1": 0.3}
    depth = {"metrics": errors[0], "baselines": {"mean_map": errors[1], "best_constant": errors[2]}, "line": "dense"}
    (folder / "depth.json").write_text(json.dumps({"protocols": {"dense": depth}}))
    pose = [
        {"snippets": 10, "ate": {"mean": 0.01}, "straight_line_ate": {"mean": 0.02}},
        {"snippets": 30, "ate": {"mean": 0.03}, "straight_line_ate": {"mean": 0.04}},
    ]
    (folder / "pose.json").write_text(json.dumps({"results": pose}))
    (folder / "stages.json").write_text(json.dumps({"world": {"seconds": 3.0}, "train": {"seconds": 4.5}}))
    files = [folder / name for name in ("depth.json", "pose.json", "stages.json")]
    results = demo.summarise(*files, 100, "cpu")
    assert results["depth"]["abs_rel"] == 0.13
    assert (results["depth"]["abs_rel_mean_map"], results["depth"]["abs_rel_constant"]) == (0.26, 0.5)
    assert results["pose"]["ate"] == pytest.approx(0.025)  # a mean over snippets, not over sequences
    assert results["pose"]["ate_straight_line"] == pytest.approx(0.035)
    assert results["seconds"] == {"world": 3, "train": 4.5, "total": 7.5}
    demo.print_results(results, folder)
    out = capsys.readouterr().out
    for words in ("0.130  0.260 mean depth map, 0.500 best constant", "0.0250", "0.0350 straight line"):
        assert words in out


def demo_command(folder: Path, *flags: object) -> list[str]:
    size = ("--drives", 3, "--frames", 12, "--width", 96, "--height", 64)
    words = ("demo.py", "--folder", folder, *size, "--device", "cpu", *flags)
    return [sys.executable, *(str(word) for word in words)]


@pytest.mark.slow
def test_all_of_it_stopped_and_started_again(tmp_path):
    folder = Path(tmp_path) / "demo"
    started = subprocess.Popen(demo_command(folder, "--steps", 200), cwd=ROOT, start_new_session=True, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    while not (folder / "runs/steps_200/metrics.jsonl").is_file():  # until it trains
        assert started.poll() is None, started.communicate()
        time.sleep(0.1)
    started.send_signal(signal.SIGTERM)
    out, err = started.communicate(timeout=120)
    assert "Traceback" not in err, err
    assert started.returncode != 0
    assert "stopped at step" in out

    done = subprocess.run(demo_command(folder, "--steps", 2), cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[1/7] world: 3 drives of 12 frames, with true depth and motion: done before" in done.stdout
    results = json.loads((folder / "results.json").read_text())
    assert results["depth"].keys() >= {"abs_rel", "a1", "abs_rel_mean_map", "abs_rel_constant"}
    assert results["pose"].keys() >= {"ate", "ate_straight_line"}
    assert results["seconds"].keys() == {*demo.STAGES, "total"} - {"speed"}
    assert results["steps"] == 2
    assert results["training"].startswith("train.py ")
    assert results["training"].endswith("--steps 2")
    assert read_image(folder / "pictures/depth.png").std() > 10
    assert read_image(folder / "pictures/trajectories/09.png").std() > 10
