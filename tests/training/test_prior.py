"""Training with a prior: depth stays near what another network predicts."""

import pytest
import torch
from path import Path

from benchmarks.surroundings import make_noise
from datasets.augmentation import normalise
from datasets.snippets import SnippetDataset
from files.errors import InputError, UsageError
from loss_functions import prior_distance
from models.checkpoint import load_checkpoint, load_model
from train import train
from training.options import new_options
from training.prior import Prior, load_prior
from training.run import open_run, read_stopped_run, resumed_options

TINY = {"network_width": 1 / 16, "batch_size": 2, "workers": 0, "check": False, "learning_rate": 3e-3}


pytestmark = pytest.mark.usefixtures("process_as_before")


def run(data, name, steps, stop_at=None, **given):
    options = new_options(
        TINY | {"data": str(data), "runs": str(data.parent), "name": name, "device": "cpu", "steps": steps} | given
    )
    with open_run(options, None, torch.device("cpu")) as opened:
        if stop_at:
            opened.total_steps = stop_at
        train(opened)
    return data.parent / name / "last.pt"


def test_depth_stays_near_the_prior_and_a_stopped_run_resumes_exactly(tmp_path):
    data = Path(tmp_path) / "data"
    make_noise(data, 32, 48, 12)
    prior = run(data, "prior", 1, seed=5)
    with_prior = {"prior": str(prior), "prior_weight": 5.0}
    near, free = run(data, "near", 8, **with_prior), run(data, "free", 8)
    target = normalise(SnippetDataset(data, "train.txt", 3)[0]["frames"][1:2])
    with torch.no_grad():
        of_prior, *others = [load_model(file).depth_net(target)[0] for file in (prior, near, free)]
        distances = [float(prior_distance(disparity, of_prior)) for disparity in others]
    assert distances[0] < 0.7 * distances[1]
    assert not any("prior" in name for name in load_checkpoint(near)["model"])

    stopped_file = run(data, "parts", 8, stop_at=4, **with_prior)
    stopped = read_stopped_run(stopped_file.parent)
    assert stopped.checkpoint["step"] == 4
    options = resumed_options(stopped, {"steps": 8})
    with open_run(options, stopped, torch.device("cpu")) as opened:
        train(opened)
    whole, parts = (load_checkpoint(file)["model"] for file in (near, stopped_file))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


class Brightness(torch.nn.Module):
    """Disparity = the first channel + 2, of images of the sizes that it remembers."""

    def __init__(self):
        super().__init__()
        self.sizes = set()

    def forward(self, image):
        self.sizes.add(tuple(image.shape[2:]))
        return [image[:, :1] + 2]


def test_a_prior_predicts_large_images_at_the_size_of_its_training():
    network = Brightness()
    prior = Prior(network, 64 * 208)
    assert prior.size_for(128, 416) == (64, 208)
    assert prior.size_for(256, 832) == (64, 208)
    assert prior.size_for(64, 208) == (64, 208)
    assert prior.size_for(48, 160) == (48, 160)  # small images are not enlarged
    assert Prior(Brightness(), None).size_for(128, 416) == (128, 416)
    x = torch.linspace(-0.5, 0.5, 416).expand(2, 3, 128, 416)  # an area's mean and its enlargement keep a ramp
    disparity = prior(x)
    assert network.sizes == {(64, 208), (48, 160), (80, 256)}
    torch.testing.assert_close(disparity[..., 4:-4], x[:, :1, :, 4:-4] + 2, rtol=0, atol=1e-4)
    assert not disparity.requires_grad


def test_a_run_s_folder_stands_for_its_last_checkpoint_and_a_folder_named_world_for_nothing(
    tmp_path, monkeypatch, write_checkpoint
):
    write_checkpoint(Path(tmp_path) / "last.pt", height=32, width=64)
    prior = load_prior(new_options({"prior": str(tmp_path), "prior_weight": 0.1}), torch.device("cpu"))
    assert prior.pixels == 32 * 64
    (Path(tmp_path) / "world").makedirs()
    monkeypatch.chdir(tmp_path)
    prior = load_prior(new_options({"prior": "world", "prior_weight": 0.1}), torch.device("cpu"))
    assert prior.pixels == 64 * 208


def test_a_prior_without_a_weight_or_a_depth_network_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"--prior-weight 0\.1: expected --prior FILE beside it, or --prior world"):
        load_prior(new_options({"prior_weight": 0.1}), torch.device("cpu"))
    with pytest.raises(UsageError, match="--prior world: expected --prior-weight above 0 beside it"):
        load_prior(new_options({"prior": "world"}), torch.device("cpu"))
    with pytest.raises(InputError, match="no such file"):
        load_prior(new_options({"prior": str(tmp_path / "a.pt"), "prior_weight": 0.1}), torch.device("cpu"))
