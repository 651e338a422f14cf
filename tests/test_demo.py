"""The demo: which commands it runs, what it leaves alone; and all of it once, on a tiny world."""

import json
import os
import signal
import sys
import threading

from cli.flags import run_script

import numpy as np
import pytest
import torch
from path import Path
from PIL import Image

import demo
from datasets.layout import GUESS, SELF_CALIBRATION, write_camera_source, write_scene_names
from files.errors import InputError
from files.images import read_image

ROOT = Path(__file__).absolute().parent.parent


@pytest.fixture
def folder(tmp_path):
    return Path(tmp_path) / "demo"


@pytest.fixture
def commands(monkeypatch, folder):
    """The commands that main runs, up to the tests of the network; none of them runs."""
    ran = []

    def run(seconds, name, command):
        words = [str(word) for word in command]
        ran.append((name, words))
        seconds[name] = 10.0
        if name == "world":
            (folder / "world/splits").makedirs_p()
        elif name == "speed":
            write_metrics(Path(words[words.index("--runs") + 1]) / "run", {"speed/images_per_second": 20.0})
        elif name == "train":
            at = words[words.index("--resume") + 1] if "--resume" in words else folder / "runs" / words[-1]
            write_metrics(Path(at), {"step": int(Path(at).name.removeprefix("steps_"))})
        elif name == "test_depth":
            raise InputError("far enough")

    monkeypatch.setattr(demo, "run", run)
    monkeypatch.setattr(demo, "bf16_speedup", lambda: 1.0)
    return ran


def write_metrics(folder, record):
    folder.makedirs_p()
    (folder / "metrics.jsonl").write_text(json.dumps({"split": "train", "step": 40} | record) + "\n")


def main(monkeypatch, folder, *flags):
    monkeypatch.setattr(sys, "argv", ["demo.py", "--folder", str(folder), "--device", "cpu", *flags])
    with pytest.raises(InputError, match="far enough"):
        demo.main()


def test_without_steps_the_speed_is_measured_in_a_folder_that_is_removed(commands, monkeypatch, folder):
    main(monkeypatch, folder)
    assert [name for name, _ in commands] == ["world", "prepare", "speed", "train", "test_depth"]
    steps = int((demo.TOTAL_SECONDS - demo.TEST_SECONDS - 30 - demo.START_SECONDS) * demo.SUSTAINED * 20 / 8) // 10 * 10
    assert commands[3][1][-1] == f"steps_{steps}"
    assert f"--steps {steps}" in " ".join(commands[3][1])
    assert sorted(os.listdir(folder)) == ["runs", "world"]


def test_with_steps_nothing_is_measured(commands, monkeypatch, folder):
    main(monkeypatch, folder, "--steps", "7")
    assert [name for name, _ in commands] == ["world", "prepare", "train", "test_depth"]
    assert commands[2][1][-1] == "steps_7"


def test_without_steps_the_last_run_goes_on(commands, monkeypatch, folder):
    for number, steps in enumerate((900, 700)):
        run = folder / "runs" / f"steps_{steps}"
        run.makedirs()
        (run / "last.pt").touch()
        (run / "config.json").write_text('{"precision": "bf16"}')
        os.utime(run, (number, number))
    (folder / "runs/steps_of_mine").makedirs()
    (folder / "world").makedirs()
    main(monkeypatch, folder)
    assert [name for name, _ in commands] == ["world", "prepare", "train", "test_depth"]
    assert commands[2][1] == ["train.py", "--resume", folder / "runs/steps_700", "--device", "cpu"]


def test_a_run_that_ended_before_its_first_checkpoint_is_begun_again(commands, monkeypatch, folder):
    (folder / "world").makedirs()
    (folder / "runs/steps_700").makedirs()
    main(monkeypatch, folder)
    assert [name for name, _ in commands] == ["world", "prepare", "train", "test_depth"]
    assert commands[2][1][-1] == "steps_700"
    assert "--resume" not in commands[2][1]


def test_a_training_that_was_stopped_is_not_tested(folder):
    write_metrics(folder, {"step": 100})
    demo.check_is_trained(folder, 100)
    with pytest.raises(InputError, match="the training was stopped before step 200; the same command continues it"):
        demo.check_is_trained(folder, 200)


def test_what_others_put_into_the_folder_stays(commands, monkeypatch, folder):
    """An earlier version removed speed/ and runs/steps_N."""
    for name in ("world", "speed", "runs/steps_5"):
        (folder / name).makedirs()
        (folder / name / "mine.txt").write_text("mine")
    main(monkeypatch, folder)
    main(monkeypatch, folder, "--steps", "6")
    for name in ("world", "speed", "runs/steps_5"):
        assert (folder / name / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["results.json", "pictures/depth.png", "runs/steps_5/last.pt"])
