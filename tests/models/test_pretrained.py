import json
import pathlib
import sys
import types

import pytest
import torch
from path import Path

from files.errors import InputError
from models import NetworkSpec, build
from models.checkpoint import checkpoint_content, load_checkpoint, save_checkpoint
from models.pretrained import from_pretrained, model_card, save_pretrained

ROOT = Path(__file__).absolute().parent.parent.parent
SPECS = {
    "depth": NetworkSpec("disp_net", {"width": 1 / 16}),
    "pose": NetworkSpec("pose_exp_net", {"width": 1 / 16, "sources": 2, "explainability": True}),
    "camera": NetworkSpec("learned", {"cameras": 1}),
}
OPTIONS = {
    "data": "/home/me/prepared/mine",
    "runs": "/home/me/runs",
    "name": "secret",
    "recipe": "paper-depth",
    "learning_rate": 0.001,
    "objective": {"smoothness_weight": 0.5},
    "encoder_weights": "imagenet",
    "prior": "/home/me/runs/teacher/last.pt",
    "start_from": ["/home/me/port/dispnet.pth.tar"],
}
RECORD = {"height": 64, "width": 96, "snippets": 8, "scenes": ["monday", "tuesday"], "cameras": [["monday", "tuesday"]]}
BEST = {"abs_rel": {"value": 0.1234, "step": 40}}


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint, and its model."""
    model = build(*SPECS.values())
    standing = {"step": 50, "skipped": 0, "validation_due": False, "best": BEST, "damaged": []}
    file = (Path(tmp_path) / "run").makedirs_p() / "last.pt"
    optimizer = torch.optim.Adam(model.parameters())
    save_checkpoint(file, checkpoint_content(model, SPECS, optimizer, OPTIONS, RECORD, standing))
    return file, model


def assert_same(got, expected):
    weights = expected.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in got.state_dict().items())
    assert not got.training


def test_a_folder_is_read_as_it_was_written(checkpoint, tmp_path):
    file, model = checkpoint
    folder = Path(tmp_path) / "mine"
    for _ in range(2):  # the second time over its own files
        save_pretrained(file, folder)
    assert sorted(f.name for f in folder.files()) == ["README.md", "config.json", "model.safetensors"]
    for source in (folder, folder / "model.safetensors", file, file.parent):
        for kind in (str, pathlib.Path, Path):
            assert_same(from_pretrained(kind(source)), model)
    config = json.loads((folder / "config.json").read_text())
    assert config["record"]["scenes"] == ["monday", "tuesday"]
    assert config["options"]["data"] == "mine"


def test_half_precision_is_half_the_file(checkpoint, tmp_path):
    whole, half = Path(tmp_path) / "whole", Path(tmp_path) / "half"
    save_pretrained(checkpoint[0], whole)
    save_pretrained(checkpoint[0], half, half=True)
    assert (half / "model.safetensors").size < 0.6 * (whole / "model.safetensors").size
    assert from_pretrained(half).depth_net.conv1[0].weight.dtype == torch.float32


def test_the_card_is_made_from_the_record_and_names_no_path(checkpoint, tmp_path):
    folder = Path(tmp_path) / "mine"
    save_pretrained(checkpoint[0], folder)
    card = (folder / "README.md").read_text()
    for words in (
        "| training scenes | 2: monday, tuesday |",
        "| image size | 96 x 64 pixels |",
        "| recipe | paper-depth |",
        "| objective | smoothness_weight=0.5 |",
        "| Abs Rel of depth (median scaling) | 0.1234 at step 40 |",
        "| depth | `disp_net` width=0.0625",
        "ImageNet weights",
        "began with the weights in dispnet.pth.tar: add their licence",
        "near the predictions of the weights in last.pt: add their licence",
    ):
        assert words in card


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"encoder_weights": "/home/me/files/backbone.pth", "prior": "world"}, ("backbone.pth", "world")),
        ({"encoder_weights": "none", "prior": None}, ("none", None)),
        ({}, ("imagenet", "last.pt")),
    ],
)
def test_no_file_that_is_published_names_a_path_of_the_machine(checkpoint, tmp_path, given, stored):
    content = load_checkpoint(checkpoint[0])
    content["options"] |= given
    save_checkpoint(checkpoint[0], content)
    folder = Path(tmp_path) / "mine"
    save_pretrained(checkpoint[0], folder)
    options = json.loads((folder / "config.json").read_text())["options"]
    assert (options["encoder_weights"], options["prior"], options["data"]) == (*stored, "mine")
    files = folder.files()
    assert len(files) == 3
    for file in files:
        assert b"/home/me" not in file.bytes()
        assert b"secret" not in file.bytes()


def test_what_is_not_recorded_is_said():
    networks = {"depth": {"name": "disp_net", "arguments": {}}}
    card = model_card({"record": {}, "options": {}, "networks": networks, "step": 3, "best": {}})
    assert "| training scenes | unknown |" in card
    assert "## Scores of the best validation\n\nNot recorded." in card


def test_other_folders_are_left_alone(checkpoint, tmp_path):
    folder = (Path(tmp_path) / "photos").makedirs_p()
    (folder / "a.jpg").touch()
    with pytest.raises(InputError, match=r"photos: holds a.jpg, expected a new folder"):
        save_pretrained(checkpoint[0], folder)
    assert [file.name for file in folder.files()] == ["a.jpg"]
    with pytest.raises(InputError, match="is a file, expected a new folder"):
        save_pretrained(checkpoint[0], folder / "a.jpg")


def test_what_is_nothing_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"nowhere/model.safetensors: no such file"):
        from_pretrained("nowhere/model.safetensors")
    network = Path(tmp_path) / "dispnet.pth.tar"
    depth = build(*SPECS.values()).depth_net
    torch.save({"epoch": 1, "state_dict": depth.state_dict()}, network)
    with pytest.raises(InputError, match="holds a depth network alone, expected both"):
        from_pretrained(network)


def test_the_hub_is_asked_for_a_repository_of_this_name(checkpoint, tmp_path, monkeypatch):
    folder = Path(tmp_path) / "downloaded"
    save_pretrained(checkpoint[0], folder)
    asked = []

    def hf_hub_download(repository, name, revision=None):
        asked.append((repository, name, revision))
        if repository != "me/mine":
            raise OSError("404 Client Error:\nRepository Not Found")
        return str(folder / name)

    hub = types.ModuleType("huggingface_hub")
    hub.hf_hub_download = hf_hub_download
    errors = types.ModuleType("huggingface_hub.errors")
    errors.HfHubHTTPError = errors.LocalEntryNotFoundError = type("HubError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    assert_same(from_pretrained("me/mine", "v2"), checkpoint[1])
    assert asked == [("me/mine", "model.safetensors", "v2")]
    with pytest.raises(InputError, match="me/other: no such file or folder, and not on the hub: 404 Client Error: Rep"):
        from_pretrained("me/other")


def test_without_the_hub_s_library_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for source in ("me/mine", pathlib.Path("me/mine")):  # the second was a TypeError
        with pytest.raises(InputError, match=r"me/mine: no such file or folder; .* pip install huggingface_hub"):
            from_pretrained(source)


def test_torch_hub_loads_a_clone(checkpoint, tmp_path):
    folder = Path(tmp_path) / "mine"
    save_pretrained(checkpoint[0], folder)
    model = torch.hub.load(str(ROOT), "sfmlearner", source="local", checkpoint=folder)
    assert_same(model, checkpoint[1])
