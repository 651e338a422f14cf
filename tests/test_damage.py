"""Every reader against made-up damage: the project's own error, which names the file, or a correct result.

`HYPOTHESIS_PROFILE=long pytest tests/test_damage.py` tries a hundred times as many examples, each time others.
"""

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from path import Path
from PIL import Image

from datasets import layout
from datasets.formats import cityscapes, kitti, make3d
from datasets.formats.kitti_folders import camera_poses, find_recordings, read_packets
from datasets.formats.kitti_folders import read_calibration as read_camera
from datasets.formats.trajectories import read_frame_times, read_trajectory
from datasets.preparation.check import check_data
from datasets.snippets import SnippetDataset
from evaluation.ground_truth import read_truth
from evaluation.predictions import load_predictions
from files.errors import InputError
from files.images import image_size, read_depth_picture, read_image
from files.text import read_json, read_names
from geometry.rigid import invert
from models import NetworkSpec, build
from models.checkpoint import checkpoint_content, load_checkpoint, load_model, load_optimizer
from training.logger import read_metrics
from training.options import TrainOptions, plain_options, resume_options

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
EXAMPLES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


# What damage does ----------------------------------------------------------------------------------------------------

WORDS = [
    "nan",
    "inf",
    "-inf",
    "1e400",
    "1e300",
    "-1e300",
    "1e15",
    "0",
    "-1",
    "0x10",
    "1_0",
    "a",
    "",
    "١",
    "\0",
    "0 0",
    "#",
]


@st.composite
def damaged(draw, content: bytes):
    """A file's content, damaged in one of the ways that files are."""
    position, end = sorted((draw(st.integers(0, len(content))), draw(st.integers(0, len(content)))))
    way = draw(
        st.sampled_from(["truncated", "replaced", "inserted", "removed", "flipped", "binary", "doubled", "other"])
    )
    if way == "truncated":
        return content[:position]
    if way == "replaced":
        new = draw(st.binary(max_size=16))
        return content[:position] + new + content[position + len(new) :]
    if way == "inserted":
        return content[:position] + draw(st.binary(max_size=16)) + content[position:]
    if way == "removed":
        return content[:position] + content[end:]
    if way == "flipped":
        return (
            content[:position]
            + bytes(255 - byte for byte in content[position : position + 1])
            + content[position + 1 :]
        )
    if way == "binary":
        return draw(st.binary(max_size=64))
    if way == "doubled":
        return content[:end] + content[position:]
    return draw(st.sampled_from([b"", b"\n", content.replace(b"\n", b"\r\n"), content * 2, b"\xff\xfe" + content]))


