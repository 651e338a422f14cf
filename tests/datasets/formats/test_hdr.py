import numpy as np
import pytest

from datasets.formats.hdr import compress, hlg_scene_light, pq_light, tone_mapped


def grey(signal):
    """A picture of one grey."""
    return np.full((2, 3, 3), round(65535 * signal), np.uint16)


def test_light_of_the_standards_own_examples():
    """BT.2408: 58 % of PQ and 75 % of HLG are the reference white of 203 cd/m2; BT.2100: PQ ends at 10,000."""
    assert pq_light(np.array([0, 0.5081, 0.58, 1])) == pytest.approx([0, 100, 203, 10000], rel=0.01)
    assert hlg_scene_light(np.array([0, 0.5, 1])) == pytest.approx([0, 1 / 12, 1], abs=1e-6)
    assert 1000 * hlg_scene_light(np.array(0.75)) ** 1.2 == pytest.approx(203, rel=0.01)


def test_one_grey_is_the_same_in_both_transfers_and_keeps_its_light_below_the_knee():
    for light in (5, 36.54, 100):
        pq = np.interp(light, pq_light(np.linspace(0, 1, 4096)), np.linspace(0, 1, 4096))
        hlg = np.interp(light, 1000 * hlg_scene_light(np.linspace(0, 1, 4096)) ** 1.2, np.linspace(0, 1, 4096))
        expected = 255 * (1.055 * (light / 203) ** (1 / 2.4) - 0.055)
        for signal, transfer in ((pq, "PQ"), (hlg, "HLG")):
            picture = tone_mapped(grey(signal), transfer)
            assert (picture.dtype, picture.shape) == (np.uint8, (2, 3, 3))
            assert np.abs(picture - expected).max() < 2


def test_the_curve_rises_up_to_the_peak_and_keeps_the_hue():
    light = np.linspace(0, 5, 200)[:, None] * [[1.0, 0.5, 0.25]]
    shown = compress(light)
    assert (np.diff(shown[:, 0])[:197] > 0).all()
    np.testing.assert_allclose(shown[1:, 1] / shown[1:, 0], 0.5)
    assert shown.max() == pytest.approx(1)
    np.testing.assert_allclose(shown[:20], light[:20])
    for transfer in ("PQ", "HLG"):
        assert tone_mapped(grey(1), transfer).min() >= 254
        assert tone_mapped(grey(0), transfer).max() == 0


def test_colours_outside_of_srgb_are_cut_off():
    """Pure green of BT.2020 has negative red and blue in BT.709."""
    picture = tone_mapped(np.array([[[0, 30000, 0]]], np.uint16), "PQ")
    assert picture[0, 0, 1] > 50
    assert picture[0, 0, [0, 2]].max() == 0


def test_another_transfer_is_refused():
    with pytest.raises(ValueError, match="transfer is 'SDR'"):
        tone_mapped(grey(0.5), "SDR")
