import json
import os
import sys

from cli.flags import run_script

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from path import Path

import test_pose
from datasets.layout import write_poses
from evaluation.metrics.pose import snippets
from evaluation.metrics.trajectory import chain_snippets
from geometry.pose import pose_to_matrix
from geometry.rigid import relative, to_3x4, to_homogeneous
from models.disp_net import DispNet
from models.pose_exp_net import PoseExpNet
from tests.oracles import load, motion, sources

LENGTH = 9


def trajectory(length):
    """world_from_camera [length, 3, 4]: a drive with turns, every frame's motion its own."""
    random = np.random.default_rng(0)
    steps = torch.tensor(random.normal([0, 0, 1, 0, 0, 0], [0.05, 0.02, 0.2, 0.01, 0.05, 0.01], (length, 6)))
    pose, poses = torch.eye(4, dtype=torch.float64), []
    for previous_from_frame in pose_to_matrix(steps):
        poses.append(pose[:3])
        pose = pose @ previous_from_frame
    return torch.stack(poses)


@pytest.fixture
def kitti(tmp_path):
    """Sequences 09 (colour and grey) and 10 (grey) in KITTI's layout."""
    root = Path(tmp_path) / "kitti"
    (root / "poses").makedirs_p()
    random = np.random.default_rng(0)
    for name, cameras in (("09", ("image_0", "image_2")), ("10", ("image_0",))):
        np.savetxt(root / "poses" / f"{name}.txt", trajectory(LENGTH).reshape(-1, 12).numpy())
        for camera in cameras:
            folder = root / "sequences" / name / camera
            folder.makedirs_p()
            for frame in range(LENGTH):
                shape = (40, 100) if camera == "image_0" else (40, 100, 3)
                imageio.imwrite(folder / f"{frame:06d}.png", random.integers(0, 256, shape, dtype=np.uint8))
    return root


@pytest.fixture(scope="module", params=[3, 5])
def checkpoint(request, tmp_path_factory):
    torch.manual_seed(0)
    network = PoseExpNet(request.param - 1, False)
    torch.nn.init.normal_(network.pose_pred.bias)  # or the motion would be nearly 0
    file = Path(tmp_path_factory.mktemp("port")) / "exp_pose_model_best.pth.tar"
    torch.save({"epoch": 1, "state_dict": network.state_dict()}, file)
    return file, request.param


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


def save(file, world_from_camera, frames=5, names=("09",)):
    """A made-up file of predictions: the poses themselves."""
    arrays = {f"snippets_{name}": snippets(np.asarray(world_from_camera), frames) for name in names}
    test_pose.save_predictions(file, "snippets", arrays, {"cameras": {"09": "image_2"}})
    return file


SMALL = ("--height", 32, "--width", 64)


def test_predicts_saves_and_scores(kitti, checkpoint, run, tmp_path):
    file, frames = checkpoint
    saved, result = Path(tmp_path) / "pose.npz", Path(tmp_path) / "result.json"
    status, output, errors = run(file, "--kitti", kitti, "--save", saved, "--json", result, *SMALL, "--batch-size", 3)
    assert status == 0, errors
    count = LENGTH - frames + 1
    assert f"09 (image_2, {count} snippets of {frames} frames), 10 (image_0, grey, {count} snippets" in output
    first = json.loads(result.read_text())
    assert [row["sequence"] for row in first["results"]] == ["09", "10"]
    assert [row["snippets"] for row in first["results"]] == [count, count]
    stored = np.load(saved, allow_pickle=False)
    assert stored["snippets_09"].shape == (count, frames, 3, 4)
    identity = np.tile(np.eye(3, 4), (count, 1, 1))
    np.testing.assert_allclose(stored["snippets_09"][:, 0], identity, atol=1e-6)  # float32 leaves the network
    assert not np.allclose(stored["snippets_09"], stored["snippets_10"])  # it looked at the images

    status, output, errors = run("--predictions", saved, "--kitti", kitti, "--json", result)
    assert status == 0, errors
    assert json.loads(result.read_text())["results"] == first["results"]
    ate = first["results"][0]["ate"]
    assert f"{ate['mean']:.4f} ± {ate['std']:.4f}" in output

    status, output, _ = run("--predictions", saved, "--kitti", kitti, "--sequences", "10")
    assert status == 0
    assert [line.split()[0] for line in output.split("\n\n")[1].splitlines()] == ["sequence", "10"]


