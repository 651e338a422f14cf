"""Ray casting of a synthetic scene: pictures, exact depth and LiDAR scans of one geometry.

A sensor's rays form a grid, direction(i, j) = scale_i * column_j + row_i: a pinhole camera's (x_j, y_i, 1), or a
spinning LiDAR's (cos e_i cos a_j, cos e_i sin a_j, sin e_i). What decides whether a ray d hits a polygon is linear in
d: with the polygon's axes and origin as the columns of M (in the sensor's frame), M^-1 d = (u, v, 1) / t, where t is
the ray's parameter at the hit: depth z for a pinhole ray, whose z is 1, and range for a LiDAR ray. So each edge is
one linear form, 1/t is another, and on a grid a linear form is the sum of a row and a column. Quadrics need three
such forms and a square root. No ray meets anything but what stands in its rectangle of the image.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from datasets.synthetic.scene import STEP, Polygons, Quadrics, Scene
from datasets.synthetic.textures import ATLAS, LEVELS, NAMES, ROAD_PERIOD, ROAD_WIDTH, SIZE, rip_maps

SKY, GROUND, FIRST = 0, 1, 2  # surface numbers: the sky, the ground, then polygons and quadrics
NEAR = 0.1  # metres: nothing nearer to the sensor is seen
FAR = 260.0  # metres: nothing farther is drawn but ground and sky
SKY_HEIGHT = 500.0  # the clouds' height above the camera, with which they travel: they lie at infinity
GRASS_TILE, CLOUD_TILE = 18.0, 1600.0  # metres
BAND = 1 << 15  # rays shaded at a time: what one band needs stays in the processor's cache
LIDAR_RANGE = 100.0  # metres

# The four rays of a pixel take textures at four fractions of a level, so that their mean blends the levels.
_DITHER_U = ((0.125, 0.625), (0.875, 0.375))
_DITHER_V = ((0.375, 0.875), (0.625, 0.125))
_LENS = 1 / 8  # share of each of a pixel's two neighbouring rays in its colour
_SMOOTHER = 0.35  # levels coarser than one texel a ray, so that interpolating between pixels is exact enough


class Rays(NamedTuple):
    """A grid of rays, direction(i, j) = scale[i] * columns[j] + rows[i], and where in it things may lie."""

    rows: np.ndarray  # [H, 3]
    columns: np.ndarray  # [W, 3]
    scale: np.ndarray | None  # [H]; None: 1
    far: float  # things behind it are left out
    rectangles: Callable[[np.ndarray, list[tuple[int, int]]], np.ndarray]


def camera_rays(intrinsics: np.ndarray, height: int, width: int) -> Rays:
    """Rays through the pixels' centres: x right, y down, z = 1."""
    (fx, _, cx), (_, fy, cy), _ = intrinsics
    x, y = (np.arange(width) - cx) / fx, (np.arange(height) - cy) / fy
    zero = np.zeros_like

    def rectangles(corners: np.ndarray, edges: list[tuple[int, int]]) -> np.ndarray:
        """[N, 4] rows and columns (first, behind last) of the pixels that convex things with these corners cover."""
        start, end = np.array(edges).T
        a, b = corners[:, start], corners[:, end]
        crosses = (a[..., 2] < NEAR) != (b[..., 2] < NEAR)
        share = np.where(crosses, (NEAR - a[..., 2]) / np.where(crosses, b[..., 2] - a[..., 2], 1), 0)
        points = np.concatenate([corners, a + share[..., None] * (b - a)], 1)
        seen = np.concatenate([corners[..., 2] >= NEAR, crosses], 1)
        z = np.where(seen, np.maximum(points[..., 2], NEAR * 0.999), 1)
        spans = []
        for k, focal, centre, size in ((1, fy, cy, height), (0, fx, cx, width)):
            pixel = points[..., k] / z * focal + centre
            low = np.where(seen, pixel, np.inf).min(1)
            high = np.where(seen, pixel, -np.inf).max(1)
            spans += [np.clip(np.ceil(low - 0.1), 0, size), np.clip(np.floor(high + 0.1) + 1, 0, size)]
        return np.stack(spans, -1).astype(int)

    rows, columns = np.stack([zero(y), y, zero(y)], -1), np.stack([x, zero(x), zero(x) + 1], -1)
    return Rays(rows, columns, None, FAR, rectangles)


