"""Judges and ratings: what they say of models, how sure that is, and whether the judge can be believed."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from evals.intervals import clusters_of
from evals.judging import RewardJudge, agreement, compared_by, likert, win_rate
from evals.ratings import ELO_PER_NAT, Game, rate
from seedbed.errors import DataError
from training.rl.llm_judge import Verdict


def verdicts(text: str) -> list[Verdict]:
    """From letters: wins, ties, losses, turned verdicts, failures."""
    known = {
        "w": Verdict("first"),
        "t": Verdict("tie"),
        "l": Verdict("second"),
        "i": Verdict("tie", is_consistent=False),
        "f": Verdict(None, failure="timeout"),
    }
    return [known[letter] for letter in text]


def test_win_rates_count_ties_half_and_failures_not_at_all():
    """A judge that is down would pass for one that prefers the other model."""
    found = win_rate(verdicts("wwwwttlif"))
    assert found.rate.value == (4 + 1.5) / 8
    assert (found.wins, found.ties, found.losses, found.inconsistent, found.failed) == (4, 3, 1, 1, 1)
    assert found.rate.low < 0.5 < found.rate.high
    assert found.as_json()["rate"]["items"] == 8
    with pytest.raises(DataError, match="none of 2 comparisons has a verdict"):
        win_rate(verdicts("ff"))


def test_answers_to_one_prompt_are_one_cluster():
    """Eight samples of each prompt would make a win look eight times as sure."""
    text = "wwwwwwwwllllllllwwwwwwwwwwwwwwww"
    alone, together = win_rate(verdicts(text)), win_rate(verdicts(text), [n // 8 for n in range(32)])
    assert together.rate.clusters == 4
    assert together.rate.high - together.rate.low > 1.5 * (alone.rate.high - alone.rate.low)


def test_a_judge_is_asked_of_all_pairs():
    """Answers could be compared across prompts."""
    asked = []

    class Shorter:
        def verdicts(self, pairs):
            asked.extend(pairs)
            return [Verdict("first" if len(p.first) < len(p.second) else "second") for p in pairs]

    found, each = compared_by(Shorter(), ["p", "q"], ["a", "bbb"], ["aa", "b"])
    assert [(p.prompt, p.first, p.second) for p in asked] == [("p", "a", "aa"), ("q", "bbb", "b")]
    assert [one.choice for one in each] == ["first", "second"]
    assert found.rate.value == 0.5


def test_reward_models_judge_by_their_reward():
    """The side with less reward would win, or rounding would decide where there is nothing to decide."""
    scorer = SimpleNamespace(score=lambda sequences: np.array([float(one.sum()) for one in sequences]))
    first, second = ([np.array([n]) for n in side] for side in ((3, 1, 2), (1, 3, 2)))
    assert [v.choice for v in RewardJudge(scorer).verdicts(first, second)] == ["first", "second", "tie"]
    assert {v.choice for v in RewardJudge(scorer, margin=2).verdicts(first, second)} == {"tie"}


def test_ties_alone_rate_nobody():
    games = [Game("a", "b", "tie", prompt) for prompt in range(5)]
    with pytest.raises(DataError, match="all of 5 games are ties"):
        rate(games)


def test_ratings_on_a_scale_stay_on_it():
    """A mean of 4.9 with an interval up to 5.3 says nothing, and a mean alone hides that raters split."""
    mean, shares = likert([5] * 18 + [1, 5], clusters_of(range(20)))
    assert 1 <= mean.low < mean.value < mean.high <= 5
    assert mean.value == pytest.approx(4.8)
    assert [round(one.value, 2) for one in shares.values()] == [0.05, 0, 0, 0, 0.95]
    with pytest.raises(DataError, match=r"from 1 to 5 hold \[0, 7\]"):
        likert([0, 3, 7], clusters_of(range(3)))


def test_kappa_tells_a_judge_from_one_who_guesses():
    """Where nine answers in ten are good, always saying so agrees nine times in ten."""
    draw = np.random.default_rng(0)
    gold = draw.choice(["first", "second", "tie"], 300, p=[0.7, 0.2, 0.1])
    judged = np.where(draw.random(300) < 0.6, gold, draw.choice(["first", "second", "tie"], 300))
    found = agreement(judged.tolist(), gold.tolist(), clusters_of(range(300)))
    assert found.kappa.value == pytest.approx(cohen_kappa_score(gold, judged))
    assert found.kappa.low < found.kappa.value < found.kappa.high < 1
    assert found.share.value == pytest.approx(np.mean(gold == judged))
    assert sum(map(sum, (row.values() for row in found.confusion.values()))) == 300
    always = agreement(["first"] * 300, gold.tolist(), clusters_of(range(300)))
    assert always.share.value > 0.6
    assert always.kappa.value == pytest.approx(0)
    with pytest.raises(DataError, match="'better'"):
        agreement(["better"], ["first"], clusters_of([0]))


STRENGTHS = {"a": 0.8, "b": 0.1, "c": -0.9}


def played(draw, num_prompts, nu=0.5, shared=0.0):
    """Every two models on every prompt; `shared` is how much a prompt turns all its games."""
    games = []
    for prompt in range(num_prompts):
        turn = {name: shared * draw.normal() for name in STRENGTHS}
        for first, second in (("a", "b"), ("c", "a"), ("b", "c")):
            x, y = (STRENGTHS[name] + turn[name] for name in (first, second))
            weights = np.array([math.exp(x), nu * math.exp((x + y) / 2), math.exp(y)])
            choice = draw.choice(["first", "tie", "second"], p=weights / weights.sum())
            games.append(Game(first, second, str(choice), prompt))
    return games


def test_ratings_find_the_strengths_that_games_were_drawn_from():
    """Models would be ranked by who played whom, and by the order of the games."""
    games = played(np.random.default_rng(1), 4000)
    found = rate(games)
    assert list(found.elo) == ["a", "b", "c"]
    for name, strength in STRENGTHS.items():
        assert found.elo[name].value == pytest.approx(1000 + ELO_PER_NAT * strength, abs=10)
    assert found.tie_readiness == pytest.approx(0.5, abs=0.04)
    assert sum(one.value for one in found.elo.values()) == pytest.approx(3000)
    turned = [
        Game(g.second, g.first, {"first": "second", "second": "first", "tie": "tie"}[g.choice], g.prompt)
        for g in reversed(games)
    ]
    assert rate(turned).elo["a"].value == pytest.approx(found.elo["a"].value)


def test_two_models_have_the_odds_of_their_games():
    """The simplest case is known: 400 points are odds of ten to one."""
    games = [Game("x", "y", "first", n) for n in range(100)] + [
        Game("x", "y", "second", n) for n in range(10)
    ]
    found = rate(games)
    assert found.elo["x"].value - found.elo["y"].value == pytest.approx(400)
    assert found.tie_readiness == 0
    assert found.wins("x", "y") == pytest.approx(100 / 110)
    with_ties = rate([*games, *(Game("x", "y", "tie", n) for n in range(40))])
    assert with_ties.wins("x", "y") == pytest.approx((100 + 20) / 150)


@pytest.mark.parametrize(
    ("num_prompts", "shared"), [(60, 0.0), pytest.param(150, 0.7, marks=pytest.mark.long)]
)
def test_intervals_of_differences_hold_the_truth(num_prompts, shared):
    """A leaderboard would call noise a lead."""
    # What a prompt adds to a model draws differences towards 0; the long run says to where.
    truth = rate(played(np.random.default_rng(99), 12_000, shared=shared)).difference("a", "b").value
    held = 0
    for number in range(500):
        found = rate(played(np.random.default_rng([number, 3]), num_prompts, shared=shared))
        one = found.difference("a", "b")
        held += one.low <= truth <= one.high
    assert 0.93 <= held / 500 <= 0.97


def test_games_that_no_ratings_explain_are_an_error():
    """A model that never lost would be rated by where the arithmetic stopped."""
    games = [Game("a", "b", "first", 0), Game("b", "c", "first", 1), Game("c", "b", "first", 2)]
    with pytest.raises(DataError, match="a lost and tied no game against b, c"):
        rate(games)
    with pytest.raises(DataError, match="or they never met"):
        rate([Game("a", "b", "tie", 0), Game("c", "d", "tie", 1)])
    with pytest.raises(DataError, match="two models or more"):
        rate([])
    assert rate([*games, Game("a", "b", "tie", 3)]).elo["a"].value > 1000
