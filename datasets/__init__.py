"""Images, prepared data, KITTI's own formats, the synthetic world."""
