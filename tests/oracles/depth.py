"""The published depth metrics on KITTI, pixel by pixel: resize, Garg's crop, median scaling, clip, seven figures."""

import statistics

import numpy as np

GARG = (0.40810811, 0.99189189, 0.03594771, 0.96405229)  # top, bottom, left, right, as published
NEAREST = 1e-3  # metres


def resized_at(image: np.ndarray, size: tuple[int, int], row: int, column: int) -> float:
    """Pixel (row, column) of an image enlarged bilinearly to `size`: pixels are areas, the border is repeated."""
    height, width = image.shape
    y = min(max((row + 0.5) * height / size[0] - 0.5, 0), height - 1)
    x = min(max((column + 0.5) * width / size[1] - 0.5, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    b, a = y - top, x - left
    upper = (1 - a) * float(image[top, left]) + a * float(image[top, right])
    lower = (1 - a) * float(image[bottom, left]) + a * float(image[bottom, right])
    return (1 - b) * upper + b * lower


def metrics(predicted: np.ndarray, truth: np.ndarray, cap: float, disparity: bool = False) -> list[float]:
    """Abs Rel, Sq Rel, RMSE, RMSE log and the three accuracies of one image.

    Args:
        predicted: depth [h, w], in any unit.
        truth: depth [H, W], metres, 0 = unknown.
        disparity: resize 1 / depth and not depth.
    """
    height, width = truth.shape
    top, bottom, left, right = (
        int(share * side) for share, side in zip(GARG, (height, height, width, width), strict=True)
    )
    pairs = []
    for row, column in np.argwhere((truth > NEAREST) & (truth < cap)):
        if not (top <= row < bottom and left <= column < right):
            continue
        if disparity:
            depth = 1 / resized_at(1 / predicted.astype(np.float64), truth.shape, row, column)
        else:
            depth = resized_at(predicted, truth.shape, row, column)
        pairs.append((float(truth[row, column]), depth))
    scale = statistics.median(true for true, _ in pairs) / statistics.median(depth for _, depth in pairs)
    scaled = [(true, min(max(depth * scale, NEAREST), cap)) for true, depth in pairs]

    def mean(values):
        values = list(values)
        return sum(values) / len(values)

    return [
        mean(abs(d - t) / t for t, d in scaled),
        mean((d - t) ** 2 / t for t, d in scaled),
        mean((d - t) ** 2 for t, d in scaled) ** 0.5,
        mean((np.log(d) - np.log(t)) ** 2 for t, d in scaled) ** 0.5,
        *(mean(max(d / t, t / d) < 1.25**power for t, d in scaled) for power in (1, 2, 3)),
    ]


KEYS = {  # of the reference figures: kind of ground truth, cap, and whether disparity is resized
    "depth_cap80_camera_z": ("camera_z", 80.0, False),
    "depth_cap80_velodyne_x": ("velodyne_x", 80.0, False),
    "depth_cap50_camera_z": ("camera_z", 50.0, False),
    "depth_cap50_velodyne_x": ("velodyne_x", 50.0, False),
    "depth_cap80_velodyne_x_disparity_resized": ("velodyne_x", 80.0, True),
}


def make_inputs(images=3, points=700) -> dict[str, np.ndarray]:
    """Small predictions, and as many known pixels of a ground truth of KITTI's size as a test can wait for."""
    random = np.random.default_rng(11)
    truth = np.zeros((2, images, 375, 1242), np.float32)
    for image in range(images):
        places = random.choice(375 * 1242, points, replace=False)
        depth = random.uniform(1, 95, points)
        for kind, more in enumerate((0.0, 0.27)):
            truth[kind, image].ravel()[places] = depth + more
    predicted = random.uniform(0.2, 3, (images, 16, 52)).astype(np.float32)
    return {"predicted_depth": predicted, "camera_z": truth[0], "velodyne_x": truth[1]}


def figures(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Means over the images, by the names of the reference figures."""
    found = {}
    for key, (kind, cap, disparity) in KEYS.items():
        pairs = zip(inputs["predicted_depth"], inputs[kind], strict=True)
        found[key] = np.mean([metrics(predicted, truth, cap, disparity) for predicted, truth in pairs], 0)
    return found
