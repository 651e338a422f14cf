"""prepare_cityscapes.py on small folders in Cityscapes' layout: what comes out, and what happens to bad input."""

import json
import subprocess
import sys
import time

from cli.flags import run_script

import numpy as np
import pytest
from path import Path
from PIL import Image
from scipy.ndimage import gaussian_filter

from data import prepare_cityscapes
from datasets.layout import read_scene
from datasets.snippets import SnippetDataset
from files.images import read_image, resize_area

SCRIPT = Path(__file__).absolute().parent.parent.parent / "data" / "prepare_cityscapes.py"
HEIGHT, WIDTH = 64, 128  # of the made images; the camera files are for 1024 x 2048, as Cityscapes' are
CAMERA = {"fx": 2262.52, "fy": 2265.3, "u0": 1096.98, "v0": 513.137}
SIZE = (24, 64)  # of the prepared images


def picture(frame, seed):
    """A textured picture that moves by 2 pixels a frame, with a plain bonnet in its lowest quarter."""
    rng = np.random.default_rng(seed)
    base = gaussian_filter(rng.normal(size=(HEIGHT, 2 * WIDTH, 3)), (2, 2, 0), mode="wrap")
    base = np.interp(base, [base.min(), base.max()], [0, 200]).astype(np.uint8)
    image = np.roll(base, -2 * frame, axis=1)[:, :WIDTH].copy()
    image[HEIGHT * 3 // 4 :] = 255
    return image


def write_sequence(root, city, recording, annotated=19, split="train", frames=range(30), speed=10.0):
    stem = f"{city}_{recording:06d}"
    folders = [
        (root / package / split / city).makedirs_p()
        for package in ("leftImg8bit_sequence", "camera", "vehicle_sequence")
    ]
    for frame in frames:
        number = annotated - 19 + frame
        image = picture(number, recording)
        Image.fromarray(image).save(folders[0] / f"{stem}_{number:06d}_leftImg8bit.png", compress_level=1)
        (folders[2] / f"{stem}_{number:06d}_vehicle.json").write_text(json.dumps({"speed": speed, "yawRate": 0.0}))
    camera = {"extrinsic": {"baseline": 0.209313, "pitch": 0.038}, "intrinsic": CAMERA}
    (folders[1] / f"{stem}_{annotated:06d}_camera.json").write_text(json.dumps(camera))


@pytest.fixture
def folder(tmp_path):
    return Path(tmp_path)


@pytest.fixture
def cityscapes(folder):
    """Two cities: aachen counts its sequences, bochum has two of one long recording, one right behind the other."""
    root = folder / "cityscapes"
    write_sequence(root, "aachen", 0)
    write_sequence(root, "bochum", 0, annotated=313)
    write_sequence(root, "bochum", 0, annotated=343)
    return root


@pytest.fixture
def prepare(folder, monkeypatch, capsys):
    """Run the script in this process, on one worker; gives what it printed."""

    def run(root, *flags, out="out", jobs=1, size=SIZE):
        where = ["--height", str(size[0]), "--width", str(size[1]), "--jobs", str(jobs)]
        monkeypatch.setattr(sys, "argv", ["prepare_cityscapes.py", str(root), str(folder / out), *where, *flags])
        run_script(prepare_cityscapes.main)
        return capsys.readouterr().out

    return run


@pytest.fixture
def refuse(prepare, capsys):
    """Run the script, which must end with one line and status 1; gives the line."""

    def run(*arguments, **options):
        with pytest.raises(SystemExit) as caught:
            prepare(*arguments, **options)
        lines = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert caught.value.code == 1
        assert len(lines) == 1
        return lines[0]

    return run


def listed(out):
    return (out / "train.txt").read_text().split(), (out / "val.txt").read_text().split()


def contents(root):
    return {str(root.relpathto(file)): file.read_bytes() for file in root.walkfiles()}


def numbers(scene):
    return [int(frame.stem) for frame in read_scene(scene).frames]


# What comes out


def test_every_second_frame_without_the_bonnet(cityscapes, prepare, folder):
    printed = prepare(cityscapes, jobs=2)
    out = folder / "out"
    assert numbers(out / "aachen_000000_000019_0") == list(range(0, 30, 2))
    assert numbers(out / "aachen_000000_000019_1") == list(range(1, 30, 2))
    image = read_image(out / "aachen_000000_000019_0/0000004.jpg")
    assert image.shape == (*SIZE, 3)
    expected = resize_area(picture(4, 0)[: HEIGHT * 3 // 4], *SIZE)
    assert np.abs(image.mean(2) - expected.mean(2)).mean() < 6  # JPEG; another frame is 35 away
    assert image[-3:].max() < 240  # the bonnet is white
    assert "90 frames in 6 scenes" in printed


def test_intrinsics_are_those_of_the_cropped_and_resized_image(cityscapes, prepare, folder):
    prepare(cityscapes)
    # x' = (x + 0.5) s - 0.5 with s = 64 / 2048 and 24 / 768: the rows below the cut leave K as it is.
    s = 1 / 32
    expected = [
        [CAMERA["fx"] * s, 0, (CAMERA["u0"] + 0.5) * s - 0.5],
        [0, CAMERA["fy"] * s, (CAMERA["v0"] + 0.5) * s - 0.5],
        [0, 0, 1],
    ]
    np.testing.assert_allclose(read_scene(folder / "out/aachen_000000_000019_0").intrinsics, expected, atol=1e-9)
    prepare(cityscapes, "--keep", "0.5", out="half")
    fy = read_scene(folder / "half/aachen_000000_000019_0").intrinsics[1, 1]
    assert fy == pytest.approx(CAMERA["fy"] * 24 / 512)


def test_no_snippet_crosses_the_end_of_a_sequence(cityscapes, prepare, folder):
    """bochum's two sequences follow each other without a gap in their numbers, and still are scenes of their own."""
    prepare(cityscapes, "--val-fraction", "0")
    dataset = SnippetDataset(folder / "out", "train.txt", 3)
    assert len(dataset) == 3 * 2 * 13
    for index in range(len(dataset)):
        scene, first = dataset.snippet(index)
        frames = [int(file.stem) for file in scene.frames[first : first + 3]]
        assert np.diff(frames).tolist() == [2, 2]
        start = int(scene.name.split("_")[2]) - 19
        assert start <= frames[0]
        assert frames[-1] < start + 30


def test_cities_are_whole_on_one_side(cityscapes, prepare, folder):
    printed = prepare(cityscapes)
    train, val = listed(folder / "out")
    assert {name.split("_")[0] for name in train}.isdisjoint(name.split("_")[0] for name in val)
    assert len(train) + len(val) == 6
    assert "train.txt: 1 cities, val.txt: 1 cities" in printed


def test_one_city_is_split_by_its_sequences(folder, prepare):
    root = folder / "cityscapes"
    for recording in range(4):
        write_sequence(root, "aachen", recording, frames=range(8))
    prepare(root, "--val-fraction", "0.25")
    train, val = listed(folder / "out")
    assert (len(train), len(val)) == (6, 2)
    assert val[0][:-1] == val[1][:-1]


def test_splits_and_archives_unpacked_into_folders_of_their_own(folder, prepare, refuse):
    root = folder / "cityscapes"
    write_sequence(root, "aachen", 0, frames=range(6))
    write_sequence(root, "ulm", 0, split="val", frames=range(6))
    for package in ("leftImg8bit_sequence", "camera"):
        place = (root / f"{package}_trainvaltest").makedirs_p()
        (root / package).move(place)
    prepare(root, "--splits", "train", "val", "--every", "1")
    train, val = listed(folder / "out")
    assert sorted(train + val) == ["aachen_000000_000019_0", "ulm_000000_000019_0"]
    assert numbers(folder / "out/ulm_000000_000019_0") == list(range(6))
    assert "test: no such folder; choose other splits" in refuse(root, "--splits", "test", out="other")


# Frames in which the camera stands


def test_static_by_the_images(folder, prepare):
    root = folder / "cityscapes"
    write_sequence(root, "aachen", 0)
    images = root / "leftImg8bit_sequence/train/aachen"
    still = read_image(images / "aachen_000000_000008_leftImg8bit.png")
    for frame in range(9, 20):
        Image.fromarray(still).save(images / f"aachen_000000_{frame:06d}_leftImg8bit.png")
    printed = prepare(root)
    assert numbers(folder / "out/aachen_000000_000019_0") == [0, 2, 4, 6, 8, 20, 22, 24, 26, 28]
    assert "10 static frames left out" in printed
    prepare(root, "--static", "none", out="all")
    assert len(numbers(folder / "all/aachen_000000_000019_0")) == 15


def test_phases_count_from_the_first_frame_of_the_sequence(prepare, folder):
    write_sequence(folder / "other", "ulm", 0, annotated=20, frames=range(30))
    prepare(folder / "other")
    assert numbers(folder / "out/ulm_000000_000020_0") == list(range(1, 31, 2))
    assert numbers(folder / "out/ulm_000000_000020_1") == list(range(2, 31, 2))


def test_static_by_the_speed(cityscapes, prepare, folder, refuse):
    vehicles = cityscapes / "vehicle_sequence/train/aachen"
    for frame in range(10):
        (vehicles / f"aachen_000000_{frame:06d}_vehicle.json").write_text('{"speed": 0.3}')
    prepare(cityscapes, "--static", "speed")
    assert numbers(folder / "out/aachen_000000_000019_1") == list(range(11, 30, 2))
    prepare(cityscapes, "--static", "speed", "--min-speed", "0.2", out="slow")
    assert len(numbers(folder / "slow/aachen_000000_000019_1")) == 15
    (vehicles / "aachen_000000_000020_vehicle.json").write_text('{"speed": NaN}')
    prepare(cityscapes, "--static", "speed", out="damaged")
    assert numbers(folder / "damaged/aachen_000000_000019_0") == [10, 12, 14, 16, 18]
    assert "speed is nan" in (folder / "damaged/prepare_report.txt").read_text()
    (cityscapes / "vehicle_sequence").rmtree()
    assert "--static speed needs vehicle_sequence/" in refuse(cityscapes, "--static", "speed", out="none")


# Again, and on after a stop


def test_run_twice_does_nothing_twice_and_adds_what_is_new(cityscapes, prepare, folder):
    prepare(cityscapes)
    whole = contents(folder / "out")
    assert "nothing to do" in prepare(cityscapes)
    assert contents(folder / "out") == whole
    scene = folder / "out/aachen_000000_000019_0"
    for name in ("0000004.jpg", "prepared.json", "cam.txt"):
        (scene / name).remove()
    (scene / "0000006.jpg.part").write_bytes(b"half a picture")
    prepare(cityscapes)
    assert contents(folder / "out") == whole
    write_sequence(cityscapes, "aachen", 1)
    prepare(cityscapes)
    assert sum(map(len, listed(folder / "out"))) == 8


def test_other_options_and_other_data_sets_are_refused(cityscapes, prepare, refuse, folder):
    prepare(cityscapes)
    assert "keep was 0.75, is now 0.8" in refuse(cityscapes, "--keep", "0.8")
    (folder / "kitti").makedirs()
    (folder / "kitti/prepare.json").write_text('{"layout": "raw"}')
    assert "layout was raw, is now cityscapes" in refuse(cityscapes, out="kitti")


@pytest.mark.slow
def test_killed_it_goes_on(folder, prepare):
    root = folder / "cityscapes"
    for recording in range(8):
        write_sequence(root, "aachen", recording)
    prepare(root, out="whole")
    size = ["--height", str(SIZE[0]), "--width", str(SIZE[1])]
    process = subprocess.Popen([sys.executable, SCRIPT, root, folder / "out", *size, "--jobs", "2"])
    while process.poll() is None and sum(1 for _ in (folder / "out").walkfiles("*.jpg", errors="ignore")) < 20:
        time.sleep(0.005)
    process.kill()
    process.wait()
    prepare(root)
    assert contents(folder / "out") == contents(folder / "whole")


# Parts missing and damaged


def test_a_missing_or_damaged_frame_cuts_the_scene(cityscapes, prepare, folder):
    images = cityscapes / "leftImg8bit_sequence/train/aachen"
    (images / "aachen_000000_000008_leftImg8bit.png").remove()
    file = images / "aachen_000000_000019_leftImg8bit.png"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    printed = prepare(cityscapes)
    out = folder / "out"
    assert numbers(out / "aachen_000000_000019_0") == list(range(10, 30, 2))
    assert numbers(out / "aachen_000000_000019_1") == list(range(1, 19, 2))
    report = (out / "prepare_report.txt").read_text()
    assert "aachen_000000_000019_0 0000008: aachen_000000_000019: no image of frame 8" in report
    assert "aachen_000000_000019_0 0000006: aachen_000000_000019: frame 6 is cut off by a missing" in report
    assert "aachen_000000_000019_leftImg8bit.png: truncated or damaged PNG" in report
    assert "missing or damaged files: 11 frames left out" in printed
    assert "nothing to do" in prepare(cityscapes)
    time.sleep(0.02)
    file.write_bytes(whole)  # downloaded again
    Image.fromarray(picture(8, 0)).save(images / "aachen_000000_000008_leftImg8bit.png")
    prepare(cityscapes)
    for phase in (0, 1):
        assert numbers(out / f"aachen_000000_000019_{phase}") == list(range(phase, 30, 2))


def test_images_that_belong_to_no_sequence_are_counted(cityscapes, prepare):
    image = cityscapes / "leftImg8bit_sequence/train/aachen/aachen_000000_000031_leftImg8bit.png"
    Image.fromarray(picture(31, 0)).save(image)
    assert "1 images belong to no sequence" in prepare(cityscapes)


def test_images_that_were_cropped_before_do_not_fit_the_calibration(cityscapes, prepare, folder):
    file = cityscapes / "leftImg8bit_sequence/train/aachen/aachen_000000_000001_leftImg8bit.png"
    Image.fromarray(picture(1, 0)[:48]).save(file)
    prepare(cityscapes)
    assert "128 x 48 pixels, calibration is for 2048 x 1024" in (folder / "out/prepare_report.txt").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not readable as JSON"),
        ("[1]", "holds a list"),
        ("[" * 100_000, "not readable as JSON"),
        ("{}", "no entry 'intrinsic'"),
        ('{"intrinsic": {"fx": 2262, "fy": 2265, "u0": 1096}}', "v0 is None, expected a number"),
        ('{"intrinsic": {"fx": "2262", "fy": 2265, "u0": 1096, "v0": 513}}', "fx is 2262, expected a number"),
        ('{"intrinsic": {"fx": NaN, "fy": 2265, "u0": 1096, "v0": 513}}', "fx is nan"),
        ('{"intrinsic": {"fx": 1e999, "fy": 2265, "u0": 1096, "v0": 513}}', "fx is inf"),
        ('{"intrinsic": {"fx": 0, "fy": 2265, "u0": 1096, "v0": 513}}', "fx 0, fy 2265"),
        ('{"intrinsic": {"fx": 2262, "fy": 2265, "u0": 3000, "v0": 513}}', "a centre inside 2048 x 1024"),
    ],
)
def test_damaged_camera_files(cityscapes, refuse, folder, content, message):
    file = cityscapes / "camera/train/aachen/aachen_000000_000019_camera.json"
    file.write_text(content)
    line = refuse(cityscapes)
    assert message in line
    assert "aachen_000000_000019_camera.json" in line
    assert not (folder / "out").exists()


def test_missing_parts(cityscapes, refuse, folder):
    assert "nowhere: no such folder" in refuse(folder / "nowhere")
    assert "no Cityscapes video in it" in refuse(cityscapes / "camera")
    (cityscapes / "camera/train/bochum").rmtree()
    assert "no bochum_000000_*_camera.json" in refuse(cityscapes)
    (cityscapes / "camera").rmtree()
    assert "no folder camera/ (from camera_trainvaltest.zip)" in refuse(cityscapes)
    (folder / "empty/leftImg8bit_sequence/train/aachen").makedirs()
    (folder / "empty/camera").makedirs()
    assert "no image of a sequence in train" in refuse(folder / "empty")
    assert not (folder / "out").exists()


@pytest.mark.parametrize("flags", [["--keep", "0"], ["--keep", "1.5"], ["--every", "0"], ["--splits", "nope"]])
def test_wrong_use(cityscapes, prepare, flags):
    with pytest.raises(SystemExit) as caught:
        prepare(cityscapes, *flags)
    assert caught.value.code == 2


def test_help_teaches(prepare, capsys):
    with pytest.raises(SystemExit):
        prepare("x", "--help")
    assert "python data/prepare_cityscapes.py CITYSCAPES PREPARED" in capsys.readouterr().out
