"""test_pose.py on whole trajectories: chained from snippets, or any system's files."""

import copy
import json
import os
import sys

from cli.flags import run_script

import imageio.v3 as imageio
import numpy as np
import pytest
from path import Path
from scipy.spatial.transform import Rotation

import test_pose
from datasets.formats.trajectories import write_tum_trajectory
from datasets.layout import write_poses
from evaluation.metrics.pose import snippets
from evaluation.metrics.trajectory import ALIGNMENTS, compose_motions, trajectory_errors
from evaluation.predictions import save_predictions
from files.errors import InputError
from tests.oracles import load_trajectory, motion, sources

COUNT = 180


def drive(seed, count=COUNT):
    """world_from_camera [count, 3, 4]: about 1.3 m a frame, with turns, from the identity on."""
    random = np.random.default_rng(seed)
    turns = Rotation.from_euler("xyz", random.normal(0, [0.002, 0.03, 0.002], (count - 1, 3))).as_matrix()
    steps = random.normal([0, 0, 1.3], [0.02, 0.01, 0.2], (count - 1, 3))
    return compose_motions(np.concatenate([turns, steps[..., None]], -1))


@pytest.fixture
def kitti(tmp_path):
    """Poses of the sequences 00, 09 and 10; 09 also has times.txt. No images: nothing is predicted here."""
    root = Path(tmp_path) / "kitti"
    (root / "poses").makedirs()
    (root / "sequences/09").makedirs()
    for seed, name in enumerate(("00", "09", "10")):
        write_poses(root / "poses" / f"{name}.txt", drive(seed))
    np.savetxt(root / "sequences/09/times.txt", 0.1 * np.arange(COUNT))
    return root


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the script as typed: (exit status, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["test_pose.py", *map(str, arguments)])
        status = 0
        try:
            run_script(test_pose.main)
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def predictions(file, trajectories, frames=5):
    arrays = {f"snippets_{name}": snippets(poses, frames) for name, poses in trajectories.items()}
    test_pose.save_predictions(file, "snippets", arrays, {})
    return file


def disturbed(poses, seed=7):
    motion = snippets(poses, 2)[:, 1].copy()
    motion[..., 3] *= np.random.default_rng(seed).normal(1, 0.05, (len(motion), 1))
    return compose_motions(motion)


# Chained from snippets


@pytest.mark.parametrize("frames", [2, 3, 5])
def test_true_snippets_in_another_unit_are_the_true_trajectory(kitti, run, tmp_path, frames):
    result = Path(tmp_path) / "result.json"
    saved = predictions(Path(tmp_path) / "pose.npz", {"09": drive(1) * [1, 1, 1, 0.2]}, frames)
    status, output, errors = run("--predictions", saved, "--kitti", kitti, "--json", result)
    assert status == 0, errors
    (row,) = json.loads(result.read_text())["results"]
    assert row["ate"]["mean"] < 1e-9
    assert row["scale"] == pytest.approx(5)
    assert row["scale_spread"] == pytest.approx(0, abs=1e-9)
    whole = row["trajectory"]
    assert whole["frames"] == COUNT
    assert 100 < whole["path_m"] < 300
    assert list(whole["alignments"]) == list(ALIGNMENTS)
    for alignment in ("scale", "7dof"):
        found = whole["alignments"][alignment]
        assert found["scale"] == pytest.approx(5)
        assert found["ate_m"] < 1e-9
        assert found["t_err_percent"] < 1e-9
    assert whole["alignments"]["none"]["t_err_percent"] == pytest.approx(80, rel=0.05)
    assert "whole trajectories: chained from the snippets" in output


def test_a_truth_that_begins_elsewhere_is_met_where_it_begins(kitti, run, tmp_path):
    shifted = drive(1)
    turn = Rotation.from_euler("y", 1.0).as_matrix()
    shifted = np.concatenate([turn @ shifted[..., :3], (shifted[..., 3] @ turn.T + [5, 6, 7])[..., None]], -1)
    write_poses(kitti / "poses/09.txt", shifted)
    saved, result = predictions(Path(tmp_path) / "pose.npz", {"09": drive(1)}), Path(tmp_path) / "result.json"
    assert run("--predictions", saved, "--kitti", kitti, "--json", result)[0] == 0
    (row,) = json.loads(result.read_text())["results"]
    assert row["trajectory"]["alignments"]["none"]["ate_m"] < 1e-9


