import numpy as np
import pytest
from path import Path

from evaluation.depth_inputs import load_listed
from evaluation.depth_scoring import ImageSet
from files.errors import InputError

NAMES = ["a/0.png", "b/1.png"]
SETS = {("list.txt", "dense"): ImageSet("list.txt", NAMES, NAMES, [])}


@pytest.fixture
def file(tmp_path):
    return Path(tmp_path) / "mine.npy"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_plain_array_is_in_the_order_of_the_list(file, dtype):
    values = np.arange(1, 13, dtype=dtype).reshape(2, 2, 3)
    np.save(file, values)
    predictions, distances = load_listed(file, NAMES, SETS)
    assert [*predictions.depth] == NAMES
    assert predictions.depth["b/1.png"].dtype == np.float32
    np.testing.assert_array_equal(predictions.depth["b/1.png"], values[1])
    assert distances == {}
    predictions, _ = load_listed(file, NAMES, SETS, disparity=True)
    np.testing.assert_allclose(predictions.depth["b/1.png"], 1 / values[1].astype(np.float64), rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((3, 2, 3)), r"float64 \[3, 2, 3\], expected floating-point numbers \[2, h, w\]"),
        (np.ones((2, 2, 0)), "no readable .npy|expected floating-point numbers"),
        (np.ones((2, 6)), "expected floating-point numbers"),
        (np.ones((2, 2, 3), np.int64), r"int64 \[2, 2, 3\], expected floating-point numbers \[2, h, w\]"),
        (np.array([{}, {}], dtype=object), "no readable .npy"),
    ],
)
def test_another_array_is_refused_in_one_line(file, values, message):
    np.save(file, values, allow_pickle=True)
    with pytest.raises(InputError, match=message):
        load_listed(file, NAMES, SETS)


def test_disparity_is_positive_and_the_list_is_one(file):
    np.save(file, np.array([np.ones((2, 3)), np.zeros((2, 3))]))
    predictions, _ = load_listed(file, NAMES, SETS, disparity=True)
    assert (predictions.depth[NAMES[0]] == 1).all()
    with pytest.raises(InputError, match=r"mine\.npy: has disparities that are not above 0"):  # seen when it is read
        predictions.depth[NAMES[1]]
    two = SETS | {("other.txt", "dense"): ImageSet("other.txt", ["c"], ["c"], [])}
    with pytest.raises(InputError, match="the protocols have 2; give --list"):
        load_listed(file, NAMES, two)
    with pytest.raises(InputError, match="no such file"):
        load_listed(file.parent / "nowhere.npy", NAMES, SETS)
