"""DispNet and PoseExpNet of the widely used PyTorch port as tables of shapes and one function each, in float64.

The weights follow a rule, so that outputs can be compared without a file of weights.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

KERNELS = (7, 5, 3, 3, 3, 3, 3)  # of the seven halvings
DISP_CHANNELS = (32, 64, 128, 256, 512, 512, 512)
DISP_DECODER = (16, 32, 64, 128, 256, 512, 512)  # of upconv1 and iconv1, upconv2, ...
POSE_CHANNELS = (16, 32, 64, 128, 256, 256, 256)
MASK_CHANNELS = (16, 32, 64, 128, 256)


def disp_net_shapes() -> dict[str, list[int]]:
    """Names and shapes of DispNet's parameters."""
    shapes: dict[str, list[int]] = {}

    def add(name, weight):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, [weight[0]]

    inputs = 3
    for level, (outputs, kernel) in enumerate(zip(DISP_CHANNELS, KERNELS, strict=True), 1):
        add(f"conv{level}.0", [outputs, inputs, kernel, kernel])
        add(f"conv{level}.2", [outputs, outputs, kernel, kernel])
        inputs = outputs
    for level in range(7, 0, -1):
        outputs = DISP_DECODER[level - 1]
        shapes[f"upconv{level}.0.weight"], shapes[f"upconv{level}.0.bias"] = [inputs, outputs, 3, 3], [outputs]
        skip = DISP_CHANNELS[level - 2] if level > 1 else 0
        add(f"iconv{level}.0", [outputs, outputs + skip + (level < 4), 3, 3])
        inputs = outputs
    for level in range(1, 5):
        add(f"predict_disp{level}.0", [1, DISP_DECODER[level - 1], 3, 3])
    return shapes


def pose_exp_net_shapes(sources: int, explainability: bool) -> dict[str, list[int]]:
    """Names and shapes of PoseExpNet's parameters."""
    shapes: dict[str, list[int]] = {}
    inputs = 3 * (1 + sources)
    for level, (outputs, kernel) in enumerate(zip(POSE_CHANNELS, KERNELS, strict=True), 1):
        shapes[f"conv{level}.0.weight"], shapes[f"conv{level}.0.bias"] = [outputs, inputs, kernel, kernel], [outputs]
        inputs = outputs
    shapes["pose_pred.weight"], shapes["pose_pred.bias"] = [6 * sources, inputs, 1, 1], [6 * sources]
    for level in range(5, 0, -1) if explainability else ():
        outputs = MASK_CHANNELS[level - 1]
        shapes[f"upconv{level}.0.weight"], shapes[f"upconv{level}.0.bias"] = [inputs, outputs, 4, 4], [outputs]
        inputs = outputs
        if level < 5:
            name = f"predict_mask{level}"
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = [sources, outputs, 3, 3], [sources]
    return shapes