@st.composite
def damaged_text(draw, text: str):
    """A text file's content with another word, another number of words or lines, another encoding; or any damage."""
    way = draw(st.sampled_from(["word", "words", "lines", "encoding", "bytes", "bytes"]))
    if way == "bytes":
        return draw(damaged(text.encode()))
    if way == "encoding":
        return text.encode(draw(st.sampled_from(["utf-16", "utf-32", "cp037", "utf-8-sig"])))
    lines = text.split("\n")
    number = draw(st.integers(0, len(lines) - 1))
    if way == "lines":
        lines[number : number + 1] = draw(st.sampled_from([[], [lines[number]] * 2, [""], ["#" + lines[number]]]))
    else:
        words = lines[number].split(" ")
        place = draw(st.integers(0, len(words) - 1))
        new = [draw(st.sampled_from(WORDS) | st.text(max_size=6))]
        words[place : place + 1] = new if way == "word" else draw(st.sampled_from([[], [words[place]] * 2]))
        lines[number] = " ".join(words)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def outcome(file, read, *, name=None):
    """What `read()` gives, or None where it refuses: by one line that names the file, and by nothing else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Pillow's, about damaged EXIF
            return read()
    except InputError as error:
        message = str(error)
        assert (name or file) in message
        assert len(message.splitlines()) == 1, message
        assert len(message) < 1000, message[:2000]
        return None


# Text ----------------------------------------------------------------------------------------------------------------

RAW_CALIBRATION = """calib_time: 09-Jan-2012 13:57:47
corner_dist: 9.950000e-02
S_rect_02: 124 37
R_rect_00: 0.9999239 0.0098378 -0.007445 -0.0098698 0.9999421 -0.0042785 0.0074025 0.0043516 0.9999631
P_rect_02: 72.1 0 60.9 4.48 0 72.1 17.2 0.2 0 0 1 0.0027
"""
RIGID = """calib_time: 15-Mar-2012 11:37:16
R: 7.533745e-03 -0.9999714 -6.16602e-04 0.01480249 7.280733e-04 -0.9998902 0.9998621 0.00752379 0.01480755
T: -4.069766e-03 -7.631618e-02 -2.717806e-01
"""
ODOMETRY_CALIBRATION = "".join(f"P{k}: 71.8 0 60.7 {-38.6 * k} 0 71.8 18.5 0 0 0 1 0\n" for k in range(2)) + (
    "Tr: 4.2e-4 -9.9996e-01 -8.1e-3 -1.2e-2 -7.2e-3 8.1e-3 -9.99941e-01 -5.4e-2 9.99974e-01 4.9e-4 -7.2e-3 -2.9e-1\n"
)
OXTS = "49.015 8.4342 116.4 0.035 0.0067 -1.33 -9.3 4.1 10.2 0.0005 0.05 " + "0.1 " * 14 + "4 10 4 4 0\n"
POSES = "".join(f"1 0 0 0.{k} 0 1 0 0 0 0 1 {k}\n" for k in range(4))
TUM = "".join(f"{k}.5 0.{k} 0 {k} 0 0 0 1\n" for k in range(4))
CAM = "241.67 0 203.79\n0 246.28 58.69\n0 0 1\n"
STAMPS = "".join(f"2011-09-26 13:02:2{k}.594360375\n" for k in range(4))


def finite(array):
    return np.isfinite(array).all()


def camera_matrices(matrices):
    projections = [value for key, value in matrices.items() if key.startswith("P") and value.shape == (3, 4)]
    return all(finite(kitti.camera_from_rectified(projection)) for projection in projections)


READERS = {  # name: content, reader, what holds for a result
    "calib_cam_to_cam.txt": (
        RAW_CALIBRATION,
        lambda file: kitti.read_raw_calibration(file.parent, "02"),
        lambda m: camera_matrices(m) and m["R_rect_00"].shape == (3, 3) and 1 <= m["S_rect_02"].prod() <= 2**25,
    ),
    "calib_velo_to_cam.txt": (
        RIGID,
        kitti.read_rigid_calibration,
        lambda t: t.shape == (4, 4) and abs(np.linalg.det(t) - 1) < 0.05 and finite(invert(t)),
    ),
    "calib.txt": (ODOMETRY_CALIBRATION, kitti.read_odometry_calibration, camera_matrices),
    "0000000000.txt": (OXTS, kitti.read_oxts, lambda p: p.shape == (30,) and finite(kitti.oxts_to_poses(p[None]))),
    "timestamps.txt": (STAMPS, kitti.read_timestamps, lambda t: t.dtype == "datetime64[ns]" and t.ndim == 1),
    "times.txt": ("0\n1e-1\n2e-1\n", kitti.read_times, lambda t: t.ndim == 1 and finite(t)),
    "frame_times.txt": ("0\n1e-1\n2e-1\n", lambda file: read_frame_times(file, 3), lambda t: (np.diff(t) > 0).all()),
    "poses.txt": (POSES, kitti.read_poses, lambda p: p.shape[1:] == (3, 4) and finite(p @ p.swapaxes(1, 2))),
    "trajectory_kitti.txt": (POSES, read_trajectory, lambda t: finite(t.world_from_camera)),
    "trajectory_tum.txt": (TUM, read_trajectory, lambda t: finite(t.world_from_camera)),
    "cam.txt": (CAM, layout.read_intrinsics, lambda k: k.shape == (3, 3) and finite(np.linalg.inv(k))),
    "train.txt": ("scene_a\n# no scene\nscene_b\n", layout.read_scene_names, lambda names: all(map(inside, names))),
    "static_frames.txt": (
        "2011_09_26 2011_09_26_drive_0001_sync 0000000001\n",
        read_names,
        lambda n: all(map(inside, n)),
    ),
    "camera.json": (
        json.dumps({"intrinsic": {"fx": 2262.5, "fy": 2265.3, "u0": 1096.9, "v0": 513.1}, "extrinsic": {}}),
        cityscapes.read_camera,
        lambda k: finite(k) and k[0, 0] > 0,
    ),
    "vehicle.json": (json.dumps({"speed": 11.2, "yawRate": 0.01}), cityscapes.read_speed, np.isfinite),
    "metrics.jsonl": (
        "".join(json.dumps({"split": "train", "step": k, "objective/loss": 0.5}) + "\n" for k in (50, 100, 150)),
        read_metrics,
        lambda records: all(type(record["step"]) is int for record in records),
    ),
    "record.json": (json.dumps({"frames": [1, 2], "seed": None}), read_json, lambda content: isinstance(content, dict)),
}


def inside(name):
    """Whether a name joined to a folder stays in it."""
    return os.path.normpath(os.path.join("/root/data", name)).startswith("/root/data")


@pytest.mark.parametrize("name", READERS)
def test_text_files(name, tmp_path):
    content, read, holds = READERS[name]
    file = Path(tmp_path) / name
    file.write_text(content)
    assert holds(read(file))

    @EXAMPLES
    @given(damaged_text(content))
    def damage(data):
        file.write_bytes(data)
        result = outcome(file, lambda: read(file), name=name)
        assert result is None or holds(result), result

    damage()


def test_line_numbers_are_those_of_the_damage(tmp_path):
    for name, (content, read, _) in READERS.items():
        lines = content.splitlines()
        if name in ("train.txt", "static_frames.txt") or "json" in name:
            continue
        last = lines[-1]
        file = Path(tmp_path) / name
        file.write_text("\n".join([*lines[:-1], last.rpartition(" ")[0] + " what"]))
        with pytest.raises(InputError, match=rf"{name}, line {len(lines)}"):
            read(file)


def test_metrics_are_read_to_the_last_whole_line(tmp_path):
    content = READERS["metrics.jsonl"][0].encode()
    file = Path(tmp_path) / "metrics.jsonl"
    for end in range(len(content) + 1):
        file.write_bytes(content[:end])
        assert [record["step"] for record in read_metrics(file)] == [50, 100, 150][: content[:end].count(b"\n")]


PATHS = ["../x", "/etc/passwd", "a/../../b", "..", "a/..", "\\\\host\\x", "..\\x", "a\0b", "/", "//x", "./../x"]


@given(st.lists(st.sampled_from([*PATHS, "scene", "a/b", "..a", "a..", ".hidden"]), min_size=1, max_size=4))
def test_no_list_leads_out_of_its_folder(tmp_path_factory, names):
    file = Path(tmp_path_factory.getbasetemp()) / "list.txt"
    file.write_text("".join(f"{name}\n" for name in names))
    bad = [number for number, name in enumerate(names, 1) if name in PATHS]
    if bad:
        with pytest.raises(InputError, match=rf"list\.txt, line {bad[0]}: .* leads out of its folder"):
            read_names(file)
    else:
        assert read_names(file) == names


@EXAMPLES
@given(poses=damaged_text(POSES), cam=damaged_text(CAM))
def test_a_scene_with_damaged_files(scene, poses, cam):
    (scene / "poses.txt").write_bytes(poses)
    (scene / "cam.txt").write_bytes(cam)
    result = outcome(scene, lambda: layout.read_scene(scene))
    assert result is None or (result.poses.shape == (4, 3, 4) and finite(result.poses))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A prepared data set of one scene with 4 frames."""
    folder = Path(tmp_path_factory.mktemp("data")) / "scene"
    folder.makedirs()
    random = np.random.default_rng(0)
    for k in range(4):
        Image.fromarray(random.integers(0, 256, (32, 64, 3), dtype=np.uint8)).save(folder / f"{k:07d}.jpg")
    (folder.parent / "train.txt").write_text("scene\n")
    (folder / "cam.txt").write_text("37 0 31.5\n0 37 15.5\n0 0 1\n")
    return folder


