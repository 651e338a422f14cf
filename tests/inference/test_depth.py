import pytest
import torch

from files.errors import InputError
from inference.depth import blend_flipped, input_size


def test_size_by_flag_then_training_then_paper():
    assert input_size((None, None), (None, None)) == (128, 416)
    assert input_size((None, None), (192, 640)) == (192, 640)
    assert input_size((256, None), (192, 640)) == (256, 640)
    with pytest.raises(InputError, match="from 32 on"):
        input_size((None, 31), (192, 640))


def test_blend_of_an_image_and_its_mirror_by_hand():
    # Positions 0, 0.05, 0.1, ..., 1: at the left border only the mirror image's (3), at the right only the own (1),
    # their mean from 10 % to 90 %, and at 5 % still the border's. Between, 7.5 % is half way to the mean.
    own, mirror = torch.full((1, 1, 1, 41), 1.0), torch.full((1, 1, 1, 41), 3.0)
    blended = blend_flipped(own, mirror)[0, 0, 0]
    torch.testing.assert_close(blended[:5], torch.tensor([3, 3, 3, 2.5, 2]))
    torch.testing.assert_close(blended[4:37], torch.full((33,), 2.0))
    torch.testing.assert_close(blended[36:], torch.tensor([2, 1.5, 1, 1, 1]))