def test_a_folder_with_other_contents_is_refused(commands, monkeypatch, folder, name):
    (folder / name).parent.makedirs_p()
    (folder / name).write_text("mine")
    monkeypatch.setattr(sys, "argv", ["demo.py", "--folder", str(folder), "--device", "cpu"])
    with pytest.raises(InputError, match="has other contents, expected a new or empty folder"):
        demo.main()
    assert commands == []
    assert (folder / name).read_text() == "mine"


@pytest.mark.parametrize(
    ("speeds", "steps"), [([1, 8], 800), ([1, 8.9], 890), ([1, 1, 6, 12], 800), ([1, 0.1], 500), ([1, 1000], 3000)]
)
def test_as_many_steps_as_there_is_time_for(speeds, steps):
    """By the latter half of the log, and the time that its batches took (6 and 12 a second are 8 on the whole)."""
    records = [*({"speed/images_per_second": speed} for speed in speeds), {"split": "validation"}]
    assert demo.steps_in(801 / demo.SUSTAINED + demo.START_SECONDS, records) == steps


@pytest.mark.parametrize(
    ("device", "speedup", "flags"),
    [
        ("cpu", 2.5, ["--precision", "bf16", "--channels-last"]),
        ("cpu", 0.7, ["--precision", "float32"]),
        ("cuda", 2.5, ["--precision", "float32"]),
    ],
)
def test_the_precision_of_a_new_run_is_the_fastest(tmp_path, monkeypatch, device, speedup, flags):
    monkeypatch.setattr(demo, "bf16_speedup", lambda: speedup)
    assert demo.precision_flags(torch.device(device), Path(tmp_path) / "config.json") == flags


@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_the_precision_of_a_run_that_goes_on_is_its_own(tmp_path, monkeypatch, precision):
    (Path(tmp_path) / "config.json").write_text(json.dumps({"options": {"precision": precision}}))
    monkeypatch.setattr(demo, "bf16_speedup", lambda: 0.1 if precision == "bf16" else 9.0)
    assert demo.precision_flags(torch.device("cpu"), Path(tmp_path) / "config.json")[1] == precision


def test_the_speed_of_bf16_is_measured():
    assert 0.001 < demo.bf16_speedup() < 100


