"""The first surface that each ray of a sensor hits, in closed form.

Whether a ray d hits a polygon follows from linear forms of d. Let the columns of M be the polygon's two axes and its
origin in the sensor's frame. Then M^-1 d = (u, v, 1) / t, where t is the ray's parameter at the hit: depth z for a
camera ray, whose z is 1, and range for a LiDAR ray, whose length is 1. Each edge is one linear form of d, and 1/t is
another. On the grid of `rays.py` a linear form is the sum of a row and a column. Quadrics need three such forms and a
square root. Every object is tried only in the rectangle of the grid that it can cover, and the nearest objects first.
"""

from typing import NamedTuple

import numpy as np

from datasets.synthetic.rays import NEAR, Rays
from datasets.synthetic.scene import Scene
from datasets.synthetic.shapes import Polygons, Quadrics
from datasets.synthetic.textures import SIZE

SKY, GROUND, FIRST_OBJECT = 0, 1, 2  # surface numbers: the sky, the ground, then polygons, then quadrics
_SKY_HEIGHT = 500.0  # metres: the clouds' height above the camera, with which they move: they seem infinitely far
_CLOUD_TILE = 1600.0  # metres that the texture of the clouds covers
_POLYGON_EDGES = [(0, 1), (1, 2), (2, 3), (3, 0)]
_BOX_EDGES = [(i, j) for i in range(8) for j in range(8) if i < j and (i ^ j) in (1, 2, 4)]


class VisibleScene(NamedTuple):
    """A scene as one sensor sees it: K objects in sight, and S surfaces (sky, ground, all polygons, all quadrics)."""

    forms: np.ndarray  # [K, 5, 3]: five linear forms of each object, nearest object first
    rectangles: np.ndarray  # [K, 4]: the part of the grid that the object can cover
    surface: np.ndarray  # [K]: surface number
    nearest: np.ndarray  # [K]: upper bound of 1/t on the object
    slab: np.ndarray  # [K, 2]: height of the sensor above a quadric's bottom and below its top; nan for polygons
    planes: np.ndarray  # [S, 9]: forms u/t, v/t, 1/t of the planar surfaces; u, v in texels (of the ground: metres)


def see(scene: Scene, polygons: Polygons, world_from_sensor: np.ndarray, rays: Rays) -> VisibleScene:
    """The objects of a scene in the rays' reach, as linear forms.

    Args:
        polygons: all polygons at the time of the frame (`Scene.polygons_at`).
        world_from_sensor: [4, 4].
    """
    rotation, eye = world_from_sensor[:3, :3], world_from_sensor[:3, 3]
    count = len(polygons.origin)
    planes = np.zeros((FIRST_OBJECT + count + len(scene.quadrics.centre), 9))
    # The sky is a ceiling that moves with the sensor. The ground's u and v are the world's x and y.
    planes[SKY] = np.concatenate([rotation[:2] * (SIZE / _CLOUD_TILE), rotation[2:] / _SKY_HEIGHT]).ravel()
    q_ground = -rotation[2] / (eye[2] - scene.base)
    planes[GROUND] = np.concatenate([rotation[:2] + eye[:2, None] * q_ground, q_ground[None]]).ravel()

    flat, flat_forms, flat_texels = _polygon_forms(polygons, rotation, eye)
    planes[FIRST_OBJECT + flat] = flat_texels
    for number in FIRST_OBJECT + flat[flat < scene.strips]:  # their u and v are the world's x and y, as the ground's
        q_strip = planes[number, 6:]
        planes[number, :6] = (rotation[:2] + eye[:2, None] * q_strip).ravel()
    corners = (polygons.corners[flat] - eye) @ rotation
    curved, curved_forms, box = _quadric_forms(scene.quadrics, rotation, eye)
    box = (box - eye) @ rotation
    above = np.stack([eye[2] - scene.quadrics.bottom, scene.quadrics.top - eye[2]], -1)[curved]

    forms = np.concatenate([flat_forms, curved_forms])
    rectangles = np.concatenate([rays.rectangles(corners, _POLYGON_EDGES), rays.rectangles(box, _BOX_EDGES)])
    nearest = 1 / np.maximum(np.concatenate([_least_t(corners, rays), _least_t(box, rays)]), NEAR)
    surface = np.concatenate([FIRST_OBJECT + flat, FIRST_OBJECT + count + curved])
    slab = np.concatenate([np.full((len(flat), 2), np.nan), above])
    in_sight = (rectangles[:, 1] > rectangles[:, 0]) & (rectangles[:, 3] > rectangles[:, 2])
    order = np.flatnonzero(in_sight & (nearest > 1 / rays.far))
    order = order[np.argsort(-nearest[order], kind="stable")]
    return VisibleScene(forms[order], rectangles[order], surface[order], nearest[order], slab[order], planes)


