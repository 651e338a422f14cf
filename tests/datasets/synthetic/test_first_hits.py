import numpy as np
import pytest

from datasets.synthetic import list_drives


@pytest.mark.parametrize("varied", [None, 0, 1, 2, 3])
def test_first_hits_are_those_of_plain_ray_casting(renderer, options, varied_renderers, varied_options, varied):
    """Every tenth ray against every polygon and quadric of the scene, one by one, in float64."""
    intrinsics = list_drives(options)[0].intrinsics
    if varied is not None:
        renderer, intrinsics = varied_renderers[varied], list_drives(varied_options)[varied].intrinsics
    depth = renderer.depth(4, intrinsics, 64, 208)
    scene, pose = renderer.scene, renderer.scene.world_from_camera[4]
    polygons, quadrics = scene.polygons_at(4), scene.quadrics
    inverse_axes = np.linalg.pinv(np.stack([polygons.axis_u, polygons.axis_v], -1))
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, 64, 300), rng.integers(0, 208, 300)
    rays = np.stack([columns, rows, np.ones_like(rows)]).T @ np.linalg.inv(intrinsics).T @ pose[:3, :3].T
    eye = pose[:3, 3]
    for ray, row, column in zip(rays, rows, columns, strict=True):
        hits = [-(eye[2] - scene.base) / ray[2]] if ray[2] < 0 else []
        normal = np.cross(polygons.axis_u, polygons.axis_v)
        t = (normal * (polygons.origin - eye)).sum(1) / (normal @ ray)
        local = eye + t[:, None] * ray - polygons.origin
        u, v = (inverse_axes @ local[..., None])[..., 0].T  # on hills the axes are not orthogonal
        inside = (
            polygons.edges[..., 0] + polygons.edges[..., 1] * u[:, None] + polygons.edges[..., 2] * v[:, None]
        ) > 0
        hits += t[inside.all(1) & (t > 0) & (normal @ ray < 0)].tolist()
        a = (ray**2 / quadrics.radius**2).sum(1)
        b = (ray * (eye - quadrics.centre) / quadrics.radius**2).sum(1)
        c = ((eye - quadrics.centre) ** 2 / quadrics.radius**2).sum(1) - 1
        with np.errstate(invalid="ignore"):
            t = (-b - np.sqrt(b * b - a * c)) / a
        height = eye[2] + t * ray[2]
        hits += t[(t > 0) & (height > quadrics.bottom) & (height < quadrics.top)].tolist()
        expected = min(hits, default=0.0)
        if expected < 200:
            assert depth[row, column] == pytest.approx(expected, rel=1e-3), (row, column)
