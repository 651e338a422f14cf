"""Classical geometry of two views: tracks, relative motion and inverse depth, from two images and K alone.

Corners are tracked to the second view and back. RANSAC finds the essential matrix that most tracks fit, and a robust
least-squares fit refines it. Tracks that leave their epipolar line belong to things that move. The others are
triangulated. Everything is deterministic: the same images give the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from geometry.rigid import transform_from

FEWEST_TRACKS = 20  # of a pair that is judged, and the least number of triangulated points
EPIPOLAR_TOLERANCE = 0.15  # pixels: a track farther from its epipolar line is on a moving thing, or wrong
TRACK_NOISE = 0.1  # pixels: standard deviation of a track that was found forth and back

# Why a pair of views gives no points.
NO_TEXTURE = "no texture: too few corners"
NOT_FOUND_AGAIN = "too few corners are found again in the other frame"
NO_MOTION = "too little motion"
ROTATION_ONLY = "the camera only rotates, no parallax"
NO_ESSENTIAL_MATRIX = "no essential matrix fits: a wrong K, or too many moving things"
NO_DEPTH_DIFFERENCES = "the parallax shows no differences of depth above the noise"

_MOST_CORNERS = 1000
_CORNER_QUALITY = 0.001  # of the strongest corner
_CORNER_DISTANCE = 3  # pixels
_NARROW = 640  # pixels: narrower images are tracked at twice their size, which finds corners of neighbours apart
_WINDOW = 9  # pixels: a larger window mixes the motion of a thing and its background
_RETURN = 0.2  # pixels: largest error of a corner after the way forth and back
_FEWEST_RIGID = 0.5  # share of the tracks that an essential matrix must fit ...
_RIGID_TOLERANCE = 0.5  # ... within so many pixels
_ROTATION_RESIDUAL = (0.25, 0.05)  # pixels, and share of the motion, that a rotation may leave at the 75 % quantile
_BEHIND = 2.0  # standard deviations by which a point may lie behind infinity
_MOST_UNCERTAIN = 0.25  # standard deviation of a point's inverse depth, of the spread of all


@dataclass(frozen=True)
class TwoViews:
    """What two views of a scene show. Where `problem` says why there are no points, the arrays are empty."""

    pixels: np.ndarray  # [n, 2], x and y of the points in the target
    inverse_depth: np.ndarray  # [n], in units of 1 / baseline; 0 = at infinity
    source_from_target: np.ndarray | None  # [4, 4], translation of length 1; None where it was not found
    corners: int  # found in the target
    tracks: int  # corners that were found again in the source
    motion: float  # median of the tracks, pixels
    problem: str | None = None


def measure_two_views(target: np.ndarray, source: np.ndarray, intrinsics: np.ndarray, least_motion: float) -> TwoViews:
    """Points with inverse depth in the target, triangulated with another view of the scene.

    Args:
        target, source: uint8 [H, W] or [H, W, 3], of one camera.
        intrinsics: K [3, 3], pixels of these images.
        least_motion: pixels; views whose tracks move by less in the median give no points.
    """
    target_pixels, source_pixels, corners = follow_corners(target, source)
    return structure_from_tracks(target_pixels, source_pixels, intrinsics, least_motion, corners)


def follow_corners(target: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Corners (Shi and Tomasi 1994) tracked into the source and back (Lucas and Kanade, in a pyramid; Bouguet 2000).

    Args:
        target, source: uint8 [H, W] or [H, W, 3].

    Returns:
        The pixels of the tracks in the target and in the source, float64 [n, 2] each, and the number of corners that
        were to be tracked. A track is kept that ends within 0.2 pixels of its start after the way forth and back.
    """
    if target.shape != source.shape:
        raise ValueError(f"source: got shape {list(source.shape)}, expected {list(target.shape)}, that of the target")
    factor = 2 if target.shape[1] < _NARROW else 1
    first, second = (_enlarge(_grey(image), factor) for image in (target, source))
    height, width = first.shape
    found = cv2.goodFeaturesToTrack(first, _MOST_CORNERS, _CORNER_QUALITY, _CORNER_DISTANCE * factor, blockSize=5)
    if found is None:
        return np.zeros((0, 2)), np.zeros((0, 2)), 0
    corners = found.reshape(-1, 2)
    places, ahead = _track(first, second, corners)
    back, behind = _track(second, first, places)
    good = ahead & behind & (np.linalg.norm(back - corners, axis=1) < _RETURN * factor)
    good &= ((places >= 0) & (places <= [width - 1, height - 1])).all(1)
    # Pixel centres are integers: x of the image is (x' + 0.5) / factor - 0.5 of the enlarged one.
    tracks = ((points[good].astype(np.float64) + 0.5) / factor - 0.5 for points in (corners, places))
    return next(tracks), next(tracks), len(corners)


