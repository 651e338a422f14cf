import torch

from benchmarks import warp as benchmark


def test_both_formulations_are_the_same_warp():
    torch.manual_seed(0)
    images, depth = torch.rand(2, 3, 12, 20).double(), 3 + 9 * torch.rand(2, 1, 12, 20).double()
    poses = 0.03 * torch.randn(2, 6).double()
    intrinsics = torch.tensor([[11.0, 0, 9.5], [0, 11, 5.5], [0, 0, 1]]).double().repeat(2, 1, 1)
    ours, usual = (w(images, depth, poses, intrinsics) for w in (benchmark.our_warp, benchmark.usual_warp))
    torch.testing.assert_close(ours, usual)


def test_it_measures_both_in_turns():
    warps = {"usual": benchmark.usual_warp, "ours": benchmark.our_warp}
    seconds = benchmark.measure(warps, 1, 8, 12, 10, torch.device("cpu"))
    assert {name: len(times) for name, times in seconds.items()} == {"usual": 9, "ours": 9}
