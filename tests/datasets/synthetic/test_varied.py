"""Varied worlds: what differs between drives, and that depth and poses stay exact."""

import dataclasses

import numpy as np
import pytest
import torch

from datasets.synthetic import WorldOptions, list_drives, make_drive_renderer, write_world
from datasets.synthetic.drive_files import make_drive_scene
from datasets.synthetic.first_hits import FIRST_OBJECT, first_hits, see
from datasets.synthetic.ground import Ground
from datasets.synthetic.options import drive_variation
from datasets.synthetic.photo import Photo, motion_blur
from datasets.synthetic.rays import camera_rays
from datasets.synthetic.rip_map import Footprint
from datasets.synthetic.shadows import Shadows
from datasets.synthetic.shapes import Quadric, Quadrics, box, stack_polygons, stack_quadrics
from datasets.synthetic.terrain import make_terrain
from datasets.synthetic.textures import ALL_NAMES
from datasets.synthetic.variation import KINDS, WEATHERS
from datasets.synthetic.vehicles import vehicle
from files.errors import InputError
from tests.datasets.synthetic.test_render import warp_errors

MANY = WorldOptions(drives=400, varied=True)
PLAIN_SHAPES = (1186, 236, 2)
PLAIN_POSITION = [-45.78805468, 53.41538321, 1.66051831]
PLAIN_LIGHT = [56.7917, 98.8814, 102.3325, 88.5809, 82.8421, 79.1394, 73.7933, 68.7764]
PLAIN_DISPARITY = [0.0950363, 0.0968715, 0.1037222, 0.1575523]


def variations(options=MANY):
    return [drive_variation(options, drive.number) for drive in list_drives(options)]


def test_cameras_cover_the_range_and_are_most_often_like_kittis():
    views = np.array([v.field_of_view for v in variations()])
    assert views.min() < 40
    assert views.max() > 104
    assert 70 < np.median(views) < 82
    intrinsics = np.stack([drive.intrinsics for drive in list_drives(MANY)])
    fx, fy = intrinsics[:, 0, 0], intrinsics[:, 1, 1]
    np.testing.assert_allclose(2 * np.degrees(np.arctan(MANY.width / 2 / fx)), views)
    assert 0.4 < np.mean(np.abs(fy / fx - 1) < 0.04) < 0.8  # square pixels
    assert (2 * np.degrees(np.arctan(MANY.height / 2 / fy))).max() < 75.01
    assert np.ptp(intrinsics[:, 0, 2]) > 0.03 * MANY.width
    heights = np.array([v.camera_height for v in variations()])
    assert 1.2 <= heights.min() < 1.3
    assert 2.05 < heights.max() <= 2.2
    assert len({drive.date for drive in list_drives(MANY)}) == 400  # a calibration for each


def test_all_kinds_of_road_and_weather_occur_as_often_as_stated():
    drawn = variations()
    for name, shares in (("kind", KINDS), ("weather", WEATHERS)):
        for value, share in shares.items():
            found = np.mean([getattr(v, name) == value for v in drawn])
            assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / 400), (value, found)
    assert 0.15 < np.mean([v.photo.saturation == 0 for v in drawn]) < 0.35  # grey cameras
    assert 0.4 < np.mean([v.photo.jpeg > 0 for v in drawn]) < 0.8


@pytest.mark.parametrize("number", range(4))
def test_true_depth_pose_and_k_warp_a_frame_into_its_neighbour(varied_renderers, varied_options, number):
    """Without what the camera adds, a static varied drive obeys the same law as the plain world."""
    renderer, intrinsics = varied_renderers[number], list_drives(varied_options)[number].intrinsics
    poses = renderer.scene.world_from_camera
    for frame, neighbour in ((0, 1), (8, 7)):
        images = [renderer.image(k, intrinsics, 64, 208, photo=False) for k in (frame, neighbour)]
        depths = [renderer.depth(k, intrinsics, 64, 208) for k in (frame, neighbour)]
        error, identity, seen = warp_errors(images, depths, np.linalg.inv(poses[neighbour]) @ poses[frame], intrinsics)
        assert error < 0.022, (frame, error)
        assert identity > 2 * error, (frame, identity, error)
        assert seen > 0.4