def test_a_scale_that_drifts_shows_unless_snippets_are_scaled_to_the_truth(kitti, run, tmp_path):
    poses = snippets(drive(1), 3).copy()
    poses[..., 3] *= np.linspace(0.1, 0.2, len(poses))[:, None, None]  # right up to a scale of its own each
    saved, result = Path(tmp_path) / "pose.npz", Path(tmp_path) / "result.json"
    test_pose.save_predictions(saved, "snippets", {"snippets_09": poses}, {})
    found = {}
    for kind in ("network", "ground-truth"):
        flags = ("--snippet-scale", kind) if kind != "network" else ()
        status, output, errors = run("--predictions", saved, "--kitti", kitti, "--json", result, *flags)
        assert status == 0, errors
        stored = json.loads(result.read_text())
        assert stored["protocol"]["snippet_scale"] == kind
        assert ("each snippet first scaled to the ground truth" in output) == (kind == "ground-truth")
        found[kind] = stored["results"][0]
    assert found["network"]["ate"]["mean"] < 1e-9  # which the snippets' ATE does not see
    assert found["network"]["scale_spread"] > 0.1
    assert found["network"]["trajectory"]["alignments"]["7dof"]["t_err_percent"] > 1
    assert found["ground-truth"]["trajectory"]["alignments"]["none"]["t_err_percent"] < 1e-9


def test_exported_files_are_evos_and_give_its_figures(kitti, run, tmp_path):
    interface = pytest.importorskip("evo.tools.file_interface")
    metrics = pytest.importorskip("evo.core.metrics")
    predicted = disturbed(drive(1)) * [1, 1, 1, 0.1]
    saved = predictions(Path(tmp_path) / "pose.npz", {"09": predicted, "10": disturbed(drive(2))})
    folder, result = Path(tmp_path) / "out", Path(tmp_path) / "result.json"
    status, output, errors = run("--predictions", saved, "--kitti", kitti, "--export", folder, "--json", result)
    assert status == 0, errors
    assert {str(file.name) for file in folder.files()} == {"09.txt", "09_tum.txt", "09.png", "10.txt", "10.png"}
    assert f"trajectory: {folder}/10.txt, {folder}/10.png" in output
    row = json.loads(result.read_text())["results"][0]
    truth = interface.read_kitti_poses_file(str(kitti / "poses/09.txt"))
    for found in (
        interface.read_kitti_poses_file(str(folder / "09.txt")),
        interface.read_tum_trajectory_file(str(folder / "09_tum.txt")),
    ):
        assert found.check()[0]
        np.testing.assert_allclose(found.positions_xyz, predicted[..., 3], atol=1e-9)
        for alignment, options in (("none", None), ("6dof", {}), ("7dof", {"correct_scale": True})):
            aligned = copy.deepcopy(found)
            if options is not None:
                aligned.align(truth, **options)
            expected = row["trajectory"]["alignments"][alignment]
            assert expected["ate_m"] > 0.01
            assert rmse(metrics.APE(metrics.PoseRelation.translation_part), truth, aligned) == pytest.approx(
                expected["ate_m"], rel=1e-6
            )
            for relation, key in (
                (metrics.PoseRelation.translation_part, "rpe_rmse_m"),
                (metrics.PoseRelation.rotation_angle_deg, "rpe_rmse_deg"),
            ):
                evo = rmse(metrics.RPE(relation, 1, metrics.Unit.frames), truth, aligned)
                assert evo == pytest.approx(expected[key], rel=1e-6, abs=1e-6)
    assert found.timestamps[3] == pytest.approx(0.3)


def rmse(metric, truth, predicted):
    metric.process_data((truth, predicted))
    return float(np.sqrt(np.mean(np.square(metric.error))))


