"""Pictures, exact depth and LiDAR scans of a synthetic scene, all from the same first hits."""

import numpy as np
import torch
from torch import Tensor

from datasets.synthetic.first_hits import SKY, first_hits, see
from datasets.synthetic.ground import Ground
from datasets.synthetic.photo import Photo, motion_blur
from datasets.synthetic.rays import Rays, camera_rays, lidar_rays
from datasets.synthetic.rip_map import rip_maps
from datasets.synthetic.scene import Scene
from datasets.synthetic.sensors import LIDAR_RANGE
from datasets.synthetic.shading import Shader
from datasets.synthetic.shadows import Shadows

_RAYS_PER_BAND = 1 << 15  # shaded at a time: the intermediate results of one band fit into the processor's cache
_SHADOWS_REACH = 90.0  # metres around the camera's path in which shadows are seen
_LENS_SHARE = 1 / 8  # share in a pixel's colour of each of the two neighbouring rays


class Renderer:
    """A scene with its textures on a device, ready to be rendered from any pose at the time of any frame."""

    def __init__(self, scene: Scene, textures: np.ndarray, device: torch.device | str = "cpu"):
        """`textures`: float32 [len(NAMES), SIZE, SIZE, 4] (`textures.make_textures`)."""
        self.scene = scene
        self.device = torch.device(device)
        self._atlas = torch.from_numpy(rip_maps(textures).reshape(-1, 4)).to(self.device)
        self._ground = Ground(scene.road, self.device, scene.side_roads)
        self._shadows = None
        if scene.shadows:
            path = scene.world_from_camera[:, :2, 3]
            self._shadows = Shadows(
                scene.polygons[scene.strips :], scene.quadrics, scene.sun, path, _SHADOWS_REACH, self.device
            )

    def image(
        self,
        frame: int,
        intrinsics: np.ndarray,
        height: int,
        width: int,
        world_from_camera: np.ndarray | None = None,
        *,
        photo: bool = True,
    ) -> np.ndarray:
        """A picture, uint8 [height, width, 3]: the mean colour of 2 x 2 rays per pixel, with a soft lens.

        Args:
            intrinsics: K [3, 3] in pixels of this size.
            world_from_camera: [4, 4]; default: the drive's left camera at this frame.
            photo: in a varied world, with all that the camera does (`photo.Photo`): blur, tones, noise, compression.
        """
        fine = intrinsics * 2.0  # K of the image of twice the size: f' = 2 f, c' = 2 c + 0.5
        fine[:2, 2] += 0.5
        fine[2, 2] = 1
        pose = self.scene.world_from_camera[frame] if world_from_camera is None else world_from_camera
        rays = camera_rays(fine, 2 * height, 2 * width)
        visible = see(self.scene, self.scene.polygons_at(frame), pose, rays)
        surface, inverse = (torch.from_numpy(hits).to(self.device) for hits in first_hits(visible, rays))
        rows = max(1, _RAYS_PER_BAND // (4 * width)) * 2
        shader = Shader(self.scene, self._ground, self._atlas, frame, visible, pose, fine, self._shadows)
        fine_picture = torch.empty(3, 2 * height, 2 * width, device=self.device)
        for top in range(0, 2 * height, rows):
            band = slice(top, min(top + rows, 2 * height))
            fine_picture[:, band] = shader.colours(surface[band], inverse[band], rays, band)
        picture = _halve(_halve(fine_picture, 1), 2)
        if photo and self.scene.photo is not None:
            return self._develop(self.scene.photo, picture, inverse[::2, ::2], frame, intrinsics, pose)
        picture = picture.permute(1, 2, 0)
        brightness = self.scene.light[frame] * self.scene.exposure[frame] * 255
        return (picture * brightness).round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()

    def depth(
        self, frame: int, intrinsics: np.ndarray, height: int, width: int, world_from_camera: np.ndarray | None = None
    ) -> np.ndarray:
        """Exact depth z through the pixel centres, float32 [height, width], metres; 0 = sky. Arguments: see `image`."""
        pose = self.scene.world_from_camera[frame] if world_from_camera is None else world_from_camera
        surface, inverse = self._hits(frame, camera_rays(intrinsics, height, width), pose)
        return np.where(surface == SKY, np.float32(0), 1 / np.where(surface == SKY, 1, inverse))

    def scan(self, frame: int, world_from_lidar: np.ndarray, elevation: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
        """LiDAR points (x forward, y left, z up, metres, reflectance) in the sensor's frame: float32 [N, 4].

        Args:
            world_from_lidar: [4, 4].
            elevation, azimuth: radians, see `rays.lidar_rays`.
        """
        rays = lidar_rays(elevation, azimuth)
        surface, inverse = self._hits(frame, rays, world_from_lidar)
        hit = inverse > 1 / LIDAR_RANGE
        points = rays.directions()[hit] / inverse[hit].astype(np.float64)[:, None]
        polygons, quadrics = self.scene.polygons_at(frame), self.scene.quadrics
        paint = np.concatenate([np.full((2, 3), 0.3), polygons.paint, quadrics.paint])
        return np.concatenate([points, paint[surface[hit]].mean(1, keepdims=True).clip(0, 1)], 1).astype(np.float32)

    def _develop(
        self,
        photo: Photo,
        light: Tensor,
        inverse_depth: Tensor,
        frame: int,
        intrinsics: np.ndarray,
        pose: np.ndarray,
    ) -> np.ndarray:
        """What the drive's camera makes of light [3, H, W] at a pose: uint8 [H, W, 3]."""
        scene = self.scene
        poses, at = scene.world_from_camera, min(frame, len(scene.world_from_camera) - 2)
        moved = np.linalg.inv(poses[at + 1]) @ poses[at]
        if photo.shutter:
            light = motion_blur(light, inverse_depth, intrinsics, moved, photo.shutter)
        return photo.develop(light * float(scene.light[frame] * scene.exposure[frame]), frame, pose)

    def _hits(self, frame: int, rays: Rays, world_from_sensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Surface number and 1/t of the rays' first hits, both [H, W]."""
        return first_hits(see(self.scene, self.scene.polygons_at(frame), world_from_sensor, rays), rays)


def _halve(picture: Tensor, dim: int) -> Tensor:
    """Pixels from the rays of a dimension: a soft lens takes a pixel's own two rays and the next one on each side.

    The plain mean of two rays would make edges as sharp as steps, which no interpolation could move by a fraction of a
    pixel.
    """
    count = picture.shape[dim] // 2
    rays = picture.unflatten(dim, (count, 2))
    first, second = rays.select(dim + 1, 0), rays.select(dim + 1, 1)
    before = torch.cat([first.narrow(dim, 0, 1), second.narrow(dim, 0, count - 1)], dim)
    after = torch.cat([first.narrow(dim, 1, count - 1), second.narrow(dim, count - 1, 1)], dim)
    return (0.5 - _LENS_SHARE) * (first + second) + _LENS_SHARE * (before + after)
