"""Detection of cuts: places in a video where the next frame shows something else."""

import numpy as np

from datasets.preparation.image_motion import FEWEST_PATCHES, find_again
from files.images import resize_area

LEAST_FOLLOWED = 0.3  # share of the corners, among those that do not stand still, that a neighbour shows again
LEAST_FOLLOWED_UNLIKE = 0.45  # the same, of frames whose small pictures are unlike
_SURELY_ALIKE = 0.95  # correlation of the small pictures: above it no corners are searched
_UNLIKE = 0.4  # correlation: below it, small pictures are unlike
_STILL = 0.5  # pixels: a corner that has moved by less may belong to a bonnet or a frame around the picture
_SMALL_WIDTH = 64  # pixels


def is_cut(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether the second of two neighbouring frames shows another place than the first.

    The corners of the first frame are searched in the second, as the data check does. Corners that stand still do not
    count, since those of a bonnet stand in any two frames. It is a cut if fewer than 30 % of the others are found
    again, or fewer than 45 % and the small pictures do not correlate. Frames whose small pictures correlate well are no
    cut, which saves the search. docs/preparation.md has values.

    Args:
        first, second: grey images of one size, as `static_frames.small_grey` makes them.
    """
    alike = _correlation(first, second)
    if alike > _SURELY_ALIKE:
        return False
    corners, places, found = find_again(first, second)
    if len(corners) >= FEWEST_PATCHES:
        still = found & (np.linalg.norm(places - corners, axis=1) < _STILL)
        judged = len(corners) - still.sum()
        if judged >= FEWEST_PATCHES:
            least = LEAST_FOLLOWED if alike >= _UNLIKE else LEAST_FOLLOWED_UNLIKE
            return bool((found & ~still).sum() < least * judged)
        if still.sum() > judged:
            return False
    return alike < _UNLIKE


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of two grey images at 64 pixels of width, from -1 to 1: changes of exposure do not count."""
    height = max(2, round(first.shape[0] * _SMALL_WIDTH / first.shape[1]))
    small = [resize_area(image, height, _SMALL_WIDTH) for image in (first, second)]
    a, b = (image - image.mean() for image in small)
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-6))