def test_mean_odometry_is_that_of_the_training_sequences(kitti, run, tmp_path):
    """Every training snippet the same motion as the tested ones: the mean is the truth."""
    motion = np.concatenate([Rotation.from_euler("y", 0.02).as_matrix(), [[0.1], [0], [1.0]]], 1)
    same = compose_motions(np.tile(motion, (40, 1, 1)))
    for name in ("00", "09", "10"):
        write_poses(kitti / "poses" / f"{name}.txt", same)
    (kitti / "sequences/09/times.txt").unlink()
    saved, result = predictions(Path(tmp_path) / "pose.npz", {"09": drive(3, 41)}), Path(tmp_path) / "result.json"
    status, output, errors = run("--predictions", saved, "--kitti", kitti, "--json", result)
    assert status == 0, errors
    (row,) = json.loads(result.read_text())["results"]
    assert row["mean_odometry_of"] == ["00"]
    assert row["mean_odometry_ate"]["mean"] == pytest.approx(0, abs=1e-9)
    assert row["mean_odometry_rotation_error"]["mean"] == pytest.approx(0, abs=1e-7)
    assert row["straight_line_ate"]["mean"] > 0.01
    assert "mean odometry: of 00" in output
    (kitti / "poses/00.txt").unlink()  # then it is the tested sequence's own, and says so
    assert run("--predictions", saved, "--kitti", kitti, "--json", result)[0] == 0
    assert json.loads(result.read_text())["results"][0]["mean_odometry_of"] == ["09"]


def test_ground_truth_is_never_written_over(kitti, run, tmp_path):
    saved = predictions(Path(tmp_path) / "pose.npz", {"09": disturbed(drive(1))})
    before = (kitti / "poses/09.txt").read_text()
    status, _, errors = run("--predictions", saved, "--kitti", kitti, "--export", kitti / "sequences/../poses")
    assert status == 1
    assert "is the folder of the ground truth" in errors
    assert (kitti / "poses/09.txt").read_text() == before


@pytest.mark.parametrize("place", ["poses", "link", "dataset/poses"])
def test_nothing_is_exported_into_the_folder_of_the_ground_truth(kitti, run, tmp_path, place):
    """An exported 11.txt would be the truth of sequence 11 for the next run."""
    if place == "link":
        os.symlink(kitti / "poses", kitti / "link")
    elif place == "dataset/poses":  # not there yet
        (kitti / "dataset").mkdir()
    before = {file: file.read_bytes() for file in kitti.walkfiles()}
    (kitti / "sequences/11").mkdir_p()
    saved = predictions(Path(tmp_path) / "pose.npz", {"11": drive(1)})
    mine = Path(tmp_path) / "11.txt"
    write_poses(mine, drive(1))
    commands = [("--predictions", saved, "--kitti", kitti)]
    if place != "dataset/poses":
        commands.append(("--trajectory", mine, "--ground-truth", kitti / "poses/09.txt"))
    for command in commands:
        status, _, errors = run(*command, "--export", kitti / place)
        assert status == 1
        assert f"--export {kitti / place}: is the folder of the ground truth, expected another one" in errors
    assert {file: file.read_bytes() for file in kitti.walkfiles()} == before


@pytest.mark.parametrize("end", [".txt", "_tum.txt", ".png"])
def test_an_export_destroys_no_file_of_another_kind(kitti, run, tmp_path, end):
    folder = (Path(tmp_path) / "out").makedirs_p()
    (folder / f"09{end}").write_text("precious")
    saved = predictions(Path(tmp_path) / "pose.npz", {"09": disturbed(drive(1))})
    result = Path(tmp_path) / "result.json"
    arguments = ("--predictions", saved, "--kitti", kitti, "--export", folder, "--json", result)
    status, _, errors = run(*arguments)
    assert (status, f"--export {folder}/09{end}: there is a file of another kind" in errors) == (1, True)
    assert [file.read_text() for file in folder.files()] == ["precious"]
    assert not result.exists()  # it is known before the work
    (folder / f"09{end}").unlink()
    for _ in range(2):  # what the program has written it may write again
        status, _, errors = run(*arguments)
        assert status == 0, errors


def test_no_snippet_at_all_is_one_line(kitti, run, tmp_path):
    (kitti / "sequences/11").mkdir_p()
    saved = Path(tmp_path) / "pose.npz"
    save_predictions(saved, "snippets", {"snippets_11": np.zeros((0, 5, 3, 4))}, {})
    status, _, errors = run("--predictions", saved, "--kitti", kitti, "--export", tmp_path / "out")
    assert status == 1
    assert errors == (
        f"test_pose.py: error: {saved}: sequence 11 is float64 [0, 5, 3, 4], expected floating-point numbers "
        "[N > 0, frames > 1, 3, 4]\n"
    )


