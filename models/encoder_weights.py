"""Weights of image classifiers for the encoders of new networks: downloaded by torchvision or timm, or from a file."""

from collections.abc import Mapping
from typing import Any

import torch
from path import Path
from torch import Tensor, nn

from files.errors import InputError
from models.encoders import TIMM, Encoder, classifier, encoders_of
from models.other_projects import without_module
from models.published import SUFFIX, read_safetensors
from models.torch_files import read_torch_file

NONE, IMAGENET = "none", "imagenet"


def load_encoder_weights(model: nn.Module, source: str) -> list[str]:
    """Give the encoders in a model the weights of a classifier.

    The first layer of an encoder that sees several images stacked gets the weights repeated, divided by their number.

    Args:
        source: "imagenet" for the weights that torchvision or timm publish (torchvision: IMAGENET1K_V1), which they
            download and keep; or a file with such weights, of torch.save or safetensors, for those encoders that it
            fits.

    Returns:
        The names of these encoders in the model.

    Raises:
        InputError: the model has no encoder, the download failed, or the file is damaged or fits no encoder.
    """
    encoders = encoders_of(model)
    if not encoders:
        raise InputError(f"--encoder-weights {source}: no network has an encoder, expected --depth-net resnet18 or so")
    if source == IMAGENET:
        weights_of = {name: _download(name) for name in {encoder.name for encoder in encoders.values()}}
    else:
        weights = _read(Path(source))
        weights_of = {encoder.name: weights for encoder in encoders.values()}
    misfits = {}
    for name in {encoder.name for encoder in encoders.values()}:
        reason = _misfit(name, weights_of[name])
        if reason is not None:
            misfits[name] = reason
    if len(misfits) == len(weights_of):
        reasons = "; ".join(f"no weights of {name}: {reason}" for name, reason in sorted(misfits.items()))
        raise InputError(f"--encoder-weights {source}: {reasons}")
    loaded = {name: encoder for name, encoder in encoders.items() if encoder.name not in misfits}
    for encoder in loaded.values():
        _load(encoder, weights_of[encoder.name], source)
    return list(loaded)


def _download(name: str) -> dict[str, Any]:
    """The weights that were published for a classifier, from the download's cache or the internet."""
    try:
        if name.startswith(TIMM):
            import timm

            return timm.create_model(name.removeprefix(TIMM), pretrained=True).state_dict()
        import torchvision

        weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
        return dict(weights.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError, ValueError) as error:  # URLError, huggingface_hub's, a wrong hash, no weights
        raise InputError(
            f"--encoder-weights {IMAGENET}: the weights of {name} could not be downloaded "
            f"({' '.join(str(error).split())[:200]}); give the FILE of such weights, or none"
        ) from None


def _read(file: Path) -> dict[str, Any]:
    """The weights in a file, by their names there."""
    content: dict[str, Any] = read_safetensors(file)[1] if file.suffix == SUFFIX else read_torch_file(file)
    for entry in ("state_dict", "model"):  # as checkpoints of torchvision's and timm's training scripts have them
        if isinstance(content.get(entry), dict):
            content = content[entry]
    return without_module({str(name): value for name, value in content.items() if isinstance(value, Tensor)})


def _misfit(name: str, weights: Mapping[str, Any]) -> str | None:
    """Reason why the weights do not fit this classifier; None if they fit.

    Its last layers may be missing, or of other sizes.
    """
    with torch.device("meta"):
        expected = {key: tensor.shape for key, tensor in classifier(name).state_dict().items()}
        needed = Encoder(name).network.state_dict()
    plain = {_plain(key): key for key in expected}
    for key in needed:
        key = plain[_plain(key)]
        given = weights.get(key)
        if not isinstance(given, Tensor):
            if key.endswith("num_batches_tracked"):  # files that were written before 2019 have none
                continue
            return f"it lacks {key}"
        if given.shape != expected[key]:
            return f"{key} is {[*given.shape]}, expected {[*expected[key]]}"
    surplus = sorted(weights.keys() - expected.keys())
    return f"it has {surplus[0]:.60}, too" if surplus else None


def _load(encoder: Encoder, weights: Mapping[str, Any], source: str) -> None:
    """Copy the weights of the encoder's classifier, which fit, into the encoder."""
    plain = {_plain(name): tensor for name, tensor in weights.items()}
    own = encoder.network.state_dict()
    for name, tensor in own.items():
        given = plain.get(_plain(name))
        if given is None:
            continue
        if not bool(given.isfinite().all()):
            raise InputError(f"--encoder-weights {source}: {name} holds values that are not finite")
        if given.shape != tensor.shape:  # the first layer, for stacked images
            given = given.repeat(1, encoder.frames, *[1] * (given.ndim - 2)) / encoder.frames
        own[name] = given.to(tensor.dtype)
    encoder.network.load_state_dict(own)


def _plain(name: str) -> str:
    """A name of a weight that is the same in timm's classifiers and in its networks of feature maps."""
    return name.replace(".", "_")