def follow_through(images: Sequence[np.ndarray], reference: int, most: int) -> np.ndarray:
    """Corners of one image tracked through the images before and after it, from each to the next and back.

    Args:
        images: uint8 [H, W] or [H, W, 3], in order of time.
        reference: number of the image in which the corners are found.
        most: the points with the longest tracks that are kept.

    Returns:
        Float64 [k, n, 2], x and y of each point in each image; NaN from where its track is lost.
    """
    factor = 2 if images[0].shape[1] < _NARROW else 1
    grey = [_enlarge(_grey(image), factor) for image in images]
    height, width = grey[0].shape
    found = cv2.goodFeaturesToTrack(
        grey[reference], _MOST_CORNERS, _CORNER_QUALITY, _CORNER_DISTANCE * factor, blockSize=5
    )
    corners = np.zeros((0, 2), np.float32) if found is None else found.reshape(-1, 2)[: 2 * most]
    tracks = np.full((len(images), len(corners), 2), np.nan)
    tracks[reference] = corners
    for direction in (1, -1) if len(corners) else ():
        places, kept = corners, np.arange(len(corners))
        last = len(images) - 1 if direction > 0 else 0
        for number in range(reference, last, direction):
            before, after = grey[number], grey[number + direction]
            ahead, good = _track(before, after, places)
            back, returned = _track(after, before, ahead)
            good &= returned & (np.linalg.norm(back - places, axis=1) < _RETURN * factor)
            good &= ((ahead >= 0) & (ahead <= [width - 1, height - 1])).all(1)
            places, kept = ahead[good], kept[good]
            if not len(kept):
                break
            tracks[number + direction, kept] = places
    order = np.argsort(-np.isfinite(tracks[..., 0]).sum(0), kind="stable")[:most]
    return (tracks[:, order] + 0.5) / factor - 0.5  # pixel centres are integers


def structure_from_tracks(
    target_pixels: np.ndarray,
    source_pixels: np.ndarray,
    intrinsics: np.ndarray,
    least_motion: float = 0.0,
    corners: int | None = None,
) -> TwoViews:
    """Relative motion of two views and inverse depth of their points, from tracks.

    Args:
        target_pixels, source_pixels: [n, 2], x and y.
        intrinsics: K [3, 3] of both views.
        least_motion: pixels; see `measure_two_views`.
        corners: that were to be tracked (default: n).
    """
    count = len(target_pixels)
    motion = float(np.median(np.linalg.norm(source_pixels - target_pixels, axis=1))) if count else 0.0
    corners = count if corners is None else corners

    def without_points(problem: str, motion_found: np.ndarray | None = None) -> TwoViews:
        return TwoViews(np.zeros((0, 2)), np.zeros(0), motion_found, corners, count, motion, problem)

    if corners < FEWEST_TRACKS:
        return without_points(NO_TEXTURE)
    if count < FEWEST_TRACKS:
        return without_points(NOT_FOUND_AGAIN)
    if motion < max(least_motion, 2 * TRACK_NOISE):
        return without_points(NO_MOTION)
    if rotation_explains(target_pixels, source_pixels, intrinsics):
        return without_points(ROTATION_ONLY)
    target_rays, source_rays = (_rays(pixels, intrinsics) for pixels in (target_pixels, source_pixels))
    focal = float(np.sqrt(intrinsics[0, 0] * intrinsics[1, 1]))
    source_from_target = relative_motion(target_pixels, source_pixels, intrinsics)
    if source_from_target is None:
        return without_points(NO_ESSENTIAL_MATRIX)
    residual = np.abs(epipolar_distance(target_pixels, source_pixels, intrinsics, source_from_target))
    if (residual < _RIGID_TOLERANCE).mean() < _FEWEST_RIGID:
        return without_points(NO_ESSENTIAL_MATRIX)
    inverse_depth, deviation = triangulate(target_rays, source_rays, source_from_target)
    deviation = deviation * TRACK_NOISE / focal
    # Points behind the camera move on their epipolar line: cars that drive ahead faster than the camera.
    static = (residual < EPIPOLAR_TOLERANCE) & (inverse_depth > -_BEHIND * deviation)
    if static.sum() < FEWEST_TRACKS:
        return without_points(NO_ESSENTIAL_MATRIX, source_from_target)
    # Near the epipole, where the camera moves to, even near points have no parallax.
    spread = np.subtract(*np.quantile(inverse_depth[static], [0.75, 0.25]))
    certain = static & (deviation < _MOST_UNCERTAIN * spread)
    if certain.sum() < FEWEST_TRACKS:
        return without_points(NO_DEPTH_DIFFERENCES, source_from_target)
    inverse_depth = inverse_depth[certain].clip(0)
    return TwoViews(target_pixels[certain], inverse_depth, source_from_target, corners, count, motion)