@pytest.mark.parametrize("name", [b"\xff mine.txt", b"mine $x_{$.txt", "m\u00e4rz\u2028.txt".encode()])
def test_any_name_of_a_trajectory_is_exported(kitti, run, tmp_path, name):
    """A name that is no UTF-8, and one that would be a formula in a picture's title."""
    file = Path(tmp_path) / os.fsdecode(name)
    write_poses(file, disturbed(drive(1)))
    folder, result = Path(tmp_path) / "out", Path(tmp_path) / "result.json"
    arguments = ("--trajectory", file, "--ground-truth", kitti / "poses/09.txt", "--export", folder, "--json", result)
    status, _, errors = run(*arguments)
    assert status == 0, errors
    assert file.read_bytes() == (folder / file.name).read_bytes()
    assert imageio.imread(folder / f"{file.stem}.png").shape[0] > 400
    assert json.loads(result.read_text())["results"][0]["sequence"] == file.stem


def test_results_are_written_before_pictures(kitti, run, tmp_path, monkeypatch):
    def fail(*arguments):
        raise InputError("no picture")

    monkeypatch.setattr("inference.outputs.write_trajectory_picture", fail)
    saved, result = predictions(Path(tmp_path) / "pose.npz", {"09": disturbed(drive(1))}), Path(tmp_path) / "r.json"
    status, output, _ = run("--predictions", saved, "--kitti", kitti, "--export", tmp_path / "out", "--json", result)
    assert status == 1
    assert "ATE (m)" in output
    assert len(json.loads(result.read_text())["results"]) == 1


def test_gaps_in_times_are_named(kitti, run, tmp_path):
    times = 0.1 * np.arange(COUNT)
    times[17:] += 0.3
    np.savetxt(kitti / "sequences/09/times.txt", times)
    saved = predictions(Path(tmp_path) / "pose.npz", {"09": disturbed(drive(1)), "10": disturbed(drive(2))})
    result = Path(tmp_path) / "result.json"
    status, output, errors = run("--predictions", saved, "--kitti", kitti, "--json", result)
    assert status == 0, errors
    assert "09: 1 gaps in times.txt, e.g. frame 17 comes 0.4 s after the one before it" in output
    assert "10: 1 gaps" not in output
    gaps = [row["time_gaps"] for row in json.loads(result.read_text())["results"]]
    assert gaps == [{"17": pytest.approx(0.4)}, {}]


def test_a_short_way_has_no_drift_and_says_so(kitti, run, tmp_path):
    write_poses(kitti / "poses/10.txt", drive(1, 20))
    saved, result = predictions(Path(tmp_path) / "pose.npz", {"10": drive(1, 20)}), Path(tmp_path) / "result.json"
    status, output, _ = run("--predictions", saved, "--kitti", kitti, "--json", result, "--export", tmp_path / "out")
    assert status == 0
    assert "m of path, too short for t_err and r_err" in output
    errors = json.loads(result.read_text())["results"][0]["trajectory"]["alignments"]["7dof"]
    assert errors["t_err_percent"] is errors["r_err_deg_per_100m"] is None
    assert errors["segments"] == 0


def test_predictions_in_half_precision(kitti, run, tmp_path):
    saved = Path(tmp_path) / "pose.npz"
    test_pose.save_predictions(saved, "snippets", {"snippets_09": snippets(drive(1), 3).astype(np.float16)}, {})
    status, output, errors = run("--predictions", saved, "--kitti", kitti)
    assert (status, "09 (camera unknown" in output) == (0, True), errors


@pytest.mark.parametrize("bad", [3, 0])
def test_predictions_that_are_no_rotations_are_named(kitti, run, tmp_path, bad):
    poses = snippets(drive(1), 3).copy()
    poses[11, 1, 0, :3] = bad  # 0: a singular matrix
    saved = Path(tmp_path) / "pose.npz"
    test_pose.save_predictions(saved, "snippets", {"snippets_09": poses}, {})
    status, _, errors = run("--predictions", saved, "--kitti", kitti)
    assert status == 1
    assert f"{saved}, sequence 09: snippet 11: its 3 x 3 part is no rotation" in errors


