"""The two networks."""

from models.disp_net import DispNet
from models.pose_exp_net import PoseExpNet

__all__ = ["DispNet", "PoseExpNet"]