def first_hits(visible: VisibleScene, rays: Rays) -> tuple[np.ndarray, np.ndarray]:
    """Surface number (int32) and 1/t (float32; 0: sky) of the first hit of each ray, both [H, W].

    In numpy on any device: the work is hundreds of small steps, whose launch would dominate on a GPU.
    """
    # Row and column part of the five forms of the objects and, last, of the ground: [K + 1, 5, H, 1], [K + 1, 5, 1, W].
    forms = np.concatenate([visible.forms, visible.planes[GROUND, 6:].reshape(1, 1, 3).repeat(5, 1)])
    row = (forms @ rays.rows.T).astype(np.float32)[..., None]
    column = (forms @ rays.columns.T).astype(np.float32)[:, :, None]
    scale = None if rays.scale is None else rays.scale.astype(np.float32)[:, None]
    inverse = np.maximum(row[-1, 0] + (column[-1, 0] if scale is None else scale * column[-1, 0]), 0)
    surface = np.where(inverse > 0, np.int32(GROUND), np.int32(SKY))
    rectangles, nearest, numbers = visible.rectangles.tolist(), visible.nearest.tolist(), visible.surface.tolist()
    is_polygon = np.isnan(visible.slab[:, 0]).tolist()
    for k, (y0, y1, x0, x1) in enumerate(rectangles):
        best = inverse[y0:y1, x0:x1]
        if nearest[k] < best.min():  # hidden behind nearer surfaces
            continue
        if scale is None:
            value = row[k, :, y0:y1] + column[k, :, :, x0:x1]
        else:
            value = row[k, :, y0:y1] + scale[y0:y1] * column[k, :, :, x0:x1]
        q, hit = _hit_polygon(value, best) if is_polygon[k] else _hit_quadric(value, best, visible.slab[k])
        np.copyto(best, q, where=hit)
        np.copyto(surface[y0:y1, x0:x1], numbers[k], where=hit)
    return surface, inverse


def _hit_polygon(forms: np.ndarray, best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1/t and whether the polygon is hit before 1/t = best: both [h, w], for forms [5, h, w]."""
    q, *edges = forms
    inside = np.minimum(np.minimum(edges[0], edges[1]), np.minimum(edges[2], edges[3]))
    return q, np.minimum(inside, q - best) > 0


def _hit_quadric(forms: np.ndarray, best: np.ndarray, slab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1/t and whether the quadric is hit before 1/t = best: both [h, w], for forms [5, h, w]."""
    b, up, *roots = forms
    root = roots[2] * roots[2] - roots[1] * roots[1] - roots[0] * roots[0]
    q = b + np.sqrt(np.maximum(root, 0))
    hit = (root > 0) & (q > best)
    above, below = slab.astype(np.float32)
    if np.isfinite(above):
        hit &= (above * q + up > 0) & (below * q - up > 0)
    return q, hit


def _polygon_forms(polygons: Polygons, rotation: np.ndarray, eye: np.ndarray) -> tuple[np.ndarray, ...]:
    """The polygons that face the sensor: their numbers, forms [n, 5, 3] (1/t, four edges), texture forms [n, 9]."""
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
    """The quadrics that the sensor is outside of: numbers, forms [m, 5, 3], corners [m, 8, 3] of their boxes.

    |d t + apart|^2 = 1 in the quadric's metric is A t^2 - 2 B t + C = 0 with B linear in d, so that
    1/t = (B + sqrt(B^2 - A C)) / C. B^2 - A C is a quadratic form with one positive direction: a sum and difference of
    three squares of linear forms. The five forms are B / C, the height gained along the ray, and the three square roots
    divided by C.
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


def _least_t(corners: np.ndarray, rays: Rays) -> np.ndarray:
    """A lower bound [N] of t on convex objects with corners [N, P, 3].

    For a camera it is the least z of the corners, for a LiDAR the distance to a ball around them.
    """
    if rays.scale is None:
        return corners[..., 2].min(1)
    centre = corners.mean(1)
    radius = np.linalg.norm(corners - centre[:, None], axis=-1).max(1)
    return np.linalg.norm(centre, axis=-1) - radius
