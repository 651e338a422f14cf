import dataclasses

import numpy as np

from datasets.synthetic import list_drives
from datasets.synthetic.drive_files import make_drive_scene


def test_another_seed_gives_another_world(tiny_options):
    options = [dataclasses.replace(tiny_options, seed=seed) for seed in (5, 6)]
    scenes = [make_drive_scene(o, list_drives(o)[0]) for o in options]
    assert not np.allclose(scenes[0].world_from_camera[1], scenes[1].world_from_camera[1])
    names = [
        {drive.scene for drive in list_drives(dataclasses.replace(o, vary_focal=True, drives=400))} for o in options
    ]
    assert not names[0] & names[1]
    assert len(names[0]) == 400
