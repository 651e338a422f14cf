"""A procedural world whose depth, poses and cameras are known exactly, written in KITTI's own layouts."""

from datasets.synthetic.render import Renderer
from datasets.synthetic.scene import Scene, make_scene
from datasets.synthetic.world import Drive, WorldOptions, list_drives, make_drive_renderer, write_world

__all__ = [
    "Drive",
    "Renderer",
    "Scene",
    "WorldOptions",
    "list_drives",
    "make_drive_renderer",
    "make_scene",
    "write_world",
]
