"""The parts of MealRec, each against a plainer way to the same numbers."""

import pytest
import torch
from mealrec_cases import WIDTH, batch, loud, seeded
from torch import nn

from models.modules.blind_denoiser import BlindDenoiser, MlpFusion
from models.modules.content_diffusion import ContentDiffusion
from models.modules.feature_table import FeatureTable
from models.modules.frame_unet import FrameUNet, activation, convolution
from models.modules.unet1d import UNet1d


def spread(module, std=0.3):
    """Weights away from their start."""
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.normal_(std=std, generator=seeded(20 + number))
    return module


def random(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed))


# --- eq. 8 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", range(1, 9))
@pytest.mark.parametrize("tokens", [1, 3])
def test_the_frame_unet_is_the_unet(frames, tokens):
    net = spread(FrameUNet(6, context_width=4, channels=16, heads=2, steps=5))
    z, t, context = random(4, frames, 6), torch.tensor([0, 4, 2, 1]), random(4, tokens, 4, seed=1)
    mask = torch.arange(tokens) < torch.tensor([[tokens], [1], [2], [tokens]])
    found = net(z, t, context)
    assert found.shape == z.shape
    torch.testing.assert_close(found, UNet1d.forward(net, z, t, context), rtol=1e-4, atol=1e-4)
    if tokens > 1:
        found, expected = net(z, t, context, context_mask=mask), UNet1d.forward(net, z, t, context, context_mask=mask)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_frame_unet_has_the_unets_gradients():
    net = spread(FrameUNet(6, context_width=4, channels=16, heads=2, steps=5))
    z, t, context = random(4, 5, 6), torch.tensor([0, 4, 2, 1]), random(4, 1, 4, seed=1)
    found = dict(zip(dict(net.named_parameters()), grads(net, net(z, t, context)), strict=True))
    expected = dict(zip(found, grads(net, UNet1d.forward(net, z, t, context)), strict=True))
    for name, gradient in found.items():
        if gradient is None:  # exactly zero on paper
            assert expected[name].abs().max() < 1e-4
        else:
            torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-3)


def grads(net, out):
    return torch.autograd.grad((out**2).mean(), list(net.parameters()), allow_unused=True)


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (1, 1)])
def test_a_convolution_is_torch_s(frames, size, stride):
    layer = spread(nn.Conv1d(4, 6, size, stride=stride, padding=size // 2))
    x = random(2, 4, frames)
    found = convolution(layer)(x.permute(2, 0, 1)).permute(1, 2, 0)
    torch.testing.assert_close(found, layer(x), rtol=1e-5, atol=1e-5)


def test_an_activation_is_torch_s_group_norm_and_silu():
    norm, x = spread(nn.GroupNorm(2, 8)), random(3, 8, 5) + 4.0
    found = activation(norm)(x.permute(2, 0, 1)).permute(1, 2, 0)
    torch.testing.assert_close(found, nn.functional.silu(norm(x)), rtol=1e-4, atol=1e-5)


def test_an_activation_of_repeated_frames_and_of_some_channels():
    """Two groups of the norm lie in the first eight channels, whose frames count 2, 1 and 3 times."""
    norm, x, rest = spread(nn.GroupNorm(4, 16)), random(3, 8, 3) + 4.0, random(3, 8, 6, seed=1)
    repeats = torch.tensor([2, 1, 3])
    expected = nn.functional.silu(norm(torch.cat((x.repeat_interleave(repeats, dim=2), rest), dim=1)))
    first = activation(norm, 0, 8)(x.permute(2, 0, 1), repeats[:, None, None].float())
    torch.testing.assert_close(first.permute(1, 2, 0), expected[:, :8, [0, 2, 3]], rtol=1e-4, atol=1e-5)
    second = activation(norm, 8)(rest.permute(2, 0, 1))
    torch.testing.assert_close(second.permute(1, 2, 0), expected[:, 8:], rtol=1e-4, atol=1e-5)


# --- eq. 6-7 ----------------------------------------------------------------------------------------------------


def test_reducing_the_sum_is_summing_the_reduced():
    """c_v by hand: sum of alpha_k (W v_k + b), alpha over ages 2, 1, 0 at gamma 0.9; zero for an empty history."""
    content = ContentDiffusion(4, frames=5, heads=2, dropout=0.0, gamma=0.9, cv_tokens=False, channels=16, steps=5)
    videos, reduce = FeatureTable(random(9, WIDTH)), spread(nn.Linear(WIDTH, 4))
    ids = torch.tensor([[3, 8, 5, 0], [0, 0, 0, 0]])
    found, mask = content.context(videos, reduce, ids, ids > 0)
    alpha = torch.tensor([-1.8, -0.9, 0.0]).exp()
    expected = (alpha / alpha.sum()) @ reduce(videos(ids[0, :3]))
    assert mask is None
    torch.testing.assert_close(found[0, 0], expected, rtol=1e-5, atol=1e-5)
    assert (found[1] == 0).all()


def test_a_video_that_ends_several_histories_is_encoded_once():
    mealrec, encoded = loud(), []
    mealrec.content.encoder.register_forward_pre_hook(lambda _, args: encoded.append(len(args[0])))
    one = batch([[3, 1, 4, 0], [5, 9, 2, 4], [7, 4, 8, 0]])
    found = mealrec.last_frames(one)
    assert encoded == [2]
    expected = mealrec.content.encoder(mealrec.tables["frames"](torch.tensor([4, 4, 8])))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


# --- eq. 13-14 --------------------------------------------------------------------------------------------------


def test_the_denoiser_is_a_transformer_block_read_at_the_state():
    denoiser = spread(BlindDenoiser(8, visual=5, text=6, heads=2, inner=16, dropout=0.0))
    x, frames, text = random(3, 8), random(3, 4, 5, seed=1), random(3, 6, seed=2)
    tokens = [x + denoiser.kinds[0], *(denoiser.visual(frames) + denoiser.kinds[1]).unbind(1)]
    tokens.append(denoiser.text(text) + denoiser.kinds[2])
    expected = denoiser.last_norm(denoiser.block(torch.stack(tokens, dim=1)))[:, 0]
    torch.testing.assert_close(denoiser(x, frames, text), expected, rtol=1e-5, atol=1e-5)
    given = denoiser.given(frames, text)
    torch.testing.assert_close(given(2 * x), denoiser(2 * x, frames, text))


def test_the_ablation_s_mlp_starts_as_the_preference_and_then_reads_everything():
    fusion, x = MlpFusion(8, visual=5, text=6, inner=16), random(3, 8)
    frames, text = random(3, 4, 5, seed=1), random(3, 6, seed=2)
    assert torch.equal(fusion(x, frames, text), x)
    spread(fusion)
    before = fusion(x, frames, text)
    assert (fusion(x, 2 * frames, text) - before).abs().max() > 1e-3
    assert (fusion(x, frames, 2 * text) - before).abs().max() > 1e-3
    torch.testing.assert_close(fusion(x, frames.flip(1), text), before)
