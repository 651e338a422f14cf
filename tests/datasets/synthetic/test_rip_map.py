import numpy as np

from datasets.synthetic import rip_map
from datasets.synthetic.textures import SIZE


def test_a_level_of_the_rip_map_holds_box_means():
    rng = np.random.default_rng(0)
    texture = rng.random((1, SIZE, SIZE, 4)).astype(np.float32)
    atlas = rip_map.rip_maps(texture)[0]
    for i, j in ((0, 0), (3, 1), (0, 8), (8, 8)):
        left, top = rip_map.level_offset(i), rip_map.level_offset(j)
        width, height = SIZE >> i, SIZE >> j
        expected = texture[0].reshape(height, 1 << j, width, 1 << i, 4).mean((1, 3))
        np.testing.assert_allclose(atlas[top : top + height, left : left + width], expected, atol=1e-5)