@EXAMPLES
@given(damaged_text("scene\n"), damaged_text("37 0 31.5\n0 37 15.5\n0 0 1\n"))
def test_a_data_set_with_damaged_lists_and_cameras(tmp_path_factory, scene, names, cam):
    root = Path(tmp_path_factory.getbasetemp()) / "set"
    if not root.exists():
        root.makedirs()
        (root / "scene").makedirs()
        for frame in scene.files("*.jpg"):
            frame.copy(root / "scene")
    (root / "train.txt").write_bytes(names)
    (root / "scene" / "cam.txt").write_bytes(cam)
    dataset = outcome(root, lambda: SnippetDataset(root, "train.txt", 3))
    assert dataset is None or dataset[0]["frames"].shape == (3, 3, 32, 64)
    check = outcome(root, lambda: check_data(root, 3, 4))
    if dataset is None and check is not None:
        assert check.refusals


@EXAMPLES
@given(damaged_text(RAW_CALIBRATION), damaged_text(RIGID), damaged_text(OXTS))
def test_a_raw_drive_with_damaged_files(tmp_path_factory, calibration, rigid, packet):
    date = Path(tmp_path_factory.getbasetemp()) / "raw" / "2011_09_26"
    drive = date / "2011_09_26_drive_0001_sync"
    for folder in ("image_02/data", "oxts/data", "velodyne_points/data"):
        (drive / folder).makedirs_p()
    (drive / "image_02/data/0000000000.png").touch()
    (drive / "velodyne_points/data/0000000000.bin").write_bytes(np.float32([[10, 0, 0, 0.5]] * 9).tobytes())
    (drive / "oxts/data/0000000000.txt").write_bytes(packet)
    (date / "calib_cam_to_cam.txt").write_bytes(calibration)
    (date / "calib_velo_to_cam.txt").write_bytes(rigid)
    (date / "calib_imu_to_velo.txt").write_bytes(rigid)
    (recording,) = find_recordings(drive, "raw", ["02"])
    camera = outcome(date, lambda: read_camera(recording, need_lidar=True, need_imu=True))
    packets, problems = read_packets(recording)
    assert set(packets) | set(problems) == {0}
    if camera is not None:
        poses, _ = camera_poses(recording, camera, packets)
        assert all(map(finite, poses.values()))
    name = "2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000000.png"
    truth = outcome(date, lambda: read_truth(date.parent, name, "camera_z"))
    assert truth is None or finite(truth.depth)