def weights_by_rule(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Weights for parameter i of the sorted names, element j in row-major order, float32 as a network has them.

    A bias is 0.05 sin(0.7 j + i), a weight 1.2 sqrt(2 / f) sin(1.3 j (1 + 0.01 i) + i), f its elements per output.
    """
    weights = {}
    for i, name in enumerate(sorted(shapes)):
        count = int(np.prod(shapes[name]))
        j = np.arange(count, dtype=np.float64)
        values = 0.05 * np.sin(0.7 * j + i)
        if not name.endswith("bias"):
            values = 1.2 * np.sqrt(2 / (count / shapes[name][0])) * np.sin(1.3 * j * (1 + 0.01 * i) + i)
        weights[name] = torch.from_numpy(values.astype(np.float32).reshape(shapes[name])).double()
    return weights


def disp_net(weights: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """Disparities 10 sigmoid + 0.01 of an image [B, 3, H, W], the finest first."""

    def convolve(name, values, stride=1):
        weight = weights[f"{name}.weight"]
        return functional.conv2d(values, weight, weights[f"{name}.bias"], stride, (weight.shape[-1] - 1) // 2)

    encoded = [image.double()]
    for level in range(1, 8):
        halved = convolve(f"conv{level}.0", encoded[-1], 2).relu()
        encoded.append(convolve(f"conv{level}.2", halved).relu())
    values, disparities = encoded[7], {}
    for level in range(7, 0, -1):
        skip = encoded[level - 1]
        parts = [_enlarge(weights, f"upconv{level}.0", values, 1, skip)]
        parts += [skip] if level > 1 else []
        if level < 4:
            coarse = functional.interpolate(disparities[level + 1], scale_factor=2, mode="bilinear")
            parts.append(coarse[:, :, : skip.shape[2], : skip.shape[3]])
        values = convolve(f"iconv{level}.0", torch.cat(parts, 1)).relu()
        if level < 5:
            disparities[level] = 10 / (1 + torch.exp(-convolve(f"predict_disp{level}.0", values))) + 0.01
    return [disparities[level] for level in range(1, 5)]


def pose_exp_net(weights: dict[str, Tensor], frames: Tensor, sources: int) -> tuple[Tensor, list[Tensor]]:
    """Poses [B, N, 6] and explainability [B, N, h, w] in 0 .. 1 of target and sources one behind the other."""
    encoded = [frames.double()]
    for level, kernel in enumerate(KERNELS, 1):
        weight, bias = weights[f"conv{level}.0.weight"], weights[f"conv{level}.0.bias"]
        encoded.append(functional.conv2d(encoded[-1], weight, bias, 2, (kernel - 1) // 2).relu())
    mapped = torch.einsum("oi,bihw->bohw", weights["pose_pred.weight"][..., 0, 0], encoded[7])
    poses = 0.01 * (mapped.mean((2, 3)) + weights["pose_pred.bias"]).reshape(-1, sources, 6)
    values, masks = encoded[5], {}
    for level in range(5, 0, -1):
        values = _enlarge(weights, f"upconv{level}.0", values, 0, encoded[level - 1])
        if level < 5:
            weight, bias = weights[f"predict_mask{level}.weight"], weights[f"predict_mask{level}.bias"]
            masks[level] = 1 / (1 + torch.exp(-functional.conv2d(values, weight, bias, 1, 1)))
    return poses, [masks[level] for level in range(1, 5)]


def _enlarge(weights: dict[str, Tensor], name: str, values: Tensor, more: int, like: Tensor) -> Tensor:
    """Transposed convolution by 2 and ReLU, cropped to the size of `like`."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    larger = functional.conv_transpose2d(values, weight, bias, 2, 1, more).relu()
    return larger[:, :, : like.shape[2], : like.shape[3]]


def make_inputs() -> dict[str, Tensor]:
    """Small frames in [-1, 1], and one whose size is no multiple of anything."""
    random = np.random.default_rng(7)
    shapes = {"target": (2, 3, 64, 96), "source_0": (2, 3, 64, 96), "source_1": (2, 3, 64, 96)}
    shapes["odd_image"] = (1, 3, 50, 75)
    return {name: torch.from_numpy(random.uniform(-1, 1, shape).astype(np.float32)) for name, shape in shapes.items()}


@torch.no_grad()
def figures(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The networks' outputs for inputs as `make_inputs` has them, by the names of the reference figures."""
    found = {}
    weights = weights_by_rule(disp_net_shapes())
    for image, prefix in (("target", ""), ("odd_image", "odd_")):
        for scale, disparity in enumerate(disp_net(weights, inputs[image])):
            found[f"{prefix}disparity_{scale}"] = disparity.float()
    frames = torch.cat([inputs["target"], inputs["source_0"], inputs["source_1"]], 1)
    poses, masks = pose_exp_net(weights_by_rule(pose_exp_net_shapes(2, True)), frames, 2)
    found["pose"] = poses
    return found | {f"explainability_{scale}": mask.float() for scale, mask in enumerate(masks)}
