"""The check of a data set: five that are broken on purpose are named as such, and healthy ones raise no alarm."""

import json

import numpy as np
import pytest
from path import Path
from PIL import Image
from scipy.spatial.transform import Rotation

from datasets.layout import write_intrinsics
from datasets.preparation import check as check_module
from datasets.preparation.check import check_data
from datasets.preparation.image_motion import PairMotion
from datasets.preparation.scene_check import SceneCheck
from datasets.snippets import SnippetDataset
from datasets.synthetic import WorldOptions, list_drives, make_drive_renderer
from files.atomic import write_text
from files.errors import InputError
from files.images import read_image, resize_area, write_jpeg
from geometry.two_view import ROTATION_ONLY

HEIGHT, WIDTH = 64, 208
FRAMES = 22
K_OF_KITTI = np.array([[0.58 * WIDTH, 0, 0.49 * WIDTH], [0, 0.58 * WIDTH, 0.46 * HEIGHT], [0, 0, 1]])


def render(numbers, **options):
    """Frames of the last of two drives, and their K."""
    options = WorldOptions(**{"drives": 2, "frames": 3, "width": WIDTH, "height": HEIGHT, "halts": False} | options)
    drive = list_drives(options)[1]
    renderer = make_drive_renderer(options, drive)
    return [renderer.image(number, drive.intrinsics, HEIGHT, WIDTH) for number in numbers], drive.intrinsics


@pytest.fixture(scope="module")
def healthy():
    """A drive as it should be."""
    return render(range(FRAMES), frames=FRAMES)


def write_scene(root, name, images, intrinsics, lists=("train.txt",)):
    folder = (Path(root) / name).makedirs_p()
    for number, image in enumerate(images):
        write_jpeg(folder / f"{number:07d}.jpg", image)
    write_intrinsics(folder / "cam.txt", intrinsics)
    for file in lists:
        before = (Path(root) / file).read_text() if (Path(root) / file).exists() else ""
        write_text(Path(root) / file, before + f"{name}\n")


def causes(lines):
    return [line.split(":")[0] for line in lines]


def check(root, length=3, pairs=40, **options):
    return check_data(root, length, pairs, **options)


def test_a_healthy_drive_is_described_and_raises_no_alarm(healthy, tmp_path):
    write_scene(tmp_path, "drive", *healthy)
    write_scene(tmp_path, "other", *healthy)
    write_scene(tmp_path, "val", healthy[0][:8], healthy[1], ["val.txt"])
    result = check(tmp_path, pairs=30)
    assert (result.refusals, result.warnings) == ([], [])
    scene = result.scenes[0]
    assert (scene.frames, scene.lists, list(scene.sizes)) == (FRAMES, ["train.txt"], [(HEIGHT, WIDTH)])
    np.testing.assert_allclose(scene.intrinsics, healthy[1])
    assert 10 <= len(scene.pairs) < FRAMES - 1
    first = [
        np.abs(a.astype(float) - b).mean() / 127.5 for a, b in zip(*(healthy[0][k:] for k in (0, 1)), strict=False)
    ]
    assert scene.identity_error == pytest.approx(np.mean(first), rel=0.15)
    assert scene.static_share == 0
    assert scene.rotation_share == 0
    assert 1 < scene.pixels < 10
    assert "208 x 64" in scene.row()["size"]
    json.dumps(result.plain(), allow_nan=False)
    gap, parallax = result.tracks
    assert result.notes == [gap, parallax, str(result.focal)]
    assert "no 9 frames of a scene in which the view turns" in result.notes[2]
    assert gap.startswith("tracks: 2 pixels of motion are reached over a gap of 1 frame in the median (1 to ")
    assert parallax.startswith(f"tracks: parallax beyond a rotation in {len(scene.parallax.gaps) * 2 + 2} of ")
    plain = result.plain()
    assert plain["tracks"] == result.tracks
    assert plain["scenes"][0]["parallax"]["gap"] == 1
    assert plain["scenes"][0]["parallax"]["points"] > 50


def test_a_static_video_is_refused(healthy, tmp_path):
    random = np.random.default_rng(0)
    noisy = [(healthy[0][3] + random.normal(0, 2, (HEIGHT, WIDTH, 3))).clip(0, 255).astype(np.uint8) for _ in range(40)]
    write_scene(tmp_path, "tripod", noisy, healthy[1])
    result = check(tmp_path)
    assert causes(result.refusals) == ["static video"]
    assert "tripod: 100 % of its frames" in result.refusals[0]


