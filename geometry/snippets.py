"""The batch of snippets that travels from the loader to the loss."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Snippets(NamedTuple):
    """Target frames, their source frames, and the camera.

    The loader fills it with uint8 images. `datasets.augmentation.augment` turns them into the networks' range
    [-1, 1], float32, and changes the camera with them.
    """

    target: Tensor  # [B, 3, H, W], the middle frame of each snippet
    sources: Tensor  # [B, N, 3, H, W], the other frames in order of time
    intrinsics: Tensor  # [B, 3, 3], K in pixels of these images; shared by target and sources
    # For a learned camera, which must know whose K it replaces:
    camera: Tensor | None = None  # [B] int64, number of the recording camera; -1: unknown. None: 0, the only one
    mirrored: Tensor | None = None  # [B] bool, whether augmentation has mirrored the images. None: not mirrored

    def to(self, device: torch.device | str) -> "Snippets":
        """The same snippets on a device; from page-locked memory the host does not wait for the copy."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Snippets":
        """The same snippets in page-locked memory, from which a copy to a GPU does not make the host wait."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Snippets":
        return Snippets._make(None if tensor is None else change(tensor) for tensor in self)
