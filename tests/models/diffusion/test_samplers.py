"""Samplers over oracle denoisers, and against each other."""

import math

import pytest
import torch

from models.diffusion.gaussian import q_sample
from models.diffusion.geodesic import normalise
from models.diffusion.noise_schedule import NoiseSchedule
from models.diffusion.samplers import ancestral, ancestral_states, ddim, guided, one_step
from models.diffusion.schedules import make_betas


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def start(rows=4, width=6):
    return torch.randn(rows, width, dtype=torch.float64, generator=seeded(9))


@pytest.mark.parametrize("noise", ["none", "fixedsmall", "fixedlarge", "variance"])
@pytest.mark.parametrize(("name", "steps"), [("linear", 25), ("trunc_lin", 32), ("cosine", 200)])
def test_oracle_denoiser_returns_x0_exactly(noise, name, steps):
    schedule = NoiseSchedule(make_betas(name, steps), dtype=torch.float64)
    x0 = torch.randn(4, 6, dtype=torch.float64, generator=seeded())
    sample = ancestral(lambda x, t: x0, schedule, start(), generator=seeded(1), noise=noise)
    assert torch.equal(sample, x0)
    assert torch.equal(ddim(lambda x, t: x0, schedule, start(), generator=seeded(1)), x0)
    assert torch.equal(one_step(lambda x, t: x0, schedule, start()), x0)


@pytest.mark.parametrize(("strength", "expected"), [(0.0, 5.0), (2.0, 11.0)])
def test_guidance_by_hand(strength, expected):
    """f(c) = x + t = 2 + 3, f(nothing) = x = 2: (1 + w) 5 - w 2."""
    denoise = guided(lambda x, t: x + t, lambda x, t: x, strength=strength)
    assert denoise(torch.tensor([2.0]), torch.tensor([3])).tolist() == [expected]


def test_denoiser_sees_every_step_from_the_noisiest_to_index_zero():
    seen = []

    def denoise(x, t):
        seen.append(t.tolist())
        return x

    ancestral(denoise, NoiseSchedule.named("linear", 5), torch.zeros(2, 3), generator=seeded())
    assert seen == [[4, 4], [3, 3], [2, 2], [1, 1], [0, 0]]


def test_states_come_one_per_step_and_obey_the_projection():
    schedule = NoiseSchedule.named("linear", 20)
    target = normalise(torch.randn(4, 6, generator=seeded()))
    states = list(
        ancestral_states(
            lambda x, t: target,
            schedule,
            normalise(torch.randn(4, 6, generator=seeded(1))),
            generator=seeded(2),
            noise="variance",
            project=normalise,
        )
    )
    assert len(states) == 20
    for state in states:
        torch.testing.assert_close(state.norm(dim=-1), torch.ones(4))
    torch.testing.assert_close(states[-1], target)


def test_noise_levels_of_one_reverse_step():
    """Spread of the first reverse state of 200,000 zeros: beta-tilde, its root, and the root of beta."""
    schedule = NoiseSchedule.named("trunc_lin", 32)
    for noise, expected in (
        ("fixedsmall", math.sqrt(0.634999)),
        ("fixedlarge", math.sqrt(0.635)),
        ("variance", 0.634999),
        ("none", 0.0),
    ):
        states = ancestral_states(
            lambda x, t: torch.zeros_like(x), schedule, torch.zeros(1, 200_000), generator=seeded(), noise=noise
        )
        assert float(next(states).std()) == pytest.approx(expected, rel=0.01)


def test_linear_denoiser_without_noise_has_a_closed_form():
    """With f(x) = a x the state is multiplied by posterior_x0 a + posterior_xt at each step."""
    schedule = NoiseSchedule(make_betas("linear", 10), dtype=torch.float64)
    factor = 1.0
    for step in range(10):
        factor *= 0.5 * float(schedule.posterior_x0[step]) + float(schedule.posterior_xt[step])
    got = ancestral(lambda x, t: 0.5 * x, schedule, start(), generator=seeded(), noise="none")
    torch.testing.assert_close(got, factor * start())


def test_deterministic_ddim_follows_the_noise_of_a_true_sample():
    """If the denoiser knows x0, the state at any earlier step is q_sample with the same noise."""
    schedule = NoiseSchedule(make_betas("linear", 25), dtype=torch.float64)
    x0, noise = (torch.randn(4, 6, dtype=torch.float64, generator=seeded(i)) for i in (1, 2))
    seen = {}

    def denoise(x, t):
        seen[int(t[0])] = x
        return x0

    steps = [4, 9, 14, 19, 24]
    ddim(denoise, schedule, q_sample(schedule, x0, torch.full((4,), 24), noise), generator=seeded(), timesteps=steps)
    assert sorted(seen) == steps
    for step, state in seen.items():
        torch.testing.assert_close(state, q_sample(schedule, x0, torch.full((4,), step), noise))


def test_full_ddim_with_eta_one_is_the_ancestral_sampler():
    schedule = NoiseSchedule(make_betas("trunc_lin", 32), dtype=torch.float64)

    def denoise(x, t):
        return torch.tanh(x) * (1 + t[0])

    first = ancestral(denoise, schedule, start(), generator=seeded(3))
    second = ddim(denoise, schedule, start(), generator=seeded(3), eta=1.0)
    torch.testing.assert_close(first, second)


def test_same_generator_same_sample():
    schedule = NoiseSchedule.named("linear", 10)
    runs = [ancestral(lambda x, t: x, schedule, torch.ones(2, 3), generator=seeded(s)) for s in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("timesteps", [[], [3, 1], [0, 0], [5], [-1, 2]])
def test_impossible_timesteps_are_refused(timesteps):
    with pytest.raises(ValueError, match=r"expected increasing indices in 0\.\.4"):
        ddim(
            lambda x, t: x,
            NoiseSchedule.named("linear", 5),
            torch.zeros(1, 2),
            generator=seeded(),
            timesteps=timesteps,
        )


@pytest.mark.parametrize("sampler", [ancestral, ddim])
def test_shared_noise_makes_a_row_independent_of_its_neighbours(sampler):
    schedule = NoiseSchedule.named("trunc_lin", 32)
    options = {"eta": 1.0} if sampler is ddim else {}
    x = torch.randn(4, 6, generator=seeded())
    together = sampler(lambda x, t: torch.tanh(x), schedule, x, generator=seeded(1), shared=True, **options)
    alone = sampler(lambda x, t: torch.tanh(x), schedule, x[2:3], generator=seeded(1), shared=True, **options)
    torch.testing.assert_close(together[2:3], alone)
    own = sampler(lambda x, t: torch.tanh(x), schedule, x, generator=seeded(1), **options)
    assert not torch.allclose(own, together)
