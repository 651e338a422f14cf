"""Whether a network is tested on drives that it was trained on, across KITTI's two layouts.

KITTI odometry consists of raw drives under other names, so a name says little: raw Eigen training holds sequences 09
and 10, and sequences 00, 04, 05 and 07 are drives of the Eigen test split. What identifies a recording is its raw
drive, DATE_drive_NNNN, and the frames of it that count.

The synthetic world (docs/world.md) has drives and sequences of its own. Its drives' dates hold its seed and are none of
KITTI's; which drive a sequence of it is says the world.json beside its odometry/ and raw/. The name of a prepared
odometry scene (09_2) does not say whose sequence 09 it is, and is taken for a sequence of the data that are tested.
"""

import re
from collections.abc import Iterable
from typing import Any

from path import Path

from datasets.synthetic import list_drives, read_options
from files.errors import InputError

# The raw drive of each KITTI odometry sequence that has ground truth, and its first frame there (development kit).
KITTI_SEQUENCES = {
    "00": ("2011_10_03_drive_0027", 0),
    "01": ("2011_10_03_drive_0042", 0),
    "02": ("2011_10_03_drive_0034", 0),
    "03": ("2011_09_26_drive_0067", 0),
    "04": ("2011_09_30_drive_0016", 0),
    "05": ("2011_09_30_drive_0018", 0),
    "06": ("2011_09_30_drive_0020", 0),
    "07": ("2011_09_30_drive_0027", 0),
    "08": ("2011_09_30_drive_0028", 1100),
    "09": ("2011_09_30_drive_0033", 0),
    "10": ("2011_09_30_drive_0034", 0),
}
FLAG = "--allow-training-overlap"
_DRIVE = re.compile(r"(\d{4}_\d\d_\d\d_drive_\d{4})(_(sync|extract))?(_\d\d)?")  # a drive, or a prepared scene of it
_SEQUENCE = re.compile(r"(\d\d)(_\d)?")  # a sequence, or a prepared scene of it


def merge_scenes(scenes: Iterable[str], ancestors: Iterable[list[str] | None]) -> list[str] | None:
    """What a network has been trained on that begins with the weights of others: for a checkpoint's config["scenes"].

    Args:
        scenes: names of the training scenes of its own training.
        ancestors: `trained_scenes` of each checkpoint that it starts from.

    Returns:
        All names, sorted; None (not known) if it is not known of one ancestor.
    """
    known = [*ancestors]
    if any(ancestor is None for ancestor in known):
        return None
    return sorted(set(scenes).union(*(ancestor or () for ancestor in known)))


def trained_scenes(config: dict[str, Any]) -> list[str] | None:
    """The scenes that a checkpoint's networks have seen in training, from its config; None if it does not say."""
    scenes = config.get("scenes")
    if isinstance(scenes, (list, tuple)) and scenes and all(isinstance(scene, str) for scene in scenes):
        return list(scenes)
    return None


def check_overlap(source: Path, trained: list[str] | None, tested: Iterable[str], kitti: Path, allow: bool) -> dict:
    """Refuse a test on training data, or say in the result that it is one.

    Args:
        source: the checkpoint or the file of predictions, named in the error.
        trained: names of the training scenes (2011_09_26_drive_0001_sync_02, 09_2, or any other folder's name); None
            if they are not known.
        tested: sequences (09), or images relative to `kitti` (DATE/DRIVE/image_02/data/0000000069.png, SCENE/0001.jpg).
        kitti: the folder that the tested data lie in.
        allow: the flag --allow-training-overlap.

    Returns:
        For the JSON and to be printed: `line`, one sentence; `known`, whether the training scenes are; `overlap`, what
        was trained on and is tested, a phrase each.

    Raises:
        InputError: an overlap that was not allowed.
    """
    if trained is None:
        line = "training data: NOT KNOWN (not stored with the weights); whether they hold what is tested is not checked"
        return {"line": line, "known": False, "overlap": []}
    sequences = _world_sequences(kitti) or KITTI_SEQUENCES
    overlap = find_overlap(trained, tested, sequences)
    if not overlap:
        line = f"training data: {len(set(trained))} scenes, none of the recordings that are tested"
        return {"line": line, "known": True, "overlap": []}
    shown = "; ".join(overlap[:3]) + (f"; and {len(overlap) - 3} more" if len(overlap) > 3 else "")
    if not allow:
        raise InputError(f"{source}: was trained on what is to be tested: {shown}; {FLAG} scores it all the same")
    line = f"training data: INCLUDE WHAT IS TESTED, SO THIS IS NO TEST RESULT: {shown}"
    return {"line": line, "known": True, "overlap": overlap}


def find_overlap(
    trained: Iterable[str], tested: Iterable[str], sequences: dict[str, tuple[str, int]] = KITTI_SEQUENCES
) -> list[str]:
    """What is tested and was trained on, a phrase for each tested recording, sorted.

    Args:
        trained, tested: as in `check_overlap`.
        sequences: raw drive and first frame there of each odometry sequence.
    """
    seen: dict[str, tuple[str, int]] = {}  # by recording: a scene of it, and from which frame on it was trained on
    for scene in sorted(set(trained)):
        recording, first, _ = _identify(scene, sequences)
        if recording not in seen or first < seen[recording][1]:
            seen[recording] = (scene, first)
    overlap = {}
    for name in tested:
        recording, first, label = _identify(name, sequences)
        if recording not in seen:
            continue
        scene, seen_from = seen[recording]
        frame = _frame_number(name)
        if _is_raw_image(name) and frame is not None and frame < seen_from:
            continue  # raw frames before the part of the drive that the trained sequence is
        as_drive = f" is {recording}" if label != recording else ""
        overlap[label] = f"{label}{as_drive}, trained on as {scene}"
    return [overlap[label] for label in sorted(overlap)]


def _identify(name: str, sequences: dict[str, tuple[str, int]]) -> tuple[str, int, str]:
    """(recording, its first frame in there, what to call it) of a scene's name, a sequence or an image's path.

    The recording is the raw drive where the name says one, else the sequence or the folder's name itself.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    for part in parts:
        if match := _DRIVE.fullmatch(part):
            return match[1], 0, match[1]
    folders = parts[:-1] if len(parts) > 1 else parts
    for part in folders:
        if match := _SEQUENCE.fullmatch(part):
            recording, first = sequences.get(match[1], (f"sequence {match[1]}", 0))
            return recording, first, f"sequence {match[1]}"
    return folders[-1], 0, folders[-1]


def _is_raw_image(name: str) -> bool:
    """Whether it is an image of a raw drive, whose file name is the drive's frame number."""
    return "/" in name and any(_DRIVE.fullmatch(part) for part in name.split("/"))


def _frame_number(name: str) -> int | None:
    stem = Path(name).stem
    return int(stem) if stem.isdecimal() else None


def _world_sequences(kitti: Path) -> dict[str, tuple[str, int]]:
    """The drives of a synthetic world's odometry sequences, if `kitti` is its folder raw or odometry; else nothing."""
    file = Path(kitti).absolute().parent / "world.json"
    if not file.is_file():
        return {}
    try:
        options = read_options(file)
    except InputError:
        raise InputError(
            f"{file}: not a world's options; it is needed to know which drives the sequences are"
        ) from None
    return {drive.sequence: (drive.scene, 0) for drive in list_drives(options) if drive.sequence is not None}