def lidar_rays(elevation: np.ndarray, azimuth: np.ndarray) -> Rays:
    """Unit rays of a spinning LiDAR (x forward, y left, z up): a row a beam; azimuths ascend evenly over a turn."""
    zero = np.zeros_like
    step = azimuth[1] - azimuth[0]

    def rectangles(corners: np.ndarray, edges: list[tuple[int, int]]) -> np.ndarray:
        angle = np.arctan2(corners[..., 1], corners[..., 0])
        offset = (angle - angle[:, :1] + np.pi) % (2 * np.pi) - np.pi
        low, high = angle[:, 0] + offset.min(1), angle[:, 0] + offset.max(1)
        # Things across the seam behind the car, or around the sensor, are tried on all columns.
        whole = (low < -np.pi) | (high > np.pi) | (high - low > 0.9 * np.pi)
        first = np.where(whole, 0, np.clip(np.ceil((low - azimuth[0]) / step - 0.1), 0, len(azimuth)))
        behind = np.where(whole, len(azimuth), np.clip(np.floor((high - azimuth[0]) / step + 0.1) + 1, 0, len(azimuth)))
        full = np.full_like(first, len(elevation))
        return np.stack([zero(first), full, first, behind], -1).astype(int)

    rows = np.stack([zero(elevation), zero(elevation), np.sin(elevation)], -1)
    columns = np.stack([np.cos(azimuth), np.sin(azimuth), zero(azimuth)], -1)
    return Rays(rows, columns, np.cos(elevation), LIDAR_RANGE, rectangles)


class _Forms(NamedTuple):
    """What a sensor's pose makes of the scene; S surfaces: sky, ground, polygons, quadrics."""

    linear: np.ndarray  # [K, 5, 3] linear forms of the K things in sight, nearest first
    rectangles: np.ndarray  # [K, 4]
    surface: np.ndarray  # [K] surface number
    nearest: np.ndarray  # [K] the largest 1/t that the thing can have
    slab: np.ndarray  # [K, 2] quadrics: height of the sensor above bottom and below top; polygons: nan
    planes: np.ndarray  # [S, 9]: u/t, v/t, 1/t of the planar surfaces, u and v in texels (ground: metres)


_POLYGON_EDGES = [(0, 1), (1, 2), (2, 3), (3, 0)]
_BOX_EDGES = [(i, j) for i in range(8) for j in range(8) if i < j and (i ^ j) in (1, 2, 4)]


def _linear_forms(scene: Scene, polygons: Polygons, world_from_sensor: np.ndarray, rays: Rays) -> _Forms:
    rotation, eye = world_from_sensor[:3, :3], world_from_sensor[:3, 3]
    count = len(polygons.origin)
    planes = np.zeros((FIRST + count + len(scene.quadrics.centre), 9))
    # The sky: a ceiling that travels with the sensor. The ground: z = 0 with its own x and y.
    planes[SKY] = np.concatenate([rotation[:2] * (SIZE / CLOUD_TILE), rotation[2:] / SKY_HEIGHT]).ravel()
    q_ground = -rotation[2] / eye[2]
    planes[GROUND] = np.concatenate([rotation[:2] + eye[:2, None] * q_ground, q_ground[None]]).ravel()

    flat, flat_forms, flat_texels = _polygon_forms(polygons, rotation, eye)
    planes[FIRST + flat] = flat_texels
    corners = (polygons.corners[flat] - eye) @ rotation
    curved, curved_forms, box = _quadric_forms(scene.quadrics, rotation, eye)
    box = (box - eye) @ rotation
    above = np.stack([eye[2] - scene.quadrics.bottom, scene.quadrics.top - eye[2]], -1)[curved]

    linear = np.concatenate([flat_forms, curved_forms])
    rectangles = np.concatenate([rays.rectangles(corners, _POLYGON_EDGES), rays.rectangles(box, _BOX_EDGES)])
    nearest = 1 / np.maximum(np.concatenate([_distance(corners, rays), _distance(box, rays)]), NEAR)
    surface = np.concatenate([FIRST + flat, FIRST + count + curved])
    slab = np.concatenate([np.full((len(flat), 2), np.nan), above])
    in_sight = (rectangles[:, 1] > rectangles[:, 0]) & (rectangles[:, 3] > rectangles[:, 2])
    order = np.flatnonzero(in_sight & (nearest > 1 / rays.far))
    order = order[np.argsort(-nearest[order], kind="stable")]
    return _Forms(linear[order], rectangles[order], surface[order], nearest[order], slab[order], planes)