def relative_motion(
    target_pixels: np.ndarray, source_pixels: np.ndarray, intrinsics: np.ndarray, refine: bool = True
) -> np.ndarray | None:
    """`source_from_target` [4, 4] of two views, with a translation of length 1; None where RANSAC finds none.

    The essential matrix of five tracks that most tracks fit (Nister 2004, RANSAC) gives two rotations and two signs of
    the translation, of which the one is taken that has most points before both cameras. It is then refined on all
    tracks: least squares of the Sampson distance with Cauchy's loss, which moving things hardly change.

    Args:
        target_pixels, source_pixels: [n, 2].
        intrinsics: K [3, 3] of both views.
        refine: False leaves the refinement out, for those who refine it with more views.
    """
    if len(target_pixels) < 5:
        return None
    options = cv2.UsacParams()
    options.confidence, options.maxIterations, options.threshold = 0.999, 1000, EPIPOLAR_TOLERANCE
    options.sampler, options.score = cv2.SAMPLING_UNIFORM, cv2.SCORE_METHOD_MSAC
    options.loMethod, options.loIterations, options.loSampleSize = cv2.LOCAL_OPTIM_INNER_LO, 10, 14
    options.randomGeneratorState, options.isParallel = 0, False
    try:
        essential, inliers = cv2.findEssentialMat(
            target_pixels, source_pixels, intrinsics, intrinsics, None, None, options
        )
    except cv2.error:
        return None
    if essential is None or essential.shape[0] < 3:
        return None
    fits = inliers.ravel() > 0
    if fits.sum() < 5:
        return None
    target_rays, source_rays = (_rays(pixels, intrinsics) for pixels in (target_pixels, source_pixels))
    first, second, translation = cv2.decomposeEssentialMat(essential[:3])
    candidates = [transform_from(r, sign * translation[:, 0]) for r in (first, second) for sign in (1, -1)]
    before = [_points_before(target_rays[fits], source_rays[fits], candidate) for candidate in candidates]
    best = candidates[int(np.argmax(before))]
    return _refine(target_pixels, source_pixels, intrinsics, best) if refine else best


def epipolar_distance(
    target_pixels: np.ndarray, source_pixels: np.ndarray, intrinsics: np.ndarray, source_from_target: np.ndarray
) -> np.ndarray:
    """Sampson's distance [n] of tracks from their epipolar lines, signed, in pixels (Hartley and Zisserman, eq. 11.9).

    Args:
        target_pixels, source_pixels: [n, 2].
        intrinsics: K [3, 3] of both views.
        source_from_target: [4, 4].
    """
    x, y, z = source_from_target[:3, 3]
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ source_from_target[:3, :3]
    inverse = np.linalg.inv(intrinsics)
    fundamental = inverse.T @ essential @ inverse
    target, source = (np.column_stack([pixels, np.ones(len(pixels))]) for pixels in (target_pixels, source_pixels))
    in_source, in_target = target @ fundamental.T, source @ fundamental
    slope = np.sqrt((in_source[:, :2] ** 2).sum(1) + (in_target[:, :2] ** 2).sum(1))
    return (source * in_source).sum(1) / np.maximum(slope, 1e-12)


