import pytest
import torch

from models.disp_net import DispNet


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DispNet()


def test_parameters_are_those_of_the_published_checkpoints(network, parameter_shapes):
    assert {name: [*tensor.shape] for name, tensor in network.state_dict().items()} == parameter_shapes["DispNetS"]


@pytest.mark.parametrize(("image", "prefix"), [("target", ""), ("odd_image", "odd_")])
@torch.no_grad()
def test_outputs_agree_with_the_reference(reference, fill, image, prefix):
    for scale, disparity in enumerate(fill(DispNet())(reference[image])):
        torch.testing.assert_close(disparity, reference[f"{prefix}disparity_{scale}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (45, 70)])
@torch.no_grad()
def test_any_size_from_32_on(network, size):
    image = torch.rand(2, 3, *size) * 2 - 1
    disparities = network.train()(image)
    for scale, disparity in enumerate(disparities):
        assert disparity.shape == (2, 1, *(-(-side // 2**scale) for side in size))  # rounded up
        assert (disparity > 0.01).all()
        assert (disparity < 10.01).all()
    for training, testing in zip(disparities, network.eval()(image), strict=True):
        assert torch.equal(training, testing)


def test_every_parameter_gets_a_gradient(network):
    network.zero_grad()
    sum(disparity.mean() for disparity in network(torch.rand(1, 3, 33, 47))).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("shape", [(1, 3, 31, 32), (1, 3, 32, 31), (1, 1, 64, 64), (3, 64, 64)])
def test_wrong_shapes_say_got_and_expected(network, shape):
    with pytest.raises(ValueError, match=r"got shape .* expected"):
        network(torch.zeros(shape))


@torch.no_grad()
@pytest.mark.parametrize("first", [0.5, 1.2, 5.01, 9])
def test_the_first_disparities_lie_near_what_is_asked(first):
    torch.manual_seed(0)
    for disparity in DispNet(first)(torch.rand(2, 3, 64, 96) * 2 - 1):
        # New weights add something to the bias, before the sigmoid.
        assert first / 3 < disparity.mean() < 3 * first
    assert all((predict[0].bias == 0).all() for predict in (DispNet().predict_disp1, DispNet().predict_disp4))


@pytest.mark.parametrize("first", [0, 0.01, 10.01, 11, float("nan")])
def test_a_first_disparity_out_of_range_is_refused(first):
    with pytest.raises(ValueError, match=r"first_disparity is .*, expected a number between 0.01 and 10.01"):
        DispNet(first)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_features_keep_the_memory_format_of_the_network(memory_format, size):
    """A copy of the finest features into the other format takes longer than adding the disparity to them."""
    network = DispNet(width=0.25).to(memory_format=memory_format)
    joined = []
    for name in ("iconv1", "iconv2", "iconv3", "iconv4"):
        getattr(network, name).register_forward_pre_hook(lambda _, inputs: joined.append(inputs[0]))
    with torch.no_grad():
        network(torch.rand(2, 3, *size).to(memory_format=memory_format))
    assert len(joined) == 4
    assert all(features.is_contiguous(memory_format=memory_format) for features in joined)
