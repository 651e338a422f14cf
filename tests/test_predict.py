import errno
import html
import json
import sys

from cli.flags import run_script

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from path import Path

import predict
from datasets.formats.trajectories import read_trajectory
from datasets.layout import write_intrinsics
from inference import results
from models import CAMERAS, DEPTH_NETS, POSE_NETS, NetworkSpec, build, complete
from models.checkpoint import checkpoint_content, save_checkpoint

FRAMES = 6
DEPTH = ("--write", "depth", "--size", "network")  # the least work


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of tiny networks with random weights."""
    torch.manual_seed(0)
    specs = {
        "depth": complete(DEPTH_NETS, NetworkSpec("disp_net", {"width": 1 / 16})),
        "pose": complete(POSE_NETS, NetworkSpec("pose_exp_net", {"width": 1 / 16, "explainability": False})),
        "camera": complete(CAMERAS, NetworkSpec("given")),
    }
    model = build(specs["depth"], specs["pose"], specs["camera"])
    with torch.no_grad():
        model.pose_net.pose_pred.bias[2] = 3.0  # or the camera would hardly move
    file = Path(tmp_path_factory.mktemp("run")) / "last.pt"
    standing = {"step": 3, "skipped": 0, "validation_due": False, "best": {}, "damaged": []}
    record = {"height": 32, "width": 64}
    content = checkpoint_content(model, specs, torch.optim.Adam(model.parameters()), {}, record, standing)
    save_checkpoint(file, content)
    return file


@pytest.fixture(scope="module")
def depth_only(checkpoint):
    """The same without its pose network, as a checkpoint of the PyTorch port."""
    weights = torch.load(checkpoint, weights_only=True)["model"]
    state = {name.removeprefix("depth_net."): value for name, value in weights.items() if name.startswith("depth_net.")}
    file = checkpoint.parent / "dispnet_model_best.pth.tar"
    torch.save({"epoch": 1, "state_dict": state}, file)
    return file


@pytest.fixture(scope="module")
def pictures():
    """Smooth pictures that differ: uint8 [FRAMES, 48, 96, 3]."""
    y, x, t = np.meshgrid(np.arange(48), np.arange(96), np.arange(FRAMES), indexing="ij")
    waves = [np.sin(x / 9 + t / 3 + c) * np.cos(y / 7 + c) for c in range(3)]
    return ((np.stack(waves, -1) + 1) * 127).astype(np.uint8).transpose(2, 0, 1, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pictures):
    folder = Path(tmp_path_factory.mktemp("data")) / "drive"
    folder.makedirs_p()
    for number, picture in enumerate(pictures):
        imageio.imwrite(folder / f"{number:07d}.png", picture)
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the script as typed: (exit status, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, arguments)])
        status = 0
        try:
            run_script(predict.main)
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def error_of(result):
    status, _, errors = result
    assert status in (1, 2)
    assert "Traceback" not in errors
    return errors.strip().splitlines()[-1]


def names_in(folder):
    return sorted(str(file.relpath(folder)) for file in Path(folder).walkfiles())


def test_a_folder_gives_everything(checkpoint, folder, run, tmp_path):
    out = Path(tmp_path) / "out"
    status, output, errors = run(checkpoint, folder, "--out", out, "--write", *predict.KINDS)
    assert status == 0, errors
    assert f"drive: {FRAMES} images, " in output
    unit = "scale: not given; depth and motion are in the network's own unit"
    assert f"images/s; {unit}\n" in output
    assert html.escape(unit) in (out / "drive/index.html").read_text()
    expected = [
        f"{kind}/{n:07d}.{end}" for kind, end in (("confidence", "png"), ("depth", "npy")) for n in range(FRAMES)
    ]
    expected += [f"pictures/{n:07d}.jpg" for n in range(FRAMES)]
    expected += ["cloud.ply", "depth.json", "index.html", "video.mp4"]
    expected += ["trajectory.png", "trajectory.txt", "trajectory_tum.txt"]
    assert names_in(out / "drive") == sorted(expected)
    report = json.loads((out / "predict.json").read_text())
    assert report["complete"]
    assert report["clips"]["drive"]["frames"] == FRAMES
    sidecar = json.loads((out / "drive/depth.json").read_text())
    assert (sidecar["unit"], sidecar["factor"], sidecar["width"], sidecar["height"]) == ("arbitrary", 1, 96, 48)
    assert len(sidecar["checkpoint"]["sha256"]) == 64
    assert np.load(out / "drive/depth/0000000.npy").shape == (48, 96)
    tum, kitti = (read_trajectory(out / "drive" / name) for name in ("trajectory_tum.txt", "trajectory.txt"))
    np.testing.assert_allclose(tum.world_from_camera, kitti.world_from_camera, atol=1e-6)
    np.testing.assert_allclose(tum.times, np.arange(FRAMES) / 10)
    assert imageio.imread(out / "drive/confidence/0000000.png").shape == (48, 96)
    assert sidecar["structure"] == report["clips"]["drive"]["structure"]
    assert sidecar["structure"]["frames_tried"] == FRAMES
    (line,) = (line for line in output.splitlines() if line.startswith("drive: structure: "))
    assert html.escape(line.removeprefix("drive: ")) in (out / "drive/index.html").read_text()


def test_depth_as_png_and_the_constant_scale(checkpoint, folder, run, tmp_path):
    npy, png, metres = (Path(tmp_path) / name for name in ("npy", "png", "metres"))
    assert run(checkpoint, folder, "--out", npy, *DEPTH)[0] == 0
    assert run(checkpoint, folder, "--out", png, *DEPTH, "--depth-format", "png")[0] == 0
    scaled = (*DEPTH, "--depth-format", "png", "--scale", "constant", 30)
    assert run(checkpoint, folder, "--out", metres, *scaled)[0] == 0
    depth = np.load(npy / "drive/depth/0000003.npy")
    assert depth.shape == (32, 64)
    for out, scale in ((png, 1), (metres, 30)):
        sidecar = json.loads((out / "drive/depth.json").read_text())
        stored = imageio.imread(out / "drive/depth/0000003.png")
        assert stored.dtype == np.uint16
        np.testing.assert_allclose(stored / sidecar["factor"], scale * depth, atol=0.51 / sidecar["factor"])
    assert sidecar["factor"] == 256
    assert (sidecar["unit"], sidecar["scale"]["value"]) == ("metres", 30)


def test_a_picture_at_another_size_or_format_has_the_same_depth(checkpoint, pictures, run, tmp_path):
    root = Path(tmp_path)
    whole = np.repeat(np.repeat(pictures[0][:32, :64], 3, 0), 3, 1)
    imageio.imwrite(root / "small.png", pictures[0][:32, :64])
    imageio.imwrite(root / "large.png", whole)
    imageio.imwrite(root / "large_copy.PNG", whole, extension=".png")
    images = [root / name for name in ("small.png", "large.png", "large_copy.PNG")]
    status, _, errors = run(checkpoint, *images, "--out", root / "out", *DEPTH)
    assert status == 0, errors
    small, large, copy = (np.load(root / f"out/images/depth/{image.stem}.npy") for image in images)
    np.testing.assert_array_equal(small, large)
    np.testing.assert_array_equal(small, copy)


def test_images_of_several_sizes_have_no_common_size_and_camera(checkpoint, folder, pictures, run, tmp_path):
    root = Path(tmp_path)
    imageio.imwrite(root / "small.png", pictures[0][:32, :64])
    images = (folder / "0000001.png", root / "small.png")
    error = error_of(run(checkpoint, *images, "--out", root / "out", "--focal", 100))
    assert "--focal is in pixels of one size, the inputs have 2 sizes: 64 x 32, 96 x 48" in error
    (root / "cam.txt").write_text("100 0 32\n0 100 16\n0 0 1\n")
    error = error_of(run(checkpoint, *images, "--out", root / "out", "--intrinsics", root / "cam.txt"))
    assert "--intrinsics is in pixels of one size" in error
    assert "--focal is in pixels of one size" in error_of(
        run(checkpoint, images[1], folder, "--out", root / "out", "--focal", 100)
    )
    assert not (root / "out").exists()
    for size, expected in (("input", (None, None)), ("network", (64, 32))):
        out = root / size
        assert run(checkpoint, *images, "--out", out, "--write", "depth", "--size", size)[0] == 0
        sidecar = json.loads((out / "images/depth.json").read_text())
        assert (sidecar["width"], sidecar["height"]) == expected
        assert (sidecar["input"]["width"], sidecar["input"]["height"]) == (None, None)
        assert sidecar["intrinsics"]["K"] is None
        assert json.loads((out / "predict.json").read_text())["clips"]["images"]["camera"]["K"] is None
    assert np.load(root / "input/images/depth/small.npy").shape == (32, 64)


def test_single_images_have_depth_and_pictures(checkpoint, folder, run, tmp_path):
    out = Path(tmp_path) / "out"
    status, _, errors = run(checkpoint, folder / "0000001.png", folder / "0000002.png", "--out", out)
    assert status == 0, errors
    assert names_in(out / "images") == [
        "depth.json", "depth/0000001.npy", "depth/0000002.npy", "pictures/0000001.jpg", "pictures/0000002.jpg"
    ]  # fmt: skip
    error = error_of(run(checkpoint, folder / "0000001.png", "--out", tmp_path / "o", "--write", "video"))
    assert "single images; give a folder or a video" in error
    assert not (tmp_path / "o").exists()


def test_a_scene_brings_its_camera_and_is_scored(checkpoint, folder, run, tmp_path):
    scene = Path(tmp_path) / "scene"
    folder.copytree(scene)
    write_intrinsics(scene / "cam.txt", np.array([[50, 0, 47.5], [0, 50, 23.5], [0, 0, 1.0]]))
    poses = np.tile(np.eye(3, 4), (FRAMES, 1, 1))
    poses[:, 2, 3] = np.arange(FRAMES)
    np.savetxt(scene / "poses.txt", poses.reshape(-1, 12))
    status, output, errors = run(checkpoint, scene, "--out", tmp_path / "out", "--write", "trajectory")
    assert status == 0, errors
    assert "scene: camera: " in output
    report = json.loads((tmp_path / "out/predict.json").read_text())["clips"]["scene"]
    assert report["camera"]["K"][0][0] == 50
    assert report["trajectory"]["alignments"]["7dof"]["ate_m"] >= 0


@pytest.fixture
def scene_in_parts(folder, tmp_path):
    """Frames 1 and 4 are missing: parts of 1, 2 and 3 frames."""
    scene = Path(tmp_path) / "scene"
    scene.makedirs_p()
    for number in range(6):
        (folder / f"{number:07d}.png").copy(scene / f"{number + (number > 0) + (number > 2):07d}.png")
    write_intrinsics(scene / "cam.txt", np.array([[50, 0, 47.5], [0, 50, 23.5], [0, 0, 1.0]]))
    record = {"source": {"images": 8}, "frames": 6, "static": [], "problems": {"1": "damaged", "4": "damaged"}}
    (scene / "prepared.json").write_text(json.dumps(record))
    return scene


def test_a_short_part_of_a_scene_does_not_stop_the_others(checkpoint, scene_in_parts, run, tmp_path):
    out = Path(tmp_path) / "out"
    status, output, errors = run(checkpoint, scene_in_parts, "--out", out, "--write", "trajectory")
    assert status == 0, errors
    assert "scene_1: left out: trajectory: this part of" in output
    assert "scene_1: wrote nothing" in output
    assert "2 frames, too few for a snippet" in output
    assert names_in(out) == [
        "predict.json", *(f"scene_3/{name}" for name in ("trajectory.png", "trajectory.txt", "trajectory_tum.txt"))
    ]  # fmt: skip


def test_short_parts_do_not_stop_refinement_scale_and_crop(checkpoint, scene_in_parts, run, tmp_path):
    """Parts keep the clock of their scene, by which the speed is looked up."""
    (scene_in_parts / "times.txt").write_text("0\n2\n3\n5\n6\n7\n")
    speeds = Path(tmp_path) / "speeds.txt"
    speeds.write_text("0 1\n4.9 1\n5 10\n7 10\n")
    out = Path(tmp_path) / "out"
    flags = ("--refine", 1, "--scale", "speed", speeds, "--crop", "auto")
    status, output, errors = run(checkpoint, scene_in_parts, "--out", out, "--write", "depth", "trajectory", *flags)
    assert status == 0, errors
    for number, frames in ((1, 1), (2, 2)):
        assert f"scene_{number}: not refined: a snippet has 3 frames, this part of" in output
        assert f"only {frames}" in output
        assert f"scene_{number}: no scale, depth is in the network's own unit: --scale speed" in output
    assert "scene_1: --crop auto: this part has one frame" in output
    clips = json.loads((out / "predict.json").read_text())["clips"]
    assert [clips[f"scene_{k}"]["scale"]["unit"] for k in (1, 2, 3)] == ["arbitrary", "arbitrary", "metres"]
    assert clips["scene_3"]["refinement"]["steps"] == 1
    trajectory = np.loadtxt(out / "scene_3/trajectory_tum.txt")
    np.testing.assert_allclose(trajectory[:, 0], [5, 6, 7])
    assert np.linalg.norm(np.diff(trajectory[:, 1:4], axis=0), axis=1).sum() == pytest.approx(20, rel=1e-3)


def test_the_time_before_a_part_is_not_known_from_the_rate(checkpoint, scene_in_parts, run, tmp_path):
    (Path(tmp_path) / "speeds.txt").write_text("0 1\n9 1\n")
    flags = ("--fps", 10, "--scale", "speed", tmp_path / "speeds.txt", "--write", "depth")
    error = error_of(run(checkpoint, scene_in_parts, "--out", tmp_path / "out", *flags))
    assert "the times of the frames are not known" in error


def test_without_a_pose_network(depth_only, folder, run, tmp_path):
    error = error_of(run(depth_only, folder, "--out", tmp_path / "a", "--write", "trajectory"))
    assert "--write trajectory" in error
    assert "holds no pose network" in error
    assert not (tmp_path / "a").exists()
    status, output, errors = run(depth_only, folder, "--out", tmp_path / "b", "--height", 32, "--width", 64)
    assert status == 0, errors
    assert "no trajectory and no point cloud" in output
    assert "drive/video.mp4" in names_in(tmp_path / "b")


def test_a_pose_network_of_another_file(depth_only, checkpoint, folder, run, tmp_path):
    flags = ("--pose-checkpoint", checkpoint, "--height", 32, "--width", 64)
    status, _, errors = run(depth_only, folder, "--out", tmp_path / "a", "--write", "trajectory", *flags)
    assert status == 0, errors
    assert "drive/trajectory.txt" in names_in(tmp_path / "a")
    error = error_of(run(depth_only, folder, "--out", tmp_path / "b", "--refine", 2))
    assert "--refine" in error
    assert "--pose-checkpoint FILE names one" in error


def test_refinement_changes_the_depth_of_its_clip_alone(checkpoint, folder, run, tmp_path):
    folders = [folder, Path(tmp_path) / "again"]
    folder.copytree(folders[1])
    before, after = Path(tmp_path) / "before", Path(tmp_path) / "after"
    assert run(checkpoint, folder, "--out", before, *DEPTH)[0] == 0
    status, output, errors = run(checkpoint, *folders, "--out", after, *DEPTH, "--refine", 2, "--refine-rate", 0.01)
    assert status == 0, errors
    assert "drive: refined by 2 steps" in output
    plain, refined, again = (
        np.load(file) for file in (before / "drive/depth/0000001.npy", *after.walkfiles("0000001.npy"))
    )
    assert not np.allclose(plain, refined, rtol=1e-4)
    np.testing.assert_allclose(refined, again, rtol=1e-5)  # each clip begins with the checkpoint's weights
    assert json.loads((after / "drive/depth.json").read_text())["refinement"]["steps"] == 2


def test_two_frames_are_too_few_for_a_trajectory(checkpoint, folder, run, tmp_path):
    short = Path(tmp_path) / "short"
    short.makedirs_p()
    for number in range(2):
        (folder / f"{number:07d}.png").copy(short)
    status, output, errors = run(checkpoint, short, "--out", tmp_path / "out")
    assert status == 0, errors
    assert "2 frames, too few for a snippet" in output
    error = error_of(run(checkpoint, short, "--out", tmp_path / "o", "--write", "trajectory"))
    assert "2 frames, too few for a snippet" in error


def test_out_that_holds_something_else_is_kept(checkpoint, folder, run, tmp_path):
    out = Path(tmp_path) / "out"
    out.makedirs_p()
    (out / "thesis.tex").write_text("years of work")
    flags = ("--out", out, *DEPTH)
    assert "holds thesis.tex, expected a new or empty folder" in error_of(run(checkpoint, folder, *flags))
    assert "holds thesis.tex" in error_of(run(checkpoint, folder, *flags, "--replace"))
    (out / "thesis.tex").unlink()
    assert run(checkpoint, folder, *flags)[0] == 0
    assert "--replace removes it" in error_of(run(checkpoint, folder, *flags))
    (out / "notes.txt").write_text("mine")
    assert "holds notes.txt, which predict.py did not write" in error_of(run(checkpoint, folder, *flags, "--replace"))
    (out / "notes.txt").unlink()
    assert run(checkpoint, folder, *flags, "--replace", "--depth-format", "png")[0] == 0
    assert not (out / "drive/depth/0000000.npy").exists()
    assert "is a file" in error_of(run(checkpoint, folder, "--out", folder / "0000000.png"))


def test_a_full_disk_leaves_nothing_that_looks_whole(checkpoint, folder, run, tmp_path, monkeypatch):
    out = Path(tmp_path) / "out"

    def full(file, disparity, scale, form):
        if "0000002" in file:
            raise OSError(errno.ENOSPC, "No space left on device", str(file))
        return write(file, disparity, scale, form)

    write = results.write_depth_file
    monkeypatch.setattr(results, "write_depth_file", full)
    error = error_of(run(checkpoint, folder, "--out", out, "--write", "depth", "video"))
    assert "No space left on device" in error
    assert names_in(out / "drive") == ["depth.json", "depth/0000000.npy", "depth/0000001.npy"]
    assert json.loads((out / "predict.json").read_text())["complete"] is False


def test_ctrl_c_leaves_whole_files(checkpoint, folder, run, tmp_path, monkeypatch):
    write = results.write_depth_file

    def stopped(file, disparity, scale, form):
        if "0000003" in file:
            raise KeyboardInterrupt
        return write(file, disparity, scale, form)

    monkeypatch.setattr(results, "write_depth_file", stopped)
    out = Path(tmp_path) / "out"
    status, _, errors = run(checkpoint, folder, "--out", out, "--write", "depth", "video")
    assert status == 130
    assert "stopped by Ctrl-C" in errors
    assert names_in(out / "drive") == ["depth.json", *(f"depth/000000{n}.npy" for n in range(3))]
    assert np.load(out / "drive/depth/0000002.npy").shape == (48, 96)
    monkeypatch.undo()
    other = folder.copytree(Path(tmp_path) / "other")
    (out / "mine").makedirs_p()
    flags = (checkpoint, other, "--out", out, *DEPTH, "--replace")
    assert "holds mine, which predict.py did not write" in error_of(run(*flags))
    (out / "mine").rmdir()
    assert run(*flags)[0] == 0
    assert not (out / "drive").exists()


def test_a_folder_that_holds_something_else_is_refused_before_clips_are_read(
    checkpoint, folder, run, tmp_path, monkeypatch
):
    out = Path(tmp_path) / "out"
    assert run(checkpoint, folder, "--out", out, *DEPTH)[0] == 0
    before = names_in(out)
    monkeypatch.setattr("inference.crop.find_borders", lambda clip: pytest.fail("read"))
    assert "--replace removes it" in error_of(run(checkpoint, folder, "--out", out, *DEPTH, "--crop", "auto"))
    # Nothing is removed where a later check fails.
    assert (
        "no such file"
        in error_of(run(checkpoint, folder, "--out", out, *DEPTH, "--replace", "--intrinsics", "none")).lower()
    )
    assert names_in(out) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--scale", "camera-height"), "expected one of camera-height METRES"),
        (("--scale", "constant", "-1"), "metres and factors above 0"),
        (("--scale", "distance", "1", "2", "3", "4", "x"), "expected numbers"),
        (("--fov", "80", "--focal", "500"), "exclude each other"),
        (("--fov", "180"), "degrees below 180"),
        (("--write", "everything"), "invalid choice"),
        (("--crop", "0,0,12"), "expected training, auto, none, or LEFT,TOP,RIGHT,BOTTOM in pixels"),
    ],
)
def test_wrong_use(checkpoint, folder, run, tmp_path, flags, message):
    status, _, errors = run(checkpoint, folder, "--out", tmp_path / "out", *flags)
    assert status == 2
    assert message in errors


def test_cameras_by_flag(checkpoint, folder, run, tmp_path):
    report = {}
    (tmp_path / "cam.txt").write_text("70 0 47.5\n0 71 23.5\n0 0 1\n")
    for name, flags in {
        "guess": (),
        "fov": ("--fov", 90),
        "focal": ("--focal", 123),
        "file": ("--intrinsics", tmp_path / "cam.txt"),
    }.items():
        assert run(checkpoint, folder, "--out", tmp_path / name, *DEPTH, *flags)[0] == 0
        report[name] = json.loads((tmp_path / name / "predict.json").read_text())["clips"]["drive"]["camera"]
    assert report["fov"]["K"][0] == pytest.approx([48, 0, 47.5])
    assert report["focal"]["K"][1] == pytest.approx([0, 123, 23.5])
    assert report["file"]["K"][1][1] == 71
    assert "a guess: 60 degrees" in report["guess"]["source"]
    (tmp_path / "cam.txt").write_text("70 0 47.5\n")
    assert "cam.txt" in error_of(run(checkpoint, folder, "--out", tmp_path / "o", "--intrinsics", tmp_path / "cam.txt"))
    assert not (tmp_path / "o").exists()  # the same command with another file goes on without --replace


def test_a_crop_is_said_in_the_sidecar_and_k_follows_it(checkpoint, folder, run, tmp_path):
    out = Path(tmp_path) / "out"
    status, output, errors = run(checkpoint, folder, "--out", out, "--focal", 100, "--crop", "0,4,0,12")
    assert status == 0, errors
    sidecar = json.loads((out / "drive/depth.json").read_text())
    assert sidecar["crop"] == {"left": 0, "top": 4, "right": 0, "bottom": 12, "source": "--crop 0,4,0,12"}
    assert (sidecar["input"]["height"], sidecar["height"]) == (48, 32)
    assert sidecar["intrinsics"]["K"] == [[100, 0, 47.5], [0, 100, 19.5], [0, 0, 1]]
    assert np.load(out / "drive/depth/0000000.npy").shape == (32, 96)
    assert json.loads((out / "predict.json").read_text())["clips"]["drive"]["crop"] == sidecar["crop"]
    line = "crop: columns 0 to 95, rows 4 to 35 of 96 x 48 pixels (--crop 0,4,0,12)"
    assert line in output
    assert line in (out / "drive/index.html").read_text()
    larger = Path(tmp_path) / "larger"
    larger.makedirs()
    for number in range(2):
        imageio.imwrite(larger / f"{number}.png", np.zeros((60, 96, 3), np.uint8))
    flags = ("--out", tmp_path / "o", "--crop", "0,4,0,12")
    assert "the inputs have 2 sizes: 96 x 48, 96 x 60" in error_of(run(checkpoint, folder, larger, *flags))
    assert not (tmp_path / "o").exists()


def test_a_photo_needs_no_checkpoint(run, pictures, tmp_path):
    photo = Path(tmp_path) / "photo.png"
    imageio.imwrite(photo, pictures[0])
    status, _, err = run(photo, "--out", Path(tmp_path) / "results")
    assert status == 0, err
    report = json.loads((Path(tmp_path) / "results/predict.json").read_text())
    assert report["checkpoint"]["file"].endswith("weights/world.safetensors")
    assert report["complete"]
    named = run("world", photo, "--out", Path(tmp_path) / "named")
    assert named[0] == 0, named[2]
    assert json.loads((Path(tmp_path) / "named/predict.json").read_text())["checkpoint"] == report["checkpoint"]


def test_flags_may_stand_between_checkpoint_and_input(checkpoint, folder, run, tmp_path):
    image = folder / "0000001.png"
    out = Path(tmp_path) / "out"
    status, _, errors = run(checkpoint, "--out", out, "--write", "depth", "--size", "network", image, image)
    assert status == 0, errors
    assert names_in(out / "images") == ["depth.json", "depth/0000001.npy", "depth/0000001_2.npy"]


@pytest.mark.parametrize("name", ["", "last.pt", "world", "weights.safetensors"])
def test_a_forgotten_input_is_asked_for(checkpoint, run, name):
    given = name if name == "world" else checkpoint.parent / name
    status, _, errors = run(given)
    assert status == 2
    assert f"{given}: a CHECKPOINT, expected an INPUT, too" in errors


@pytest.mark.parametrize("channels", ["grey", "alpha", "16 bits"])
def test_grey_alpha_and_16_bits_are_three_frames_like_any_other(checkpoint, pictures, run, tmp_path, channels):
    frames = Path(tmp_path) / "frames"
    frames.makedirs()
    for number, picture in enumerate(pictures[:3]):
        grey = picture[..., 0]
        image = {"grey": grey, "alpha": np.dstack([picture, grey]), "16 bits": grey.astype(np.uint16) * 257}[channels]
        imageio.imwrite(frames / f"{number}.png", image)
    status, output, errors = run(checkpoint, frames, "--out", Path(tmp_path) / "out", *DEPTH)
    assert status == 0, errors
    assert "frames: 3 images, " in output
