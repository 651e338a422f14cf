"""The sections of a video in which the camera turns, chosen from the motion of points."""

import numpy as np
import pytest
from path import Path
from scipy.ndimage import gaussian_filter

from datasets.preparation import turns
from datasets.preparation.turns import FrameMotion, choose_sections, follow, key_frames, measure_motion
from datasets.preparation.video_inputs import open_input


def straight_and_turning(sideways, length=0.05, cuts=()):
    return [
        FrameMotion(number, number > 0 and number not in cuts, float(one), length)
        for number, one in enumerate(sideways)
    ]


def test_sections_are_where_the_view_turns_most_and_do_not_overlap():
    sideways = np.zeros(300)
    sideways[40:60] = 0.04  # 0.8 widths
    sideways[200:220] = -0.02  # 0.4
    sideways[280:] = 0.001  # hardly
    first, second = choose_sections([straight_and_turning(sideways)], 3)
    assert first.turn == pytest.approx(0.8)
    assert first.frames[0] < 40 + 1
    assert first.frames[-1] >= 59
    assert second.turn == pytest.approx(0.4)
    assert second.frames[0] <= 200
    assert second.frames[-1] >= 219
    assert len(first.frames) == len(second.frames) == turns.SECTION_IMAGES
    assert choose_sections([straight_and_turning(sideways)], 1) == [first]
    assert not choose_sections([straight_and_turning(sideways[280:])], 3)
    assert not choose_sections([[]], 3)


def test_shaking_is_no_turn():
    sideways = np.where(np.arange(200) % 2, 0.05, -0.05)
    assert not choose_sections([straight_and_turning(sideways)], 3)


def test_sections_of_several_inputs_come_in_order_of_their_turn():
    weak, strong = straight_and_turning([0.015] * 40), straight_and_turning([0.03] * 40)
    assert [section.source for section in choose_sections([weak, strong], 3)] == [1, 0]


def test_a_section_crosses_no_cut():
    """Of 25 + 25 frames with a cut between them there are two sections of 25, of 15 + 15 none."""
    sections = choose_sections([straight_and_turning([0.03] * 50, cuts=[25])], 3)
    assert sorted((section.frames[0], section.frames[-1]) for section in sections) == [(0, 24), (25, 49)]
    assert not choose_sections([straight_and_turning([0.03] * 30, cuts=[15])], 3)


def test_key_frames_have_equal_steps_of_motion():
    """A standing camera gives no frames, a slow one few."""
    motions = straight_and_turning(np.zeros(400), length=0.01)
    motions += [FrameMotion(400 + k, True, 0.0, 0.0) for k in range(100)]
    ((numbers, _),) = key_frames(motions)
    assert len(numbers) == pytest.approx(400 * 0.01 / 0.04, abs=3)
    assert numbers[-1] < 400
    assert set(np.diff(numbers)) <= {4, 5}


def test_the_motion_of_points_is_that_of_the_picture():
    rng = np.random.default_rng(0)
    wide = gaussian_filter(rng.uniform(0, 255, (96, 280)), 1.5)
    wide = np.uint8(255 * (wide - wide.min()) / np.ptp(wide))
    followed, sideways, length = follow(wide[:, 8:264], wide[:, 12:268])
    assert followed
    assert sideways == pytest.approx(-4 / 256, abs=0.1 / 256)
    assert length == pytest.approx(4 / 256, abs=0.1 / 256)
    assert not follow(wide[:, :256], np.zeros_like(wide[:, :256]))[0]


def test_a_video_that_pans(write_video, tmp_path):
    rng = np.random.default_rng(0)
    wide = gaussian_filter(rng.uniform(0, 255, (96, 400, 3)), (1.5, 1.5, 0))
    wide = np.uint8(255 * (wide - wide.min()) / np.ptp(wide))
    images = [wide[:, 3 * k : 3 * k + 256] for k in range(12)] + [255 - wide[:, 100:356]] * 2
    source = open_input(Path(write_video(tmp_path / "pan.mp4", images, 10, crf=10)))
    motions = measure_motion(source, 100, 2)
    assert [motion.number for motion in motions] == list(range(14))
    assert not motions[0].follows
    assert all(motion.follows for motion in motions[1:12])
    assert sum(motion.sideways for motion in motions[:12]) == pytest.approx(-33 / 256, abs=0.5 / 256)
    assert len(measure_motion(source, 5, 1)) == 5