def _polygon_forms(polygons: Polygons, rotation: np.ndarray, eye: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of the polygons that face the sensor: their numbers, forms [n, 5, 3] (1/t, four edges), texture forms [n, 9]."""
    outwards = np.cross(polygons.axis_u, polygons.axis_v)
    seen = np.flatnonzero(((eye - polygons.origin) * outwards).sum(-1) > 1e-3)
    frame = np.stack([polygons.axis_u[seen], polygons.axis_v[seen], polygons.origin[seen] - eye], -1)
    uvq = np.linalg.inv(rotation.T @ frame)  # rows: the linear forms u/t, v/t, 1/t
    u, v, q = uvq[:, 0], uvq[:, 1], uvq[:, 2]
    (ku, su), (kv, sv) = polygons.texel_u[seen].T[..., None], polygons.texel_v[seen].T[..., None]
    k, a, b = np.moveaxis(polygons.edges[seen], -1, 0)[..., None]
    edges = k * q[:, None] + a * u[:, None] + b * v[:, None]
    forms = np.concatenate([q[:, None], edges], 1)
    return seen, forms, np.concatenate([ku * q + su * u, kv * q + sv * v, q], -1)


def _quadric_forms(quadrics: Quadrics, rotation: np.ndarray, eye: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of the quadrics that the sensor is outside of: numbers, forms [m, 5, 3], corners of the boxes around them.

    |d t + apart|^2 = 1 in the quadric's measure is A t^2 - 2 B t + C = 0 with B linear in d, so that
    1/t = (B + sqrt(B^2 - A C)) / C. B^2 - A C is a quadratic form with one positive direction: a sum and difference of
    three squares of linear forms. The five forms: B / C, the height gained along the ray, the three squares' roots / C.
    """
    inverse = 1 / quadrics.radius**2  # 0 along a cylinder
    apart = eye - quadrics.centre
    outside = (inverse * apart * apart).sum(-1) - 1
    seen = np.flatnonzero(outside > 1e-3)
    inverse, apart, c = inverse[seen], apart[seen], outside[seen][:, None]
    b = -(inverse * apart) @ rotation
    a = rotation.T @ (inverse[:, :, None] * rotation)
    values, vectors = np.linalg.eigh(b[:, :, None] * b[:, None] - c[..., None] * a)  # ascending: - - +
    roots = np.sqrt(np.abs(values))[:, :, None] * np.swapaxes(vectors, 1, 2)
    up = np.broadcast_to(rotation[2], b.shape)
    forms = np.concatenate([(b / c)[:, None], up[:, None], roots / c[..., None]], 1)

    centre, radius = quadrics.centre[seen], quadrics.radius[seen]
    low = np.maximum(quadrics.bottom[seen], centre[:, 2] - radius[:, 2])
    high = np.minimum(quadrics.top[seen], centre[:, 2] + radius[:, 2])
    ends = np.stack([centre - radius, centre + radius], 1)
    ends[:, 0, 2], ends[:, 1, 2] = low, high
    box = np.stack([ends[:, [i & 1, i >> 1 & 1, i >> 2], [0, 1, 2]] for i in range(8)], 1)
    return seen, forms, box


def _distance(corners: np.ndarray, rays: Rays) -> np.ndarray:
    """A lower bound of t over convex things [N, P, 3]: their least z, or a LiDAR's distance from a ball around them."""
    if rays.scale is None:
        return corners[..., 2].min(1)
    centre = corners.mean(1)
    radius = np.linalg.norm(corners - centre[:, None], axis=-1).max(1)
    return np.linalg.norm(centre, axis=-1) - radius


class Renderer:
    """A scene with its textures on a device, ready to be seen from anywhere at any frame's time."""

    def __init__(self, scene: Scene, textures: np.ndarray, device: torch.device | str = "cpu"):
        self.scene = scene
        self.device = torch.device(device)
        self.atlas = torch.from_numpy(rip_maps(textures).reshape(-1, 4)).to(self.device)
        self._make_road_map()

    def _make_road_map(self) -> None:
        """Which vertex of the road is nearest to each square metre: what turns (x, y) into (along, across)."""
        points = self.scene.road.points
        self.map_origin = np.floor(points.min(0) - ROAD_WIDTH)
        size = np.ceil(points.max(0) + ROAD_WIDTH - self.map_origin).astype(int)
        cells = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in size), indexing="ij"), -1) + self.map_origin
        _, vertex = cKDTree(points).query(cells.reshape(-1, 2), distance_upper_bound=ROAD_WIDTH / 2 + 1)
        self.map_size = size
        vertex[vertex == len(points)] = -1
        self.road_map = self._tensor(vertex, torch.int32)
        # An empty cell gives number -1, the last row: 1 km beside the road.
        heading, stations = self.scene.road.heading, np.arange(len(points)) * STEP
        rows = np.stack([*points.T, np.cos(heading), np.sin(heading), self.scene.road.curvature, stations])
        self.road = self._tensor(np.concatenate([rows, [[1e6], [1e6], [1], [0], [0], [0]]], 1))

    def _tensor(self, array: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(dtype).to(self.device)

    def image(
        self, frame: int, intrinsics: np.ndarray, height: int, width: int, world_from_camera: np.ndarray | None = None
    ) -> np.ndarray:
        """The picture at a frame's time, uint8 [height, width, 3]: 2 x 2 rays a pixel, their colours averaged.

        intrinsics: [3, 3] of this size. world_from_camera: [4, 4], the drive's own left camera by default.
        """
        fine = intrinsics * 2.0  # K of the twice as large image: f' = 2 f, c' = 2 c + 0.5
        fine[:2, 2] += 0.5
        fine[2, 2] = 1
        pose = self.scene.world_from_camera[frame] if world_from_camera is None else world_from_camera
        rays = camera_rays(fine, 2 * height, 2 * width)
        forms = _linear_forms(self.scene, self.scene.polygons_at(frame), pose, rays)
        surface, inverse = (torch.from_numpy(hits).to(self.device) for hits in _first_hits(forms, rays))
        rows = max(1, BAND // (4 * width)) * 2
        shades = _Shades(self, frame, forms, pose, fine)
        fine_picture = torch.empty(3, 2 * height, 2 * width, device=self.device)
        for top in range(0, 2 * height, rows):
            band = slice(top, min(top + rows, 2 * height))
            fine_picture[:, band] = shades.colours(surface[band], inverse[band], rays, band)
        picture = _halve(_halve(fine_picture, 1), 2).permute(1, 2, 0)
        brightness = self.scene.light[frame] * self.scene.exposure[frame] * 255
        return (picture * brightness).round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()

    def depth(
        self, frame: int, intrinsics: np.ndarray, height: int, width: int, world_from_camera: np.ndarray | None = None
    ) -> np.ndarray:
        """Exact depth z through the pixels' centres, float32 [height, width], metres; 0 = sky."""
        pose = self.scene.world_from_camera[frame] if world_from_camera is None else world_from_camera
        rays = camera_rays(intrinsics, height, width)
        surface, inverse = _first_hits(_linear_forms(self.scene, self.scene.polygons_at(frame), pose, rays), rays)
        return np.where(surface == SKY, np.float32(0), 1 / np.where(surface == SKY, 1, inverse))

    def scan(self, frame: int, world_from_lidar: np.ndarray, elevation: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
        """LiDAR points in the sensor's frame (x forward, y left, z up), float32 [N, 4] with a reflectance."""
        rays = lidar_rays(elevation, azimuth)
        forms = _linear_forms(self.scene, self.scene.polygons_at(frame), world_from_lidar, rays)
        surface, inverse = _first_hits(forms, rays)
        hit = inverse > 1 / LIDAR_RANGE
        assert rays.scale is not None
        directions = rays.scale[:, None, None] * rays.columns + rays.rows[:, None]
        points = directions[hit] / inverse[hit].astype(np.float64)[:, None]
        paint = np.concatenate([np.full((2, 3), 0.3), self.scene.polygons_at(frame).paint, self.scene.quadrics.paint])
        return np.concatenate([points, paint[surface[hit]].mean(1, keepdims=True).clip(0, 1)], 1).astype(np.float32)


def _first_hits(forms: _Forms, rays: Rays) -> tuple[np.ndarray, np.ndarray]:
    """Surface number (int32) and 1/t (float32, 0: sky) of each ray's first hit, [H, W].

    In numpy wherever the colours are computed: hundreds of small steps, in which starting each one is what counts.
    """
    # Row and column of the five linear forms: [K, 5, H, 1] and [K, 5, 1, W]; the last is the ground.
    linear = np.concatenate([forms.linear, forms.planes[GROUND, 6:].reshape(1, 1, 3).repeat(5, 1)])
    row = (linear @ rays.rows.T).astype(np.float32)[..., None]
    column = (linear @ rays.columns.T).astype(np.float32)[:, :, None]
    scale = None if rays.scale is None else rays.scale.astype(np.float32)[:, None]
    inverse = np.maximum(row[-1, 0] + (column[-1, 0] if scale is None else scale * column[-1, 0]), 0)
    surface = np.where(inverse > 0, np.int32(GROUND), np.int32(SKY))
    rectangles, nearest, numbers = forms.rectangles.tolist(), forms.nearest.tolist(), forms.surface.tolist()
    is_polygon = np.isnan(forms.slab[:, 0]).tolist()
    for k, (y0, y1, x0, x1) in enumerate(rectangles):
        best = inverse[y0:y1, x0:x1]
        if nearest[k] < best.min():  # hidden behind what is nearer
            continue
        if scale is None:
            value = row[k, :, y0:y1] + column[k, :, :, x0:x1]
        else:
            value = row[k, :, y0:y1] + scale[y0:y1] * column[k, :, :, x0:x1]
        if is_polygon[k]:
            q, *edges = value
            inside = np.minimum(np.minimum(edges[0], edges[1]), np.minimum(edges[2], edges[3]))
            hit = np.minimum(inside, q - best) > 0
        else:
            b, up, *roots = value
            root = roots[2] * roots[2] - roots[1] * roots[1] - roots[0] * roots[0]
            q = b + np.sqrt(np.maximum(root, 0))
            hit = (root > 0) & (q > best)
            above, below = forms.slab[k].astype(np.float32)
            if np.isfinite(above):
                hit &= (above * q + up > 0) & (below * q - up > 0)
        np.copyto(best, q, where=hit)
        np.copyto(surface[y0:y1, x0:x1], numbers[k], where=hit)
    return surface, inverse


def _halve(picture: Tensor, dim: int) -> Tensor:
    """Pixels from the rays of a dimension, with the weights of a soft lens: the pixel's own two and one on each side.

    With the plain mean of two, edges would be as sharp as steps, and no interpolation could follow them by a fraction
    of a pixel.
    """
    count = picture.shape[dim] // 2
    rays = picture.unflatten(dim, (count, 2))
    first, second = rays.select(dim + 1, 0), rays.select(dim + 1, 1)
    before = torch.cat([first.narrow(dim, 0, 1), second.narrow(dim, 0, count - 1)], dim)
    after = torch.cat([first.narrow(dim, 1, count - 1), second.narrow(dim, count - 1, 1)], dim)
    return (0.5 - _LENS) * (first + second) + _LENS * (before + after)


class _Shades:
    """The colours of what the rays of one picture hit."""

    def __init__(self, renderer: Renderer, frame: int, forms: _Forms, pose: np.ndarray, intrinsics: np.ndarray):
        self.renderer, scene = renderer, renderer.scene
        tensor = renderer._tensor
        polygons, quadrics = scene.polygons_at(frame), scene.quadrics
        self.planes = tensor(forms.planes.T)
        self.first_quadric = FIRST + len(polygons.origin)
        normal = np.concatenate([[[0, 0, 1.0], [0, 0, 1.0]], np.cross(polygons.axis_u, polygons.axis_v)])
        direct = np.maximum(normal @ scene.sun, 0)
        gain = (1 - scene.sunlight) * (0.85 + 0.15 * normal[:, 2]) + scene.sunlight * 1.5 * direct
        gain[SKY] = 1
        gain = np.concatenate([gain, np.ones(len(quadrics.centre))])
        paint = np.concatenate([scene.sky[None], np.zeros((1, 3)), polygons.paint, quadrics.paint])
        fade = np.full(len(gain), 1 / scene.haze_distance)
        fade[SKY] = 1 / 4000
        self.look = tensor(np.concatenate([paint, gain[:, None], -fade[:, None]], 1).T)  # [5, S]
        texture = [NAMES.index("clouds"), NAMES.index("grass"), *polygons.texture, *quadrics.texture]
        self.texture = tensor(np.array(texture), torch.int32)
        self.haze = tensor(scene.haze)
        self.focal = float(intrinsics[0, 0]), float(intrinsics[1, 1])
        self.rotation, self.eye = tensor(pose[:3, :3]), tensor(pose[:3, 3])
        self.centre, self.texels = tensor(quadrics.centre.T), tensor(quadrics.texels)
        self.inverse_radius = tensor((1 / quadrics.radius**2).T)
        self.sun, self.sunlight = tensor(scene.sun), scene.sunlight

    def colours(self, surface: Tensor, inverse: Tensor, rays: Rays, band: slice) -> Tensor:
        """[3, h, w] of a band of rows, in [0, 1] at exposure 1."""
        renderer = self.renderer
        shape = surface.shape
        tensor = renderer._tensor
        x = tensor(rays.columns[:, 0]).expand(shape).reshape(-1)
        y = tensor(rays.rows[band, 1])[:, None].expand(shape).reshape(-1)
        surface = surface.reshape(-1)
        fx, fy = self.focal
        u0, u1, u2, v0, v1, v2, q0, q1, q2 = self.planes.index_select(1, surface)
        texture = self.texture.index_select(0, surface)
        paint_look = self.look.index_select(1, surface)
        # A point's u is U / Q with U and Q linear in (x, y), so du/dx = (U_x - u Q_x) / Q.
        t = 1 / (q0 * x + q1 * y + q2).clamp_(min=1e-5)
        u, v = (u0 * x + u1 * y + u2) * t, (v0 * x + v1 * y + v2) * t
        tx, ty = t / fx, t / fy
        ux, uy = (u0 - u * q0) * tx, (u1 - u * q1) * ty
        vx, vy = (v0 - v * q0) * tx, (v1 - v * q1) * ty

        round_ones = (surface >= self.first_quadric).nonzero().squeeze(1)
        if len(round_ones):
            at = round_ones
            t_at = 1 / inverse.reshape(-1)[at]
            t[at] = t_at
            patch, gain = self._on_quadric(surface[at] - self.first_quadric, x[at], y[at], t_at)
            for whole, part in zip((u, v, ux, uy, vx, vy), patch, strict=True):
                whole[at] = part
            paint_look[3, at] = gain
        ground = (surface == GROUND).nonzero().squeeze(1)
        if len(ground):
            at = ground
            *patch, kind = self._on_ground(u[at], v[at], ux[at], uy[at], vx[at], vy[at])
            for whole, part in zip((u, v, ux, uy, vx, vy), patch, strict=True):
                whole[at] = part
            texture[at] = kind

        level_u = self._level(ux * ux + uy * uy, _DITHER_U, shape)
        level_v = self._level(vx * vx + vy * vy, _DITHER_V, shape)
        texel = _fetch(renderer.atlas, texture, u, v, level_u, level_v)  # [n, 4]
        own, paint_share = texel[:, :3].T, texel[:, 3]
        colour = torch.addcmul(own, paint_look[:3], paint_share) * paint_look[3]
        seen = torch.exp(t * paint_look[4])
        haze = self.haze[:, None]
        return torch.addcmul(haze, colour - haze, seen).reshape(3, *shape)

    def _level(self, footprint: Tensor, dither: tuple, shape: torch.Size) -> Tensor:
        """Level whose texel is as large as the ray's footprint (squared, in texels), rounded by the ray's dither."""
        level = torch.log2(footprint).mul_(0.5).add_(_SMOOTHER)
        pattern = self.renderer._tensor(np.array(dither)).repeat(shape[0] // 2, shape[1] // 2).reshape(-1)
        return level.add_(pattern).clamp_(0, LEVELS - 1).to(torch.int32)

    def _on_quadric(self, k: Tensor, x: Tensor, y: Tensor, t: Tensor) -> tuple[list[Tensor], Tensor]:
        """Texture coordinates with their derivatives by pixel, and light, of hits on quadrics.

        The texture is laid on along the world axis that the normal is nearest to.
        """
        ray = torch.stack([x, y, torch.ones_like(x)])
        point = ray * t
        local = self.rotation @ point + self.eye[:, None] - self.centre.index_select(1, k)
        normal = local * self.inverse_radius.index_select(1, k)
        facing = self.rotation.T @ normal
        q = facing / (facing * point).sum(0)  # the tangent plane's 1/t
        # X = ray / Q, so dX/dx = (e_x - X Q_x) / Q.
        unit_x, unit_y = torch.eye(3, device=x.device)[:2, :, None]
        step_x = self.rotation @ ((unit_x - point * q[0]) * (t / self.focal[0]))
        step_y = self.rotation @ ((unit_y - point * q[1]) * (t / self.focal[1]))
        nx, ny, nz = normal.abs()
        first = ((nx >= ny) & (nx >= nz)).long()  # y, else x
        second = 2 - ((nz > nx) & (nz > ny)).long()  # z, else y
        texels = self.texels[k]

        def pick(vector: Tensor, row: Tensor) -> Tensor:
            return vector.gather(0, row[None])[0] * texels

        # A shift of its own for each quadric, so that no two look the same.
        shift = (k % 97) * 37.0
        patch = [pick(local, first) + shift, pick(local, second)]
        patch += [pick(step_x, first), pick(step_y, first), pick(step_x, second), pick(step_y, second)]
        length = (normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2]).rsqrt_()
        direct = 0.5 + 0.5 * (self.sun @ normal) * length
        gain = (1 - self.sunlight) * (0.8 + 0.2 * normal[2] * length) + self.sunlight * 1.4 * direct
        return patch, gain

    def _on_ground(self, x: Tensor, y: Tensor, xx: Tensor, xy: Tensor, yx: Tensor, yy: Tensor) -> list[Tensor]:
        """Texture coordinates, their derivatives and texture of ground points (metres): street or grass."""
        renderer = self.renderer
        left, low = renderer.map_origin.tolist()
        size_x, size_y = renderer.map_size.tolist()
        column, row = (x - left).floor_().to(torch.int32), (y - low).floor_().to(torch.int32)
        on_map = (column >= 0) & (column < size_x) & (row >= 0) & (row < size_y)
        cell = torch.where(on_map, column * size_y + row, 0)
        vertex = torch.where(on_map, renderer.road_map.index_select(0, cell), -1)
        vertex = torch.where(vertex < 0, renderer.road.shape[1] - 1, vertex)
        px, py, cos, sin, bend, s = renderer.road.index_select(1, vertex)
        dx, dy = x - px, y - py
        forward, across = cos * dx + sin * dy, cos * dy - sin * dx
        # The road is a circle of curvature `bend` near the vertex; to second order:
        stretch = 1 / (1 - bend * across)
        along = s + forward * stretch
        across = across - 0.5 * bend * stretch * forward * forward
        street = across.abs() < ROAD_WIDTH / 2
        a, c, g = SIZE / ROAD_PERIOD * stretch, SIZE / ROAD_WIDTH, SIZE / GRASS_TILE
        patch = [
            torch.where(street, along * (SIZE / ROAD_PERIOD), x * g),
            torch.where(street, across * c + SIZE / 2, y * g),
            torch.where(street, (cos * xx + sin * yx) * a, xx * g),
            torch.where(street, (cos * xy + sin * yy) * a, xy * g),
            torch.where(street, (cos * yx - sin * xx) * c, yx * g),
            torch.where(street, (cos * yy - sin * xy) * c, yy * g),
        ]
        kind = torch.where(street, NAMES.index("road"), NAMES.index("grass")).to(torch.int32)
        return [*patch, kind]


def _fetch(atlas: Tensor, texture: Tensor, u: Tensor, v: Tensor, level_u: Tensor, level_v: Tensor) -> Tensor:
    """Bilinear samples [n, 4] of repeating textures at u, v (in texels of level 0) from levels of their rip-maps."""
    left, right, share_u = _neighbours(u, level_u)
    upper, lower, share_v = _neighbours(v, level_v)
    first = texture * (ATLAS * ATLAS)
    upper, lower = upper * ATLAS + first, lower * ATLAS + first
    share_u, share_v = share_u[:, None], share_v[:, None]
    top = torch.lerp(atlas.index_select(0, upper + left), atlas.index_select(0, upper + right), share_u)
    bottom = torch.lerp(atlas.index_select(0, lower + left), atlas.index_select(0, lower + right), share_u)
    return top.lerp_(bottom, share_v)


def _neighbours(u: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two texels' positions in the atlas that u lies between at its level, and the second one's weight."""
    size = torch.bitwise_right_shift(SIZE, level)
    position = (u * size).mul_(1 / SIZE).sub_(0.5)
    whole = position.floor()
    share = position.sub_(whole)
    index = whole.to(torch.int32)
    begin, mask = ATLAS - 2 * size, size - 1
    return begin + torch.bitwise_and(index, mask), begin + torch.bitwise_and(index + 1, mask), share