def test_a_damaged_truth_is_named_with_its_line(kitti, run, tmp_path):
    saved, truth = predictions(Path(tmp_path) / "pose.npz", {"09": drive(1)}), kitti / "poses/09.txt"
    lines = truth.read_text().splitlines()
    truth.write_text("\n".join([*lines[:6], "1 0 0 0 0 1 0 0 0 0 -1 9", *lines[7:]]))
    status, _, errors = run("--predictions", saved, "--kitti", kitti)
    assert status == 1
    assert f"{truth}, line 7: the 3 x 3 part is no rotation" in errors
    write_poses(truth, drive(1))
    (kitti / "sequences/09/times.txt").write_text("0\n0.1\nx\n")
    status, _, errors = run("--predictions", saved, "--kitti", kitti)
    assert status == 1
    assert "times.txt, line 3: could not convert" in errors


# Any system's files


@pytest.mark.parametrize("source", sources("odometry_metrics"))
def test_a_file_is_scored_like_the_reference(source, run, tmp_path):
    interface = pytest.importorskip("evo.tools.file_interface")
    metrics = pytest.importorskip("evo.core.metrics")
    result, reference = Path(tmp_path) / "result.json", load_trajectory(source, motion)
    files = Path(tmp_path) / "00_slam.txt", Path(tmp_path) / "00_truth.txt"
    write_poses(files[0], reference["predicted"])
    write_poses(files[1], reference["truth"])
    status, output, errors = run("--trajectory", files[0], "--ground-truth", files[1], "--json", result)
    assert status == 0, errors
    assert f"{len(reference['truth'])} poses, paired line by line" in output
    stored = json.loads(result.read_text())
    found = stored["results"][0]["trajectory"]["alignments"]
    for alignment, figures in reference["figures"].items():
        for name, expected in figures.items():
            assert found[alignment][name] == pytest.approx(expected, rel=1e-4), (alignment, name)
    predicted, truth = (interface.read_kitti_poses_file(str(file)) for file in files)
    predicted.align(truth, correct_scale=True)
    ate = rmse(metrics.APE(metrics.PoseRelation.translation_part), truth, predicted)
    assert abs(found["7dof"]["ate_m"] - ate) < 1e-6
    assert "00_slam" in output
    assert f"{ate:.3f}" in output


def test_alignment_may_be_chosen(kitti, run, tmp_path):
    file, result = Path(tmp_path) / "mine.txt", Path(tmp_path) / "result.json"
    write_poses(file, disturbed(drive(1)))
    arguments = ("--trajectory", file, "--ground-truth", kitti / "poses/09.txt", "--json", result)
    assert run(*arguments, "--alignment", "6dof")[0] == 0
    found = json.loads(result.read_text())["results"][0]["trajectory"]["alignments"]
    expected = trajectory_errors(drive(1), disturbed(drive(1)), "6dof")
    assert list(found) == ["6dof"]
    assert found["6dof"]["ate_m"] == pytest.approx(expected["ate_m"])


def test_files_of_different_lengths_are_refused_with_the_line(kitti, run, tmp_path):
    file = Path(tmp_path) / "mine.txt"
    write_poses(file, drive(1)[:-5])
    file.write_text("# a comment\n" + file.read_text())
    truth = kitti / "poses/09.txt"
    status, _, errors = run("--trajectory", file, "--ground-truth", truth)
    assert status == 1
    assert f"{file}: 175 poses, the last in line 176, but {truth} has 180: its line 176 has no counterpart" in errors
    write_poses(file, np.concatenate([drive(1), drive(1)[:1]]))
    status, _, errors = run("--trajectory", file, "--ground-truth", truth)
    assert status == 1
    assert f"{truth}: 180 poses, the last in line 180, but {file} has 181: its line 181 has no counterpart" in errors


def test_a_trajectory_of_one_pose_is_none(run, tmp_path):
    file = Path(tmp_path) / "mine.txt"
    write_poses(file, drive(1)[:1])
    status, _, errors = run("--trajectory", file, "--ground-truth", file)
    assert (status, f"{file}: 1 pose, like {file}; a trajectory has 2 poses or more\n" in errors) == (1, True)