def test_batches_of_any_size_give_the_same(kitti, checkpoint, run, tmp_path):
    stored = []
    for size in (1, 4, 100):
        saved = Path(tmp_path) / f"{size}.npz"
        arguments = ("--kitti", kitti, "--sequences", "09", "--save", saved, *SMALL, "--batch-size", size)
        arguments += ("--device", "cpu")  # on a GPU convolutions round to 10 bits unless told otherwise
        status, _, errors = run(checkpoint[0], *arguments)
        assert status == 0, errors
        stored.append(np.load(saved)["snippets_09"])
    np.testing.assert_allclose(stored[1], stored[0], atol=1e-6)
    np.testing.assert_allclose(stored[2], stored[0], atol=1e-6)


def predict(run, kitti, checkpoint, tmp_path, *flags):
    """Predict and score sequence 09: (predicted snippets, the result)."""
    saved, result = Path(tmp_path) / "pose.npz", Path(tmp_path) / "result.json"
    arguments = ("--kitti", kitti, "--sequences", "09", "--save", saved, "--json", result, "--device", "cpu", *SMALL)
    status, _, errors = run(checkpoint[0], *arguments, *flags)
    assert status == 0, errors
    return np.load(saved)["snippets_09"], json.loads(result.read_text())["results"]


def test_averages_are_said_in_the_line(kitti, checkpoint, run, tmp_path):
    saved = Path(tmp_path) / "pose.npz"
    flags = ("--kitti", kitti, "--sequences", "09")
    assert "averaged" not in run(checkpoint[0], *flags, "--save", saved, *SMALL)[1]
    averages = ("--flip-average", "--size-average")
    for arguments in ((checkpoint[0], *flags, "--save", saved, *SMALL, *averages), ("--predictions", saved, *flags)):
        status, output, errors = run(*arguments)
        assert status == 0, errors
        line = next(line for line in output.splitlines() if line.startswith("protocol: "))
        assert line.endswith("; averaged with the mirrored image; averaged with other sizes of the image")


@pytest.mark.parametrize("names", ["{}.png", "frame{}.png", "{:01d}.jpeg"])
def test_names_without_padding_give_the_same_figures(checkpoint, run, tmp_path, names):
    """1, 2, .., 10, 11 and not 1, 10, 11, 2: of 14 frames, numbered from 1."""
    random = np.random.default_rng(3)
    images = random.integers(0, 256, (14, 40, 100, 3), dtype=np.uint8)
    for root, name in (("padded", "{:06d}.png"), ("other", names)):
        folder = (Path(tmp_path) / root / "sequences/09/image_2").makedirs_p()
        (Path(tmp_path) / root / "poses").makedirs_p()
        np.savetxt(Path(tmp_path) / root / "poses/09.txt", trajectory(14).reshape(-1, 12).numpy())
        for frame, image in enumerate(images, 1):
            file = folder / name.format(frame)
            imageio.imwrite(file.with_suffix(".png"), image)
            file.with_suffix(".png").rename(file)  # as it is: JPEG would change its pixels
    expected, expected_results = predict(run, Path(tmp_path) / "padded", checkpoint, tmp_path)
    found, results = predict(run, Path(tmp_path) / "other", checkpoint, tmp_path)
    np.testing.assert_array_equal(found, expected)
    assert results == expected_results
    assert results[0]["trajectory"]["alignments"]["7dof"]["ate_m"] > 0


def test_kitti_as_it_lies_on_a_mac_and_below_dataset(kitti, checkpoint, run, tmp_path):
    expected, expected_results = predict(run, kitti, checkpoint, tmp_path)
    for image in (kitti / "sequences/09/image_2").files():
        (image.parent / f"._{image.name}").write_bytes(b"\0\5\26\7")
    (kitti / "dataset").makedirs()
    for part in ("sequences", "poses"):
        (kitti / part).move(kitti / "dataset" / part)
    found, results = predict(run, kitti, checkpoint, tmp_path)
    np.testing.assert_array_equal(found, expected)
    assert results == expected_results


