"""Which drives follow from the options of a world, and which options are refused."""

import dataclasses
import json
import os

import pytest
from path import Path

from datasets.synthetic import WorldOptions, list_drives, read_options, write_world
from files.errors import InputError


def test_the_focal_length_can_differ_between_drives(options):
    drives = list_drives(dataclasses.replace(options, drives=5, vary_focal=True))
    focal = [drive.intrinsics[0, 0] for drive in drives]
    assert len(set(focal)) == len({drive.date for drive in drives}) == 5
    assert 0.8 * 0.581 * 208 <= min(focal) < max(focal) <= 1.25 * 0.581 * 208
    assert len({drive.intrinsics[0, 0] for drive in list_drives(options)}) == 1


def test_a_large_world_has_all_splits_and_22_sequences():
    drives = list_drives(WorldOptions(drives=100))
    assert sum(drive.split == "test" for drive in drives) == 20
    assert sum(drive.split == "val" for drive in drives) == 10
    sequences = [drive.sequence for drive in drives if drive.sequence]
    assert sequences == [f"{k:02d}" for k in range(22)]
    assert all(int(drive.sequence) >= 9 for drive in drives if drive.split == "test" and drive.sequence)
    assert len({drive.name for drive in drives}) == 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drives": 0}, "drives: got 0"),
        ({"drives": -3}, "drives: got -3"),
        ({"frames": 2}, "frames: got 2"),
        ({"width": 16}, "width: got 16"),
        ({"height": 5000}, "height: got 5000"),
        ({"moving_cars": 1.5}, "share of 1.5"),
        ({"moving_cars": float("nan")}, "share of nan"),
        ({"moving_cars": 0.1}, "less than one drive"),
        ({"scan_every": 0}, "scan every: got 0"),
        ({"jitter": -1.0}, "jitter: got -1"),
        ({"seed": -1}, "seed: got -1"),
        ({"drives": 2.0}, "drives: got float, expected int"),
        ({"stereo": 1}, "stereo: got int, expected bool"),
        ({"jitter": [0.25]}, "jitter: got list, expected float"),
    ],
)
def test_options_that_no_world_can_be_made_of(change, message, tmp_path, tiny_options):
    with pytest.raises(InputError, match=message):
        write_world(tmp_path / "world", dataclasses.replace(tiny_options, **change))
    assert not os.listdir(tmp_path)


def test_stored_options_are_those_it_was_made_with(tiny, tiny_options):
    assert WorldOptions(**json.loads((tiny / "world.json").read_text())) == tiny_options
    assert read_options(tiny / "world.json") == tiny_options


def test_options_that_a_file_lacks_have_their_default(tmp_path):
    file = Path(tmp_path / "world.json")
    file.write_text(json.dumps({"drives": 3, "another_version_has": 1}))
    assert read_options(file) == WorldOptions(drives=3)


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{", "\x00", "[" * 100_000, '{"seed": 1.5}', '{"drives": null}', '{"frames": {}}', '{"width": 1}'),
        *('{"jitter": NaN}', '{"jitter": 1e999}', f'{{"jitter": 1{"0" * 400}}}', f'{{"seed": 1{"0" * 5000}}}'),
    ],
    ids=lambda content: content[:20],
)
def test_a_file_that_holds_no_options_is_refused(content, tmp_path):
    file = Path(tmp_path / "world.json")
    file.write_text(content)
    with pytest.raises(InputError, match="does not hold the options of a world") as error:
        read_options(file)
    assert str(error.value).count("world.json") == 1