def test_tum_files_are_paired_by_time(run, tmp_path):
    file, truth, result = (Path(tmp_path) / name for name in ("mine.txt", "truth.txt", "result.json"))
    times = 1e9 + 0.1 * np.arange(COUNT)
    write_tum_trajectory(truth, times, drive(1))
    some = np.arange(0, COUNT, 3)
    write_tum_trajectory(file, times[some] + 0.004, drive(1)[some])
    status, output, errors = run("--trajectory", file, "--ground-truth", truth, "--json", result)
    assert status == 0, errors
    stored = json.loads(result.read_text())
    assert "60 of 60 poses paired by time (0.01 s at most) with 180 true ones, over 98." in stored["protocol"]["line"]
    assert "INCOMPLETE" not in output
    assert "RPE: mean from each paired pose to the next, 0.3 s later" in output
    assert stored["results"][0]["trajectory"]["frames"] == 60
    assert stored["results"][0]["trajectory"]["alignments"]["none"]["ate_m"] < 1e-9
    # Half of the way: a figure, but none that looks like that of the whole.
    write_tum_trajectory(file, times[:90], drive(1)[:90])
    status, output, _ = run("--trajectory", file, "--ground-truth", truth)
    assert status == 0
    assert "INCOMPLETE, NOT COMPARABLE WITH FIGURES OF THE WHOLE PATH: 90 of 90 poses" in output
    # Too far apart in time, unless more is allowed.
    write_tum_trajectory(file, times + 0.04, drive(1))
    status, _, errors = run("--trajectory", file, "--ground-truth", truth)
    assert status == 1
    assert f"{file}: 0 of 180 poses paired by time (0.01 s at most) with 180 true ones" in errors
    status, output, _ = run("--trajectory", file, "--ground-truth", truth, "--max-time-difference", 0.05)
    assert status == 0
    assert "INCOMPLETE" not in output


def test_keyframes_are_not_called_frame_to_frame(run, tmp_path):
    file, truth = Path(tmp_path) / "mine.txt", Path(tmp_path) / "truth.txt"
    times = 1e9 + 0.1 * np.arange(COUNT)
    write_tum_trajectory(truth, times, drive(1))
    keyframes = np.array([0, 3, 4, 20, 41, 90, 122, 170, 179])
    write_tum_trajectory(file, times[keyframes], drive(1)[keyframes])
    status, output, errors = run("--trajectory", file, "--ground-truth", truth)
    assert status == 0, errors
    assert "0.1 to 4.9 s later (not comparable with figures from frame to frame)" in output
    assert "RPE: mean from frame to frame" not in output
    assert "RPE: mean from frame to frame" in run("--trajectory", truth, "--ground-truth", truth)[1]


def test_times_in_nanoseconds_are_named(run, tmp_path):
    file, truth = Path(tmp_path) / "mine.txt", Path(tmp_path) / "truth.txt"
    times = 1e9 + 0.1 * np.arange(COUNT)
    write_tum_trajectory(truth, times, drive(1))
    write_tum_trajectory(file, times * 1e9, drive(1))
    for files in ((file, truth), (truth, file)):
        status, _, errors = run("--trajectory", files[0], "--ground-truth", files[1])
        assert status == 1
        assert f"the times of {file} seem to be nanoseconds, expected seconds (180 poses would be paired)" in errors


def test_quaternions_with_w_first_are_named(run, tmp_path):
    file, truth, result = (Path(tmp_path) / name for name in ("mine.txt", "truth.txt", "result.json"))
    write_tum_trajectory(truth, 0.1 * np.arange(COUNT), drive(1))
    np.savetxt(file, np.loadtxt(truth)[:, [0, 1, 2, 3, 7, 4, 5, 6]])
    status, output, errors = run("--trajectory", file, "--ground-truth", truth, "--json", result)
    assert status == 0, errors
    assert f"THE QUATERNIONS OF {file} SEEM TO HAVE w FIRST" in output
    assert "w FIRST" in json.loads(result.read_text())["protocol"]["line"]
    write_tum_trajectory(file, 0.1 * np.arange(COUNT), disturbed(drive(1)))
    status, output, errors = run("--trajectory", file, "--ground-truth", truth)
    assert (status, "w FIRST" in output) == (0, False), errors


def test_a_kitti_file_meets_a_tum_file_with_times(kitti, run, tmp_path):
    file = Path(tmp_path) / "mine.txt"
    write_tum_trajectory(file, 0.1 * np.arange(COUNT), drive(1))
    truth, times = kitti / "poses/09.txt", kitti / "sequences/09/times.txt"
    status, _, errors = run("--trajectory", file, "--ground-truth", truth)
    assert status == 1
    assert f"{truth}: has no times to pair it by with a TUM file; give them with --times" in errors
    status, output, errors = run("--trajectory", file, "--ground-truth", truth, "--times", times)
    assert status == 0, errors
    assert "180 of 180 poses paired by time" in output
    status, _, errors = run("--trajectory", file, "--ground-truth", file, "--times", times)
    assert (status, f"--times {times}: only for files in KITTI's form" in errors) == (2, True)
    status, _, errors = run("--trajectory", truth, "--ground-truth", truth, "--max-time-difference", 0.5)
    assert (status, "--max-time-difference 0.5: only for files in TUM's form" in errors) == (2, True)
    times.write_text("0\n1\n")
    status, _, errors = run("--trajectory", file, "--ground-truth", truth, "--times", times)
    assert status == 1
    assert f"{times}: 2 times, expected 180" in errors