@EXAMPLES
@given(damaged_text(ODOMETRY_CALIBRATION), damaged_text(POSES))
def test_an_odometry_sequence_with_damaged_files(tmp_path_factory, calibration, poses):
    root = Path(tmp_path_factory.getbasetemp()) / "odometry"
    sequence = root / "sequences/00"
    (sequence / "image_0").makedirs_p()
    (root / "poses").makedirs_p()
    for k in range(4):
        (sequence / f"image_0/{k:06d}.png").touch()
    (sequence / "calib.txt").write_bytes(calibration)
    (root / "poses/00.txt").write_bytes(poses)
    (recording,) = find_recordings(sequence, "odometry", ["00"])
    camera = outcome(root, lambda: read_camera(recording, need_lidar=True, need_imu=False))
    if camera is not None:
        result = outcome(root, lambda: camera_poses(recording, camera, {}))
        if result is not None:
            found, problems = result
            assert set(found) | set(problems) == {0, 1, 2, 3}
            assert all(abs(np.linalg.det(pose)) > 0.5 for pose in found.values())


# Binary --------------------------------------------------------------------------------------------------------------


def bytes_of(write):
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def picture(mode, **options):
    noise = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    image = Image.fromarray(noise) if mode == "RGB" else Image.fromarray(noise[..., 0].astype(np.uint16) * 200)
    return bytes_of(lambda stream: image.save(stream, **options))