def test_the_ground_lies_at_the_cameras_height_and_the_horizon_where_the_tilt_puts_it(varied_options):
    for drive in list_drives(varied_options):
        variation = drive_variation(varied_options, drive.number)
        scene = make_drive_scene(varied_options, drive)
        places = scene.world_from_camera[:, :3, 3]
        ground, slope = np.zeros(len(places)), np.zeros((len(places), 2))
        if scene.terrain is not None:
            ground, slope = scene.terrain.height(places[:, :2]), scene.terrain.slope(places[:, :2])
        np.testing.assert_allclose(places[:, 2] - ground, variation.camera_height, atol=0.1)
        normal = np.concatenate([-slope, np.ones((len(slope), 1))], 1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        down = -np.einsum("nk,nk->n", scene.world_from_camera[:, :3, 2], normal)
        shaking = np.radians(3 * varied_options.jitter * variation.jitter + 0.05)
        np.testing.assert_allclose(down, np.sin(-np.radians(variation.mount[0])), atol=shaking)


def test_what_the_camera_sees_of_the_ground_has_the_height_of_the_hills():
    options = WorldOptions(drives=12, frames=5, width=104, height=48, seed=8, varied=True)
    hilly = [drive for drive in list_drives(options) if drive_variation(options, drive.number).steepest > 0.03]
    assert len(hilly) >= 2
    for drive in hilly[:2]:
        scene = make_drive_scene(options, drive)
        pose = scene.world_from_camera[2]
        rays = camera_rays(drive.intrinsics, 48, 104)
        surface, inverse = first_hits(see(scene, scene.polygons, pose, rays), rays)
        ground = (surface >= FIRST_OBJECT) & (surface < FIRST_OBJECT + scene.strips)
        assert ground.sum() > 300
        points = (rays.directions() / np.maximum(inverse, 1e-6)[..., None])[ground] @ pose[:3, :3].T + pose[:3, 3]
        near = np.linalg.norm(points - pose[:3, 3], axis=1) < 100
        np.testing.assert_allclose(points[near, 2], scene.terrain.height(points[near, :2]), atol=0.01)
        assert np.ptp(points[near, 2]) > 0.2


def test_a_side_road_opens_the_kerb_and_nothing_is_built_on_it():
    options = WorldOptions(drives=8, frames=5, width=104, height=48, seed=1, varied=True)
    drive = next(d for d in list_drives(options) if len(make_drive_scene(options, d).side_roads) > 1)
    scene = make_drive_scene(options, drive)
    ground = Ground(scene.road, torch.device("cpu"), scene.side_roads)

    def texture_at(places: np.ndarray) -> list[str]:
        x, y = torch.tensor(places, dtype=torch.float32).T
        one, zero = torch.ones_like(x), torch.zeros_like(x)
        return [ALL_NAMES[k] for k in ground.footprint(Footprint(x, y, one, zero, zero, one))[1]]

    tall = scene.polygons.corners[scene.strips :][..., :2].reshape(-1, 2)
    for side in scene.side_roads:
        away = np.linalg.norm(side.points[:, None] - scene.road.points, axis=-1).min(1)
        assert set(texture_at(side.points[away < scene.road.section.asphalt - 1])) == {"road"}
        outside = away > scene.road.section.asphalt + 1
        assert set(texture_at(side.points[outside])) == {"side_road"}
        clear = side.points[outside & (away > 12)]
        assert np.linalg.norm(clear[:, None] - tall, axis=-1).min() > 0.4 * side.section.kerb
    middle = scene.road.at(np.linspace(20, 60, 9))[0]
    assert set(texture_at(middle)) == {"road"}


def test_houses_and_cars_stand_on_the_hills():
    terrain = make_terrain(np.random.default_rng(2), np.array([[0.0, 0.0], [300.0, 100.0]]), 0.08)
    assert np.abs(np.diff(terrain.heights) / np.diff(terrain.knots)).max() == pytest.approx(0.08)
    spot = np.array([120.0, 40.0])
    shapes, _ = vehicle(np.random.default_rng(0), spot, 0.7, large=0.0)
    lifted = stack_polygons([terrain.lift_polygon(p, spot, follow=True) for p in shapes])
    before = stack_polygons(shapes).corners
    rise = terrain.height(spot) + (before[..., :2] - spot) @ terrain.slope(spot)
    np.testing.assert_allclose(lifted.corners[..., 2], before[..., 2] + rise, atol=1e-9)
    np.testing.assert_allclose(lifted.corners[..., :2], before[..., :2], atol=1e-9)
    moved = terrain.lift_mover(stack_polygons(shapes), spot)
    np.testing.assert_allclose(moved.corners, lifted.corners, atol=1e-9)


def test_a_box_casts_its_shadow_where_its_height_and_the_sun_put_it():
    shapes = stack_polygons(box((0.0, 0.0), 0.0, 4.0, 4.0, 0.0, 5.0, "wall", "roof", np.ones(3)))
    elevation = np.radians(30)
    sun = np.array([-np.cos(elevation), 0.0, np.sin(elevation)])  # in the west: shadows fall to the east
    path = np.array([[0.0, -20.0], [0.0, 20.0]])
    shadows = Shadows(shapes, none_of_it(), sun, path, 60.0, "cpu")
    length = 5.0 / np.tan(elevation)

    def shade(*points: tuple[float, float, float]) -> np.ndarray:
        return shadows.shade(*torch.tensor(np.array(points) @ shadows.axes.T, dtype=torch.float32).T).numpy()

    dark = [(3.0, 0.0, 0.0), (2 + length - 0.8, 0.0, 0.0), (4.0, 1.5, 0.0), (4.0, -1.5, 1.0)]
    lit = [
        (2 + length + 1.4, 0.0, 0.0),
        (4.0, 2.7, 0.0),
        (-3.0, 0.0, 0.0),
        (4.0, 0.0, 5.0),
        (0.0, 0.0, 5.0),
        (-2, 0, 2.5),
    ]
    np.testing.assert_allclose(shade(*dark), 1, atol=1e-6)
    np.testing.assert_allclose(shade(*lit), 0, atol=1e-6)


def none_of_it() -> Quadrics:
    empty = np.zeros(0)
    return Quadrics(np.zeros((0, 3)), np.zeros((0, 3)), empty, empty, empty.astype(int), empty, np.zeros((0, 3)))


def test_a_crown_casts_a_shadow_with_gaps_and_a_post_a_thin_one():
    green = np.ones(3)
    crown = Quadric(np.array([0.0, 0, 6]), np.array([2.0, 2, 2]), -np.inf, np.inf, "leaves", 64.0, green)
    post = Quadric(np.array([0.0, 12, 0]), np.array([0.1, 0.1, np.inf]), 0.0, 4.0, "bark", 64.0, green)
    nothing = stack_polygons(box((500.0, 500.0), 0.0, 1.0, 1.0, 0.0, 1.0, "wall", "roof", green))
    sun = np.array([0.6, 0.0, 0.8])
    shadows = Shadows(nothing, stack_quadrics([crown, post]), sun, np.array([[0.0, 0.0], [0.0, 12.0]]), 30.0, "cpu")
    x, y = np.meshgrid(np.linspace(-12, 4, 160), np.linspace(-4, 16, 200))
    points = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], -1)
    shade = shadows.shade(*torch.tensor(points @ shadows.axes.T, dtype=torch.float32).T).numpy().reshape(x.shape)
    inside = np.hypot((x + 4.5) * 0.8, y) < 1.7  # at height 6 the shadow's middle has moved by 6 * 0.6 / 0.8
    outside = (np.hypot((x + 4.5) * 0.8, y) > 2.7) & (y < 10)
    assert 0.5 < shade[inside].mean() < 0.95
    assert shade[outside].max() == 0
    line = (np.abs(y - 12) < 0.1) & (x > -2.5) & (x < -0.7)
    assert shade[line].mean() > 0.3
    assert shade[(np.abs(y - 12) > 0.6) & (y > 10)].max() == 0