def test_a_tripod_with_much_noise_or_with_passers_by_is_refused(healthy, tmp_path):
    """Whatever each of its scenes looks like: noise like a turn of nothing, a passer-by like motion."""
    random = np.random.default_rng(0)
    noisy = [(healthy[0][3] + random.normal(0, 5, (HEIGHT, WIDTH, 3))).clip(0, 255).astype(np.uint8) for _ in range(30)]
    write_scene(tmp_path, "noisy", noisy, healthy[1])
    result = check(tmp_path)
    assert causes(result.refusals) == ["static video"]
    pan = [np.roll(healthy[0][3], 2 * k, 1)[:, 60:-60] for k in range(15)]
    pan_k = healthy[1] - np.array([[0, 0, 60], [0, 0, 0], [0, 0, 0]])
    for name in ("a", "b"):
        write_scene(tmp_path, name, [image[:, 60:-60] for image in noisy[:15]], pan_k)
    write_scene(tmp_path, "c", pan, pan_k)
    write_text(tmp_path / "train.txt", "a\nb\nc\n")
    assert set(causes(check(tmp_path).refusals)) == {"static video", "rotation only"}


def test_motion_that_is_too_large_is_refused(tmp_path):
    write_scene(tmp_path, "fast", *render(range(0, 6 * FRAMES, 6), frames=6 * FRAMES))
    result = check(tmp_path)
    assert causes(result.refusals) == ["motion too large"]


def test_frames_of_another_order_move_too_much(healthy, tmp_path):
    order = np.random.default_rng(0).permutation(FRAMES)
    write_scene(tmp_path, "shuffled", [healthy[0][k] for k in order], healthy[1])
    assert "motion too large" in causes(check(tmp_path).refusals)


@pytest.mark.parametrize("moving_cars", [0.0, 1.0])
def test_nothing_but_rotation_is_refused(moving_cars, tmp_path):
    random = np.random.default_rng(0)
    angles = np.stack([np.cumsum(random.uniform(0.3, 2, FRAMES)), *random.normal(0, 0.3, (2, FRAMES))], 1)
    pan = Rotation.from_euler("yxz", angles, degrees=True).as_matrix()
    numbers = range(FRAMES) if moving_cars else [1] * FRAMES
    options = WorldOptions(drives=2, frames=FRAMES, width=WIDTH, height=HEIGHT, halts=False, moving_cars=moving_cars)
    drive = list_drives(options)[1]
    renderer = make_drive_renderer(options, drive)
    images = []
    for number, rotation in zip(numbers, pan, strict=True):
        pose = renderer.scene.world_from_camera[1].copy()
        pose[:3, :3] = pose[:3, :3] @ rotation
        images.append(renderer.image(number, drive.intrinsics, HEIGHT, WIDTH, pose))
    write_scene(tmp_path, "tripod", images, drive.intrinsics)
    result = check(tmp_path)
    assert causes(result.refusals) == ["rotation only"]
    (line,) = result.notes
    assert line.startswith("tracks: no parallax in ")
    assert f"x {ROTATION_ONLY}" in line


def test_a_bad_scene_among_good_ones_is_a_warning(healthy, tmp_path):
    for name in ("a", "b", "c", "d"):
        write_scene(tmp_path, name, *healthy)
    write_scene(tmp_path, "parked", [healthy[0][0]] * 30, healthy[1])
    result = check(tmp_path)
    assert result.refusals == []
    assert causes(result.warnings) == ["static video"]
    assert "parked" in result.warnings[0]


def test_a_few_frames_are_too_little_to_refuse_by(healthy, tmp_path):
    write_scene(tmp_path, "parked", [healthy[0][0]] * 6, healthy[1])
    result = check(tmp_path)
    assert result.refusals == []
    assert causes(result.warnings) == ["static video", "too few frames"]
    json.dumps(result.plain(), allow_nan=False)
    assert "4 snippets of 3" in result.warnings[1]


def test_no_snippet_at_all_is_refused(healthy, tmp_path):
    write_scene(tmp_path, "two", healthy[0][:2], healthy[1])
    result = check(tmp_path)
    assert causes(result.refusals) == ["too few frames"]
    assert causes(result.warnings) == ["too few frames"]


