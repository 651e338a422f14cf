import json
import os

import numpy as np
import pytest
import torch
from path import Path

from datasets.layout import write_depth, write_intrinsics, write_poses
from datasets.snippets import SnippetDataset
from files.atomic import write_text
from files.errors import InputError
from files.images import write_jpeg

HEIGHT, WIDTH = 32, 48
K = np.array([[30.0, 0, 23.5], [0, 30, 15.5], [0, 0, 1]])
SCENES = {"a": 5, "short": 2, "b": 4}  # frames


def scene_number(name: str) -> int:
    return 100 * list(SCENES).index(name)


@pytest.fixture
def root(tmp_path):
    """Scenes whose frames are of one colour, which says scene and frame; `a` has poses and some depth."""
    root = Path(tmp_path) / "prepared"
    for name, count in SCENES.items():
        (root / name).makedirs()
        write_intrinsics(root / name / "cam.txt", K)
        for k in range(count):
            write_jpeg(root / name / f"{k:07d}.jpg", np.full((HEIGHT, WIDTH, 3), scene_number(name) + 10 * k, np.uint8))
    write_text(root / "train.txt", "".join(f"{name}\n" for name in SCENES))
    poses = np.tile(np.eye(3, 4), (5, 1, 1))
    poses[:, 2, 3] = range(5)
    write_poses(root / "a" / "poses.txt", poses)
    write_depth(root / "a" / "0000001.npy", np.full((HEIGHT, WIDTH), 7, np.float32))
    return root


def colours(item) -> list[int]:
    return item["frames"].float().mean((1, 2, 3)).round().int().tolist()


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-60])


def test_snippets_are_runs_of_neighbours_within_a_scene(root):
    dataset = SnippetDataset(root, "train.txt", 3)
    assert [colours(dataset[k]) for k in range(len(dataset))] == [
        [0, 10, 20],
        [10, 20, 30],
        [20, 30, 40],
        [200, 210, 220],
        [210, 220, 230],
    ]
    item = dataset[3]
    assert (item["frames"].dtype, item["frames"].shape) == (torch.uint8, (3, 3, HEIGHT, WIDTH))
    assert item["intrinsics"].equal(torch.from_numpy(K).float())
    assert (item["index"], item["damaged"]) == (3, [])
    assert dataset.target_file(3) == root / "b" / "0000001.jpg"
    assert (dataset.height, dataset.width) == (HEIGHT, WIDTH)
    assert len(SnippetDataset(root, "train.txt", 5)) == 1


def test_ground_truth_where_there_is_any(root):
    dataset = SnippetDataset(root, "train.txt", 3, ground_truth=True)
    assert dataset[0]["depth"].unique().tolist() == [7]
    assert dataset[0]["poses"][:, 2, 3].tolist() == [0, 1, 2]
    assert dataset[1]["poses"][:, 2, 3].tolist() == [1, 2, 3]
    assert not dataset[1]["depth"].any()
    assert dataset[3]["poses"].isnan().all()
    assert (dataset[0]["depth"].dtype, dataset[0]["poses"].dtype) == (torch.float32, torch.float64)


@pytest.mark.parametrize("broken", ["truncated", "of another size"])
def test_damaged_depth_counts_as_unknown_and_is_named(root, broken):
    file = root / "a" / "0000001.npy"
    if broken == "truncated":
        damage(file)
    else:
        write_depth(file, np.ones((HEIGHT, WIDTH + 1), np.float32))
    item = SnippetDataset(root, "train.txt", 3, ground_truth=True)[0]
    assert not item["depth"].any()
    assert colours(item) == [0, 10, 20]
    assert len(item["damaged"]) == 1
    assert "0000001.npy" in item["damaged"][0]


