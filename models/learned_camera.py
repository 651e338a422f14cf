"""A camera that nobody measured: focal lengths and principal point, learned with the networks.

Gordon et al., "Depth from Videos in the Wild" (ICCV 2019), show that the warp determines the camera where it turns: a
turn by an angle r moves a pixel at x from the centre by r (f + x^2 / f) along the row. The first part only fixes r f.
The second part tells f. Motion without turns leaves f free, since depth and translation take up its error.
"""

import torch
from torch import Tensor, nn

from geometry.snippets import Snippets

# Units of the parameters. Adam moves every parameter by about its rate per step, whatever the gradient's size. The
# common focal length is what turns determine best. Its ratio fx / fy shows only in pitch and roll, and a shift of the
# principal point looks much like another direction of motion. Both are close to the start in real cameras, too.
_RATIO_UNIT = 0.1
_CENTRE_UNIT = 0.1


class LearnedCamera(nn.Module):
    """Learns K of each recording camera from a start: K = start @ [[a, 0, p], [0, b, q], [0, 0, 1]].

    a and b are factors of the focal lengths fx and fy; p and q shift the principal point, in units of the focal
    lengths. A change of this form commutes with resizing and cropping, which multiply K from the left. Mirroring an
    image mirrors the world's points, too (`geometry.camera.flip_intrinsics`): for its K, p changes its sign. Snippets
    of an unknown camera (number -1) keep their K.

    Args:
        cameras: number of cameras.
    """

    def __init__(self, cameras: int = 1) -> None:
        super().__init__()
        if not 1 <= cameras <= 2**20:
            raise ValueError(f"cameras={cameras}: expected 1 or more")
        self.cameras = cameras
        self.start: Tensor
        self.register_buffer("start", torch.eye(3).repeat(cameras, 1, 1))  # K in pixels of images without augmentation
        self.log_focal = nn.Parameter(torch.zeros(cameras, 2))  # mean of log a and log b; half of their difference
        self.shift = nn.Parameter(torch.zeros(cameras, 2))  # p, q

    @torch.no_grad()
    def start_from(self, intrinsics: Tensor) -> None:
        """Set where the cameras start: K [cameras, 3, 3] in pixels of the training images."""
        if intrinsics.shape != self.start.shape:
            raise ValueError(f"intrinsics: got shape {list(intrinsics.shape)}, expected {list(self.start.shape)}")
        self.start.copy_(intrinsics)
        self.log_focal.zero_()
        self.shift.zero_()

    def matrices(self) -> Tensor:
        """K [cameras, 3, 3] of each camera in pixels of the training images."""
        return _correct(self.start, self.log_focal, self.shift)

    def forward(self, snippets: Snippets) -> Tensor:
        if snippets.camera is None and self.cameras > 1:
            raise ValueError(f"snippets do not say which of {self.cameras} cameras recorded them")
        camera = snippets.camera
        if camera is None:
            camera = torch.zeros(len(snippets.intrinsics), dtype=torch.int64, device=snippets.intrinsics.device)
        log_focal, shift = self.log_focal[camera.clamp(min=0)], self.shift[camera.clamp(min=0)]
        if snippets.mirrored is not None:
            sign = 1 - 2 * snippets.mirrored.to(shift.dtype)
            shift = torch.stack([sign * shift[:, 0], shift[:, 1]], 1)
        learned = _correct(snippets.intrinsics, log_focal, shift)
        return torch.where((camera >= 0)[:, None, None], learned, snippets.intrinsics)


def _correct(intrinsics: Tensor, log_focal: Tensor, shift: Tensor) -> Tensor:
    """K @ [[a, 0, p], [0, b, q], [0, 0, 1]] of parameters [N, 2] (not as a product: bf16 would round it)."""
    mean, ratio = log_focal.unbind(1)
    a, b = (mean + _RATIO_UNIT * ratio).exp(), (mean - _RATIO_UNIT * ratio).exp()
    p, q = (_CENTRE_UNIT * shift).unbind(1)
    x, y, one = intrinsics.unbind(2)
    return torch.stack([x * a[:, None], y * b[:, None], x * p[:, None] + y * q[:, None] + one], 2)
