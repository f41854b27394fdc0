import math

import pytest
import torch

from models.config import parse_strict
from models.errors import ConfigError
from models.training.config import TrainingConfig
from models.training.schedule import learning_rate, make_optimiser, set_learning_rate


def rates(steps, *, horizon=100, **settings):
    config = TrainingConfig(learning_rate=0.1, **settings)
    return [learning_rate(config, step, horizon=horizon) for step in steps]


def test_constant():
    assert rates([0, 1, 1000]) == [0.1, 0.1, 0.1]


def test_warm_up_rises_in_a_straight_line_to_the_full_rate():
    assert rates(range(6), warmup_steps=4) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_step_decays_every_so_many_steps_after_the_warm_up():
    settings = {"schedule": "step", "schedule_steps": 10, "decay": 0.5, "warmup_steps": 2}
    assert rates([2, 11, 12, 21, 22], **settings) == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025])


def test_cosine_falls_to_zero_at_the_end_and_stays_there():
    found = rates([0, 25, 50, 75, 100, 150], schedule="cosine")
    assert found == pytest.approx([0.1, 0.05 * (1 + math.sqrt(0.5)), 0.05, 0.05 * (1 - math.sqrt(0.5)), 0, 0])
    assert rates([20, 60, 100], schedule="cosine", warmup_steps=20) == pytest.approx([0.1, 0.05, 0.0])
    assert rates([5, 10], schedule="cosine", schedule_steps=10) == pytest.approx([0.05, 0.0])


@pytest.mark.parametrize("settings", [{}, {"schedule": "cosine"}, {"schedule": "step", "schedule_steps": 7}])
def test_the_rates_are_those_of_torch_s_schedulers(settings):
    """Torch's own schedulers, stepped from the beginning, agree with the function of the step."""
    config = TrainingConfig(learning_rate=0.1, **settings)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = {
        "constant": lambda: torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0),
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=50),
        "step": lambda: torch.optim.lr_scheduler.StepLR(optimiser, step_size=7, gamma=0.1),
    }[config.schedule]()
    for step in range(50):
        assert learning_rate(config, step, horizon=50) == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-9)
        optimiser.step()
        scheduler.step()


@pytest.mark.parametrize(("optimiser", "expected"), [("adam", 1.0 - 0.1), ("adamw", 1.0 - 0.1 * 0.5 * 1.0 - 0.1)])
def test_weight_decay_of_the_two_optimisers(optimiser, expected):
    """One step from 1 with gradient 1: Adam moves by the rate whatever the penalty; AdamW also takes rate · decay."""
    weight = torch.nn.Parameter(torch.ones(1))
    made = make_optimiser(TrainingConfig(optimiser=optimiser, learning_rate=1e-3, weight_decay=0.5), [weight])
    set_learning_rate(made, 0.1)
    weight.grad = torch.ones(1)
    made.step()
    assert weight.item() == pytest.approx(expected, rel=1e-5)


def test_a_step_schedule_needs_its_length():
    with pytest.raises(ConfigError, match="schedule_steps: the schedule 'step' needs"):
        parse_strict(TrainingConfig, {"schedule": "step"}, where="x.toml")