def old_checkpoint(stream):
    torch.save(
        {"epoch": 3, "state_dict": {"pose_pred.weight": torch.arange(5.0)}},
        stream,
        _use_new_zipfile_serialization=False,
    )


def predictions_bytes():
    arrays = {"about": np.array(json.dumps({"kind": "depth"})), "depth": np.ones((2, 3, 4), np.float32)}
    return bytes_of(lambda stream: np.savez(stream, **arrays))


CONFIG = {"height": 128, "width": 416, "rotation": "euler"}


def checkpoint_of_version_1(stream):
    weights = {"pose_pred.weight": torch.zeros(12, 256, 1, 1)}
    content = {"format": "sfmlearner", "version": 1, "step": 5, "config": CONFIG, "best": {}, "optimizer": {}}
    torch.save(content | {"disp_net": {"w": torch.arange(5.0)}, "pose_exp_net": weights}, stream)


CONFIG_1 = {
    **{"data": "prepared", "name": "run", "recipe": "paper-depth", "sequence_length": 3, "photometric_weight": 1.0},
    **{"smoothness_weight": 0.5, "smoothness_decay": 2.0, "smoothed": "disparity", "explainability": True},
    **{"explainability_weight": 0.2, "rotation": "euler", "network_width": 0.0625, "pose_net_width": None},
    **{"start_from": ["a.pt"], "first_disparity": 5.01, "translation_scale": 0.01, "rotation_scale": 0.01},
    **{"fixation_depth": None, "steps": 2, "epochs": None, "batch_size": 2, "learning_rate": 0.0002, "beta1": 0.9},
    **{"no_check": True, "seed": 0, "accumulate": 1, "device": "cpu", "validate_every": None, "save_every": 10},
    **{"height": 64, "width": 96, "snippets": 8, "processes": 1, "scenes": ["a", "b"], "total_steps": 2},
}


def small_model():
    specs = {
        "depth": NetworkSpec("disp_net", {"width": 1 / 16}),
        "pose": NetworkSpec("pose_exp_net", {"sources": 2, "width": 1 / 16}),
        "camera": NetworkSpec("given"),
    }
    model = build(specs["depth"], specs["pose"], specs["camera"])
    return model, specs, torch.optim.Adam(model.parameters())


def checkpoint_of_a_run(stream):
    run = small_model()
    for parameter in run[0].parameters():
        parameter.grad = torch.ones_like(parameter)
    run[2].step()
    standing = {"step": 5, "skipped": 0, "validation_due": False, "damaged": ["a.jpg: truncated"]}
    standing["best"] = {"ate": {"value": 0.5, "step": 5}}
    record = {"height": 64, "width": 96, "processes": 1, "total_steps": 9, "scenes": ["a"]}
    torch.save(checkpoint_content(*run, plain_options(TrainOptions()), record, standing), stream)


def resume_from(file):
    """All that a resumed run reads from its checkpoint."""
    content = load_checkpoint(file)
    resume_options(content["options"], {}, file.parent)
    _, _, optimizer = small_model()
    load_optimizer(optimizer, content["optimizer"], file)
    return load_model(file)


def finite_model(loaded):
    networks = [network for network in (loaded.depth_net, loaded.pose_net) if network is not None]
    return all(tensor.isfinite().all() for network in networks for tensor in network.state_dict().values())


