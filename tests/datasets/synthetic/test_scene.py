"""Moving cars move rigidly, forwards and apart from each other."""

import itertools

import numpy as np

from datasets.synthetic import make_scene


def test_no_car_drives_backwards_or_through_another():
    for seed in range(8):
        scene = make_scene(np.random.default_rng(seed), 60, moving_cars=True)
        ahead, *oncoming = scene.movers
        forward = np.stack([np.cos(ahead.heading), np.sin(ahead.heading)], -1)[:-1]
        assert (np.einsum("nk,nk->n", np.diff(ahead.position, axis=0)[:, :2], forward) > -1e-6).all()
        for other, one in itertools.pairwise(oncoming):
            apart = np.linalg.norm(one.position - other.position, axis=-1)
            start = np.linalg.norm(one.position - scene.road.points[0], axis=-1)
            assert apart[start > 20].min(initial=99) > 10  # the road's start is far behind the camera


def test_moving_cars_move_and_nothing_else_does():
    scene = make_scene(np.random.default_rng(1), 20, moving_cars=True)
    parked = make_scene(np.random.default_rng(1), 20)
    assert len(scene.movers) >= 2
    first, last = scene.polygons_at(0).corners, scene.polygons_at(19).corners
    still = len(parked.polygons.corners)
    np.testing.assert_array_equal(first[:still], parked.polygons.corners)
    np.testing.assert_array_equal(first[:still], last[:still])
    moved = np.linalg.norm(last[still:] - first[still:], axis=-1)
    assert moved.min() > 1
    np.testing.assert_allclose(  # rigidly
        np.linalg.norm(first[-1, 0] - first[-1, 2]), np.linalg.norm(last[-1, 0] - last[-1, 2]), atol=1e-9
    )