@pytest.mark.parametrize(
    ("intrinsics", "message"),
    [
        (np.diag([3, 3, 1]) @ K_OF_KITTI, "lies outside"),
        (np.diag([1 / 3, 1 / 3, 1]) @ K_OF_KITTI, "is that of an image of about 69 x 21"),
        (K_OF_KITTI * [[1, 1, 1], [1, 3, 1], [1, 1, 1]], "are far apart"),
        (K_OF_KITTI * [[7, 1, 1], [1, 7, 1], [1, 1, 1]], "field of view"),
    ],
)
def test_a_wrong_k_is_refused(healthy, tmp_path, intrinsics, message):
    write_scene(tmp_path, "drive", healthy[0], intrinsics)
    result = check(tmp_path, pairs=4)
    assert causes(result.refusals) == ["wrong K"]
    assert message in result.refusals[0]
    assert "drive" in result.refusals[0]


def test_one_focal_length_unlike_the_others_is_a_warning(healthy, tmp_path):
    for name in ("a", "b", "c"):
        write_scene(tmp_path, name, *healthy)
    write_scene(tmp_path, "other", healthy[0], healthy[1] * [[2, 1, 1], [1, 2, 1], [1, 1, 1]])
    result = check(tmp_path, pairs=16)
    assert result.refusals == []
    assert causes(result.warnings) == ["unusual K"]
    assert "other: focal length" in result.warnings[0]


def test_frames_of_different_sizes_are_refused(healthy, tmp_path):
    images, intrinsics = healthy
    write_scene(tmp_path, "mixed", [*images[:17], resize_area(images[17], 32, 104), *images[18:]], intrinsics)
    result = check(tmp_path, pairs=4)
    assert causes(result.refusals) == ["frames of different sizes"]
    assert "0000017.jpg 104 x 32" in result.refusals[0]
    assert check(tmp_path, pairs=4, all_headers=False).refusals == []  # is not seen in so small a sample
    write_text(tmp_path / "train.txt", "a\nb\n")
    half = np.diag([0.5, 0.5, 1]) @ intrinsics
    write_scene(tmp_path, "a", images, intrinsics, [])
    write_scene(tmp_path, "b", [resize_area(image, 32, 104) for image in images], half, [])
    result = check(tmp_path, pairs=8)
    assert causes(result.refusals) == ["frames of different sizes"]
    assert "b: 104 x 32 pixels, a has 208 x 64" in result.refusals[0]


def test_of_very_many_scenes_a_selection_is_compared(healthy, tmp_path, monkeypatch):
    """And what holds for all that are compared holds for the set: a refusal doesn't wait for the others."""
    monkeypatch.setattr(check_module, "_FEWEST_SCENES", 5)
    for number in range(12):
        write_scene(tmp_path, f"s{number:02d}", [healthy[0][0]] * 6, healthy[1])
    result = check(tmp_path, pairs=20, all_headers=False)
    assert [scene.name for scene in result.scenes if scene.pairs] == ["s00", "s03", "s06", "s08", "s11"]
    assert all(scene.sizes for scene in result.scenes)
    assert causes(result.refusals) == ["static video"]


def test_a_scene_in_both_lists_is_a_warning(healthy, tmp_path):
    write_scene(tmp_path, "drive", *healthy)
    write_scene(tmp_path, "both", *healthy, ["train.txt", "val.txt"])
    result = check(tmp_path, pairs=8)
    assert result.refusals == []
    assert causes(result.warnings) == ["in both lists"]


def test_damage_is_named_and_does_not_stop_the_check(healthy, tmp_path):
    write_scene(tmp_path, "drive", *healthy)
    write_scene(tmp_path, "other", *healthy)
    (tmp_path / "drive" / "0000004.jpg").write_bytes(b"")
    (tmp_path / "other" / "cam.txt").write_text("1 2\n")
    write_text(tmp_path / "train.txt", "drive\nother\nmissing\n")
    result = check(tmp_path)
    assert sorted(causes(result.refusals)) == ["damaged scene", "wrong K"]
    assert "missing: no such scene folder" in result.refusals[1]
    assert "line 1: got 2 numbers" in result.refusals[0]
    assert "0000004.jpg" in next(line for line in result.warnings if line.startswith("damaged"))


