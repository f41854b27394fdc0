"""Targets and chosen frames, against arithmetic done by hand."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.errors import SamplingError
from extractors.sampling import plan_samples, presented_ticks, require_rate, target_times

F = Fraction


def test_five_frames_around_the_centre():
    # 10 s from 2.0: centre 7.0
    assert target_times(F(2), F(10)) == ((F(5), F(6), F(7), F(8), F(9)), "centre")


def test_an_even_number_straddles_the_centre():
    assert target_times(F(0), F(10), n=4, fps=2.0) == ((F(17, 4), F(19, 4), F(21, 4), F(23, 4)), "centre")


def test_short_video_is_cut_into_equal_parts():
    # 1 s in five parts of 0.2 s, looked at in their middles
    assert target_times(F(3), F(1)) == ((F("3.1"), F("3.3"), F("3.5"), F("3.7"), F("3.9")), "short")


def test_both_rules_agree_at_the_border():
    just_short = target_times(F(0), F(5) - F(1, 10**9))
    assert target_times(F(0), F(5))[1] == "centre"
    assert just_short[1] == "short"
    assert max(abs(a - b) for a, b in zip(target_times(F(0), F(5))[0], just_short[0], strict=True)) < F(1, 10**8)


def test_a_target_on_a_timestamp_takes_that_frame():
    # 300 frames at 30 per second: centre 5.0 s, which is the timestamp of frame 150
    plan = plan_samples(range(300), 1, F(1, 30))
    assert plan.index == (90, 120, 150, 180, 210)
    assert plan.duration == 10


def test_between_timestamps_the_earlier_frame_is_on_screen():
    # 301 frames: centre 301/60 s = 5.01666 s lies half-way between frames 150 and 151
    assert plan_samples(range(301), 1, F(1, 30)).index == (90, 120, 150, 180, 210)


def test_variable_rate():
    # on screen: 0-4 s, 4-4.5 s, 4.5-10 s; targets 3, 4, 5, 6, 7
    assert plan_samples([0, 8, 9], 11, F(1, 2)).index == (0, 1, 2, 2, 2)


def test_without_a_last_duration_the_last_step_counts():
    # frames at 100 s and 110 s, each for 10 s: centre 110 s
    plan = plan_samples([100, 110], 0, F(1, 1))
    assert plan.targets == (108, 109, 110, 111, 112)
    assert plan.index == (0, 0, 1, 1, 1)
    assert plan.duration == 20


@pytest.mark.parametrize(
    ("pts", "last", "ticks"),
    [([0, 10, 20], 5, 25), ([0, 10, 20], None, 30), ([0, 10, 25], 0, 40), ([7], None, 0), ([7], 3, 3), ([7], -1, 0)],
)
def test_presented_ticks(pts, last, ticks):
    assert presented_ticks(pts, last) == ticks


def test_one_frame_is_taken_five_times():
    plan = plan_samples([42], None, F(1, 25))
    assert (plan.index, plan.policy, plan.n_distinct) == ((0,) * 5, "short", 1)


@given(
    steps=st.lists(st.integers(1, 4000), min_size=1, max_size=60),
    first=st.integers(-5000, 5000),
    n=st.integers(1, 9),
    fps=st.sampled_from([0.5, 1.0, 2.0, 7.5, 29.97]),
)
def test_no_later_frame_was_on_screen(steps, first, n, fps):
    pts = [first]
    for step in steps:
        pts.append(pts[-1] + step)
    base = F(1, 1000)
    plan = plan_samples(pts, steps[-1], base, n=n, fps=fps)
    assert len(plan.index) == n
    assert plan.n_distinct == len(set(plan.index))
    for target, index in zip(plan.targets, plan.index, strict=True):
        shown = [position for position, stamp in enumerate(pts) if stamp * base <= target]
        assert index == (shown[-1] if shown else 0)


@pytest.mark.parametrize(("n", "fps"), [(0, 1.0), (-1, 1.0), (5, 0.0), (5, -1.0), (5, float("nan")), (5, float("inf"))])
def test_what_cannot_be_sampled(n, fps):
    with pytest.raises(SamplingError, match=r"(n|fps): expected"):
        require_rate(n, fps)


def test_a_rate_too_small_to_count():
    with pytest.raises(SamplingError, match="million seconds"):
        require_rate(5, 1e-9)


def test_timestamps_must_be_there_and_ascend():
    with pytest.raises(ValueError, match="got none"):
        plan_samples([], None, F(1, 25))
    with pytest.raises(ValueError, match="ascending"):
        plan_samples([3, 2], None, F(1, 25))
