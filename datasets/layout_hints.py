"""Error messages for folders and lists that are not those of a prepared data set, with the likely reason."""

import os
import re
from collections import Counter
from collections.abc import Iterable

from path import Path

_DATE = re.compile(r"\d{4}_\d\d_\d\d")  # the folders of KITTI raw, which hold its drives
_MONODEPTH2_LINE = re.compile(r"\S+\s+\d+\s+[lr]")  # 2011_09_26/2011_09_26_drive_0022_sync 473 r
_NO_FRAME_SUFFIXES = ("", ".txt", ".npy", ".json", ".part")  # of a scene's files that are not frames


def explain_missing_list(file: Path) -> str:
    """The error for a data set without its list of scenes. For KITTI as downloaded, it says how to prepare it."""
    file = Path(file)
    for folder in (file.parent, file.parent / "raw"):  # a synthetic world has raw/ and odometry/
        layout = _kitti_layout(folder)
        if layout:
            return (
                f"{file}: no such file: {folder} is {layout} as downloaded, expected a prepared data set; "
                f"prepare it with: python data/prepare_kitti.py {folder} PREPARED"
            )
    return f"{file}: no such file, expected a prepared data set (see data/prepare_kitti.py)"


def explain_scene_name(name: str) -> str | None:
    """The likely reason why a line of a scene list names no scene, or None."""
    if _MONODEPTH2_LINE.fullmatch(name):
        return (
            f"{name!r:.80} is a line of monodepth2's split files (folder, frame, side), expected the name of a scene "
            "on each line; data/prepare_kitti.py writes such lists"
        )
    return None


def explain_no_frames(folder: Path, suffixes: Iterable[str]) -> str:
    """The error for a scene without frames. It lists the files found and the suffixes that are read."""
    names = [name for name in os.listdir(folder) if not name.startswith(".")]
    found = Counter(os.path.splitext(name)[1].lower() for name in names)
    others = [f"{count} {suffix}" for suffix, count in found.most_common() if suffix not in _NO_FRAME_SUFFIXES]
    if not others:
        return f"{folder}: no frames, expected images 0000000.jpg, 0000001.jpg, ..."
    return (
        f"{folder}: no frames: found files {', '.join(others[:3])}, expected {', '.join(suffixes)}; "
        "convert the images to JPEG or PNG"
    )


def _kitti_layout(folder: Path) -> str | None:
    """The name of the KITTI data set in a folder, judged by the names in it, or None."""
    if not folder.is_dir():
        return None
    names = os.listdir(folder)
    if any(_DATE.fullmatch(name) and (folder / name).is_dir() for name in names):
        return "KITTI raw"
    if "sequences" in names or (folder / "dataset" / "sequences").is_dir():
        return "KITTI odometry"
    return None