def test_a_script_that_fails_is_named_with_its_status(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(demo, "ROOT", Path(tmp_path))
    (Path(tmp_path) / "bad.py").write_text("import sys; print('bad.py: error: no room', file=sys.stderr); sys.exit(1)")
    with pytest.raises(InputError, match=r"bad.py failed with exit status 1, see above; the same command continues"):
        demo.run({}, "bad", ["bad.py", "--flag", 3])
    out, err = capfd.readouterr()
    assert "$ python bad.py --flag 3" in out
    assert "no room" in err


@pytest.mark.parametrize(("end", "said"), [("sys.exit(130)", True), ("os.kill(os.getpid(), 2)", True), ("", False)])
def test_ctrl_c_in_a_script_is_said_once(process_as_before, monkeypatch, tmp_path, capfd, end, said):
    """By the script that it ended; by the demo where the script ended in order, as a training does."""
    monkeypatch.setattr(demo, "ROOT", Path(tmp_path))
    lines = ("import os, sys", "os.kill(os.getppid(), 2)", f"if {said}: print('stopped by Ctrl-C', file=sys.stderr)")
    (Path(tmp_path) / "slow.py").write_text("\n".join([*lines, f"{end}\n"]))
    with pytest.raises(SystemExit) as ended:
        run_script(lambda: demo.run({}, "slow", ["slow.py"]))
    assert ended.value.code == 130
    errors = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert [line for line in errors if "stopped" in line] == ["stopped by Ctrl-C"]


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
    files = folder / "depth.json", folder / "pose.json"
    seconds = {"world": 3.0, "train": 4.5}
    results = demo.summarise(*files) | demo.about_run(seconds, 100, "train.py prepared", torch.device("cpu"))
    assert results["depth"]["abs_rel"] == 0.13
    assert (results["depth"]["abs_rel_mean_map"], results["depth"]["abs_rel_constant"]) == (0.26, 0.5)
    assert results["pose"]["ate"] == pytest.approx(0.025)  # a mean over snippets, not over sequences
    assert results["pose"]["ate_straight_line"] == pytest.approx(0.035)
    assert results["seconds"] == {"world": 3, "train": 4.5, "total": 7.5}
    demo.print_results(results, folder)
    out = capsys.readouterr().out
    for words in ("0.130  0.260 mean depth map, 0.500 best constant", "0.0250", "0.0350 straight line"):
        assert words in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--width", "100"), "--width 100: expected a multiple of 32"),
        (("--drives", "11"), "--drives 11: expected at most 10 with --video"),
        (("--frames", "59"), "--frames 59: expected 60 or more with --video"),
    ],
)
def test_wrong_use_of_the_video_demo(monkeypatch, folder, capsys, flags, message):
    monkeypatch.setattr(sys, "argv", ["demo.py", "--video", "--folder", str(folder), *flags])
    with pytest.raises(SystemExit) as end:
        demo.main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("estimate", "training", "prediction"),
    [(None, ["--camera", "learned"], []), ({"focal": 223.07}, [], ["--focal", "223.070"])],
)
def test_the_video_demo_gives_no_camera_to_any_script(commands, monkeypatch, folder, estimate, training, prediction):
    """The scripts get the video, and the focal length that its preparation estimated. Without steps as many are trained
    as the time for prediction leaves."""

    def film(images, video):
        video.parent.makedirs_p()
        video.touch()

    monkeypatch.setattr(demo, "film", film)
    monkeypatch.setattr(demo, "estimated_camera", lambda prepared: estimate)
    monkeypatch.setattr(demo, "read_json", lambda file: (_ for _ in ()).throw(InputError("far enough")))
    main(monkeypatch, folder, "--video")
    assert [name for name, _ in commands] == ["world", "prepare", "speed", "train", "predict"]
    words = dict(commands)
    video, prepared = folder / "videos/drive_1.mp4", folder / "prepared"
    assert words["prepare"] == ["data/prepare_video.py", video, prepared, "--width", "192", "--height", "64"]
    given = [*demo.TRAINING, *training, "--device"]
    assert words["train"][words["train"].index("--recipe") :][: len(given)] == given
    assert words["predict"][words["predict"].index("cpu") + 1 :][: len(prediction)] == prediction
    later = 600 * demo.PREDICT_SECONDS_PER_FRAME
    left = demo.TOTAL_SECONDS - later - 30 - demo.START_SECONDS  # world, prepare and speed take 10 seconds each, here
    steps = left * demo.SUSTAINED * 20 / 8
    assert words["train"][-1] == f"steps_{steps // 10 * 10:.0f}"
    checkpoint = folder / "runs" / words["train"][-1] / "last.pt"
    assert words["predict"][1:5] == [checkpoint, video, "--out", folder / "predicted"]
    assert " ".join(words["predict"]).endswith("--scale camera-height 1.65")


def test_the_camera_that_the_preparation_estimated(tmp_path):
    prepared = Path(tmp_path)
    write_scene_names(prepared / "train.txt", ["a_00"])
    (prepared / "a_00").makedirs()
    write_camera_source(prepared / "a_00", {"source": GUESS})
    assert demo.estimated_camera(prepared) is None
    estimate = {"source": SELF_CALIBRATION, "focal": 223.07}
    write_camera_source(prepared / "a_00", estimate)
    assert demo.estimated_camera(prepared) == estimate


def test_depth_in_metres_is_compared_with_the_truth(tmp_path):
    """A prediction of 0.9 times the true depth: no error after median scaling, and a scale of 0.9."""
    truth, predicted = Path(tmp_path) / "truth", Path(tmp_path) / "predicted"
    truth.makedirs()
    (predicted / "depth").makedirs()
    for number in range(3):
        depth = np.tile(np.linspace(10, 40 + 5 * number, 32, dtype=np.float32), (64, 1))
        Image.fromarray(np.rint(depth * 256).astype(np.uint16)).save(truth / f"{number:010d}.png")
        np.save(predicted / f"depth/{number:07d}.npy", np.float32(0.9) * depth)
    scores = demo.score_depth(truth, predicted, 3)
    assert scores["abs_rel"] == pytest.approx(0, abs=1e-3)
    assert scores["metres_over_truth"] == pytest.approx(0.9, rel=1e-3)
    assert scores["metres_over_truth_within_20_m"] == pytest.approx(0.9, rel=1e-3)
    assert 0.01 < scores["abs_rel_mean_map"] < scores["abs_rel_constant"]


def test_encoder_weights_reach_the_training(monkeypatch, folder, commands, tmp_path):
    weights = Path(tmp_path) / "mobilenet_v2.pth"
    weights.touch()
    main(monkeypatch, folder, "--steps", "20", "--encoder-weights", str(weights))
    (train,) = [words for name, words in commands if name == "train"]
    assert train[train.index("--encoder-weights") + 1] == weights


