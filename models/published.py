"""Published weights: the networks of a checkpoint as one safetensors file, without the optimiser.

The file's metadata name the networks and their arguments, so that `models.checkpoint.load_model` rebuilds them.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from path import Path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from files.atomic import write_bytes
from files.errors import InputError
from files.text import printable
from files.untrusted import parse_json

SUFFIX = ".safetensors"
# The name that stands for the weights in this repository, which its synthetic world taught (weights/README.md).
WORLD = "world"
WORLD_FILE = Path(__file__).absolute().parent.parent / "weights" / "world.safetensors"
_FORMAT = "sfmlearner"


def publish(content: dict[str, Any], file: Path, half: bool = False) -> None:
    """Write the networks of a checkpoint (`models.checkpoint.load_checkpoint`) as safetensors.

    Args:
        half: the networks' floating-point weights in half precision; a learned camera keeps its precision.
    """
    weights = {
        name: (tensor.half() if half and tensor.is_floating_point() and not name.startswith("camera.") else tensor)
        for name, tensor in content["model"].items()
    }
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    about = {
        "networks": content["networks"],
        "record": content["record"],
        "step": content["step"],
        "data": base_name(content["options"].get("data")),
    }
    write_bytes(file, save(weights, {"format": _FORMAT, "about": json.dumps(about)}))


def base_name(file: Any) -> str | None:
    """The last part of a path, without the folders of the machine that trained; None for no path."""
    return os.path.basename(str(file).rstrip("/\\")) if file else None


def read_published(file: Path) -> dict[str, Any]:
    """The entries `networks`, `model`, `record`, `step` and `options` of a published file, as a checkpoint has them.

    Raises:
        InputError: no such file, damaged, or weights of something else.
    """
    metadata, model = read_safetensors(file)
    if metadata.get("format") != _FORMAT or "about" not in metadata:
        raise InputError(f"{file}: safetensors of another project: its metadata do not name our networks")
    try:
        about = parse_json(metadata["about"])
    except ValueError as error:
        raise InputError(f"{file}: damaged: its metadata are no JSON ({error})") from None
    kinds = {"networks": dict, "record": dict, "step": int, "data": str | None}
    if not isinstance(about, dict) or not all(isinstance(about.get(name), kind) for name, kind in kinds.items()):
        raise InputError(f"{file}: damaged: its metadata lack networks, record, step or data")
    floats = (torch.float16, torch.bfloat16)
    model = {name: tensor.float() if tensor.dtype in floats else tensor for name, tensor in model.items()}
    # A base name is no folder here, where one of that name may hold anything. Earlier versions stored the whole path.
    data = about["data"] if about["data"] is not None and os.path.isabs(about["data"]) else None
    return {**about, "model": model, "options": {"data": data}}


def read_safetensors(file: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """The metadata and the tensors of a safetensors file; InputError if there is none or it is damaged."""
    if not Path(file).is_file():
        raise InputError(f"{file}: no such file, expected published weights")
    try:
        with _utf8_name(file) as name, safe_open(name, framework="pt", device="cpu") as stream:
            return stream.metadata() or {}, {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: no safetensors file, or damaged ({' '.join(str(error).split()):.100})") from None


@contextmanager
def _utf8_name(file: Path) -> Iterator[str]:
    """A name of a file that is UTF-8, since safetensors opens no other: the file's own, or that of a link to it."""
    if printable(file) == file:
        yield str(file)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = os.path.join(folder, "weights")
        os.symlink(os.path.abspath(file), link)
        yield link