def test_damaged_lines_are_named(kitti, run, tmp_path):
    file, truth = Path(tmp_path) / "mine.txt", kitti / "poses/09.txt"
    lines = truth.read_text().splitlines()
    file.write_text("\n".join([*lines[:40], "nan" + lines[40][lines[40].index(" ") :], *lines[41:]]))
    for arguments in (("--trajectory", file, "--ground-truth", truth), ("--trajectory", truth, "--ground-truth", file)):
        status, _, errors = run(*arguments)
        assert status == 1
        assert f"{file}, line 41: got a number that is not finite" in errors


def test_export_of_a_file(kitti, run, tmp_path):
    folder = Path(tmp_path) / "out"
    file = Path(tmp_path) / "mine.txt"
    write_poses(file, disturbed(drive(1)))
    arguments = ("--trajectory", file, "--ground-truth", kitti / "poses/09.txt", "--export")
    status, _, errors = run(*arguments, folder)
    assert status == 0, errors
    picture = imageio.imread(folder / "mine.png")[..., :3]
    assert picture.shape[0] > 400
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    blue, grey = (31, 119, 180), (140, 140, 140)  # of the predicted and of the true path
    top_view = picture[:, : picture.shape[1] // 2]
    for colour in (blue, grey):
        assert (np.abs(top_view.astype(int) - colour).max(-1) < 3).sum() > 100
    assert file.read_bytes() == (folder / "mine.txt").read_bytes()
    # Nothing that was there is written over, and nothing is left behind.
    before = file.read_text()
    status, _, errors = run(*arguments, tmp_path)
    assert status == 1
    assert f"--export {file}: is an input of this command" in errors
    assert file.read_text() == before
    assert not list(Path(tmp_path).files("*.part"))
    status, _, errors = run(*arguments, file)
    assert (status, "is a file, expected a folder" in errors) == (1, True)
    status, _, errors = run(*arguments, tmp_path / "no" / "folder")
    assert (status, "no such folder" in errors) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (("--trajectory", "a.txt"), 2, "needs --ground-truth"),
        (("--trajectory", "a.txt", "--ground-truth", "b.txt", "--kitti", "k"), 2, "do not go with --trajectory"),
        (("a.pt", "--trajectory", "a.txt", "--ground-truth", "b.txt"), 2, "either a CHECKPOINT"),
        (("--predictions", "a.npz", "--trajectory", "a.txt", "--ground-truth", "b.txt"), 2, "either a CHECKPOINT"),
        (("--trajectory", "a.txt", "--ground-truth", "b.txt", "--save", "c.npz"), 2, "--save goes with"),
        (("a.pt", "--kitti", "k", "--max-time-difference", "0.01"), 2, "go with --trajectory"),
        (
            ("--trajectory", "a.txt", "--ground-truth", "b.txt", "--height", "3", "--device", "cuda:7"),
            2,
            "--height and --device: only with a CHECKPOINT, here nothing is predicted",
        ),
        (("a.pt",), 2, "--kitti KITTI_ODOMETRY is missing"),
        (("a.pt", "--kitti", "k", "--times", "t"), 2, "go with --trajectory"),
        (("--trajectory", "a.txt", "--ground-truth", "b.txt", "--alignment", "5dof"), 2, "invalid choice"),
        (
            ("--trajectory", "a.txt", "--ground-truth", "b.txt", "--snippet-scale", "ground-truth"),
            2,
            "that are chained",
        ),
        (("--trajectory", "a.txt", "--ground-truth", "b.txt"), 1, "a.txt: no such file"),
    ],
)
def test_wrong_use(run, arguments, status, expected):
    found, _, errors = run(*arguments)
    assert found == status
    assert expected in errors
    assert "Traceback" not in errors