def test_a_frame_is_counted_once_and_separates_its_neighbours(healthy, tmp_path):
    """Neither its header nor its pixels can be read; each would say so."""
    whole = check_pairs(healthy, tmp_path / "whole", None)
    for kind in ("empty", "link"):
        found = check_pairs(healthy, tmp_path / kind, kind)
        assert found.scenes[0].frames == FRAMES
        assert len(found.scenes[0].pairs) == len(whole.scenes[0].pairs) - 2  # not one with both neighbours
        (line,) = (line for line in found.warnings if line.startswith("damaged"))
        assert "drive: 1 frames cannot be read, e.g. " in line
        assert "0000004.jpg" in line


def check_pairs(images, root, damage):
    write_scene(root, "drive", *images)
    frame = root / "drive" / "0000004.jpg"
    if damage == "empty":
        frame.write_bytes(b"")
    elif damage == "link":
        frame.unlink()
        frame.symlink_to("nowhere.jpg")
    return check(root, pairs=FRAMES)


def test_a_list_made_by_find_names_the_same_scenes(healthy, tmp_path):
    write_scene(tmp_path, "drive", *healthy)
    write_text(tmp_path / "train.txt", "./drive/\n")
    write_text(tmp_path / "val.txt", f"{tmp_path}/drive\n")
    result = check(tmp_path, pairs=8)
    assert [scene.name for scene in result.scenes] == ["drive"]
    assert causes(result.warnings) == ["in both lists", "too few frames"]


def twice(frames):
    """The frames of a scene as a converter stores them that doubles the frame rate."""
    return [frame for frame in frames for _ in range(2)]


@pytest.mark.parametrize("pairs", [4, 11, 22, 43, 60])
def test_frames_that_are_stored_twice_are_a_warning_and_no_standing_car(healthy, tmp_path, pairs):
    write_scene(tmp_path, "drive", twice(healthy[0]), healthy[1])
    result = check(tmp_path, pairs=pairs)
    assert result.refusals == []
    assert causes(result.warnings) == ["repeated frames"]
    assert f"drive: {FRAMES} of {2 * FRAMES} frames repeat the frame before them, e.g. " in result.warnings[0]
    assert "0000000.jpg and 0000001.jpg are equal in every pixel" in result.warnings[0]
    scene = result.scenes[0]
    assert scene.repeated == FRAMES
    assert scene.static_share == 0
    write_scene(tmp_path / "once", "drive", *healthy)
    once = check(tmp_path / "once", pairs=pairs).scenes[0]
    assert scene.pixels == pytest.approx(once.pixels, rel=0.3)
    assert scene.row()["repeated"] == str(FRAMES)
    assert scene.plain()["repeated_frames"] == FRAMES


def test_the_same_frames_as_jpeg_and_as_png_are_a_warning(healthy, tmp_path):
    write_scene(tmp_path, "drive", *healthy)
    for number, image in enumerate(healthy[0]):
        Image.fromarray(image).save(tmp_path / "drive" / f"{number:07d}.png")
    result = check(tmp_path, pairs=20)
    assert (result.refusals, causes(result.warnings)) == ([], ["repeated frames"])
    assert "0000000.jpg and 0000000.png have one name" in result.warnings[0]
    assert result.scenes[0].static_share == 0


def test_a_few_repeated_frames_are_counted_without_a_warning(healthy, tmp_path):
    images = [*healthy[0][:10], healthy[0][9], *healthy[0][10:], *healthy[0][::-1]]
    write_scene(tmp_path, "drive", images, healthy[1])
    result = check(tmp_path, pairs=20)
    assert (result.refusals, result.warnings) == ([], [])
    assert result.scenes[0].repeated == 2  # and where the drive turns round
    assert "0000009.jpg and 0000010.jpg" in result.scenes[0].plain()["repeated_example"]


def slow(metres, count):
    """Frames of a camera that moves straight ahead by so many metres a frame, and K."""
    options = WorldOptions(drives=2, frames=3, width=WIDTH, height=HEIGHT, halts=False)
    drive = list_drives(options)[1]
    renderer = make_drive_renderer(options, drive)
    images = []
    for number in range(count):
        pose = renderer.scene.world_from_camera[1].copy()
        pose[:3, 3] += number * metres * pose[:3, 2]
        images.append(renderer.image(1, drive.intrinsics, HEIGHT, WIDTH, pose))
    return images, drive.intrinsics