@pytest.mark.parametrize("kind", ["missing", "link", "damaged"])
def test_a_frame_that_cannot_be_read_never_makes_its_neighbours_neighbours(kitti, checkpoint, run, tmp_path, kind):
    image = kitti / "sequences/09/image_2/000004.png"
    image.unlink()
    if kind == "link":
        os.symlink("nowhere.png", image)
    elif kind == "damaged":
        image.write_bytes(b"\x89PNG")
    (kitti / "poses/09.txt").unlink()  # the number of poses would tell
    saved = Path(tmp_path) / "pose.npz"
    status, _, errors = run(checkpoint[0], "--kitti", kitti, "--sequences", "09", "--save", saved, *SMALL)
    assert status == 1
    assert ("image_2: no image 4," if kind == "missing" else "000004.png: ") in errors
    assert not saved.exists()


def test_a_sequence_without_poses_is_predicted_and_exported_but_not_scored(kitti, checkpoint, run, tmp_path):
    file = checkpoint[0]
    (kitti / "sequences/09").move(kitti / "sequences/11")
    (kitti / "poses/09.txt").unlink()
    (kitti / "sequences/11/times.txt").write_text("".join(f"{0.1 * k}\n" for k in range(LENGTH)))
    saved, result, folder = (Path(tmp_path) / name for name in ("pose.npz", "result.json", "out"))
    flags = ("--kitti", kitti, "--sequences", "11", "--json", result, "--export", folder)
    for arguments in ((file, "--save", saved, *SMALL), ("--predictions", saved)):
        status, output, errors = run(*arguments, *flags)
        assert status == 0, errors
        assert f"sequence 11: not scored: no ground truth ({kitti}/poses/11.txt)" in output
        assert sorted(path.name for path in folder.files()) == ["11.png", "11.txt", "11_tum.txt"]
        exported = np.loadtxt(folder / "11.txt").reshape(-1, 3, 4)
        np.testing.assert_allclose(exported, chain_snippets(np.load(saved)["snippets_11"]), atol=1e-12)
        assert len(exported) == LENGTH
        stored = json.loads(result.read_text())
        assert stored["results"] == []
        assert list(stored["not_scored"]) == ["11"]
    # Beside one that has poses, that one is scored as ever.
    alone = run(file, "--kitti", kitti, "--sequences", "10", "--save", saved, "--json", result, *SMALL)
    expected = json.loads(result.read_text())["results"]
    status, output, errors = run(file, *flags[:2], "--sequences", "11", "10", "--save", saved, "--json", result, *SMALL)
    assert (alone[0], status) == (0, 0), errors
    assert "sequence 11: not scored" in output
    assert json.loads(result.read_text())["results"] == expected
    status, _, errors = run("--predictions", saved, *flags, "--snippet-scale", "ground-truth")
    assert status == 1
    assert "--snippet-scale ground-truth: sequence 11 has no" in errors


@pytest.mark.parametrize("frames", [3, 5])
def test_ground_truth_times_three_has_no_error(kitti, run, tmp_path, frames):
    poses = trajectory(LENGTH).numpy()
    poses[:, :, 3] *= 3
    saved, result = save(Path(tmp_path) / "pose.npz", poses, frames), Path(tmp_path) / "result.json"
    status, _, errors = run("--predictions", saved, "--kitti", kitti, "--json", result)
    assert status == 0, errors
    (row,) = json.loads(result.read_text())["results"]
    assert row["frames"] == frames
    assert row["ate"]["mean"] < 1e-12
    assert row["rotation_error"]["mean"] < 1e-6
    assert row["straight_line_ate"]["mean"] > 1e-3