def no_image(image):
    return image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0


BINARY = {
    "scan.bin": (
        np.random.default_rng(0).normal(size=(30, 4)).astype("<f4").tobytes(),
        kitti.read_velodyne,
        lambda points: points.shape[1] == 4 and finite(points),
    ),
    "image.jpg": (picture("RGB", format="JPEG"), read_image, lambda image: not no_image(image)),
    "image.png": (picture("RGB", format="PNG"), read_image, lambda image: not no_image(image)),
    "header.jpg": (picture("RGB", format="JPEG"), image_size, lambda size: min(size) > 0),
    "header.png": (picture("RGB", format="PNG"), image_size, lambda size: min(size) > 0),
    "depth.png": (picture("I;16", format="PNG"), read_depth_picture, lambda d: d.ndim == 2 and finite(d)),
    "depth.npy": (
        bytes_of(lambda stream: np.save(stream, np.ones((4, 5), np.float32))),
        layout.read_depth,
        lambda d: d.ndim == 2 and d.dtype == np.float32 and finite(d) and (d >= 0).all(),
    ),
    "depth.npz": (predictions_bytes(), lambda file: load_predictions(file, "depth"), lambda r: r[1]["kind"] == "depth"),
    "run_1.pt": (bytes_of(checkpoint_of_version_1), load_checkpoint, lambda c: isinstance(c["options"], dict)),
    "last.pt": (bytes_of(checkpoint_of_a_run), resume_from, finite_model),
    "port.pth.tar": (bytes_of(old_checkpoint), load_model, lambda networks: False),  # of another shape
    "depth_sph_corr.mat": (
        bytes_of(
            lambda stream: scipy.io.savemat(stream, {"Position3DGrid": np.ones((55, 305, 4))}, do_compression=True)
        ),
        lambda file: make3d.read_cropped_depth(file, 2),
        finite,
    ),
}


@pytest.mark.parametrize(
    "config",
    [
        {"height": -1},
        {"width": "416"},
        {"height": 10**9},
        {"width": float("nan")},
        {"rotation": "x" * 10**6},
        {"rotation": ["euler"]},
        {"height": [1]},
    ],
    ids=lambda config: str(config)[:30],
)
def test_a_checkpoint_of_version_1_that_says_nonsense_about_its_use(config, tmp_path):
    file = Path(tmp_path) / "run.pt"
    content = torch.load(io.BytesIO(bytes_of(checkpoint_of_version_1)), weights_only=True)
    torch.save(content | {"config": CONFIG | config}, file)
    assert outcome(file, lambda: load_model(file)) is None


@pytest.mark.parametrize("name", BINARY)
def test_binary_files(name, tmp_path):
    content, read, holds = BINARY[name]
    file = Path(tmp_path) / name
    file.write_bytes(content)
    if name != "port.pth.tar":
        assert holds(read(file))

    @EXAMPLES
    @given(damaged(content))
    def damage(data):
        file.write_bytes(data)
        result = outcome(file, lambda: read(file))
        assert result is None or holds(result), result

    damage()


def small_checkpoint(legacy):
    """A checkpoint of a run whose first weights alone are there: most of it is names."""
    content = torch.load(io.BytesIO(bytes_of(checkpoint_of_a_run)), weights_only=True)
    content["model"] = dict([*content["model"].items()][:3])
    content["optimizer"]["state"] = {index: content["optimizer"]["state"][index] for index in range(3)}
    return bytes_of(lambda stream: torch.save(content, stream, _use_new_zipfile_serialization=not legacy))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_with_a_damaged_pickle(tmp_path, legacy):
    """Damage that the archive's checksums do not show."""
    file, whole = Path(tmp_path) / "last.pt", small_checkpoint(legacy)
    members = {}
    if not legacy:
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = [name for name in members if name.endswith("data.pkl")] or [None]

    @EXAMPLES
    @given(damaged(members[name] if name else whole))
    def damage(data):
        if name:
            with zipfile.ZipFile(file, "w") as archive:
                for member, content in (members | {name: data}).items():
                    archive.writestr(member, content)
        else:
            file.write_bytes(data)
        assert outcome(file, lambda: resume_from(file)) is None  # it lacks the other weights

    damage()


