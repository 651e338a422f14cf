"""Other people's files: KITTI, Cityscapes, Make3D, trajectories."""
