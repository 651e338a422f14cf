import json
from dataclasses import asdict

import pytest
from path import Path

from datasets.synthetic import WorldOptions, list_drives
from evaluation.leakage import KITTI_SEQUENCES, check_overlap, find_overlap, merge_scenes, trained_scenes
from files.errors import InputError

RAW_09, RAW_10, RAW_08 = (
    "2011_09_30_drive_0033_sync_02",
    "2011_09_30_drive_0034_sync_03",
    "2011_09_30_drive_0028_sync_02",
)


def image(drive, frame):
    return f"{drive[:10]}/{drive}_sync/image_02/data/{frame:010d}.png"


@pytest.mark.parametrize(
    ("trained", "tested", "expected"),
    [
        (["2011_09_26_drive_0001_sync_02"], "2011_09_26_drive_0001", True),
        (["2011_09_26_drive_0001_sync_02"], image("2011_09_26_drive_0001", 5), True),
        (["2011_09_26_drive_0001_extract_03"], image("2011_09_26_drive_0001", 5), True),
        (["2011_09_26_drive_0001"], "2011_09_26_drive_0001_sync_03/0000005.jpg", True),
        (["2011_09_26_drive_0001_sync_02"], image("2011_09_26_drive_0002", 5), False),
        (["2011_09_26_drive_0001_sync_02"], image("2011_09_28_drive_0001", 5), False),
        (["09_2"], "09", True),
        (["09_3"], "sequences/09/image_2/000000.png", True),
        (["00_2", "01_2"], "09", False),
        ([RAW_09], "09", True),
        ([RAW_09], "10", False),
        ([RAW_10], "10_0", True),
        (["05_2"], image("2011_09_30_drive_0018", 0), True),
        (["05_2"], image("2011_09_30_drive_0020", 0), False),
        # Sequence 08 begins at frame 1100 of its drive; a drive that was trained on was trained on as a whole.
        ([RAW_08], "08", True),
        (["08_2"], image("2011_09_30_drive_0028", 1099), False),
        (["08_2"], image("2011_09_30_drive_0028", 1100), True),
        (["08_2", RAW_08], image("2011_09_30_drive_0028", 1099), True),
        (["08_2"], "2011_09_30_drive_0028", True),
        (["08_2"], "08_2/0000005.jpg", True),
        # Neither a drive nor a sequence: a folder's name.
        (["motorway"], "motorway/0000005.jpg", True),
        (["motorway"], "town/0000005.jpg", False),
        (["motorway"], "14", False),
    ],
)
def test_recordings_are_found_under_all_their_names(trained, tested, expected):
    assert bool(find_overlap(trained, [tested])) == expected


def test_the_eigen_split_and_odometry_overlap_as_is_known():
    splits = Path(__file__).absolute().parent.parent.parent / "data/splits"
    test_scenes = {name.split("/")[-1] for name in (splits / "eigen_test_scenes.txt").read_text().split()}
    in_test = [name for name in KITTI_SEQUENCES if find_overlap(test_scenes, [name])]
    assert in_test == ["00", "04", "05", "07"]
    files = (splits / "eigen_test_files.txt").read_text().split()
    found = find_overlap([f"{number:02d}_2" for number in range(9)], files)
    assert [phrase.split(", ")[0] for phrase in found] == [
        "2011_09_30_drive_0016",
        "2011_09_30_drive_0018",
        "2011_09_30_drive_0027",
        "2011_10_03_drive_0027",
    ]
    assert not find_overlap(["09_2", "10_2"], files)


def test_an_overlap_is_an_error_that_names_it_unless_allowed(tmp_path):
    arguments = (Path("run/last.pt"), [RAW_10, RAW_09, "2011_09_26_drive_0001_sync_02"], ["09", "10"], Path(tmp_path))
    with pytest.raises(InputError) as error:
        check_overlap(*arguments, allow=False)
    message = str(error.value)
    assert message.startswith(
        "run/last.pt: was trained on what is to be tested: sequence 09 is 2011_09_30_drive_0033, "
    )
    assert f"trained on as {RAW_09}; sequence 10 is 2011_09_30_drive_0034, trained on as {RAW_10}" in message
    assert "--allow-training-overlap" in message
    allowed = check_overlap(*arguments, allow=True)
    assert len(allowed["overlap"]) == 2
    assert "NO TEST RESULT: sequence 09 is 2011_09_30_drive_0033" in allowed["line"]
    files = [image(f"2011_09_26_drive_{drive:04d}", 0) for drive in range(1, 8)]
    trained = [f"2011_09_26_drive_{drive:04d}_sync_02" for drive in range(2, 9)]
    with pytest.raises(InputError, match="drive_0004_sync_02; and 3 more; --allow"):
        check_overlap(Path("x"), trained, files, Path(tmp_path), allow=False)


def test_no_overlap_and_nothing_known(tmp_path):
    fine = check_overlap(Path("x"), ["00_2", "00_3"], ["09"], Path(tmp_path), allow=False)
    assert (fine["known"], fine["overlap"]) == (True, [])
    assert fine["line"] == "training data: 2 scenes, none of the recordings that are tested"
    unknown = check_overlap(Path("x"), None, ["09"], Path(tmp_path), allow=False)
    assert (unknown["known"], unknown["overlap"]) == (False, [])
    assert "NOT KNOWN" in unknown["line"]


@pytest.mark.parametrize("folder", ["raw", "odometry"])
def test_a_synthetic_world_has_sequences_of_its_own(tmp_path, folder):
    options = WorldOptions(drives=14, seed=3, vary_focal=True)
    (Path(tmp_path) / "world.json").write_text(json.dumps(asdict(options)))
    kitti = Path(tmp_path) / folder
    drives = {drive.sequence: drive for drive in list_drives(options)}
    tested = "09" if folder == "odometry" else f"{drives['09'].name}/image_02/data/0000000007.png"

    def overlap(*trained):
        return check_overlap(Path("x"), list(trained), [tested], kitti, allow=True)["overlap"]

    assert overlap(f"{drives['09'].scene}_sync_02")
    assert overlap("09_2")
    assert not overlap(f"{drives['10'].scene}_sync_02", "10_2", "00_2")
    assert not overlap(RAW_09)  # KITTI's 09 is not the world's
    other = {drive.sequence: drive for drive in list_drives(WorldOptions(drives=14, seed=4, vary_focal=True))}
    assert not overlap(f"{other['09'].scene}_sync_02")
    for content in ("[]", "[" * 100_000, '{"drives": "14"}'):
        (Path(tmp_path) / "world.json").write_text(content)
        with pytest.raises(InputError, match=r"world\.json: not a world's options"):
            overlap("09_2")


@pytest.mark.parametrize("scenes", [None, [], "09_2", [1, 2], {"09_2": 1}])
def test_what_is_no_list_of_names_counts_as_not_known(scenes):
    assert trained_scenes({"scenes": scenes}) is None
    assert trained_scenes({}) is None


def test_scenes_of_ancestors_are_carried_on():
    assert trained_scenes({"scenes": ["b", "a"]}) == ["b", "a"]
    assert merge_scenes(["b", "a"], []) == ["a", "b"]
    assert merge_scenes(["b", "a"], [["c"], ["a"]]) == ["a", "b", "c"]
    assert merge_scenes(["b"], [["c"], None]) is None