def test_the_photo_changes_no_geometry_and_is_the_same_each_time(varied_renderers, varied_options):
    renderer, intrinsics = varied_renderers[0], list_drives(varied_options)[0].intrinsics
    first, again = (renderer.image(3, intrinsics, 64, 208) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    clean = renderer.image(3, intrinsics, 64, 208, photo=False)
    assert (first != clean).mean() > 0.5
    other = make_drive_renderer(varied_options, list_drives(varied_options)[0])
    np.testing.assert_array_equal(other.image(3, intrinsics, 64, 208), first)


@pytest.mark.parametrize("seed", range(2))
def test_no_vehicle_drives_through_another(seed):
    options = WorldOptions(drives=5, frames=40, varied=True, moving_cars=1.0, seed=seed)
    for drive in list_drives(options):
        scene = make_drive_scene(options, drive)
        assert scene.movers
        positions = np.stack([m.position for m in scene.movers], 1)  # [frames, movers, 2]
        apart = np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)
        apart += 1e3 * np.eye(positions.shape[1])
        ahead = scene.world_from_camera[:, None, :2, 3]
        near = np.linalg.norm(positions - ahead, axis=-1) < 100
        assert apart[near[:, :, None] & near[:, None]].min(initial=99) > 2.0
        to_camera = np.linalg.norm(positions - ahead, axis=-1)
        assert to_camera.min() > 1.5


