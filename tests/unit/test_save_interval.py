"""How often a run saves: by steps, or by what failures and saves cost."""

import pytest

from training.save_interval import SaveInterval, effective_share, young_daly_s
from training.sections import CheckpointConfig


@pytest.mark.parametrize(("cost_s", "mttf_h", "seconds"), [(0.5, 7.9, 169), (5, 1.8, 255), (60, 1.8, 882)])
def test_the_interval_is_young_and_dalys(cost_s, mttf_h, seconds):
    """Published: 1,024 and 16,384 GPUs of Llama 3's failure rates."""
    assert young_daly_s(cost_s, mttf_h * 3600) == pytest.approx(seconds, rel=0.005)


@pytest.mark.parametrize(
    ("cost_s", "recovery_s", "mttf_h", "share"),
    [(0.5, 60, 7.9, 0.992), (0.5, 60, 1.8, 0.978), (5, 300, 1.8, 0.914)],
)
def test_the_share_that_is_training_is_what_saves_and_failures_leave(cost_s, recovery_s, mttf_h, share):
    """By hand, of the first order alone: 1,024 and 16,384 GPUs."""
    mttf_s = mttf_h * 3600
    found = effective_share(young_daly_s(cost_s, mttf_s), cost_s, recovery_s, mttf_s)
    assert found == pytest.approx(share, abs=5e-3)


def test_without_failures_saves_come_every_so_many_steps():
    interval = SaveInterval(CheckpointConfig(every_steps=7))
    assert not interval.saved(7, 1.0, 1.0)
    assert [step for step in range(1, 30) if interval.is_due(step)] == [7, 14, 21, 28]


def test_it_is_learnt_from_what_saves_and_steps_take():
    interval = SaveInterval(CheckpointConfig(every_steps=10, mttf_h=1.0))
    for step_s in (1.0, 1.0, 9.0):
        interval.stepped(step_s)
    assert interval.step_s == 1.0
    assert interval.is_due(10)
    # sqrt(2 x 0.5 s x 3,600 s) = 60 s.
    assert interval.saved(10, 0.5, interval.step_s)
    assert interval.steps == 60
    assert not interval.is_due(69)
    assert interval.is_due(70)
    # A tenth more is noise; twice as slow steps are not.
    assert not interval.saved(70, 0.6, 1.0)
    assert interval.saved(130, 0.5, 2.0)
    assert interval.steps == 30
