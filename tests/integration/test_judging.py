"""A policy's answers, judged, become rows that train the next policy: best-of-n, rejection, comparisons."""

import json
import shutil
import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.build import build_dataset
from data.config import DataConfig
from data.examples.table import ExampleTable
from data.shards import Dataset
from evals.contest import contest
from evals.results import evaluate_any
from evals.scaling.by_size import by_size, write_page
from models.families import count_parameters
from seedbed.errors import DataError, UsageError
from tests.integration.test_fine_tuning import data, lines, pretrained, recipe, sentence, trained
from tests.llm_endpoint import endpoint_of, longer, rating_of
from training.checkpoint.models import load_model
from training.engines import Group
from training.rewards.comparisons import Sampling, _prompts, compare, sampled
from training.rewards.judges import LanguageModel, RewardModels
from training.rewards.scoring import RewardScorer
from training.rl.judging import Judge
from training.rl.llm_judge import JudgeConfig, LlmJudge
from training.rl.rollouts import Rollout
from training.rl.scores import summary
from training.rl.settings import RlConfig
from training.rl.sources import Judged

__all__ = ["data", "pretrained"]
SAMPLING = Sampling(num_prompts=12, num_answers=4, temperature=1.0)


def built(rows, data, form, holdout_fraction=0.0):
    """A dataset of the rows with the plain template, in the tokens of the others."""
    config = DataConfig(
        source=str(rows),
        format=form,
        template="plain",
        tokenizer=str(data["text"]),
        holdout_fraction=holdout_fraction,
    )
    return build_dataset(config, rows.parent / "built")


@pytest.fixture(scope="module")
def policy(tmp_path_factory, data, pretrained):
    """Fine-tuned on prompts and responses, with the plain template."""
    folder = tmp_path_factory.mktemp("policy")
    examples = [{"prompt": f"{sentence(n)} {n}:", "response": f" {sentence(n + 1)}"} for n in range(60)]
    (folder / "examples.jsonl").write_text(lines(examples))
    path = recipe(folder, built(folder / "examples.jsonl", data, "prompt-response", 0.2), "sft")
    return trained(folder, path, "run", init_from=pretrained)


@pytest.fixture(scope="module")
def rewards(tmp_path_factory, data, pretrained):
    """Two reward models of the same tokenizer."""
    folder = tmp_path_factory.mktemp("rewards")
    path = recipe(folder, data["pairs"], "reward", model='head = "reward"', steps=4)
    return [trained(folder, path, f"rm{seed}", f"run.seed={seed}", init_from=pretrained) for seed in range(2)]


class Recorded(RewardModels):
    """Remembers what it scored."""

    def __init__(self, scorer):
        super().__init__(scorer)
        self.seen = []

    def scores(self, answers):
        found = super().scores(answers)
        self.seen.append(list(zip(answers, found, strict=True)))
        return found


def test_the_best_of_n_by_an_ensemble_becomes_examples(policy, rewards, data, tmp_path):
    """And the same command gives the same file."""
    judge = Recorded(RewardScorer(rewards, how="worst"))
    told = compare(policy, tmp_path / "best.jsonl", SAMPLING, form="best", judge=judge)
    rows = [json.loads(line) for line in (tmp_path / "best.jsonl").read_text().splitlines()]
    assert (told["rows"], told["answers"]) == (len(rows), 48)
    by_prompt = {own[0][0].prompt: own for own in judge.seen}
    for row in rows:
        own = {answer.text: score for answer, score in by_prompt[row["prompt"]] if answer.text.strip()}
        assert row["judged"] == max(own.values()) == own[row["response"]]
    members = RewardScorer(rewards).by_member([answer.tokens for own in judge.seen for answer, _ in own])
    found = [score for own in judge.seen for _, score in own]
    np.testing.assert_allclose(found, members.min(0), atol=1e-5)

    compare(policy, tmp_path / "again.jsonl", SAMPLING, form="best", judge=RewardModels(judge.scorer))
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "best.jsonl").read_bytes()
    path = recipe(tmp_path, built(tmp_path / "best.jsonl", data, "prompt-response"), "sft", steps=2)
    trained(tmp_path, path, "next", init_from=policy)


