"""Make3D's test set: 134 photographs, each with a depth map of a laser scanner, and the crop of the usual protocol.

    Test134/img-NAME.jpg                          1704 x 2272, portrait
    Gridlaserdata/depth_sph_corr-NAME.mat         Position3DGrid [55, 305, 4]: y, x, z and distance, in metres

Both archives unpack into folders of these names. Other folder names work, too.

A. Saxena, M. Sun, A. Ng, "Make3D: Learning 3D Scene Structure from a Single Still Image", PAMI 2009.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from path import Path

from datasets.formats.matlab import read_variables
from files.errors import InputError
from files.images import read_image
from files.untrusted import one_line, read_bounded

IMAGES = 134  # of the test set
GRID = (55, 305)  # rows and columns of the laser's depth
ASPECT = 2272 / 1704  # height / width of the photographs
_ASPECT_TOLERANCE = 0.02
_LARGEST_FILE = 8 * 2**20  # bytes of a .mat file, packed and unpacked; a grid of float64 has 0.5 MB


@dataclass(frozen=True)
class Photograph:
    name: str  # NAME of img-NAME.jpg
    image_file: Path
    depth_file: Path  # its place or, if it is missing, the place where it was expected


def find_photographs(root: Path) -> list[Photograph]:
    """The test images below a folder, in order of their names, each with its depth file, which may be missing.

    Folders whose names begin with Train are skipped: Make3D's training set has files of the same form.

    Raises:
        InputError: no such folder, no images or no depth below it, or the same image twice.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    images = _by_name(root, "img-", ".jpg")
    depths = _by_name(root, "depth_sph_corr-", ".mat")
    if not images or not depths:
        missing = "images, expected Test134/img-*.jpg" if not images else "depth, expected Gridlaserdata/*.mat"
        raise InputError(f"{root}: no Make3D {missing} (from Test134.tar.gz and Test134Depth.tar.gz)")
    folder = next(iter(depths.values())).parent
    return [
        Photograph(name, image, depths.get(name, folder / f"depth_sph_corr-{name}.mat"))
        for name, image in sorted(images.items())
    ]


def _by_name(root: Path, prefix: str, suffix: str) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in sorted(root.walkfiles(f"{prefix}*{suffix}", errors="ignore")):
        parts = root.relpathto(file).splitall()
        if any(part.lower().startswith("train") for part in parts):
            continue
        name = file.name.removeprefix(prefix).removesuffix(suffix)
        if name in files:
            raise InputError(f"{file} and {files[name]}: the same image twice, expected one test set below {root}")
        files[name] = file
    return files


def read_cropped_image(file: Path, ratio: float) -> np.ndarray:
    """The central rows of a photograph, a portrait of any size: uint8 [W / ratio, W, 3]."""
    image = read_image(file)
    height, width = image.shape[:2]
    if abs(height / width / ASPECT - 1) > _ASPECT_TOLERANCE:
        raise InputError(f"{file}: {width} x {height} pixels, expected a portrait of 3 : 4 as Make3D's 1704 x 2272")
    return image[central_rows(height, ratio)]


def read_cropped_depth(file: Path, ratio: float) -> np.ndarray:
    """The laser's depth in the central crop of the photograph: float64 [rows, 305].

    In metres along the ray (see docs/evaluation.md), 0 = unknown.
    """
    distance = _read_grid(file)[..., 3].astype(np.float64)
    distance = np.where(np.isfinite(distance) & (distance > 0), distance, 0)
    return distance[central_rows(GRID[0], ratio)]


def central_rows(height: int, ratio: float) -> slice:
    """The rows of a photograph, or of its depth, of this height that the crop to a height of width / ratio keeps.

    For a ratio of 2 they are those of the published evaluation: 710:1562 of 2272 and 17:38 of 55.
    """
    if not ratio >= 1 / ASPECT:
        raise ValueError(f"ratio is {ratio}, expected at least {1 / ASPECT:g}, the whole photograph")
    kept = min(height, max(1, round(height / (ASPECT * ratio))))
    top = (height - kept) // 2
    return slice(top, top + kept)


def _read_grid(file: Path) -> np.ndarray:
    """Position3DGrid of a .mat file: [55, 305, 4], floating point."""
    data = read_bounded(file, _LARGEST_FILE, "a .mat file")
    try:
        variables = {variable.name: variable for variable in read_variables(data, _LARGEST_FILE)}
        grid = variables.get("Position3DGrid")
        if grid is not None and grid.shape == (*GRID, 4) and grid.kind in ("double", "single"):
            return grid.values()
    except (ValueError, zlib.error) as error:
        raise InputError(f"{file}: not a whole MATLAB 5 file ({one_line(error)})") from None
    held = ", ".join(f"{name} {[*found.shape]} {found.kind}" for name, found in variables.items()) or "nothing"
    raise InputError(f"{file}: holds {held:.200}; expected Position3DGrid {[*GRID, 4]} of floating-point numbers")
