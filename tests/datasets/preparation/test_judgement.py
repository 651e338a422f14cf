from collections import Counter

import numpy as np

from datasets.preparation.judgement import judge_intrinsics, judge_motion
from datasets.preparation.scene_check import Parallax, SceneCheck
from geometry.two_view import NO_ESSENTIAL_MATRIX, NO_MOTION


def test_judging_k():
    def judged(fx, fy, cx, cy, height=128, width=416):
        intrinsics = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        return [certain for certain, _ in judge_intrinsics(intrinsics, height, width)]

    assert judged(241.7, 246.3, 203.8, 58.7) == []  # KITTI, both squeezed to 416 x 128
    assert judged(721.5, 721.5, 609.6, 172.9, 375, 1242) == []
    assert judged(2262.5, 2265.3, 1096.9, 513.1, 1024, 2048) == []  # Cityscapes
    assert judged(525, 525, 319.5, 239.5, 480, 640) == []  # a Kinect
    assert judged(241.7, 246.3, 203.8, 20.7) == [False]  # cut off above
    assert judged(721.5, 735, 203.8, 58.7) == [False]  # the focal length of the original images
    assert judged(721.5, 721.5, 609.6, 172.9) == [True, False]
    assert judged(1.45 * 241.7, 1.45 * 246.3, 1.45 * 203.8, 1.45 * 58.7) == [False]  # of images somewhat larger
    assert judged(0.75 * 241.7, 0.75 * 246.3, 0.75 * 203.8, 0.75 * 58.7) == [False]
    assert judged(241.7, 246.3, -3, 58.7) == [True]


def test_a_k_in_units_of_the_image_is_only_said_to_be_normalised():
    """Its centre and its field of view look wrong as well, which would not tell the cause."""
    intrinsics = np.array([[0.58, 0, 0.5], [0, 1.92, 0.5], [0, 0, 1]])  # monodepth2's
    ((certain, text),) = judge_intrinsics(intrinsics, 128, 416)
    assert certain
    assert text == (
        "focal lengths 0.58 and 1.92: K looks normalised; multiply its first row by the width 416 and its second row "
        "by the height 128"
    )


def test_tracks_that_fit_no_essential_matrix_are_a_warning():
    def warned(problems, frames):
        check = SceneCheck("drive", ["train.txt"], parallax=Parallax(frames=frames, problems=Counter(problems)))
        judge_motion(check)
        return check.warned

    found = "no essential matrix fits the tracks of 5 of 8 frames"
    assert warned({NO_ESSENTIAL_MATRIX: 5}, 8) == {"no rigid scene": found}
    assert warned({NO_ESSENTIAL_MATRIX: 4}, 8) == {}
    assert warned({NO_ESSENTIAL_MATRIX: 2}, 2) == {}  # too few to tell
    assert warned({NO_MOTION: 8}, 8) == {}
