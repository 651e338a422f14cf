import pytest
import torch

from geometry.pose import pose_to_matrix
from geometry.snippets import Snippets
from loss_functions import ObjectiveOptions, objective
from models.sfm_learner import Prediction
from visualization.colours import colour_depth, colour_disparity, colourise, snippet_pictures, to_picture


def test_colours_run_from_the_lowest_to_the_highest_value():
    picture = colourise(torch.tensor([[0.0, 1, 2, 9, -5]]), 0, 2, "gray")
    assert (picture.dtype, picture.shape) == (torch.uint8, (3, 1, 5))
    assert picture[0, 0].tolist() == [0, 127, 255, 255, 0]
    assert picture[0].equal(picture[1])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_hostile_values_make_a_picture_all_the_same(value):
    values = torch.full((2, 1, 4, 6), value)
    for picture in (colour_disparity(values), colour_depth(values)):
        assert (picture.dtype, picture.shape) == (torch.uint8, (2, 3, 4, 6))
    assert colourise(values, value, value, "magma").shape == (2, 1, 3, 4, 6)


def test_near_is_bright():
    disparity = torch.tensor([0.1, 5.0]).view(1, 1, 1, 2).expand(1, 1, 4, 2)
    for picture in (colour_disparity(disparity), colour_depth(1 / disparity)):
        far, near = picture[0, :, 0].float().mean(0)
        assert near > far


def test_pictures_of_images_are_rounded():
    images = torch.arange(256).view(1, 1, 256).expand(3, 1, 256) / 127.5 - 1
    assert to_picture(images)[0, 0].tolist() == list(range(256))
    assert to_picture(torch.tensor([-2.0, 2.0])).tolist() == [0, 255]


@pytest.mark.parametrize(("sources", "explainability"), [(2, True), (4, False)])
@pytest.mark.parametrize("batch", [1, 4])
def test_pictures_of_a_snippet(sources, explainability, batch):
    height, width = 33, 50
    sizes = [(-(-height // 2**scale), -(-width // 2**scale)) for scale in range(4)]
    frames = torch.rand(batch, sources + 1, 3, height, width) * 2 - 1
    disparities = [torch.rand(batch, 1, *size) + 0.1 for size in sizes]
    logits = [torch.randn(batch, sources, *size) for size in sizes] if explainability else None
    intrinsics = torch.tensor([[30.0, 0, 25], [0, 30, 16], [0, 0, 1]]).repeat(batch, 1, 1)
    snippets = Snippets(frames[:, 0], frames[:, 1:], intrinsics)
    prediction = Prediction(disparities, pose_to_matrix(torch.zeros(batch, sources, 6)), logits, intrinsics)
    loss = objective(snippets, prediction, ObjectiveOptions(explainability=explainability))
    pictures = snippet_pictures(snippets, prediction, loss)
    assert ("8_explainability" in pictures) == explainability
    rows = {"1_target": 1, "2_disparity_by_scale": 4, "3_depth": 1}
    for title, picture in pictures.items():
        columns, count = min(batch, 2), rows.get(title, sources)
        assert picture.dtype == torch.uint8
        # White lines of 4 pixels lie between and around them.
        assert picture.shape == (3, count * (height + 4) + 4, columns * (width + 4) + 4), title
        assert picture[:, :4].min() == picture[:, -4:].min() == picture[:, :, :4].min() == 255
    # Cameras that stand: the warped sources are the sources.
    assert (pictures["5_warped_sources"].int() - pictures["4_sources"].int()).abs().max() <= 1
    assert (pictures["7_error_of_warp"].int() - pictures["6_error_of_identity_warp"].int()).abs().max() <= 8
