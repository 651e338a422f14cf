import numpy as np
import pytest
from path import Path

from evaluation.speed_scale import drive_images, snippet_frames, speed_scales, true_distances
from files.errors import InputError

DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"


def name_of(frame):
    return f"{DRIVE}/image_02/data/{frame:010d}.png"


@pytest.fixture
def root(tmp_path):
    """Frames 0 to 6 without 5, 0.1 s apart, at 10, 12, 14, ... m/s forward with 0.75 of that to the left."""
    root = Path(tmp_path)
    (root / DRIVE / "image_02/data").makedirs_p()
    (root / DRIVE / "oxts/data").makedirs_p()
    for frame in (0, 1, 2, 3, 4, 6):
        (root / name_of(frame)).touch()
    for frame in range(7):
        packet = np.zeros(30)
        packet[8:10] = (10 + 2 * frame) * np.array([0.8, 0.6])
        (root / DRIVE / "oxts/data" / f"{frame:010d}.txt").write_text(" ".join(map(repr, packet.tolist())) + "\n")
    stamps = "".join(f"2011-09-26 13:00:0{0.1 * frame:.9f}\n" for frame in range(7))
    (root / DRIVE / "oxts/timestamps.txt").write_text(stamps)
    return root


def test_the_snippet_lies_around_the_image_as_far_as_the_drive_allows(root):
    assert snippet_frames(root, name_of(2), 3) == [1, 2, 3]
    assert snippet_frames(root, name_of(0), 3) == [0, 1, 2]
    assert snippet_frames(root, name_of(4), 3) == [2, 3, 4]  # frame 5 is missing
    assert snippet_frames(root, name_of(3), 5) == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="frame 6 has no 2 neighbours"):
        snippet_frames(root, name_of(6), 3)


def test_neighbours_are_found_by_number(root):
    folder = (root / name_of(0)).parent
    for file in folder.files():
        file.move(folder / f"{int(file.stem) + 6}.jpg")  # 6.jpg .. 10.jpg, 12.jpg
    (folder / "._9.jpg").touch()
    drive_images.cache_clear()
    name = f"{DRIVE}/image_02/data/9.jpg"
    assert snippet_frames(root, name, 3) == [8, 9, 10]
    assert [drive_images(folder)[frame].name for frame in (8, 9, 10)] == ["8.jpg", "9.jpg", "10.jpg"]
    with pytest.raises(InputError, match="frame 12 has no 2 neighbours"):
        snippet_frames(root, f"{DRIVE}/image_02/data/12.jpg", 3)
    with pytest.raises(InputError, match="cover: no frame number"):
        snippet_frames(root, f"{DRIVE}/image_02/data/cover.jpg", 3)


def test_true_distances_by_hand(root):
    # Speeds 12, 14, 16 m/s: 0.1 (12 + 14) / 2 = 1.3 m before, 1.5 m after the middle frame; 2.8 m in 0.2 s.
    distances, speed = true_distances(root, name_of(2), [1, 2, 3])
    np.testing.assert_allclose(distances, [1.3, 1.5])
    assert speed == pytest.approx(14)
    np.testing.assert_allclose(true_distances(root, name_of(2), [0, 1, 2, 3, 4])[0], [2.4, 1.3, 1.5, 3.2])
    # The camera's time, where there is one.
    stamps = "".join(f"2011-09-26 13:00:0{0.2 * frame:.9f}\n" for frame in range(7))
    (root / DRIVE / "image_02/timestamps.txt").write_text(stamps)
    np.testing.assert_allclose(true_distances(root, name_of(2), [1, 2, 3])[0], [2.6, 3.0])


def test_a_blank_line_moves_no_time_and_stops_only_the_frame_that_has_none(root):
    stamps = [f"2011-09-26 13:00:{frame**2:02d}\n" for frame in range(7)]  # uneven, so that a shift shows
    file = root / DRIVE / "oxts/timestamps.txt"
    file.write_text("".join(stamps))
    expected = true_distances(root, name_of(3), [2, 3, 4])
    stamps[1] = "\n"
    file.write_text("".join(stamps))
    distances, speed = true_distances(root, name_of(3), [2, 3, 4])
    np.testing.assert_array_equal(distances, expected[0])
    assert speed == expected[1]
    with pytest.raises(InputError, match="7 time stamps, none for frame 1"):
        true_distances(root, name_of(0), [0, 1, 2])


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("oxts/data/0000000002.txt", None, "0000000002.txt: no such file"),
        ("oxts/data/0000000002.txt", "1 2 3\n", "line 1: got 3 numbers, expected 30"),
        ("oxts/timestamps.txt", None, "timestamps.txt: no such file"),
        ("oxts/timestamps.txt", "2011-09-26 13:00:00\n" * 3, "3 time stamps, none for frame 3"),
        ("oxts/timestamps.txt", "2011-09-26 13:00:00\n" * 9, "do not rise"),
        ("oxts/timestamps.txt", "yesterday\n", "line 1: 'yesterday' is no time stamp"),
    ],
)
def test_what_is_missing_or_damaged_is_named(root, file, text, expected):
    (root / DRIVE / file).unlink()
    if text is not None:
        (root / DRIVE / file).write_text(text)
    with pytest.raises(InputError, match=expected):
        true_distances(root, name_of(2), [1, 2, 3])


def test_scales_by_hand():
    true = [(np.array([1.0, 1.0]), 10.0), (np.array([2.0, 4.0]), 30.0), (np.array([0.01, 0.01]), 0.1)]
    scales = speed_scales(["a", "b", "c"], true, np.array([[0.1, 0.3], [1.0, 1.0], [0.5, 0.5]]))
    assert [(one.scale, one.measured) for one in scales] == [(5, True), (3, True), (4, False)]
    with pytest.raises(InputError, match=r"prediction 1 \(b\)"):
        speed_scales(["a", "b", "c"], true, np.array([[0.1, 0.3], [1.0, np.inf], [0.5, 0.5]]))
    with pytest.raises(InputError, match="none of the 1 images"):
        speed_scales(["c"], true[2:], np.ones((1, 2)))


def test_twice_the_unit_is_half_the_scale():
    true = [(np.array([1.0, 1.2]), 10.0), (np.array([2.0, 1.9]), 19.0)]
    predicted = np.random.default_rng(0).uniform(0.1, 1, (2, 2))
    one, two = (speed_scales(["a", "b"], true, factor * predicted) for factor in (1, 2))
    assert [scale.scale for scale in two] == pytest.approx([scale.scale / 2 for scale in one])


def test_an_image_that_is_not_of_kitti_raw_gets_the_reason(root):
    for find in (lambda: snippet_frames(root, "scene/0000003.jpg", 3), lambda: true_distances(root, "x.jpg", [0, 1])):
        with pytest.raises(InputError, match="not the name of a KITTI raw image") as error:
            find()
        assert "the scale from the speed needs the OXTS packets" in str(error.value)
        assert "--ground-truth npy" not in str(error.value)
