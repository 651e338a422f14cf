"""A procedural world whose depth, poses and cameras are known exactly, written in KITTI's own layouts.

Read in this order: `options` (what a world consists of), `road`, `camera_path`, `shapes`, `objects`, `street` and
`scene` (a drive's geometry), `textures`, `rays`, `first_hits`, `shading` and `render` (from geometry to pictures),
`world` (from pictures to files).
"""

from datasets.synthetic.drive_files import make_drive_renderer
from datasets.synthetic.options import Drive, WorldOptions, list_drives, read_options
from datasets.synthetic.render import Renderer
from datasets.synthetic.scene import Scene, make_scene
from datasets.synthetic.world import write_world

__all__ = [
    "Drive",
    "Renderer",
    "Scene",
    "WorldOptions",
    "list_drives",
    "make_drive_renderer",
    "make_scene",
    "read_options",
    "write_world",
]
