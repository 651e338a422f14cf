import pytest
from path import Path

from benchmarks.surroundings import make_noise
from files.errors import InputError
from training.data_sets import open_data_sets
from training.options import new_options


def test_images_that_are_too_small_for_the_networks_are_one_line(tmp_path):
    make_noise(Path(tmp_path) / "enough", 32, 64, 6)
    assert open_data_sets(new_options({"data": str(tmp_path / "enough")}))[0].width == 64
    make_noise(Path(tmp_path) / "small", 24, 64, 6)
    with pytest.raises(InputError, match=r"images of 64 x 24 pixels, expected 32 or more along each side; prepare"):
        open_data_sets(new_options({"data": str(tmp_path / "small")}))
