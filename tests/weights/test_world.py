"""The weights in this repository: small enough to be kept here, whole, and able to start the recipe `small`."""

import numpy as np
import torch
from path import Path

from datasets.augmentation import normalise
from datasets.synthetic.drive_files import make_drive_renderer
from datasets.synthetic.options import WorldOptions, list_drives
from models.checkpoint import load_model
from models.published import WORLD, WORLD_FILE
from training.options import new_options
from training.start import make_model

TEN_MEGABYTES = 10_000_000


def test_they_are_at_most_ten_megabytes_with_a_model_card():
    assert WORLD_FILE.size <= TEN_MEGABYTES
    card = (WORLD_FILE.parent / "README.md").read_text()
    for word in ("make weights", "ImageNet", "Abs Rel", "licence"):
        assert word in card


def test_they_start_the_recipe_small():
    model, ancestors = make_model(new_options({"recipe": "small", "start_from": (WORLD,)}))
    loaded = load_model(Path(WORLD))
    for name, value in model.depth_net.state_dict().items():
        assert torch.equal(value, loaded.depth_net.state_dict()[name])
    assert all(scene.startswith("world") for scene in ancestors[0])


def test_they_know_a_street_that_they_have_not_seen():
    """Frames of a plain world: depth up to a scale, by Abs Rel, beside the best constant."""
    options = WorldOptions(drives=2, frames=3, width=320, height=96, seed=99, stereo=False, dense_depth=True)
    network = load_model(Path(WORLD)).depth_net
    errors, constants = [], []
    for drive in list_drives(options):
        renderer = make_drive_renderer(options, drive)
        view = (1, drive.intrinsics, options.height, options.width)
        image = renderer.image(*view)
        truth = renderer.depth(*view, renderer.scene.world_from_camera[1])
        known = np.isfinite(truth) & (truth > 0) & (truth < 80)
        with torch.no_grad():
            disparity = network(normalise(torch.from_numpy(image.transpose(2, 0, 1)[None])))[0][0, 0].numpy()
        predicted = np.median(truth[known] * disparity[known]) / disparity[known]
        errors.append(np.mean(np.abs(predicted / truth[known] - 1)))
        constants.append(np.mean(np.abs(np.median(truth[known]) / truth[known] - 1)))
    assert np.mean(errors) < 0.3
    assert np.mean(errors) < 0.6 * np.mean(constants)