@pytest.mark.parametrize("frame", ["world", "middle"])
def test_snippets_of_another_method_in_any_common_frame(kitti, run, tmp_path, frame):
    poses = trajectory(LENGTH).numpy()[np.arange(LENGTH - 4)[:, None] + np.arange(5)]
    if frame == "middle":
        poses = to_3x4(relative(to_homogeneous(poses[:, 2:3]), to_homogeneous(poses)))
    saved, result = Path(tmp_path) / "pose.npz", Path(tmp_path) / "result.json"
    test_pose.save_predictions(saved, "snippets", {"snippets_09": poses}, {})
    status, _, errors = run("--predictions", saved, "--kitti", kitti, "--json", result)
    assert status == 0, errors
    (row,) = json.loads(result.read_text())["results"]
    assert row["ate"]["mean"] < 1e-12
    assert row["rotation_error"]["mean"] < 1e-6


def test_poses_that_do_not_fit(kitti, checkpoint, run, tmp_path):
    poses = trajectory(LENGTH)
    saved = save(Path(tmp_path) / "pose.npz", poses)
    file = kitti / "poses/09.txt"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:-1]))
    status, _, errors = run(checkpoint[0], "--kitti", kitti, "--sequences", "09", "--save", Path(tmp_path) / "x.npz")
    assert status == 1
    assert f"{file}: 8 poses for 9 images" in errors
    status, _, errors = run("--predictions", saved, "--kitti", kitti)
    assert status == 1
    assert "sequence 09: 5 snippets of 5 frames, but the 8 poses in" in errors
    assert "make 4" in errors
    file.write_text("\n".join([*lines[:3], lines[3].replace(" ", ",", 1), *lines[4:]]))
    status, _, errors = run("--predictions", saved, "--kitti", kitti)
    assert status == 1
    assert "09.txt, line 4" in errors


def test_predictions_that_are_not_finite_are_named(kitti, run, tmp_path):
    poses = trajectory(LENGTH).numpy()
    poses[8, 0, 3] = np.nan
    saved = save(Path(tmp_path) / "pose.npz", poses)
    status, _, errors = run("--predictions", saved, "--kitti", kitti)
    assert status == 1
    assert f"{saved}, sequence 09: predicted poses: 1 of 5 snippets are not finite, the first is snippet 4" in errors


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (("--kitti", "KITTI"), 2, "either a CHECKPOINT"),
        (
            ("--predictions", "POSES", "--kitti", "KITTI", "--batch-size", "3"),
            2,
            "--batch-size: only with a CHECKPOINT",
        ),
        (("a.pt", "--kitti", "KITTI", "--sequences", "09", "09"), 2, "names a sequence twice"),
        (("a.pt", "--kitti", "KITTI", "--sequences", "../09"), 2, "not paths"),
        (("a.pt", "--kitti", "no/folder"), 1, "--kitti no/folder: no such folder"),
        (("a.pt", "--kitti", "KITTI", "--sequences", "11"), 1, "sequences/11: no such sequence"),
        (("a.pt", "--kitti", "KITTI", "--sequences", "09"), 1, "a.pt: no such file"),
        (("--predictions", "KITTI/poses/09.txt", "--kitti", "KITTI"), 1, "not a whole file of predictions"),
        (("--predictions", "POSES", "--kitti", "KITTI", "--sequences", "10"), 1, "no predictions of sequence 10"),
    ],
)
def test_wrong_use(kitti, run, tmp_path, arguments, status, expected):
    saved = save(Path(tmp_path) / "pose.npz", trajectory(LENGTH))
    found, _, errors = run(*[text.replace("KITTI", kitti).replace("POSES", saved) for text in arguments])
    assert found == status
    assert expected in errors
    assert "Traceback" not in errors


def test_a_file_that_another_method_wrote(kitti, run, tmp_path):
    saved = Path(tmp_path) / "pose.npz"
    poses = snippets(trajectory(LENGTH).numpy(), 5)
    test_pose.save_predictions(saved, "snippets", {"snippets_09": poses}, {"cameras": 5})
    status, output, errors = run("--predictions", saved, "--kitti", kitti)
    assert (status, "camera unknown" in output) == (0, True), errors
    for about, expected in (({"x": float("nan")}, "NaN is not JSON"), ({}, "not the name of a sequence")):
        test_pose.save_predictions(saved, "snippets", {"snippets_../../x": poses}, about)
        status, _, errors = run("--predictions", saved, "--kitti", kitti)
        assert status == 1
        assert expected in errors


