import numpy as np
import pytest
from path import Path
from PIL import Image

from evaluation.metrics.depth import DepthProtocol, known_depth
from evaluation.metrics.depth_protocols import DepthTest
from visualization.depth_sheet import choose_rows, draw_row, write_sheet


def test_best_median_and_worst_by_hand():
    errors = [0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.4]  # in order: 1, 5, 3, 6, 0, 4, 2
    assert choose_rows(errors, 1) == [("best", 1), ("median", 6), ("worst", 2)]
    of_each_two = [("best", 1), ("best", 5), ("median", 3), ("median", 6), ("worst", 4), ("worst", 2)]
    assert choose_rows(errors, 2) == of_each_two
    assert choose_rows([0.3, 0.1, 0.2], 3) == [("best", 1), ("median", 2), ("worst", 0)]
    assert choose_rows([0.2, 0.1], 3) == [("best", 1), ("worst", 0)]  # no image twice
    assert choose_rows([0.2], 3) == [("best", 0)]


@pytest.mark.parametrize("dense", [True, False])
def test_pictures_show_the_error_where_it_is(dense, tmp_path):
    """Right on the left half, twice too far on the right half: black there, white here, and grey where unknown."""
    truth = np.full((60, 200), 10.0)
    truth[:20] = 0
    if not dense:
        truth[:, np.arange(200) % 10 > 0] = 0
    predicted = np.full((60, 200), 5.0)
    predicted[:, 100:] = 10
    test = DepthTest("list", "dense", DepthProtocol(crop="none", scaling="none"))
    image = np.full((30, 100, 3), 7, np.uint8)
    pictures = draw_row(image, predicted, 2.0, known_depth(truth), test)
    assert [picture.shape for picture in pictures] == [(60, 200, 3)] * 4
    assert all(picture.dtype == np.uint8 for picture in pictures)
    source, prediction, known, error = pictures
    assert (source == 7).all()
    assert (prediction[30, 20] > prediction[30, 180]).any()  # near is bright
    hit = 30 if dense else slice(20, 31, 10)
    assert (error[30, 50][None].max(-1) < 20).all()
    assert (error[30, 150] > 230).all()
    assert (error[5, 50] == error[5, 150]).all()
    assert (known[5, 50] == error[5, 50]).all()  # the grey of what is unknown
    assert (known[hit, 50] == known[hit, 150]).all()

    file = Path(tmp_path) / "sheet.png"
    write_sheet(file, "title", ["one", "two"], [pictures, pictures])
    with Image.open(file) as sheet:
        assert sheet.width > 4 * 600
    assert not file.parent.files("*.part")
