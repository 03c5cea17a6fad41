"""Guards decide by numbers alone: what is a spike, what is done about it, when a run goes back."""

import math
import random

import pytest

from seedbed.errors import TrainingError
from training.guards import Guards, GuardState
from training.resilience import GuardsConfig, TimeoutsConfig

SAMPLES = 8


def guards(**settings):
    return Guards(GuardsConfig(**{"spikes": "act", "window": 16, "max_skips": 2, **settings}))


def stable(count, seed=0):
    """(loss, gradient norm) of steps of a run that goes well: the loss falls, norms have heavier tails."""
    draw = random.Random(seed)
    return [
        (2 + 8 * math.exp(-step / 200) + draw.gauss(0, 0.05), math.exp(draw.gauss(0, 0.15)))
        for step in range(count)
    ]


def note(guards, step, loss, norm=1.0):
    return guards.note(step, step * SAMPLES, (step + 1) * SAMPLES, loss, norm)


def settled(**settings):
    """Guards that have seen as much as they need, and the next step."""
    found = guards(**settings)
    for step, (loss, norm) in enumerate(stable(40)):
        note(found, step, loss, norm)
    return found, 40


@pytest.mark.parametrize("seed", range(5))
def test_a_stable_run_triggers_nothing(seed):
    """A guard that cries wolf is turned off, or changes a run that was well."""
    watching = Guards(GuardsConfig(spikes="act"))
    verdicts = [note(watching, step, *values) for step, values in enumerate(stable(5000, seed))]
    assert not any(verdict.problem for verdict in verdicts)
    assert watching.lr_factor(5000) == 1


def test_a_run_whose_loss_stays_too_high_is_given_up():
    """A cell of a sweep that diverged would be paid for to its last step."""
    found = guards(max_loss=8.0, max_nonfinite=2)
    assert not found.refuses(7.9)
    assert found.refuses(8.1)
    assert note(found, 1, 7.9).problem == ""
    for step in (2, 3):
        assert "above guards.max_loss = 8" in note(found, step, 9.0).problem
    with pytest.raises(TrainingError, match="the loss is 9, above"):
        note(found, 4, 9.0)
    assert not guards().refuses(1e30)


def test_a_spike_is_seen_before_the_update_and_is_not_learnt_from():
    """Its loss would raise the mean that the next one is measured by, too."""
    found, step = settled()
    before = list(found.state.losses)
    assert found.refuses(30.0)
    assert not found.refuses(before[-1])
    assert found.max_norm < 100
    verdict = note(found, step, 30.0, None)
    assert verdict.problem.startswith("the loss is 30, above")
    assert (verdict.slowed, verdict.back_before) == (False, None)
    assert found.state.losses == before
    assert note(found, step + 1, before[-1], 100.0).problem.startswith("the gradient norm is 100")


def test_the_ladder_is_skip_slow_down_go_back():
    """Two are skipped; the third slows down; after as many again the run goes back before the first."""
    found, step = settled()
    verdicts = [note(found, step + number, 30.0, None) for number in range(6)]
    assert [(bool(v.problem), v.slowed, v.back_before) for v in verdicts] == [
        (True, False, None),
        (True, False, None),
        (True, True, None),
        (True, False, None),
        (True, False, None),
        (True, False, step),
    ]
    assert verdicts[-1].passed_over == (step * SAMPLES, (step + 6) * SAMPLES)
    assert found.lr_factor(step + 3) == 0.5
    assert found.lr_factor(step + 3 + 16) == 1


def test_trouble_that_is_over_is_forgotten():
    """Spikes years apart would add up to a roll-back."""
    found, step = settled()
    level = found.state.losses[-1]
    for number in range(3):
        note(found, step + number, 30.0, None)
    for number in range(3, 60):
        assert not note(found, step + number, level).problem
    verdicts = [note(found, step + 60 + number, 30.0, None) for number in range(3)]
    assert [verdict.slowed for verdict in verdicts] == [False, False, True]
    assert found.state.began == (step + 60, (step + 60) * SAMPLES)


def test_a_stray_spike_now_and_then_is_no_trouble():
    """The first of them would be where a later trouble sends the run back to."""
    found, step = settled()
    level = found.state.losses[-1]
    for number in range(60):
        is_spike = number % 10 == 0
        verdict = note(found, step + number, 30.0 if is_spike else level, None if is_spike else 1.0)
        assert not verdict.slowed
    assert any(note(found, step + number, 30.0, None).slowed for number in (60, 61, 62))
    assert found.state.began[0] >= step + 50


def test_numbers_that_are_none_are_counted_and_end_the_run_past_their_budget():
    found = guards(max_nonfinite=2)
    assert found.refuses(math.nan)
    assert note(found, 1, math.nan, None).problem == "the loss is nan"
    assert note(found, 2, 3.0, math.inf).problem == "the gradient norm is inf"
    with pytest.raises(
        TrainingError, match="step 3: the loss is nan; so in 3 of the last 16 steps"
    ) as raised:
        note(found, 3, math.nan, None)
    assert "samples from position 24 to 31" in raised.value.fix


def test_non_finite_steps_long_ago_do_not_count():
    found = guards(max_nonfinite=1)
    for step in range(0, 200, 20):
        assert note(found, step, math.nan, None).problem


def test_warnings_change_nothing():
    """And a level that is reached for good is warned of only until it is the usual one."""
    found, step = settled(spikes="warn")
    assert found.max_norm == math.inf
    assert not found.refuses(30.0)
    problems = [note(found, step + number, 30.0).problem for number in range(20)]
    assert problems[0]
    assert not problems[-1]
    assert found.lr_factor(step + 1) == 1
    silent, step = settled(spikes="off")
    assert not note(silent, step, 1e9).problem


def test_a_resumed_run_decides_as_it_would_have():
    """What is remembered goes through JSON as it is."""
    import json

    found, step = settled()
    for number in range(4):
        note(found, step + number, 30.0, None)
    again = Guards(found.settings, GuardState.load(json.loads(json.dumps(found.state.save()))))
    assert again.state == found.state
    assert note(again, step + 4, 30.0, None) == note(found, step + 4, 30.0, None)


def test_timeouts_are_a_ladder():
    """A collective that gives up before the hang is named would be all that is heard of it."""
    with pytest.raises(
        ValueError, match=r"timeouts.heartbeat_s = 700 has to be shorter than timeouts.collective_s"
    ):
        TimeoutsConfig(heartbeat_s=700)
    with pytest.raises(ValueError, match=r"collective_s = 600 has to be shorter than timeouts.job_s = 60"):
        TimeoutsConfig(job_s=60)
    assert TimeoutsConfig(heartbeat_s=0, job_s=3600)
