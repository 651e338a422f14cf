"""The colours of the surfaces that the rays of one picture hit: texture, paint, light and haze."""

import numpy as np
import torch
from torch import Tensor

from datasets.synthetic.first_hits import FIRST_OBJECT, GROUND, SKY, VisibleScene
from datasets.synthetic.ground import Ground
from datasets.synthetic.rays import Rays
from datasets.synthetic.rip_map import LEVELS, Footprint, sample
from datasets.synthetic.scene import Scene
from datasets.synthetic.shadows import Shadows
from datasets.synthetic.textures import NAMES

# The four rays of a pixel read textures at four fractions of a level, so that their mean blends the levels.
_DITHER_U = ((0.125, 0.625), (0.875, 0.375))
_DITHER_V = ((0.375, 0.875), (0.625, 0.125))
_LEVEL_BIAS = 0.35  # levels coarser than one texel per ray: then interpolation between pixels is accurate enough


class Shader:
    """Colours what one sensor sees at one frame: its pose, the light and all surfaces, as tensors on the device."""

    def __init__(
        self,
        scene: Scene,
        ground: Ground,
        atlas: Tensor,
        frame: int,
        visible: VisibleScene,
        world_from_sensor: np.ndarray,
        intrinsics: np.ndarray,
        shadows: Shadows | None = None,
    ):
        def tensor(array: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(dtype).to(atlas.device)

        self._ground, self._atlas, self._tensor = ground, atlas, tensor
        polygons, quadrics = scene.polygons_at(frame), scene.quadrics
        self._planes = tensor(visible.planes.T)  # [9, S]
        self._first_quadric = FIRST_OBJECT + len(polygons.origin)
        normal = np.concatenate([[[0, 0, 1.0], [0, 0, 1.0]], np.cross(polygons.axis_u, polygons.axis_v)])
        self._past_ground = FIRST_OBJECT + scene.strips
        normal[GROUND : self._past_ground] = [0, 0, 1.0]  # else the light would jump from strip to strip
        direct = scene.sunlight * 1.5 * np.maximum(normal @ scene.sun, 0)
        gain = (1 - scene.sunlight) * (0.85 + 0.15 * normal[:, 2]) + direct
        gain[SKY] = scene.sky_light
        gain = np.concatenate([gain, np.ones(len(quadrics.centre))])
        paint = np.concatenate([scene.sky[None], np.zeros((1, 3)), polygons.paint, quadrics.paint])
        fade = np.full(len(gain), 1 / scene.haze_distance)
        fade[SKY] = scene.sky_fade
        # Of each surface: paint (3), light, and minus the share of haze per metre: [5, S].
        self._surfaces = tensor(np.concatenate([paint, gain[:, None], -fade[:, None]], 1).T)
        texture = [NAMES.index("clouds"), NAMES.index("grass"), *polygons.texture, *quadrics.texture]
        self._shadows = shadows
        if shadows is not None:
            direct[SKY] = 0
            self._direct = tensor(np.concatenate([direct, np.zeros(len(quadrics.centre))]))  # [S]
            # Rows: a point's coordinate along each of the map's axes is first[k] + t * (forms[k] . ray).
            self._shadow_start = (shadows.axes @ world_from_sensor[:3, 3]).tolist()
            self._shadow_forms = (shadows.axes @ world_from_sensor[:3, :3]).tolist()
        self._texture = tensor(np.array(texture), torch.int32)  # [S]
        self._haze = tensor(scene.haze)
        self._focal = float(intrinsics[0, 0]), float(intrinsics[1, 1])
        self._rotation, self._eye = tensor(world_from_sensor[:3, :3]), tensor(world_from_sensor[:3, 3])
        self._centre, self._texels = tensor(quadrics.centre.T), tensor(quadrics.texels)
        self._inverse_radius = tensor((1 / quadrics.radius**2).T)
        self._sun, self._sunlight = tensor(scene.sun), scene.sunlight

    def colours(self, surface: Tensor, inverse: Tensor, rays: Rays, band: slice) -> Tensor:
        """Colours [3, h, w] of a band of rows, in [0, 1] at exposure 1.

        Args:
            surface, inverse: surface number and 1/t of the first hits in the band, [h, w].
        """
        shape = surface.shape
        x = self._tensor(rays.columns[:, 0]).expand(shape).reshape(-1)
        y = self._tensor(rays.rows[band, 1])[:, None].expand(shape).reshape(-1)
        surface = surface.reshape(-1)
        t, footprint = self._on_planes(surface, x, y)
        texture = self._texture.index_select(0, surface)
        looks = self._surfaces.index_select(1, surface)

        direct = None if self._shadows is None else self._direct.index_select(0, surface)
        on_quadric = (surface >= self._first_quadric).nonzero().squeeze(1)
        if len(on_quadric):
            t_there = 1 / inverse.reshape(-1)[on_quadric]
            t[on_quadric] = t_there
            there, gain, sunny = self._on_quadric(
                surface[on_quadric] - self._first_quadric, x[on_quadric], y[on_quadric], t_there
            )
            for whole, part in zip(footprint, there, strict=True):
                whole[on_quadric] = part
            looks[3, on_quadric] = gain
            if direct is not None:
                direct[on_quadric] = sunny
        on_ground = ((surface >= GROUND) & (surface < self._past_ground)).nonzero().squeeze(1)
        if len(on_ground):
            there, texture[on_ground] = self._ground.footprint(Footprint(*(whole[on_ground] for whole in footprint)))
            for whole, part in zip(footprint, there, strict=True):
                whole[on_ground] = part

        u, v, u_x, u_y, v_x, v_y = footprint
        level_u = self._level(u_x * u_x + u_y * u_y, _DITHER_U, shape)
        level_v = self._level(v_x * v_x + v_y * v_y, _DITHER_V, shape)
        texel = sample(self._atlas, texture, u, v, level_u, level_v)  # [n, 4]
        if self._shadows is not None and direct is not None:
            ahead = (self._shadow_forms[k] for k in range(3))
            places = [at + t * (p * x + q * y + r) for at, (p, q, r) in zip(self._shadow_start, ahead, strict=True)]
            looks[3] -= direct * self._shadows.shade(*places)
        own, paint_share = texel[:, :3].T, texel[:, 3]
        colour = torch.addcmul(own, looks[:3], paint_share) * looks[3]
        seen = torch.exp(t * looks[4])
        haze = self._haze[:, None]
        return torch.addcmul(haze, colour - haze, seen).reshape(3, *shape)

    def _on_planes(self, surface: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Footprint]:
        """t [n] and footprints of the rays (x, y, 1), as if all surfaces were planar."""
        u0, u1, u2, v0, v1, v2, q0, q1, q2 = self._planes.index_select(1, surface)
        # A point's u is U / Q with U and Q linear in (x, y), so du/dx = (U_x - u Q_x) / Q.
        t = 1 / (q0 * x + q1 * y + q2).clamp_(min=1e-5)
        u, v = (u0 * x + u1 * y + u2) * t, (v0 * x + v1 * y + v2) * t
        tx, ty = t / self._focal[0], t / self._focal[1]
        return t, Footprint(u, v, (u0 - u * q0) * tx, (u1 - u * q1) * ty, (v0 - v * q0) * tx, (v1 - v * q1) * ty)

    def _level(self, squared_size: Tensor, dither: tuple, shape: torch.Size) -> Tensor:
        """The level whose texels are as large as the footprint (its squared size in texels), rounded by the dither."""
        level = torch.log2(squared_size).mul_(0.5).add_(_LEVEL_BIAS)
        pattern = self._tensor(np.array(dither)).repeat(shape[0] // 2, shape[1] // 2).reshape(-1)
        return level.add_(pattern).clamp_(0, LEVELS - 1).to(torch.int32)

    def _on_quadric(self, k: Tensor, x: Tensor, y: Tensor, t: Tensor) -> tuple[Footprint, Tensor, Tensor]:
        """Footprints, light [n] and the sun's part of it [n] of hits at `t` on the quadrics `k`.

        The texture is projected along the world axis that is nearest to the normal.
        """
        ray = torch.stack([x, y, torch.ones_like(x)])
        point = ray * t
        local = self._rotation @ point + self._eye[:, None] - self._centre.index_select(1, k)
        normal = local * self._inverse_radius.index_select(1, k)
        facing = self._rotation.T @ normal
        q = facing / (facing * point).sum(0)  # 1/t of the tangent plane, as a linear form
        # X = ray / Q, so dX/dx = (e_x - X Q_x) / Q.
        unit_x, unit_y = torch.eye(3, device=x.device)[:2, :, None]
        step_x = self._rotation @ ((unit_x - point * q[0]) * (t / self._focal[0]))
        step_y = self._rotation @ ((unit_y - point * q[1]) * (t / self._focal[1]))
        nx, ny, nz = normal.abs()
        first = ((nx >= ny) & (nx >= nz)).long()  # u is the world's y, else x
        second = 2 - ((nz > nx) & (nz > ny)).long()  # v is the world's z, else y
        texels = self._texels[k]

        def pick(vector: Tensor, row: Tensor) -> Tensor:
            return vector.gather(0, row[None])[0] * texels

        shift = (k % 97) * 37.0  # differs between quadrics, so that no two look the same
        footprint = Footprint(
            u=pick(local, first) + shift,
            v=pick(local, second),
            u_x=pick(step_x, first),
            u_y=pick(step_y, first),
            v_x=pick(step_x, second),
            v_y=pick(step_y, second),
        )
        length = (normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2]).rsqrt_()
        direct = 0.5 + 0.5 * (self._sun @ normal) * length
        sunny = self._sunlight * 1.4 * direct
        gain = (1 - self._sunlight) * (0.8 + 0.2 * normal[2] * length) + sunny
        return footprint, gain, sunny