def test_little_motion_names_the_gap_that_gives_enough(tmp_path):
    write_scene(tmp_path, "slow", *slow(0.1, 40))
    result = check(tmp_path)
    assert (result.refusals, causes(result.warnings)) == ([], ["little motion"])
    scene = result.scenes[0]
    assert 0.25 < scene.pixels < 1
    assert scene.frame_gap.gap == np.ceil(2 / scene.pixels)
    assert len(scene.frame_gap.pairs) == 8
    assert scene.frame_gap.pixels == pytest.approx(2, rel=0.3)
    assert (
        f"slow: neighbouring frames move by {scene.pixels:.1f} pixels; every {scene.frame_gap.gap}th frame would move "
        f"by {scene.frame_gap.pixels:.1f} (measured on 8 pairs)"
    ) in result.warnings[0]
    json.dumps(result.plain(), allow_nan=False)


def test_every_so_many_frames_the_motion_is_enough(tmp_path):
    images, intrinsics = slow(0.1, 60)
    write_scene(tmp_path / "all", "slow", images, intrinsics)
    gap = check(tmp_path / "all").scenes[0].frame_gap.gap
    write_scene(tmp_path / "some", "slow", images[::gap], intrinsics)
    assert "little motion" not in causes(check(tmp_path / "some").warnings)


def test_little_motion_of_short_scenes_is_extrapolated(tmp_path):
    images, intrinsics = slow(0.1, 5)
    for name in ("a", "b", "c", "d", "e", "f", "g", "h"):
        write_scene(tmp_path, name, images[:4], intrinsics)
    result = check(tmp_path)
    (line,) = (line for line in result.warnings if line.startswith("little motion"))
    assert "(extrapolated)" in line
    scene = result.scenes[0]
    assert scene.frame_gap.pixels == pytest.approx(scene.frame_gap.gap * scene.pixels)


def test_motion_too_small_to_be_seen_that_adds_up_is_no_standing_camera(tmp_path):
    write_scene(tmp_path, "slow", *slow(0.05, 40))
    result = check(tmp_path)
    assert result.scenes[0].static_share > 0.9
    assert (result.refusals, causes(result.warnings)) == ([], ["little motion"])
    assert "slow: neighbouring frames show no motion; every 16th frame would move by " in result.warnings[0]


def test_a_scene_that_is_named_twice_is_a_warning(healthy, tmp_path):
    write_scene(tmp_path, "drive", *healthy)
    write_scene(tmp_path, "other", *healthy)
    write_text(tmp_path / "train.txt", "drive\nother\ndrive\n")
    result = check(tmp_path, pairs=8)
    assert (result.refusals, causes(result.warnings)) == ([], ["named twice"])
    assert "drive: named 2 times in train.txt" in result.warnings[0]
    assert result.scenes[0].lists == ["train.txt"]


def write_breaks(scene, frames, late):
    """Records that these frames come late: before each of them the scene has a break."""
    record = {"source": {}, "frames": frames, "static": [], "problems": {}, "time_gaps": dict.fromkeys(late, 0.5)}
    (Path(scene) / "prepared.json").write_text(json.dumps(record))


def test_pairs_and_snippets_never_cross_a_break(healthy, tmp_path):
    """Two recordings in one folder: the jump from one to the other is no motion of the camera."""
    images, intrinsics = healthy
    write_scene(tmp_path, "drive", [*images[:4], *(image[:, ::-1] for image in images[4:8])], intrinsics)
    across = check(tmp_path).scenes[0]
    assert (len(across.pairs), across.snippets) == (7, 6)
    write_breaks(tmp_path / "drive", 8, ["4"])
    apart = check(tmp_path).scenes[0]
    assert (len(apart.pairs), apart.snippets, apart.plain()["snippets"]) == (6, 4, 4)
    assert max(pair.identity_error for pair in apart.pairs) < max(pair.identity_error for pair in across.pairs)


def test_a_scene_whose_frames_are_all_apart_has_no_snippet(healthy, tmp_path):
    write_scene(tmp_path, "drive", healthy[0][:6], healthy[1])
    write_breaks(tmp_path / "drive", 6, ["2", "4"])
    result = check(tmp_path)
    assert causes(result.warnings) == ["too few frames"]
    assert "6 frames between 2 breaks, at most 2 of them neighbours, a snippet has 3" in result.warnings[0]
    assert "which give 0 snippets of 3" in result.refusals[0]
    with pytest.raises(InputError, match="no snippet of 3 frames"):  # training sees the same
        SnippetDataset(Path(tmp_path), "train.txt", 3)


