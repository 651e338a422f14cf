import numpy as np

from evaluation.trajectories import FIGURES, describe_figures


def test_frame_to_frame_is_said_of_neighbouring_frames_alone():
    rows = np.arange(5)
    times = 1e9 + 0.1 * rows
    assert describe_figures(None, rows, rows) == FIGURES
    assert describe_figures(times, rows, rows) == FIGURES
    # The truth has poses between the camera's frames, or the file has every third frame: the file does not tell.
    found = describe_figures(3 * (times - 1e9), rows, 3 * rows)
    segments = " from every tenth paired pose on (not comparable with figures of all frames)"
    assert found == (
        f"t_err, r_err: KITTI's, over 100 to 800 m{segments}; ATE: RMSE; "
        "RPE: mean from each paired pose to the next, 0.3 s later"
    )
    for keyframes, own, true in (
        (np.array([0, 0.1, 0.5, 0.6, 1.4]), rows, rows),  # gaps in time
        (times, 2 * rows, rows),  # frames of the file that have no true pose
    ):
        found = describe_figures(keyframes, own, true)
        assert "frame to frame" not in found.replace("not comparable with figures from frame to frame", "")
        assert "not comparable with figures from frame to frame" in found
        assert segments in found
    assert "0.1 to 0.8 s later" in describe_figures(np.array([0, 0.1, 0.5, 0.6, 1.4]), rows, rows)