def test_a_snippet_with_a_damaged_image_is_replaced_by_the_next_whole_one(root):
    damage(root / "a" / "0000002.jpg")
    dataset = SnippetDataset(root, "train.txt", 3)
    item = dataset[0]
    assert colours(item) == [200, 210, 220]
    assert item["index"] == 3
    assert len(item["damaged"]) == 3
    assert set(item["damaged"]) == {item["damaged"][0]}  # one file, one line
    assert "0000002.jpg: truncated" in item["damaged"][0]
    for file in (root / "b").files("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(InputError, match="not one snippet has all its images whole, e"):
        dataset[4]


def test_names_without_padding_give_the_same_snippets(root):
    expected = [colours(item) for item in (SnippetDataset(root, "train.txt", 3, True)[k] for k in range(5))]
    for name in SCENES:
        for file in (root / name).files("*.jpg") + (root / name).files("*.npy"):
            file.move(file.parent / f"frame{int(file.stem) + 8}{file.suffix}")  # frame8, frame9, frame10, ...
    dataset = SnippetDataset(root, "train.txt", 3, ground_truth=True)
    assert [colours(dataset[k]) for k in range(5)] == expected
    assert dataset[0]["depth"].unique().tolist() == [7]
    assert dataset[1]["poses"][:, 2, 3].tolist() == [1, 2, 3]


def test_no_snippet_crosses_a_frame_that_preparation_left_out(root):
    (root / "a" / "0000003.jpg").remove()
    write_poses(root / "a" / "poses.txt", np.tile(np.eye(3, 4), (4, 1, 1)))
    record = {"source": {}, "frames": 4, "static": [], "problems": {"3": "truncated"}}
    (root / "a" / "prepared.json").write_text(json.dumps(record))
    dataset = SnippetDataset(root, "train.txt", 3, ground_truth=True)
    assert [colours(dataset[k]) for k in range(len(dataset))] == [[0, 10, 20], [200, 210, 220], [210, 220, 230]]
    assert [scene.name for scene in dataset.scenes] == list(SCENES)
    assert dataset.target_file(1) == root / "b" / "0000001.jpg"
    (root / "a" / "prepared.json").write_text(json.dumps(record | {"problems": {}, "static": [3]}))
    assert colours(SnippetDataset(root, "train.txt", 3)[1]) == [10, 20, 40]  # there the camera stood


def test_a_scene_that_is_named_twice_trains_once(root):
    once = SnippetDataset(root, "train.txt", 3)
    write_text(root / "train.txt", "".join(f"{name}\n./{name}\n{root / name}\n" for name in SCENES))
    dataset = SnippetDataset(root, "train.txt", 3)
    assert [scene.name for scene in dataset.scenes] == list(SCENES)
    assert [colours(dataset[k]) for k in range(len(dataset))] == [colours(once[k]) for k in range(len(once))]


def test_no_snippet_crosses_a_gap_in_time(root):
    record = {"source": {}, "frames": 5, "static": [], "problems": {}, "time_gaps": {"3": 0.7}}
    (root / "a" / "prepared.json").write_text(json.dumps(record))
    dataset = SnippetDataset(root, "train.txt", 3)
    assert [colours(dataset[k]) for k in range(len(dataset))] == [[0, 10, 20], [200, 210, 220], [210, 220, 230]]


@pytest.mark.parametrize("kind", ["a dangling link", "a folder"])
def test_a_frame_that_cannot_be_opened_is_damaged_and_its_neighbours_stay_apart(root, kind):
    file = root / "a" / "0000002.jpg"
    file.remove()
    if kind == "a folder":
        file.makedirs()
    else:
        os.symlink("nowhere.jpg", file)
    dataset = SnippetDataset(root, "train.txt", 3, ground_truth=True)
    assert len(dataset) == 5
    items = [dataset[k] for k in range(5)]
    assert all(colours(item) in ([200, 210, 220], [210, 220, 230]) for item in items)  # never 10 beside 30
    assert {line for item in items for line in item["damaged"]} == {f"{file}: no such file"}


def test_a_depth_map_that_cannot_be_opened_is_named(root):
    (root / "a" / "0000001.npy").remove()
    os.symlink("nowhere.npy", root / "a" / "0000001.npy")
    item = SnippetDataset(root, "train.txt", 3, ground_truth=True)[0]
    assert item["damaged"] == [f"{root / 'a' / '0000001.npy'}: no such file"]


def spoil(root: Path, how: str) -> None:
    cam = root / "b" / "cam.txt"
    if how == "no folder":
        root.rename(f"{root}_moved")
    elif how == "no list":
        (root / "train.txt").remove()
    elif how == "empty list":
        write_text(root / "train.txt", "\n")
    elif how == "unknown scene":
        write_text(root / "train.txt", "a\nelsewhere\n")
    elif how == "a scene outside":
        write_text(root / "train.txt", "../prepared/a\n")
    elif how == "another size":
        write_jpeg(root / "b" / "0000002.jpg", np.zeros((HEIGHT, WIDTH + 2, 3), np.uint8))
    elif how == "centre outside":
        write_intrinsics(cam, K + np.array([[0, 0, 600], [0, 0, 0], [0, 0, 0]]))
    elif how == "not 3 x 3":
        write_text(cam, "1 0 0\n")
    elif how == "focal 0":
        write_intrinsics(cam, K * np.array([[0], [1], [1]]))
    elif how == "no image whole":
        for file in root.walkfiles("*.jpg"):
            file.write_bytes(b"GIF89a")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no folder", "prepared: no such folder, expected a prepared data set"),
        ("no list", "train.txt: no such file"),
        ("empty list", "train.txt: the list is empty"),
        ("unknown scene", "elsewhere: no such scene folder"),
        ("a scene outside", r"train.txt, line 1: '../prepared/a' leads out of its folder"),
        ("another size", r"0000002.jpg: 50 x 32 pixels, but .*0000000.jpg has 48 x 32; expected one size"),
        ("centre outside", r"b/cam.txt: centre \(623.5, 15.5\) lies outside the 48 x 32 image"),
        ("not 3 x 3", "b/cam.txt: 1 lines of 3 numbers, expected K as 3 x 3"),
        ("focal 0", "b/cam.txt: focal lengths 0 and 30"),
        ("no image whole", "train.txt: not one of the frames of its scenes can be read"),
    ],
)
def test_a_data_set_that_cannot_be_used_is_refused_in_one_line(root, how, message):
    spoil(root, how)
    with pytest.raises(InputError, match=message) as caught:
        SnippetDataset(root, "train.txt", 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [7, 101])