def test_rejection_keeps_what_is_good_enough(policy, rewards, tmp_path):
    judge = RewardModels(RewardScorer(rewards))
    compare(policy, tmp_path / "all.jsonl", SAMPLING, form="best", judge=judge)
    scores = sorted(json.loads(line)["judged"] for line in (tmp_path / "all.jsonl").read_text().splitlines())
    middle = scores[len(scores) // 2]
    told = compare(policy, tmp_path / "some.jsonl", SAMPLING, form="best", judge=judge, at_least=middle)
    assert told["rows"] == sum(score >= middle for score in scores) == told["answers"] // 4 - told["left_out"]
    with pytest.raises(DataError, match="good enough"):
        compare(policy, tmp_path / "none.jsonl", SAMPLING, form="best", judge=judge, at_least=1e9)
    assert not (tmp_path / "none.jsonl").exists()


MEET = Sampling("holdout", num_prompts=12, num_answers=2, temperature=1.0)


def test_policies_meet_and_are_rated_by_whose_answers_are_preferred(policy, pretrained, rewards, tmp_path):
    """A share of a half for a run against its own copy; the judge that is asked decides."""
    with endpoint_of(longer) as server:
        judge = LanguageModel(LlmJudge(JudgeConfig(server.url, "m", num_tries=1)))
        found = contest([policy, pretrained], MEET, judge, with_likert=True)
    (rate,) = found["win_rates"]
    same = replace(MEET, data=str(load_model(policy).dataset_path))
    for run in (policy, pretrained):
        rated = found["likert"][str(run)]
        expected = [rating_of(one.text) for one in sampled(run, same)]
        assert (rated["rated"], rated["failed"]) == (len(expected), 0)
        assert rated["mean"]["value"] == pytest.approx(sum(expected) / len(expected))
        assert rated["shares"]["5"]["value"] == pytest.approx(expected.count(5) / len(expected))
    lengths = [[len(one.text) for one in sampled(run, same)] for run in (policy, pretrained)]
    wins = sum(a > b for a, b in zip(*lengths, strict=True))
    assert (rate["wins"], rate["wins"] + rate["ties"] + rate["losses"]) == (wins, len(lengths[0]))
    assert rate["rate"]["low"] <= rate["rate"]["value"] <= rate["rate"]["high"]
    order = list(found["ratings"])
    if "refused" not in found["ratings"]:
        assert order[0] == str(policy if rate["rate"]["value"] > 0.5 else pretrained)
    shutil.copytree(policy, tmp_path / "copy")
    (even,) = contest([policy, tmp_path / "copy"], MEET, RewardModels(RewardScorer(rewards)))["win_rates"]
    assert (even["rate"]["value"], even["ties"]) == (0.5, len(lengths[0]))
    by_reward = contest([policy, pretrained], MEET, RewardModels(RewardScorer(rewards)))
    assert by_reward["comparisons"] == found["comparisons"] == len(lengths[0])


def test_what_the_data_answer_takes_part(policy, pretrained):
    """Win rates among models say nothing of whether any of them is good."""
    with endpoint_of(longer) as server:
        judge = LanguageModel(LlmJudge(JudgeConfig(server.url, "m", num_tries=1)))
        found = contest([policy, pretrained], MEET, judge, with_reference=True)
        alone = contest([policy], MEET, judge, with_reference=True)
    assert found["runs"] == [str(policy), str(pretrained), "reference"]
    rates = {(one["first"], one["second"]): one for one in found["win_rates"]}
    assert set(rates) == {
        (str(policy), str(pretrained)), (str(policy), "reference"), (str(pretrained), "reference"),
    }  # fmt: skip
    answers = sampled(policy, replace(MEET, data=str(load_model(policy).dataset_path)))
    wins = sum(len(one.text) > len(one.written) for one in answers)
    assert rates[(str(policy), "reference")]["wins"] == alone["win_rates"][0]["wins"] == wins
    assert all(one.written.strip() for one in answers)


def test_results_are_shown_by_size(policy, pretrained, rewards, tmp_path):
    """Files of results would be put side by side by hand, and a model's size looked up for each."""
    with endpoint_of(longer) as server:
        judge = LanguageModel(LlmJudge(JudgeConfig(server.url, "m", num_tries=1)))
        found = contest([policy, pretrained], MEET, judge, with_reference=True)
    (tmp_path / "contest.json").write_text(json.dumps(found))
    scores = evaluate_any(rewards[0], ["preferences"])
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    value = by_size([tmp_path / "contest.json", tmp_path / "scores.json"])
    roles = {row["role"]: row for row in value["preference"] if row["against"] == "reference"}
    assert set(roles) == {"fine-tuned", "pretrained"}
    rates = {one["first"]: one["rate"] for one in found["win_rates"] if one["second"] == "reference"}
    assert roles["fine-tuned"]["value"] == rates[str(policy)]["value"]
    assert roles["pretrained"]["low"] == rates[str(pretrained)]["low"]
    total = count_parameters(load_model(policy).config.model).total
    assert {row["parameters"] for row in value["preference"]} == {total}
    (between,) = (row for row in value["preference"] if row["against"] != "reference")
    assert (between["role"], between["against"]) == ("fine-tuned", "pretrained")
    (met,) = (one for one in found["win_rates"] if one["second"] != "reference")
    assert (between["value"], between["wins"]) == (met["rate"]["value"], met["wins"])
    swapped = [{**met, "first": met["second"], "second": met["first"]}, *found["win_rates"][1:]]
    (tmp_path / "swapped.json").write_text(json.dumps({**found, "win_rates": swapped}))
    (turned,) = (
        r for r in by_size([tmp_path / "swapped.json"])["preference"] if r["against"] == "pretrained"
    )
    assert turned["value"] == pytest.approx(1 - met["rate"]["value"])
    assert (turned["wins"], turned["losses"]) == (met["losses"], met["wins"])
    (judged,) = value["accuracy"]
    told = scores["tasks"]["preferences"]
    assert (judged["value"], judged["pairs"]) == (told["value"], told["pairs"])
    assert judged["comparisons"] > 0
    write_page(value, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    for title in ("Preferred to the reference", "Reward models by size", "Reward models by comparisons"):
        assert title in page
    assert f"{judged['value']:.3f} [{judged['low']:.3f}, {judged['high']:.3f}]" in page


def test_a_contest_that_cannot_be_is_refused(policy, pretrained, rewards):
    with pytest.raises(UsageError, match="leave out --reference"):
        contest([policy], MEET, RewardModels(RewardScorer(rewards)), with_reference=True)
    with pytest.raises(UsageError, match="one and --reference"):
        contest([policy], MEET)
    with pytest.raises(UsageError, match="name two or more"):
        contest([policy, policy], MEET)
    with pytest.raises(UsageError, match="only a language model rates"):
        contest([policy, pretrained], MEET, with_likert=True)
    with pytest.raises(UsageError, match="all that the checker knows"):
        contest([policy, pretrained], MEET)


def test_a_language_model_labels_comparisons(policy, tmp_path):
    """Every answer against every other; and prompts that it did not answer for are counted, and no rows."""
    with endpoint_of(longer) as server:
        judge = LanguageModel(LlmJudge(JudgeConfig(server.url, "m", num_tries=1)))
        told = compare(policy, tmp_path / "pairs.jsonl", SAMPLING, judge=judge)
        rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
        assert all(len(row["chosen"]) > len(row["rejected"]) for row in rows)
        assert told["rows"] == len(rows) > 0
        assert (told["consistent"], told["failed"], told["not_judged"]) == (1.0, 0, 0)
        server.faults = [400]
        judge = LanguageModel(LlmJudge(JudgeConfig(server.url, "m", num_tries=1, at_once=1)))
        some = compare(policy, tmp_path / "some.jsonl", SAMPLING, judge=judge)
        assert (some["failed"], some["not_judged"], some["rows"]) == (1, 1, told["rows"] - 1)


def test_comparisons_by_a_reward_model_are_pairs(policy, rewards, tmp_path):
    told = compare(policy, tmp_path / "pairs.jsonl", SAMPLING, judge=RewardModels(RewardScorer(rewards[:1])))
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert rows
    assert told["rows"] == len(rows)
    assert all(row["judged_margin"] > 0 and row["chosen"] != row["rejected"] for row in rows)


def test_a_reward_model_is_normalised_on_the_policys_own_answers(policy, rewards, seedbed_cli, tmp_path):
    """Whatever adds rewards to something else needs to know what a unit is, and where zero is."""
    answers = ("--policy", policy, "--prompts", "20", "--json")
    told = seedbed_cli("checkpoint", "normalize", rewards[0], "--out", "normal", *answers)
    assert told.code == 0, told.stderr
    tokens = [one.tokens for one in sampled(policy, Sampling("train", 20, 1, 1.0, 0))]
    found = RewardScorer([tmp_path / "normal"]).score(tokens)
    assert abs(found.mean()) < 1e-4
    assert abs(found.std() - 1) < 1e-3
    again = seedbed_cli("checkpoint", "normalize", rewards[0], "--out", "normal", *answers)
    assert (again.code, "is not empty" in again.stderr) == (2, True)


def test_an_ensemble_is_measured_as_one(rewards, data, seedbed_cli):
    arguments = ("eval", rewards[0], "--tasks", "preferences", "--json")
    outcome = seedbed_cli(*arguments, "--member", rewards[1], "--combine", "penalised")
    assert outcome.code == 0, outcome.stderr
    both = json.loads(outcome.stdout)["tasks"]["preferences"]
    assert (len(both["members"]), both["combine"]) == (2, "penalised")
    table = ExampleTable.of(Dataset.open(data["pairs"]), "holdout")
    members = RewardScorer(rewards).by_member([table.tokens(n) for n in range(table.num_sequences)])
    assert not np.allclose(members[0], members[1])
    expected = (members.mean(0) - 0.5 * members.var(0)).mean()
    assert both["reward"]["mean"] == pytest.approx(expected, rel=1e-5)
    odd = seedbed_cli("eval", rewards[0], "--member", rewards[1])
    assert (odd.code, "nothing but preferences" in odd.stderr) == (2, True)


def test_each_prompt_of_comparisons_is_asked_once(data, tmp_path):
    """A policy of DPO is judged again on prompts that have two answers each."""
    pairs = [{"prompt": f"{sentence(n)} {n}", "chosen": " a", "rejected": " b"} for n in range(30)]
    (tmp_path / "pairs.jsonl").write_text(lines(pairs))
    table = ExampleTable.of(Dataset.open(built(tmp_path / "pairs.jsonl", data, "preference")), "train")
    chosen, num_too_long = _prompts(table, 48, Sampling(num_prompts=100))
    assert num_too_long == 0
    assert chosen == table.firsts[:-1].tolist()


def test_a_later_policy_answers_the_prompts_of_an_earlier_one(policy, pretrained, data, rewards, tmp_path):
    """The next round of a loop: what was trained on comparisons has no prompts of its own."""
    asked = load_model(policy).dataset_path
    judge = RewardModels(RewardScorer(rewards))
    told = compare(
        pretrained, tmp_path / "out.jsonl", replace(SAMPLING, data=str(asked)), form="best", judge=judge
    )
    assert told["answers"] == 48
    (tmp_path / "text.txt").write_text("another text " * 200)
    config = DataConfig(source=str(tmp_path / "text.txt"), vocab_size=270, holdout_fraction=0.0)
    other = build_dataset(config, tmp_path / "other")
    with pytest.raises(UsageError, match="another tokenizer"):
        compare(policy, tmp_path / "out.jsonl", replace(SAMPLING, data=str(other)), judge=judge)


def test_who_cannot_judge_is_refused(policy, rewards, tmp_path):
    """The checker knows Python alone, and one answer has nothing to be compared with."""
    with pytest.raises(UsageError, match="all that the checker knows"):
        compare(policy, tmp_path / "out.jsonl", SAMPLING)
    with pytest.raises(UsageError, match="takes 2 answers"):
        compare(policy, tmp_path / "out.jsonl", Sampling(num_answers=1))
    with pytest.raises(UsageError, match="no reward model"):
        RewardScorer([policy])


def test_how_far_members_of_an_ensemble_are_apart_is_recorded(rewards, tmp_path):
    """A policy that has found what only one of them likes would look as good as one that all like."""
    group = Group(0, 1, torch.device("cpu"))
    answers = [
        Rollout(n, (5, 6, 7), tuple(range(8, 10 + n)), (-1.0,) * (2 + n), "", True) for n in range(1, 4)
    ]

    def judged(*runs):
        settings = RlConfig(rewards=tuple(f"model:{run}" for run in runs), combine="worst")
        judge = Judge(settings, group, tmp_path)
        found = judge.rewards([Judged(one, "", "", "") for one in answers])
        return [one.with_reward(reward) for one, reward in zip(answers, found, strict=True)]

    alone = [judged(run) for run in rewards]
    together = judged(*rewards)
    for one, *members in zip(together, *alone, strict=True):
        scores = [member.reward.total for member in members]
        assert one.reward.total == pytest.approx(min(scores))
        assert one.reward.deviation == pytest.approx(statistics.pstdev(scores))
    told = summary(together, [])
    assert told["disagreement"] == pytest.approx(statistics.fmean(one.reward.deviation for one in together))
    assert told["disagreement"] > 0
    assert summary(alone[0], [])["disagreement"] is None
