"""The terms of the objective, from their formulas (paper, section 3), with the gradients of the photometric error."""

import numpy as np

from tests.oracles.warp import warp

SCALES = 4


def shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """[..., H, W] averaged over squares of `factor` pixels."""
    *rest, height, width = image.shape
    return image.reshape(*rest, height // factor, factor, width // factor, factor).mean((-3, -1))


def scaled_camera(intrinsics: np.ndarray, scale: int) -> np.ndarray:
    """f / 2^s and (c + 0.5) / 2^s - 0.5."""
    factor = 2.0**scale
    changed = intrinsics.copy()
    changed[:2] /= factor
    changed[0, 2], changed[1, 2] = ((intrinsics[k, 2] + 0.5) / factor - 0.5 for k in (0, 1))
    return changed


def photometric(inputs: dict[str, np.ndarray], masked: bool) -> dict:
    """The error of each scale, and its gradients by disparities and poses."""
    target, sources, batch = inputs["target"], [inputs["source_0"], inputs["source_1"]], len(inputs["target"])
    per_scale, by_disparity, by_pose = [], [], np.zeros_like(inputs["pose"])
    for scale in range(SCALES):
        disparity = inputs[f"disparity_{scale}"]
        total, slopes = 0.0, np.zeros_like(disparity)
        pixels = batch * disparity[0].size
        for b in range(batch):
            camera = scaled_camera(inputs["intrinsics"][b], scale)
            aim = shrink(target[b], 2**scale)
            for n, source in enumerate(sources):
                depth = 1 / disparity[b, 0]
                seen = warp(shrink(source[b], 2**scale), depth, inputs["pose"][b, n], camera)
                weight = seen.valid / pixels
                if masked:
                    weight = weight / (1 + np.exp(-inputs[f"explainability_logits_{scale}"][b, n]))
                difference = seen.image - aim
                total += (np.abs(difference).mean(0) * weight).sum()
                by_image = np.sign(difference) * weight / len(difference)
                slopes[b, 0] += (by_image * seen.by_depth).sum(0) * -(depth**2)
                by_pose[b, n] += np.tensordot(by_image, seen.by_pose, 3)
        per_scale.append(total)
        by_disparity.append(slopes)
    return {"per_scale": np.array(per_scale), "by_disparity": by_disparity, "by_pose": by_pose}


def smoothness(maps: list[np.ndarray], decay: float) -> float:
    """|d2/dx2| + |d2/dxdy| + |d2/dydx| + |d2/dy2|, each the mean over where it exists; scale s divided by decay^s."""
    total = 0.0
    for scale, values in enumerate(maps):
        *_, height, width = values.shape
        in_x = [abs(values[..., x + 2] - 2 * values[..., x + 1] + values[..., x]) for x in range(width - 2)]
        in_y = [abs(values[..., y + 2, :] - 2 * values[..., y + 1, :] + values[..., y, :]) for y in range(height - 2)]
        mixed = [
            abs(values[..., y + 1, x + 1] - values[..., y + 1, x] - values[..., y, x + 1] + values[..., y, x])
            for y in range(height - 1)
            for x in range(width - 1)
        ]
        total += (np.mean(in_x) + 2 * np.mean(mixed) + np.mean(in_y)) / decay**scale
    return total


def explainability(logits: list[np.ndarray]) -> float:
    """Cross-entropy to 1: -log(probability), mean of each scale, summed."""
    return sum(float(np.mean(-np.log(1 / (1 + np.exp(-scale))))) for scale in logits)


def make_inputs(batch=2, height=24, width=32) -> dict[str, np.ndarray]:
    """Random frames and predictions."""
    random = np.random.default_rng(5)
    frames = random.uniform(-1, 1, (3, batch, 3, height, width))
    f, cx, cy = 0.58 * width, 0.49 * width, 0.46 * height
    inputs = {"target": frames[0], "source_0": frames[1], "source_1": frames[2]}
    inputs["pose"] = random.normal(0, 0.03, (batch, 2, 6))
    inputs["intrinsics"] = np.tile([[f, 0, cx], [0, f, cy], [0, 0, 1]], (batch, 1, 1))
    for scale in range(SCALES):
        size = (height // 2**scale, width // 2**scale)
        inputs[f"disparity_{scale}"] = random.uniform(0.1, 0.5, (batch, 1, *size))
        inputs[f"explainability_logits_{scale}"] = random.normal(size=(batch, 2, *size))
    return inputs


def figures(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The terms for inputs as `make_inputs` has them, by the names of the reference figures."""
    masked, plain = photometric(inputs, True), photometric(inputs, False)
    disparities = [inputs[f"disparity_{scale}"] for scale in range(SCALES)]
    found = {
        "photometric_masked": masked["per_scale"].sum(),
        "photometric_unmasked": plain["per_scale"].sum(),
        "photometric_unmasked_per_scale": plain["per_scale"],
        "explainability": explainability([inputs[f"explainability_logits_{scale}"] for scale in range(SCALES)]),
        "smoothness_disparity_2": smoothness(disparities, 2),
        "smoothness_depth_2.3": smoothness([1 / disparity for disparity in disparities], 2.3),
        "grad_pose": masked["by_pose"],
    }
    found |= {f"grad_disparity_{scale}": slopes for scale, slopes in enumerate(masked["by_disparity"])}
    return {name: np.asarray(value, dtype=np.float64) for name, value in found.items()}
