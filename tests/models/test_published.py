import json
import os
import struct

import pytest
import torch
from path import Path

from files.errors import InputError
from models.checkpoint import load_checkpoint, load_model
from models.published import publish, read_published, read_safetensors

RECORDED = Path(__file__).absolute().parent.parent / "recorded/version_1/demo.pt"


@pytest.fixture(scope="module")
def content():
    return load_checkpoint(RECORDED)


def test_published_networks_predict_as_the_checkpoint_s(content, tmp_path):
    file = Path(tmp_path) / "weights.safetensors"
    publish(content, file)
    ours, theirs = load_model(file), load_model(RECORDED)
    images, sources = torch.rand(1, 3, 64, 96) * 2 - 1, torch.rand(1, 2, 3, 64, 96) * 2 - 1
    with torch.no_grad():
        assert torch.equal(ours.depth_net(images)[0], theirs.depth_net(images)[0])
        assert torch.equal(ours.pose_net(images, sources)[0], theirs.pose_net(images, sources)[0])
    for name in ("specs", "height", "width", "step", "scenes"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert theirs.data is not None
    assert ours.data is None  # the file has its base name alone, which is no folder on another machine
    assert read_safetensors(file)[0]["about"].endswith(f'"data": "{os.path.basename(theirs.data)}"}}')
    assert file.size < 0.4 * RECORDED.size


def test_half_precision_halves_the_file_and_loads_as_float32(content, tmp_path):
    whole, half = (Path(tmp_path) / f"{name}.safetensors" for name in ("whole", "half"))
    publish(content, whole)
    publish(content, half, half=True)
    assert half.size < 0.6 * whole.size
    weights, rounded = (dict(load_model(file).depth_net.state_dict()) for file in (whole, half))
    for name, tensor in weights.items():
        assert rounded[name].dtype == torch.float32
        torch.testing.assert_close(rounded[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_name_that_is_no_utf8(tmp_path):
    file = Path(tmp_path) / os.fsdecode(b"\xff weights.safetensors")
    content = {"model": {"a": torch.arange(3.0)}, "networks": {}, "record": {}, "step": 1, "options": {}}
    publish(content, file)
    assert torch.equal(read_published(file)["model"]["a"], content["model"]["a"])
    file.write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"weights\.safetensors: no safetensors file, or damaged"):
        read_published(file)


def damaged_file(folder, metadata, tensors=b"") -> Path:
    header = json.dumps({"__metadata__": metadata}).encode()
    file = Path(folder) / "x.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + tensors)
    return file


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "safetensors of another project"),
        ({"format": "pt"}, "safetensors of another project"),
        ({"format": "sfmlearner", "about": "[" * 100_000}, "damaged"),
        ({"format": "sfmlearner", "about": "{}"}, "its metadata lack networks"),
        (
            {"format": "sfmlearner", "about": json.dumps({"networks": {}, "record": {}, "step": 1, "data": None})},
            "its networks do not say name and arguments of depth",
        ),
    ],
)
def test_a_file_of_something_else_is_refused_in_one_line(tmp_path, metadata, message):
    file = damaged_file(tmp_path, metadata)
    with pytest.raises(InputError, match=message) as error:
        load_model(file)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("content", [b"", b"x" * 100, struct.pack("<Q", 2**62) + b"{}"])
def test_damage_is_one_line(tmp_path, content):
    file = Path(tmp_path) / "x.safetensors"
    file.write_bytes(content)
    with pytest.raises(InputError, match="no safetensors file, or damaged"):
        read_published(file)
    with pytest.raises(InputError, match="no such file"):
        read_published(Path(tmp_path) / "nowhere.safetensors")


def test_half_precision_leaves_a_learned_camera_as_it_is(content, tmp_path):
    camera = {"camera.log_focal": torch.tensor([[4.7947, 4.8]]), "camera.shift": torch.tensor([[1e-5, 0.1]])}
    publish({**content, "model": content["model"] | camera}, Path(tmp_path) / "half.safetensors", half=True)
    model = read_published(Path(tmp_path) / "half.safetensors")["model"]
    for name, tensor in camera.items():
        assert torch.equal(model[name], tensor)
