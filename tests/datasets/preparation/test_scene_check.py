import pytest

from datasets.preparation.image_motion import PairMotion
from datasets.preparation.scene_check import FrameGap, spread


def pair(pixels):
    return PairMotion(0.1, pixels is None, None if pixels is None else 0.9, pixels, None)


@pytest.mark.parametrize(
    ("gap", "text"),
    [
        (
            FrameGap(3, 2.04, [pair(2.0), pair(2.08), pair(None)]),
            "every 3rd frame would move by 2.0 (measured on 2 pairs)",
        ),
        (FrameGap(16, 2.5, [pair(2.5)]), "every 16th frame would move by 2.5 (measured on 1 pairs)"),
        (FrameGap(4, 2.0, [pair(None)]), "every 4th frame would move by 2.0 (extrapolated)"),
    ],
)
def test_a_gap_says_how_far_frames_move_and_how_that_is_known(gap, text):
    assert str(gap) == text
    assert gap.plain() == {"gap": gap.gap, "motion_pixels": gap.pixels, "pairs": len(gap.moving)}


def test_numbers_are_spread_evenly_from_the_first_to_the_last():
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(3, 10) == [0, 1, 2]
    assert spread(0, 4) == []
    assert spread(-5, 4) == []
