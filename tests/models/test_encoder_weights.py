import urllib.error

import pytest
import torch
import torchvision
from path import Path
from safetensors.torch import save_file

from files.errors import InputError
from models import NetworkSpec, build
from models.encoder_weights import load_encoder_weights

TINY = "timm:test_efficientnet"


def make_model(depth: str, pose: str | None = None):
    torch.manual_seed(1)
    pair = NetworkSpec("pair_pose_net", {"encoder": pose})
    paper = NetworkSpec("pose_exp_net", {"width": 1 / 16})
    return build(NetworkSpec(depth), paper if pose is None else pair, NetworkSpec("given"))


def weights_of(name: str, **options) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    return torchvision.models.get_model(name, **options).state_dict()


@pytest.fixture
def write(tmp_path):
    def write(weights, name="weights.pth") -> str:
        file = Path(tmp_path) / name
        save_file(weights, file) if file.suffix == ".safetensors" else torch.save(weights, file)
        return str(file)

    return write


def test_a_file_goes_to_every_encoder_that_it_fits(write):
    weights = weights_of("mobilenet_v2", num_classes=3)  # another head than ImageNet's
    model = make_model("mobilenet_v2", "mobilenet_v2")
    assert load_encoder_weights(model, write(weights)) == ["depth_net.encoder", "pose_net.encoder"]
    depth, pose = (net.encoder.network.state_dict() for net in (model.depth_net, model.pose_net))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in depth.items())
    first = pose.pop("features.0.0.weight")
    assert torch.equal(first, weights["features.0.0.weight"].repeat(1, 2, 1, 1) / 2)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in pose.items())


@torch.no_grad()
def test_the_first_layer_of_two_equal_images_gives_what_it_gives_for_one(write):
    model = make_model("resnet18", "resnet18")
    load_encoder_weights(model, write(weights_of("resnet18")))
    image = torch.rand(1, 3, 32, 64) * 2 - 1
    for one, two in zip(
        model.depth_net.eval().encoder(image), model.pose_net.eval().encoder(image.repeat(1, 2, 1, 1)), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_a_file_goes_to_one_encoder_of_two(write):
    model = make_model("mobilenet_v2", TINY)
    before = {k: v.clone() for k, v in model.pose_net.state_dict().items()}
    assert load_encoder_weights(model, write(weights_of("mobilenet_v2"))) == ["depth_net.encoder"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.pose_net.state_dict().items())


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
@pytest.mark.parametrize("encoder", [TINY, "timm:test_convnext"])
def test_files_of_timm(write, name, encoder):
    """timm's networks of feature maps have other names of weights than its classifiers, whose names files have."""
    timm = pytest.importorskip("timm")
    classifier = timm.create_model(encoder.removeprefix("timm:"), num_classes=7).eval()
    weights = classifier.state_dict()
    model = make_model(encoder, encoder).eval()
    assert len(load_encoder_weights(model, write(weights, name))) == 2
    image = torch.rand(1, 3, 64, 64)
    settings = timm.get_pretrained_cfg(encoder.removeprefix("timm:"))
    mean, std = (torch.tensor(x)[:, None, None] for x in (settings.mean, settings.std))
    with torch.no_grad():
        features = classifier.forward_intermediates((image - mean) / std, intermediates_only=True, norm=False)
        found = model.depth_net.encoder(2 * image - 1)
    torch.testing.assert_close(found[-1], features[-1])


@pytest.mark.parametrize("wrap", ["state_dict", "model", "module.", "old"])
def test_files_as_training_scripts_write_them(write, wrap):
    weights = weights_of("mobilenet_v2")
    if wrap == "module.":
        content = {f"module.{name}": tensor for name, tensor in weights.items()}
    elif wrap == "old":  # before 2019 BatchNorm did not count batches
        content = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    else:
        content = {wrap: weights, "epoch": 3}
    model = make_model("mobilenet_v2")
    load_encoder_weights(model, write(content))
    own = model.depth_net.encoder.network.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in own.items())


def test_torchvision_s_own_file(shared):
    model = make_model("mobilenet_v2", "mobilenet_v2")
    file = shared / "weights/mobilenet_v2-b0353104.pth"
    assert len(load_encoder_weights(model, file)) == 2
    weights = torch.load(file, weights_only=True)
    own = model.depth_net.encoder.network.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in own.items())


@pytest.mark.parametrize(
    ("network", "change", "message"),
    [
        ("mobilenet_v2", {}, "no weights of resnet18: it lacks conv1.weight"),
        ("resnet34", {}, "no weights of resnet18: it has layer1.2.bn1.bias, too"),
        ("resnet18", {"layer2.0.bn1.bias": torch.ones(3)}, r"layer2.0.bn1.bias is \[3\], expected \[128\]"),
        ("resnet18", {"layer2.0.bn1.bias": torch.full((128,), float("nan"))}, "values that are not finite"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line(write, network, change, message):
    model = make_model("resnet18")
    file = write(weights_of(network) | change)
    with pytest.raises(InputError, match=message) as error:
        load_encoder_weights(model, file)
    assert "\n" not in str(error.value)
    assert file in str(error.value)


def test_without_an_encoder_there_is_nothing_to_load(write):
    with pytest.raises(InputError, match="--encoder-weights imagenet: no network has an encoder"):
        load_encoder_weights(make_model("disp_net"), "imagenet")


def test_no_such_file_or_damage_is_one_line(tmp_path):
    model = make_model("mobilenet_v2")
    for name in ("a.pth", "a.safetensors"):
        with pytest.raises(InputError, match=f"{name}: no such file"):
            load_encoder_weights(model, f"{tmp_path}/{name}")
        (Path(tmp_path) / name).write_bytes(b"text" * 100)
        with pytest.raises(InputError, match=f"{name}: (not a checkpoint|no safetensors)"):
            load_encoder_weights(model, f"{tmp_path}/{name}")


def test_imagenet_is_torchvision_s_own_download(monkeypatch):
    downloaded = []

    def download(url, *arguments, **options):
        downloaded.append(url)
        return weights_of("resnet18")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    model = make_model("resnet18", "resnet18")
    assert len(load_encoder_weights(model, "imagenet")) == 2
    assert [url.rpartition("/")[2] for url in downloaded] == ["resnet18-f37072fd.pth"]
    assert torch.equal(model.depth_net.encoder.network.conv1.weight, weights_of("resnet18")["conv1.weight"])


@pytest.mark.parametrize("name", ["resnet18", TINY])
def test_a_download_that_fails_is_one_line(monkeypatch, name):
    def fail(*arguments, **options):
        raise urllib.error.URLError("no route\nto host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    model = make_model(name)
    monkeypatch.setattr("timm.create_model", fail)
    with pytest.raises(
        InputError, match=f"weights of {name} could not be downloaded .*no route to host.*FILE"
    ) as error:
        load_encoder_weights(model, "imagenet")
    assert "\n" not in str(error.value)