def test_sequences_without_images_or_too_short_are_errors(kitti, checkpoint, run, tmp_path):
    save_flags = ("--save", Path(tmp_path) / "x.npz")
    for image in sorted((kitti / "sequences/10/image_0").files())[2:]:
        image.unlink()
    (kitti / "poses/10.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n" * 2)
    status, _, errors = run(checkpoint[0], "--kitti", kitti, "--sequences", "10", *save_flags, *SMALL)
    assert status == 1
    assert "sequence 10: 2 images, too few for a snippet" in errors
    for image in (kitti / "sequences/10/image_0").files():
        image.unlink()
    status, _, errors = run(checkpoint[0], "--kitti", kitti, "--sequences", "10", *save_flags)
    assert status == 1
    assert "no images in image_2 (colour) or image_0 (grey)" in errors


def test_a_depth_checkpoint_is_refused(kitti, run, tmp_path):
    file = Path(tmp_path) / "dispnet.pth.tar"
    torch.save({"epoch": 1, "state_dict": DispNet().state_dict()}, file)
    status, _, errors = run(file, "--kitti", kitti, *SMALL)
    assert status == 1
    assert "no pose network" in errors


@pytest.mark.parametrize("source", sources("pose_snippets"))
def test_published_figures_come_out_of_a_file(source, run, tmp_path):
    reference = load("pose_snippets", source, motion)
    (tmp_path / "poses").mkdir()
    arrays = {}
    for name in ("09", "10"):
        write_poses(Path(tmp_path) / "poses" / f"{name}.txt", reference[f"{name}_poses"])
        arrays[f"snippets_{name}"] = reference[f"{name}_predicted_snippets"]
    saved, result = Path(tmp_path) / "pose.npz", Path(tmp_path) / "result.json"
    test_pose.save_predictions(saved, "snippets", arrays, {})
    status, _, errors = run("--predictions", saved, "--kitti", tmp_path, "--json", result)
    assert status == 0, errors
    for row in json.loads(result.read_text())["results"]:
        for key in ("ate", "rotation_error", "straight_line_ate"):
            expected = reference[f"{row['sequence']}_{key}_mean_std"]
            assert [row[key]["mean"], row[key]["std"]] == pytest.approx(expected, abs=1e-6)


def test_a_network_is_not_tested_on_what_it_was_trained_on(kitti, run, tmp_path, write_checkpoint):
    file, saved, result = (Path(tmp_path) / name for name in ("last.pt", "pose.npz", "result.json"))
    write_checkpoint(file, scenes=["2011_09_30_drive_0033_sync_02"])
    arguments = ("--kitti", kitti, "--json", result)
    status, _, errors = run(file, *arguments, "--save", saved)
    assert status == 1
    assert "last.pt: was trained on what is to be tested: sequence 09 is 2011_09_30_drive_0033" in errors
    assert not saved.exists()
    status, output, errors = run(file, *arguments, "--save", saved, "--sequences", "10")
    assert status == 0, errors
    assert "training data: 1 scenes, none of the recordings that are tested" in output
    status, output, errors = run(file, *arguments, "--save", saved, "--allow-training-overlap")
    assert status == 0, errors
    assert "NO TEST RESULT: sequence 09" in output
    assert json.loads(result.read_text())["training_overlap"]["overlap"]
    status, _, errors = run("--predictions", saved, *arguments)  # the file of predictions knows it, too
    assert status == 1
    assert "pose.npz: was trained on what is to be tested: sequence 09" in errors


def test_a_checkpoint_that_does_not_say_what_it_was_trained_on(kitti, run, tmp_path):
    saved = save(Path(tmp_path) / "pose.npz", trajectory(LENGTH))
    status, output, errors = run("--predictions", saved, "--kitti", kitti)
    assert status == 0, errors
    assert "training data: NOT KNOWN" in output