LISTS = [[]]
for _ in range(60):
    LISTS = [LISTS, LISTS]  # small in memory and in the file; printed it has 2^60 brackets
OTHER_VALUES = [
    *(None, True, -1, 0, 3, 2**63, 2**2000, 0.5, float("nan"), -float("inf"), "", "x\n" * 2000, [], {}, [1], {"a": {}}),
    *(
        LISTS,
        {1: LISTS},
        torch.zeros(2),
        torch.tensor(float("nan")),
        torch.zeros(3, 0),
        torch.zeros(1, dtype=torch.int32),
    ),
]


def places(content, path=()):
    """The paths to all values in nested dicts and lists."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, value in items:
        yield (*path, name)
        yield from places(value, (*path, name))


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_a_checkpoint_with_another_value_anywhere(tmp_path, version):
    file = Path(tmp_path) / "last.pt"
    whole = bytes_of(checkpoint_of_a_run)
    content = torch.load(io.BytesIO(whole), weights_only=True)
    if version == 1:
        loaded = torch.load(io.BytesIO(bytes_of(checkpoint_of_version_1)), weights_only=True)
        model, _, optimizer = small_model()
        loaded |= {"disp_net": model.depth_net.state_dict(), "pose_exp_net": model.pose_net.state_dict()}
        content = loaded | {"optimizer": optimizer.state_dict(), "config": CONFIG_1}
    # Of the many weights and moments a few are enough.
    paths = [path for path in places(content) if not any(isinstance(part, int) and part > 2 for part in path)]
    paths = [path for path in paths if path[0] not in ("model", "disp_net", "pose_exp_net") or "conv7" in str(path)]

    @settings(parent=EXAMPLES)
    @given(st.sampled_from(paths), st.sampled_from(OTHER_VALUES))
    def damage(path, value):
        changed = torch.load(io.BytesIO(bytes_of(lambda stream: torch.save(content, stream))), weights_only=True)
        inner = changed
        for part in path[:-1]:
            inner = inner[part]
        inner[path[-1]] = value
        torch.save(changed, file)
        result = outcome(file.parent, lambda: resume_from(file))
        assert result is None or finite_model(result), path

    damage()


# Memory that only the damage claims ----------------------------------------------------------------------------------


def png_that_claims(width, height, padding=0):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"tEXt", b"a\0" + bytes(padding))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def jpeg_that_claims(width, height):
    data = bytearray(picture("RGB", format="JPEG"))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def npy_that_claims(shape, body=b"\0" * 64):
    header = bytes_of(
        lambda s: np.lib.format.write_array_header_1_0(s, {"descr": "<f4", "fortran_order": False, "shape": shape})
    )
    return header + body


def npz_with(member, compress):
    def write(stream):
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
            archive.writestr("about.npy", bytes_of(lambda s: np.save(s, np.array('{"kind": "depth"}'))))
            archive.writestr("depth.npy", member)

    return bytes_of(write)


def checkpoint_that_claims(elements, storage=None):
    """A checkpoint whose tensor claims so many elements; its storage's bytes are replaced, and compressed."""
    plain = io.BytesIO(bytes_of(lambda stream: torch.save({"state_dict": {"w": torch.zeros(1000)}}, stream)))

    def write(stream):
        compression = zipfile.ZIP_STORED if storage is None else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(plain) as old, zipfile.ZipFile(stream, "w", compression) as new:
            for name in old.namelist():
                data = old.read(name)
                if name.endswith("data.pkl"):
                    data = data.replace(b"M\xe8\x03", b"J" + struct.pack("<i", elements))
                elif storage is not None and name.endswith("data/0"):
                    data = storage
                new.writestr(name, data)

    return bytes_of(write)


