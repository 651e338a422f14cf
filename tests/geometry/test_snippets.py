import pytest
import torch

from geometry.snippets import Snippets


def example() -> Snippets:
    frames = torch.zeros(2, 3, 4, 5).byte(), torch.ones(2, 4, 3, 4, 5).byte()
    return Snippets(*frames, torch.eye(3).repeat(2, 1, 1), torch.tensor([0, -1]), torch.tensor([True, False]))


def test_snippets_move_as_one():
    moved = example().to("meta")
    assert isinstance(moved, Snippets)
    assert {tensor.device.type for tensor in moved} == {"meta"}
    assert [tensor.shape for tensor in moved] == [tensor.shape for tensor in example()]
    stayed = example().to("cpu")
    assert all(torch.equal(*pair) for pair in zip(stayed, example(), strict=True))


def test_what_snippets_do_not_know_stays_unknown():
    moved = example()._replace(camera=None, mirrored=None).to("meta")
    assert (moved.camera, moved.mirrored) == (None, None)
    assert moved.target.device.type == "meta"


@pytest.mark.gpu
def test_page_locked_snippets_are_the_same():
    pinned = example().pin_memory()
    assert all(tensor.is_pinned() for tensor in pinned)
    assert all(torch.equal(*pair) for pair in zip(pinned.to("cuda").to("cpu"), example(), strict=True))