def test_a_snippet_longer_than_every_scene_is_refused(root, length):
    with pytest.raises(InputError, match=f"no snippet of {length} frames: the longest of 3 scenes, a, has 5"):
        SnippetDataset(root, "train.txt", length)


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_snippet_without_a_middle_is_refused(root, length):
    with pytest.raises(InputError, match=f"{length} frames, expected an odd number from 3 on"):
        SnippetDataset(root, "train.txt", length)


def test_damage_does_not_hide_the_size(root):
    (root / "a" / "0000000.jpg").write_bytes(b"")
    dataset = SnippetDataset(root, "train.txt", 3)
    assert (dataset.height, dataset.width) == (HEIGHT, WIDTH)


def test_the_size_is_checked_when_an_image_is_read_too(root):
    dataset = SnippetDataset(root, "train.txt", 3)
    write_jpeg(root / "a" / "0000001.jpg", np.zeros((HEIGHT + 1, WIDTH, 3), np.uint8))
    with pytest.raises(InputError, match=r"0000001.jpg: 48 x 33 pixels, expected 48 x 32"):
        dataset[0]


def test_scenes_with_the_same_k_have_one_camera(root):
    other = K * np.array([[1.1], [1], [1]])
    write_intrinsics(root / "b" / "cam.txt", other)
    dataset = SnippetDataset(root, "train.txt", 3)
    assert [dataset[k]["camera"] for k in range(len(dataset))] == [0, 0, 0, 1, 1]
    assert [camera.tolist() for camera in dataset.cameras] == [K.tolist(), other.tolist()]
    assert [dataset.scenes_of(number) for number in range(2)] == [["a", "short"], ["b"]]


def test_cameras_of_another_list_have_the_same_numbers(root):
    other, third = K * np.array([[1.1], [1], [1]]), K * np.array([[1.2], [1], [1]])
    write_intrinsics(root / "b" / "cam.txt", other)
    (root / "c").makedirs()
    for k in range(3):
        write_jpeg(root / "c" / f"{k:07d}.jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    write_intrinsics(root / "c" / "cam.txt", third)
    write_text(root / "val.txt", "b\nc\n")
    training, validation = SnippetDataset(root, "train.txt", 3), SnippetDataset(root, "val.txt", 3)
    assert [validation[k]["camera"] for k in range(3)] == [0, 0, 1]
    validation.number_cameras_like(training)
    assert [validation[k]["camera"] for k in range(3)] == [1, 1, -1]


def test_a_field_of_view_replaces_k_and_leaves_the_cameras_apart(root):
    write_intrinsics(root / "b" / "cam.txt", K * np.array([[1.1], [1], [1]]))
    dataset = SnippetDataset(root, "train.txt", 3, fov=90)
    guess = [[24, 0, 23.5], [0, 24, 15.5], [0, 0, 1]]  # f = W / 2
    for k in range(len(dataset)):
        np.testing.assert_allclose(dataset[k]["intrinsics"], guess)
    assert dataset[0]["camera"] != dataset[4]["camera"]
    np.testing.assert_allclose(np.stack(dataset.cameras), [guess, guess])
