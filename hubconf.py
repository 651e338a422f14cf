"""Entry points of torch.hub: `torch.hub.load(REPOSITORY, "sfmlearner", checkpoint=...)`; see docs/export.md.

A clone on the disk works, too: `torch.hub.load("path/to/clone", "sfmlearner", source="local", checkpoint=...)`.
"""

from typing import Any

from models.pretrained import from_pretrained as _from_pretrained

dependencies = ["torch", "torchvision", "numpy", "path", "safetensors", "PIL"]


def sfmlearner(checkpoint: str, revision: str | None = None, device: str = "cpu") -> Any:
    """A trained model in evaluation mode, `models.SfMLearner`, with `depth_net`, `pose_net` and `camera`.

    Args:
        checkpoint: a checkpoint, a run's folder, published weights (.safetensors), a folder of `save_pretrained`, or
            "OWNER/NAME" on the model hub (with huggingface_hub installed).
        revision: branch, tag or commit on the model hub.
        device: where the model shall be.

    Example: `model.depth_net(image)[0]` is the disparity [B, 1, H, W] of images [B, 3, H, W] in [-1, 1].
    """
    return _from_pretrained(str(checkpoint), revision).to(device)