class _Sized:
    """Unpickles to an object of so many bytes by a constructor that `torch.load(weights_only=True)` allows."""

    def __reduce__(self):
        return bytearray, (2**29,)


def old_checkpoint_that_claims(elements):
    content = bytes_of(lambda s: torch.save({"w": torch.zeros(1000)}, s, _use_new_zipfile_serialization=False))
    return content.replace(b"M\xe8\x03", b"J" + struct.pack("<i", elements), 1)


CLAIMS = {
    "a PNG of 100000 x 100000": (png_that_claims(100000, 100000), read_image),
    "a PNG of 12000 x 12000, padded": (png_that_claims(12000, 12000, padding=500_000), read_image),
    "a depth PNG of 12000 x 12000, padded": (png_that_claims(12000, 12000, padding=500_000), read_depth_picture),
    "a JPEG of 65000 x 65000": (jpeg_that_claims(65000, 65000), read_image),
    "an .npy of 4 TB": (npy_that_claims((10**6, 10**6)), layout.read_depth),
    "an .npz of 4 TB": (npz_with(npy_that_claims((10**6, 10**6)), False), lambda f: load_predictions(f, "depth")),
    "an .npz with a zip bomb": (
        npz_with(npy_that_claims((1, 1), bytes(2**29)), True),
        lambda f: load_predictions(f, "depth"),
    ),
    "a checkpoint of a tensor of 4 GB": (checkpoint_that_claims(2**30), load_model),
    "a checkpoint with a zip bomb": (checkpoint_that_claims(2**27, bytes(2**29)), load_model),
    "a checkpoint with a sized object": (bytes_of(lambda s: torch.save({"w": _Sized()}, s)), load_model),
    "an old checkpoint with a sized object": (
        bytes_of(lambda s: torch.save({"w": _Sized()}, s, _use_new_zipfile_serialization=False)),
        load_model,
    ),
    "an old checkpoint of a tensor of 4 GB": (old_checkpoint_that_claims(2**30), load_model),
    "a calibration for a camera of 10^12 pixels": (
        RAW_CALIBRATION.replace("124 37", "1e6 1e6").encode(),
        lambda file: kitti.read_calibration(file),
    ),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_no_memory_for_a_size_that_only_the_damage_claims(claim, tmp_path, peak_memory):
    content, read = CLAIMS[claim]
    file = Path(tmp_path) / "file"
    file.write_bytes(content)
    del content

    def refuse():
        with pytest.raises(InputError, match="file"):
            read(file)

    peak_memory(refuse)  # once for what the reader itself brings along
    assert peak_memory(refuse) < 192


# Nothing runs --------------------------------------------------------------------------------------------------------


class _Runs:
    """Unpickles by calling what a file names."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return os.mkdir, (self.file,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_no_file_runs_code(tmp_path):
    mark, file = Path(tmp_path) / "it ran", Path(tmp_path) / "file"
    attack = _Runs(mark)
    hidden = np.empty((2, 2), dtype=object)
    hidden[:] = attack
    contents = {
        "pickle": pickle.dumps(attack),
        "checkpoint": bytes_of(lambda s: torch.save({"state_dict": attack}, s)),
        "old checkpoint": bytes_of(lambda s: torch.save({"x": attack}, s, _use_new_zipfile_serialization=False)),
        "npy": bytes_of(lambda s: np.save(s, hidden, allow_pickle=True)),
        "npz": npz_with(bytes_of(lambda s: np.save(s, hidden, allow_pickle=True)), False),
    }
    readers = [load_model, load_checkpoint, layout.read_depth, lambda f: load_predictions(f, "depth"), read_json]
    for content in contents.values():
        for read in readers:
            file.write_bytes(content)
            with pytest.raises(InputError):
                read(file)
            assert not mark.exists()
    pickle.loads(contents["pickle"])  # the attack works where nothing stops it
    assert mark.exists()