@pytest.mark.slow
def test_the_same_seed_gives_the_same_world(tmp_path):
    options = WorldOptions(drives=2, frames=3, width=48, height=32, seed=5, varied=True, moving_cars=1.0)
    worlds = []
    for name, jobs in (("one", 1), ("two", 2)):
        write_world(tmp_path / name, options, jobs=jobs)
        files = sorted(file for file in (tmp_path / name).rglob("*") if file.is_file())
        worlds.append({str(file.relative_to(tmp_path / name)): file.read_bytes() for file in files})
    assert worlds[0] == worlds[1]
    calibrations = [content for file, content in worlds[0].items() if file.endswith("calib_cam_to_cam.txt")]
    assert len(set(calibrations)) == 2


def test_two_sources_of_focal_lengths_are_refused(tmp_path):
    with pytest.raises(InputError, match="vary focal: got it with varied"):
        write_world(tmp_path / "world", WorldOptions(drives=2, frames=3, varied=True, vary_focal=True))


def test_the_plain_world_is_what_it_was():
    """Figures of the plain world before there were varied ones: drawing one number more would change them all."""
    options = WorldOptions(drives=2, frames=45, width=104, height=32, seed=4, moving_cars=1.0)
    drive = list_drives(options)[1]
    renderer = make_drive_renderer(options, drive)
    scene = renderer.scene
    shapes = len(scene.polygons.origin), len(scene.quadrics.centre), len(scene.movers)
    image = renderer.image(20, drive.intrinsics, 32, 104).astype(float)
    depth = renderer.depth(20, drive.intrinsics, 32, 104)
    assert shapes == PLAIN_SHAPES
    np.testing.assert_allclose(scene.world_from_camera[44, :3, 3], PLAIN_POSITION, atol=1e-6)
    np.testing.assert_allclose(image.reshape(2, 16, 4, 26, 3).mean((1, 3, 4)).ravel(), PLAIN_LIGHT, atol=0.01)
    np.testing.assert_allclose(1 / depth[20:30, ::26].mean(0), PLAIN_DISPARITY, rtol=1e-4)


def test_a_photo_without_effects_is_the_light_itself():
    light = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(0))
    pixels = Photo().develop(light.clone(), 0, np.eye(4))
    np.testing.assert_array_equal(pixels, (light * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
    grey = dataclasses.replace(Photo(), saturation=0.0, shot_noise=0.05).develop(light.clone(), 0, np.eye(4))
    assert np.ptp(grey, axis=2).max() == 0
    noisy = [dataclasses.replace(Photo(), read_noise=0.02, seed=s).develop(light.clone() * 0 + 0.5, 0, np.eye(4))
             for s in (0, 1)]  # fmt: skip
    assert np.std(noisy[0] - 127.5) == pytest.approx(0.02 * 255, rel=0.2)
    assert (noisy[0] != noisy[1]).any()


def test_motion_blur_spreads_light_along_the_path_and_leaves_a_standing_camera_sharp():
    light = torch.zeros(3, 21, 41)
    light[:, 10, 20] = 1.0
    intrinsics = np.array([[40.0, 0, 20], [0, 40, 10], [0, 0, 1]])
    near = torch.full((21, 41), 0.5)
    assert torch.equal(motion_blur(light, near, intrinsics, np.eye(4), 0.5), light)
    right = np.eye(4)
    right[0, 3] = -0.05  # the camera moves to the right: a pixel at 2 m moves by one pixel
    blurred = motion_blur(light, near, intrinsics, right, 1.0)
    assert blurred[:, 10].sum().item() == pytest.approx(3.0, abs=0.02)
    assert blurred[0, 10, 19:22].min() > 0.05
    assert blurred[:, [9, 11]].abs().max() < 1e-6
    assert torch.equal(motion_blur(light, near * 0, intrinsics, right, 1.0), light)  # at infinity
