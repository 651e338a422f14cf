"""Files as monodepth2 and SC-SfMLearner publish them: names, shapes, and the reference figures' weights."""

import numpy as np
import torch
import torchvision

ENCODER_CHANNELS = {"resnet18": (64, 64, 128, 256, 512), "resnet50": (64, 256, 512, 1024, 2048)}
WIDTHS = (256, 128, 64, 32, 16)


def encoder_shapes(name: str, prefix: str, frames: int = 1) -> dict[str, list[int]]:
    with torch.device("meta"):
        weights = torchvision.models.get_model(name).state_dict()
    shapes = {f"{prefix}{key}": [*tensor.shape] for key, tensor in weights.items()}
    shapes[f"{prefix}conv1.weight"][1] *= frames
    return shapes


def depth_decoder_shapes(encoder: str, prefix: str) -> dict[str, list[int]]:
    skips = [*ENCODER_CHANNELS[encoder][-2::-1], 0]
    before = zip((ENCODER_CHANNELS[encoder][-1], *WIDTHS), WIDTHS, strict=False)
    after = zip([width + skip for width, skip in zip(WIDTHS, skips, strict=True)], WIDTHS, strict=True)
    pairs = [pair for both in zip(before, after, strict=True) for pair in both]
    names = [f"{prefix}{k}.conv.conv" for k in range(10)] + [f"{prefix}{k}.conv" for k in range(10, 14)]
    pairs += [(width, 1) for width in WIDTHS[:0:-1]]
    return {
        f"{name}.{kind}": shape
        for name, (inputs, outputs) in zip(names, pairs, strict=True)
        for kind, shape in (("weight", [outputs, inputs, 3, 3]), ("bias", [outputs]))
    }


def pose_decoder_shapes(encoder: str, prefix: str, outputs: int) -> dict[str, list[int]]:
    layers = [(ENCODER_CHANNELS[encoder][-1], 256, 1), (256, 256, 3), (256, 256, 3), (256, outputs, 1)]
    shapes = {}
    for number, (before, after, kernel) in enumerate(layers):
        shapes[f"{prefix}net.{number}.weight"] = [after, before, kernel, kernel]
        shapes[f"{prefix}net.{number}.bias"] = [after]
    return shapes


def file_shapes(encoder: str) -> dict[str, dict[str, list[int]]]:
    """Names and shapes of the weights in the files of both projects."""
    return {
        "monodepth2_encoder": encoder_shapes(encoder, "encoder."),
        "monodepth2_depth": depth_decoder_shapes(encoder, "decoder."),
        "monodepth2_pose_encoder": encoder_shapes(encoder, "encoder.", frames=2),
        "monodepth2_pose": pose_decoder_shapes(encoder, "", 12),
        "scsfm_disp": encoder_shapes(encoder, "encoder.encoder.") | depth_decoder_shapes(encoder, "decoder.decoder."),
        "scsfm_pose": encoder_shapes(encoder, "encoder.encoder.", frames=2)
        | pose_decoder_shapes(encoder, "decoder.", 6),
    }


def fill(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """The weights that the reference outputs were made with (see the folder's README)."""
    weights = {}
    for i, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        j = torch.arange(int(np.prod(shape)), dtype=torch.float64)
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.zeros((), dtype=torch.int64)
            continue
        if name.endswith("running_var"):
            values = 1 + 0.5 * torch.sin(0.7 * j + i) ** 2
        elif name.endswith("running_mean"):
            values = 0.1 * torch.sin(0.7 * j + i)
        elif name.endswith("bias"):
            values = 0.05 * torch.sin(0.7 * j + i)
        elif len(shape) == 1:
            values = 1 + 0.2 * torch.sin(0.7 * j + i)
        else:
            values = 1.2 * (2 / (len(j) / shape[0])) ** 0.5 * torch.sin(1.3 * j * (1 + 0.01 * i) + i)
        weights[name] = values.view(shape).float()
    return weights