def test_a_missing_file_of_encoder_weights_is_one_line(monkeypatch, folder, commands, capsys):
    flags = ["--folder", str(folder), "--encoder-weights", "nowhere.pth"]
    monkeypatch.setattr(sys, "argv", ["demo.py", "--device", "cpu", *flags])
    with pytest.raises(SystemExit) as ended:
        demo.main()
    assert ended.value.code == 2
    assert "nowhere.pth: no such file, expected mobilenet_v2-b0353104.pth" in capsys.readouterr().err
    assert not commands


@pytest.fixture
def scripts_here(monkeypatch, script_here):
    """The demo's scripts run in this process, but for those that are named in the set, which is empty at first."""
    in_processes, run_process = set(), demo.run

    def run(seconds, name, command):
        if name in in_processes:
            run_process(seconds, name, command)
            return
        alone = ("--jobs", 1) if name == "world" else ()  # each of several processes would import PyTorch
        try:
            script_here(*command, *alone)
        except SystemExit as end:
            raise InputError(f"{command[0]} failed with exit status {end.code}") from None
        seconds[name] = 1.0

    monkeypatch.setattr(demo, "run", run)
    monkeypatch.setattr(demo, "bf16_speedup", lambda: 1.0)
    return in_processes


@pytest.mark.slow
def test_all_of_it_stopped_and_started_again(scripts_here, process_as_before, monkeypatch, folder, capfd):
    """SIGTERM reaches a training in a process of its own, which stops in order; then the same folder goes on."""
    size = ("--drives", "3", "--frames", "12", "--width", "96", "--height", "64")

    def demo_of(steps):
        monkeypatch.setattr(sys, "argv", ["demo.py", "--folder", str(folder), *size, "--device", "cpu", *steps])
        run_script(demo.main)

    ended = threading.Event()

    def stop():
        while not (folder / "runs/steps_200/metrics.jsonl").is_file():  # until it trains
            if ended.wait(0.05):
                return
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)

    scripts_here.add("train")
    signal.signal(signal.SIGTERM, lambda *given: None)  # outside the training, where the demo listens to it
    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(SystemExit) as end:
        demo_of(["--steps", "200"])
    ended.set()
    out, err = capfd.readouterr()  # of all processes
    assert "Traceback" not in err, err
    assert end.value.code == 130
    assert "stopped at step" in out
    assert not (folder / "depth.json").exists()

    scripts_here.clear()
    demo_of(["--steps", "2"])
    assert "nothing to do: all scenes are complete" in capfd.readouterr().out
    results = json.loads((folder / "results.json").read_text())
    assert results["depth"].keys() >= {"abs_rel", "a1", "abs_rel_mean_map", "abs_rel_constant"}
    assert results["pose"].keys() >= {"ate", "ate_straight_line"}
    assert results["seconds"].keys() == {"world", "prepare", "train", "test_depth", "test_pose", "pictures", "total"}
    assert results["steps"] == 2
    assert results["training"].startswith("train.py ")
    assert results["training"].endswith("--steps 2")
    assert read_image(folder / "pictures/depth.png").std() > 10
    assert read_image(folder / "pictures/trajectories/09.png").std() > 10


@pytest.mark.slow
def test_the_video_demo_on_a_tiny_video(scripts_here, monkeypatch, tmp_path, capsys):
    """Two steps of training show no road, so that the prediction has no metres."""
    folder = Path(tmp_path) / "demo"
    size = ("--frames", "60", "--width", "96", "--height", "32", "--steps", "2", "--device", "cpu")
    monkeypatch.setattr(sys, "argv", ["demo.py", "--video", "--folder", str(folder), *size])
    demo.main()
    assert "focal length fx in pixels of the video" in capsys.readouterr().out
    scores = json.loads((folder / "results.json").read_text())["videos"]["drive_1"]
    assert scores["camera"]["source"].startswith("learned by the checkpoint")
    assert scores["camera"]["true_K"][0][0] == pytest.approx(0.581 * 192)
    assert scores["camera"]["K"][0][0] == pytest.approx(scores["camera"]["first_guess_of_focal_length"], rel=0.05)
    assert 0 < scores["depth"]["abs_rel_mean_map"] < 1
    assert scores["pose"]["path"] > 10
    clip = folder / "predicted/drive_1"
    for name in ("index.html", "video.mp4", "cloud.ply", "trajectory.txt", "depth/0000059.npy"):
        assert (clip / name).is_file()
