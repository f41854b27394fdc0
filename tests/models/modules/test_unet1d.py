import pytest
import torch

from models.modules.unet1d import CrossAttention, UNet1d

WIDTH, CONTEXT, CHANNELS, STEPS = 6, 4, 8, 5


def unet(*, std=None):
    """With ``std`` every parameter is drawn anew, so that no path is hidden by a small start."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet1d(WIDTH, context_width=CONTEXT, channels=CHANNELS, heads=2, steps=STEPS)
        if std is not None:
            for parameter in net.parameters():
                torch.nn.init.normal_(parameter, std=std)
    return net.eval()


def random(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def steps(rows, t=2):
    return torch.full((rows,), t)


@pytest.mark.parametrize("frames", range(1, 9))
def test_the_shape_stays_and_every_frame_is_read(frames):
    x = random(3, frames, WIDTH).requires_grad_()
    out = unet()(x, steps(3), random(3, 1, CONTEXT))
    assert out.shape == (3, frames, WIDTH)
    assert out.isfinite().all()
    (out - x).square().sum().backward()  # the network alone, without the path around it
    assert (x.grad.abs().amax(dim=-1) > 0).all()


@pytest.mark.parametrize(("frames", "levels"), [(1, [1, 1]), (4, [2, 1]), (5, [3, 2]), (8, [4, 2])])
def test_each_level_halves_the_frames(frames, levels):
    net, seen = unet(), []
    for shrink in net.shrink:
        shrink.register_forward_hook(lambda _, __, out: seen.append(out.shape[-1]))
    net(random(2, frames, WIDTH), steps(2), random(2, 1, CONTEXT))
    assert seen == levels


def test_it_predicts_a_correction_of_its_input():
    net, x = unet(), random(3, 5, WIDTH)
    assert (net(x, steps(3), random(3, 1, CONTEXT)) - x).std() < 0.3 * x.std()
    torch.nn.init.zeros_(net.leave[-1].weight)
    torch.nn.init.zeros_(net.leave[-1].bias)
    assert torch.equal(net(x, steps(3), random(3, 1, CONTEXT)), x)


def test_it_is_told_the_step():
    """At the smallest width too, where groups of one channel would normalise the step away."""
    net, x, context = unet(std=0.3), random(1, 5, WIDTH).expand(STEPS, -1, -1), random(1, 1, CONTEXT)
    out = net(x, torch.arange(STEPS), context.expand(STEPS, -1, -1))
    assert torch.pdist(out.flatten(1)).min() > 1e-2


def test_a_row_does_not_depend_on_its_neighbours():
    net, x, context, t = unet(std=0.3), random(4, 5, WIDTH), random(4, 3, CONTEXT), torch.tensor([0, 1, 2, 4])
    together = net(x, t, context)
    torch.testing.assert_close(net(x[2:3], t[2:3], context[2:3])[0], together[2])


def test_hidden_tokens_change_nothing():
    net, x, context = unet(std=0.3), random(2, 5, WIDTH), random(2, 3, CONTEXT)
    mask = torch.tensor([[True, True, False]] * 2)
    expected = net(x, steps(2), context[:, :2])
    torch.testing.assert_close(net(x, steps(2), context, context_mask=mask), expected)
    assert (net(x, steps(2), context) - expected).abs().max() > 1e-3


def test_one_token_gives_every_frame_the_same_vector():
    """Softmax over one key is 1, so that the output is W_O (W_V c + b_V) + b_O whatever the frames are."""
    layer, context = CrossAttention(CHANNELS, heads=2).eval(), random(2, 1, CHANNELS)
    expected = layer.attention.out(layer.attention.value(context)).transpose(1, 2).expand(-1, -1, 5)  # [b, c, f]
    for seed in (1, 2):
        x = random(2, CHANNELS, 5, seed=seed)
        torch.testing.assert_close(layer(x, context, None) - x, expected, rtol=1e-4, atol=1e-6)


def test_several_tokens_are_weighed_by_each_frame():
    layer, x = CrossAttention(CHANNELS, heads=2).eval(), random(2, CHANNELS, 5)
    read = layer(x, random(2, 3, CHANNELS), None) - x
    assert read.std(dim=-1).max() > 1e-3


def test_every_parameter_has_a_gradient_when_there_are_several_tokens():
    net = unet(std=0.3)
    net(random(4, 5, WIDTH), torch.arange(4), random(4, 3, CONTEXT)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().max() > 1e-6, name