def test_larger_gaps_never_cross_a_break(tmp_path):
    write_scene(tmp_path, "slow", *slow(0.1, 40))
    whole = check(tmp_path).scenes[0].frame_gap
    assert len(whole.pairs) > 0
    write_breaks(tmp_path / "slow", 40, [str(k) for k in range(2, 40, 2)])
    apart = check(tmp_path).scenes[0].frame_gap
    assert apart is None or apart.pairs == []


def test_a_normalised_k_is_refused_as_such(healthy, tmp_path):
    images, intrinsics = healthy
    write_scene(tmp_path, "drive", images, np.diag([1 / WIDTH, 1 / HEIGHT, 1]) @ intrinsics)
    result = check(tmp_path, pairs=4)
    assert causes(result.refusals) == ["wrong K"]
    assert (
        "K looks normalised; multiply its first row by the width 208 and its second row by the height 64"
        in (result.refusals[0])
    )


def test_black_frames_have_no_texture_or_stand_still(tmp_path):
    random = np.random.default_rng(0)
    images = [np.full((HEIGHT, WIDTH, 3), 40, np.uint8) for _ in range(30)]
    write_scene(tmp_path, "black", images, K_OF_KITTI)
    assert causes(check(tmp_path).refusals) == ["static video"]
    for image in images:
        image[random.integers(HEIGHT), random.integers(WIDTH)] = 255
    write_scene(tmp_path, "black", images, K_OF_KITTI, [])
    assert check(tmp_path).refusals + check(tmp_path).warnings


@pytest.mark.parametrize(
    "options", [{"moving_cars": 1.0}, {"exposure_changes": True}, {"vary_focal": True}, {"jitter": 1.0}], ids=str
)
def test_no_false_alarm_on_the_worlds_options(options, tmp_path):
    images, intrinsics = render(range(12), frames=40, **options)
    write_scene(tmp_path, "drive", images, intrinsics)
    for name in ("b", "c"):
        write_scene(tmp_path, name, images, intrinsics)
    result = check(tmp_path, pairs=12)
    assert (result.refusals, result.warnings) == ([], [])


def test_no_false_alarm_on_real_frames(shared, tmp_path):
    """The first frames of the three real recordings, which drive through a town, straight on, and towards a jam."""
    k = np.array([[718.9, 0, 607.2], [0, 718.9, 185.2], [0, 0, 1]])
    folders = [shared / f"kitti_odometry/sequences/{name}/image_0" for name in ("00", "06")]
    folders.append(shared / "kitti_raw/2011_09_26/2011_09_26_drive_0000_sync/image_02/data")
    for number, folder in enumerate(folders):
        files = sorted(folder.files("*.png"))[:12]
        images = [read_image(file) for file in files]
        scale = np.array([416 / images[0].shape[1], 128 / images[0].shape[0]])
        scaled = np.diag([*scale, 1]) @ k
        scaled[:2, 2] += 0.5 * scale - 0.5
        write_scene(tmp_path, f"scene{number}", [resize_area(image, 128, 416) for image in images], scaled)
    result = check(tmp_path, pairs=12)
    assert (result.refusals, result.warnings) == ([], [])
    assert [scene.rotation_share for scene in result.scenes] == [0, 0, 0]


def test_what_is_no_data_set_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        check(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"train\.txt: no such file"):
        check(tmp_path)
    write_text(tmp_path / "train.txt", "../elsewhere\n")
    with pytest.raises(InputError, match=r"line 1: '\.\./elsewhere' leads out of its folder"):
        check(tmp_path)


@pytest.mark.parametrize(("slow", "warned"), [(1, False), (4, False), (5, True)])
def test_little_motion_in_a_few_scenes_is_a_remark(slow, warned):
    """Healthy trainings have some slow drives."""
    pair = PairMotion(static=False, identity_error=0.1, pixels=0.9, followed=0.9, rotation_only=False)
    scenes = [SceneCheck(f"{number}", ["train.txt"], 30, 28, pairs=[pair]) for number in range(10)]
    for scene in scenes[:slow]:
        scene.warned["little motion"] = "neighbouring frames move by 0.9 pixels"
    result = check_module._sum_up(Path("data"), scenes, 3)
    assert any(warning.startswith("little motion: ") for warning in result.warnings) == warned
    assert "little motion" in result.scenes[0].row()["remarks"]