def triangulate(
    target_rays: np.ndarray, source_rays: np.ndarray, source_from_target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse depth of tracks in the target, and its sensitivity to their noise.

    The source sees R r + w t of a point with ray r and inverse depth w. Least squares in the source's image are linear
    in w, which is exact without noise and stays finite for points at infinity (w = 0).

    Args:
        target_rays, source_rays: [n, 3], K^-1 (x, y, 1).
        source_from_target: [4, 4].

    Returns:
        Inverse depth [n], negative behind the target, and the standard deviation [n] that a deviation of 1 of the
        source's rays causes; it is infinite at the epipole, and divided by the focal length it is that of a pixel.
    """
    rotation, translation = source_from_target[:3, :3], source_from_target[:3, 3]
    turned = target_rays @ rotation.T
    slope = source_rays[:, :2] * translation[2] - translation[:2]
    offset = turned[:, :2] - source_rays[:, :2] * turned[:, 2:]
    squared = np.maximum((slope**2).sum(1), 1e-24)
    return (slope * offset).sum(1) / squared, np.abs(turned[:, 2]) / np.sqrt(squared)


def rotation_explains(target_pixels: np.ndarray, source_pixels: np.ndarray, intrinsics: np.ndarray) -> bool:
    """Whether a rotation of the camera alone explains the motion of tracks [n, 2]; they may be noisy, and a quarter
    may move on their own.
    """
    residual = rotation_residual(target_pixels, source_pixels, intrinsics)
    motion = np.median(np.linalg.norm(source_pixels - target_pixels, axis=1))
    return bool(np.quantile(residual, 0.75) < _ROTATION_RESIDUAL[0] + _ROTATION_RESIDUAL[1] * motion)


def rotation_residual(target_pixels: np.ndarray, source_pixels: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Distance [n] in pixels between points found again and where the best rotation K R K^-1 maps them.

    If a camera only rotates, this infinite homography maps every point to its place at any depth (Hartley and
    Zisserman, Multiple View Geometry, 8.4). R is found by Gauss-Newton iteration with Cauchy weights: a third of the
    points may move on their own. What it leaves is parallax.

    Args:
        target_pixels, source_pixels: the points in the first and in the second image, [n, 2].
        intrinsics: K [3, 3] of both images.
    """
    rays = _rays(target_pixels, intrinsics)
    rotation = np.eye(3)
    for _ in range(10):
        turned = rays @ rotation.T
        x, y = (turned[:, :2] / np.maximum(turned[:, 2:], 1e-3)).T
        error = np.column_stack([x, y, np.ones(len(x))]) @ intrinsics[:2].T - source_pixels
        distance = np.linalg.norm(error, axis=1)
        weight = 1 / (1 + (distance / max(np.median(distance), 0.05)) ** 2)
        # Derivative of the image point by a small rotation of the ray.
        by_x = np.column_stack([-x * y, 1 + x**2, -y])
        by_y = np.column_stack([-(1 + y**2), x * y, x])
        jacobian = np.einsum("ij,jnk->nik", intrinsics[:2, :2], np.stack([by_x, by_y]))
        normal = np.einsum("nij,nik,n->jk", jacobian, jacobian, weight) + 1e-9 * np.eye(3)
        step = -np.linalg.solve(normal, np.einsum("nij,ni,n->j", jacobian, error, weight))
        rotation = Rotation.from_rotvec(np.clip(step, -0.3, 0.3)).as_matrix() @ rotation
    return distance


def _grey(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    if factor == 1:
        return np.ascontiguousarray(image)
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def _track(first: np.ndarray, second: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places [n, 2] of points in the second image, float32, and whether they were found [n]."""
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 0.001)
    places, found, _ = cv2.calcOpticalFlowPyrLK(
        first, second, points, points.copy(), winSize=(_WINDOW, _WINDOW), maxLevel=4, criteria=criteria
    )
    return places, found[:, 0] == 1


def _rays(pixels: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """K^-1 (x, y, 1), [n, 3]."""
    return np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(intrinsics).T


def _points_before(target_rays: np.ndarray, source_rays: np.ndarray, source_from_target: np.ndarray) -> int:
    """Number of points that lie before both cameras."""
    inverse_depth, _ = triangulate(target_rays, source_rays, source_from_target)
    source_z = target_rays @ source_from_target[2, :3] + inverse_depth * source_from_target[2, 3]  # over the depth
    return int(((inverse_depth > 0) & (source_z > 0)).sum())


def _refine(
    target_pixels: np.ndarray, source_pixels: np.ndarray, intrinsics: np.ndarray, source_from_target: np.ndarray
) -> np.ndarray:
    """The motion near a first one that minimises the tracks' Sampson distance under Cauchy's loss."""
    across = np.linalg.svd(source_from_target[None, :3, 3])[2][1:]  # two directions in which the unit vector may turn

    def motion(step: np.ndarray) -> np.ndarray:
        rotation = Rotation.from_rotvec(step[:3]).as_matrix() @ source_from_target[:3, :3]
        translation = source_from_target[:3, 3] + step[3:] @ across
        return transform_from(rotation, translation / np.linalg.norm(translation))

    def distance(step: np.ndarray) -> np.ndarray:
        return epipolar_distance(target_pixels, source_pixels, intrinsics, motion(step))

    solution = least_squares(
        distance, np.zeros(5), loss="cauchy", f_scale=TRACK_NOISE, x_scale=[0.01, 0.01, 0.01, 0.1, 0.1], max_nfev=50
    )
    return motion(solution.x)
