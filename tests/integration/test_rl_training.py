"""Policies that learn from rewards of their own answers: real runs of small models."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from data.build import build_dataset
from data.config import DataConfig
from data.shards import Dataset
from evals.report.page import write_report
from seedbed.errors import ConfigError, TrainingError
from tests.llm_endpoint import endpoint_of, longer
from tests.one_rank import train
from training.checkpoint.layout import list_steps, step_dir
from training.checkpoint.models import load_model
from training.checkpoint.reader import Checkpoint
from training.metrics import read_events, surviving_rows
from training.prepare import fork, resume, start
from training.rl.objectives import token_log_probs
from training.rl.rollouts import read_rollouts

RECIPE = """
[run]
steps = {steps}
[data]
path = "{data}"
[objective]
name = "{objective}"
[rl]
prompts = 4
answers = 4
max_new_tokens = 8
{rl}
[model]
family = "llama"
num_layers = 2
width = 32
num_heads = 4
context = 32
[batch]
tokens_per_step = 256
micro_batch_size = 4
[optimizer]
lr = 3e-3
weight_decay = 0.0
[schedule]
name = "constant"
warmup_share = 0
[engine]
precision = "fp32"
threads_per_rank = 1
{engine}
[checkpoint]
every_steps = 3
[tracking]
mlflow = false
"""
REWARDS = """
def vowels(prompts, answers, rows):
    return [sum(letter in "aeiou" for letter in answer) / 8 for answer in answers]

def nothing(prompts, answers, rows):
    return [1.0 for _ in answers]

def rare(prompts, answers, rows):
    return [
        float("nan") if answer.startswith(" al") else float(answer.startswith((" g", " d")))
        for answer in answers
    ]

def some(prompts, answers, rows):
    shares = vowels(prompts, answers, rows)
    return [share * (2.4 - share) for share in shares]

def nan(prompts, answers, rows):
    return [float("nan") for _ in answers]
"""


class Prepared:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "rewards.py").write_text(REWARDS)
        words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
        rows = [
            {"prompt": f"{words[n % 8]} {words[n // 8 % 8]}", "response": f" {words[(n * 3) % 8]}"}
            for n in range(64)
        ]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "text.txt").write_text("\n\n".join(row["prompt"] + row["response"] for row in rows) * 20)
        self.text = build_dataset(
            DataConfig(source=str(folder / "text.txt"), vocab_size=300, near_duplicate_threshold=0),
            folder / "text",
        )
        self.data = build_dataset(
            DataConfig(
                source=str(folder / "rows.jsonl"),
                format="prompt-response",
                template="plain",
                tokenizer=str(self.text),
                near_duplicate_threshold=0,
                holdout_fraction=0.1,
            ),
            folder / "data",
        )
        path = self.recipe("sft", 12).read_text().split("[rl]")
        sft = path[0] + "[model]" + path[1].split("[model]")[1]
        (folder / "sft.toml").write_text(sft)
        run, _ = start(str(folder / "sft.toml"), [], folder / "policy")
        train(run, folder / "policy-group")
        self.policy = folder / "policy"

    def recipe(self, objective: str, steps: int, rl: str = "", engine: str = "") -> Path:
        path = self.folder / f"{objective}.toml"
        path.write_text(RECIPE.format(data=self.data, objective=objective, steps=steps, rl=rl, engine=engine))
        return path

    def everything(self, objective: str) -> str:
        """Settings that all have a state, or a draw."""
        return EVERYTHING[objective].replace("{text}", str(self.text))

    def reward(self, name: str = "vowels") -> str:
        return f'rewards = ["{self.folder}/rewards.py:{name}"]'


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("rl"))


def trained(tmp_path, recipe, name, *settings, init_from):
    run, _ = start(str(recipe), settings, tmp_path / name, init_from)
    torch.set_num_threads(1)
    train(run, tmp_path / f"{name}-group")
    return tmp_path / name


def rows(run, kind):
    return [row for row in surviving_rows(run) if row["kind"] == kind]


def full_hash(run, step):
    return Checkpoint.open(step_dir(run, step)).hash(optimizer=True)


FAMILY = ["ppo", "reinforce", "reinforce_pp", "rloo", "grpo", "dr_grpo", "dapo", "gspo", "cispo"]


@pytest.mark.parametrize("objective", FAMILY)
def test_every_method_makes_good_answers_likelier(prepared, tmp_path, objective):
    recipe = prepared.recipe(objective, 60, prepared.reward() + "\nkl = 0.01")
    run = trained(tmp_path, recipe, "run", init_from=prepared.policy)
    told = rows(run, "rollouts")
    rewards = [row["reward"] for row in told]
    assert np.mean(rewards[-6:]) > np.mean(rewards[:6]) + 0.1, rewards
    assert told[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert all(row["generator_apart"] < 1e-4 for row in told)
    assert all(math.isfinite(row["loss"]) for row in rows(run, "train"))


EVERYTHING = {
    "ppo": "epochs = 2\nkl_target = 1.0\nkl_horizon = 50\nscale_rewards = true\ncritic_warmup = 1\n"
    'ptx = 0.5\nptx_data = "{text}"',
    "grpo": "epochs = 2\ndrop_without_spread = true\nrefills = 2\nkl_target = 1.0\nkl_horizon = 50\n"
    "staleness = 1",
}


@pytest.mark.parametrize("objective", EVERYTHING)
def test_a_run_goes_on_from_any_step_to_the_same_bits(prepared, tmp_path, objective):
    """In the middle of an iteration too: answers, critic, moments and coefficient are part of a step."""
    reward = prepared.reward("rare" if objective == "grpo" else "vowels")
    recipe = prepared.recipe(objective, 10, reward + "\n" + prepared.everything(objective))
    settings = ("checkpoint.every_steps=1", "checkpoint.keep=99")
    run = trained(tmp_path, recipe, "run", *settings, init_from=prepared.policy)
    undisturbed = full_hash(run, 10)
    assert len({row["iteration"] for row in rows(run, "rollouts")}) == 3
    if objective == "grpo":
        assert any(row["left_out"] for row in rows(run, "rollouts"))
    for step in (9, 7, 5, 4, 2):
        again, _ = resume(run, [], from_step=step)
        train(again, tmp_path / f"group-{step}")
        assert full_hash(run, 10) == undisturbed, step


@pytest.mark.parametrize(
    ("objective", "engine", "ranks"),
    [
        ("ppo", "fsdp", 2),
        pytest.param("ppo", "ddp", 4, marks=pytest.mark.long),
        pytest.param("grpo", "fsdp", 3, marks=pytest.mark.long),
        pytest.param("grpo", "ddp", 2, marks=pytest.mark.long),
    ],
)
def test_ranks_change_nothing_in_exact_mode(prepared, tmp_path, seedbed_cli, objective, engine, ranks):
    """Answers, rewards and weights; and a run that is resized in the middle of an iteration."""
    recipe = prepared.recipe(
        objective, 6, prepared.reward() + "\n" + prepared.everything(objective), "exact = true"
    )
    small = ("batch.micro_batch_size=2", "checkpoint.every_steps=1", "checkpoint.keep=99")
    one = trained(tmp_path, recipe, "one", *small, "engine.name=ddp", init_from=prepared.policy)
    many = tmp_path / "many"
    asked = [*small, f"engine.name={engine}", f"engine.num_ranks={ranks}"]
    sets = [word for setting in asked for word in ("--set", setting)]
    outcome = seedbed_cli("train", recipe, "--init-from", prepared.policy, "--run-dir", many, *sets)
    assert outcome.code == 0, outcome.stderr
    assert full_hash(many, 6) == full_hash(one, 6)
    answers = [read_rollouts(run / "rollouts" / "step-00000004.jsonl") for run in (one, many)]
    assert answers[0] == answers[1]
    resized, _ = resume(many, ["engine.name=ddp", "engine.num_ranks=1"], from_step=3)
    train(resized, tmp_path / "resized-group")
    assert full_hash(many, 6) == full_hash(one, 6)


def test_gold_is_measured_and_not_learned_from(prepared, tmp_path):
    hashes = []
    for gold in ("", f'gold = ["{prepared.folder}/rewards.py:vowels", "parses"]'):
        recipe = prepared.recipe("grpo", 4, f"{prepared.reward()}\n{gold}\nweights = [2.0]")
        run = trained(tmp_path, recipe, f"run-{bool(gold)}", init_from=prepared.policy)
        hashes.append(full_hash(run, 4))
    assert hashes[0] == hashes[1]
    for row in rows(run, "rollouts"):
        parts = [
            one.reward.total / 2
            for one in read_rollouts(run / "rollouts" / f"step-{row['step'] - 1:08}.jsonl")
        ]
        assert 0 <= row["gold"] - np.mean(parts) <= 1
    assert "Reward by distance" in write_report(run).read_text()


def test_a_run_whose_gold_falls_ends_alike_from_wherever_it_goes_on_or_goes_back(prepared, tmp_path):
    """Gold is best at 1.2 vowels for 8 letters; the reward asks for more, until all are vowels."""
    gold = f'kl = 0.0\nmax_kl = 0.0\ngold = ["{prepared.folder}/rewards.py:some"]'
    recipe = prepared.recipe("grpo", 120, prepared.reward() + "\n" + gold)
    saved = ("checkpoint.every_steps=1", "checkpoint.keep=999", "rl.over_optimised=stop")
    run = trained(tmp_path, recipe, "run", *saved, init_from=prepared.policy)
    (told,) = [event for event in read_events(run) if event["kind"] == "over_optimised"]
    last = told["step"]
    assert 40 < last < 110
    assert told["gold_after"] < told["gold_before"] - 0.1
    assert told["reward_after"] > told["reward_before"] + 0.2
    assert "stopped early" in read_events(run)[-1]["message"]
    assert Checkpoint.open(step_dir(run, last)).step == max(row["step"] for row in rows(run, "train"))
    whole, watched = full_hash(run, last), Checkpoint.open(step_dir(run, last)).read("watch/iterations")
    # At the end there is nothing to do; before it, the same run is trained again.
    for step in (last, last - 3):
        again, _ = resume(run, [], from_step=step)
        train(again, tmp_path / f"group-{step}")
        assert full_hash(run, last) == whole
        seen_again = Checkpoint.open(step_dir(run, last)).read("watch/iterations")
        assert torch.equal(seen_again.nan_to_num(), watched.nan_to_num())
        assert not step_dir(run, last + 1).exists()
    seen = rows(run, "rollouts")
    means = np.convolve([row["gold"] for row in seen], np.full(4, 0.25), mode="valid")
    best = seen[int(np.argmax(means)) + 3]["step"]
    assert 20 < best < last

    back = trained(tmp_path, recipe, "back", "rl.over_optimised=best", init_from=prepared.policy)
    assert list_steps(back)[-1] == best
    assert full_hash(back, best) == full_hash(run, best)
    assert max(row["step"] for row in rows(back, "rollouts")) == best
    assert f"gold was best at step {best}" in read_events(back)[-1]["message"]


def test_the_rest_of_an_iteration_is_passed_over_when_the_policy_has_moved_too_far(prepared, tmp_path):
    recipe = prepared.recipe("grpo", 6, prepared.reward() + "\nepochs = 4\nstop_kl = 1e-9")
    run = trained(tmp_path, recipe, "run", init_from=prepared.policy)
    told = rows(run, "train")
    # The first step of an iteration has not moved yet, the second has.
    assert [row.get("stopped_by_kl", False) for row in told] == [False, True] * 3
    assert len(rows(run, "rollouts")) == 3


def test_answers_that_are_all_worth_the_same_end_in_an_error_that_says_so(prepared, tmp_path):
    recipe = prepared.recipe("grpo", 4, prepared.reward("nothing") + "\ndrop_without_spread = true")
    with pytest.raises(TrainingError, match=r"10 iterations in a row no answer teaches anything"):
        trained(tmp_path, recipe, "run", init_from=prepared.policy)


def test_a_reward_that_cannot_be_had_is_no_zero(prepared, tmp_path):
    recipe = prepared.recipe("grpo", 4, prepared.reward("nan"))
    with pytest.raises(
        TrainingError, match=r"16 of 16 answers have no reward \(16 not_finite\), such as: .*nan"
    ):
        trained(tmp_path, recipe, "run", init_from=prepared.policy)


def test_steps_of_answers_that_are_left_out_teach_nothing_and_are_no_errors(prepared, tmp_path):
    """Most prompts are too easy or too hard; the run would end as one whose losses are not finite."""
    recipe = prepared.recipe("grpo", 24, prepared.reward("rare") + "\ndrop_without_spread = true")
    small = ("batch.tokens_per_step=128", "batch.micro_batch_size=2")
    run = trained(tmp_path, recipe, "run", *small, init_from=prepared.policy)
    told = rows(run, "train")
    assert any(row.get("skipped") for row in told)
    assert not all(row.get("skipped") for row in told)
    assert not [event for event in read_events(run) if event["kind"] == "step_skipped"]


@pytest.mark.parametrize("model", ["", 'lora_base = "nf4"'])
def test_adapters_learn_from_rewards_under_a_critic(prepared, tmp_path, model):
    """The critic begins with adapters of its own, and the reference is the base as it was."""
    recipe = prepared.recipe("ppo", 4, prepared.reward(), 'name = "ddp"')
    text = recipe.read_text().replace("context = 32", f"context = 32\nlora_rank = 4\n{model}")
    recipe.write_text(text.replace("[optimizer]", '[optimizer]\ntrained = "lora"'))
    run = trained(tmp_path, recipe, "run", init_from=prepared.policy)
    whole = full_hash(run, 4)
    again, _ = resume(run, [], from_step=3)
    train(again, tmp_path / "again")
    assert full_hash(run, 4) == whole
    step = Checkpoint.open(step_dir(run, 4))
    assert step.names("critic/model/blocks.0.attention.query.lora_A")
    assert not step.names("critic/optimizer/blocks.0.attention.query.weight")


def test_answers_are_as_old_as_they_are_said_to_be(prepared, tmp_path):
    """Those of an iteration are of the weights of the one before, and are learned from all the same; a run
    without staleness is told from one that has it by nothing else at its beginning."""
    runs = {}
    for staleness in (0, 1, 2):
        settings = f"\nkl = 0.01\nkeep_rollouts = 99\nstaleness = {staleness}"
        recipe = prepared.recipe("grpo", 60, prepared.reward() + settings)
        run = runs[staleness] = trained(tmp_path, recipe, f"run-{staleness}", init_from=prepared.policy)
        rewards = [row["reward"] for row in rows(run, "rollouts")]
        assert np.mean(rewards[-6:]) > np.mean(rewards[:6]) + 0.1, rewards
        answers = [read_rollouts(file) for file in sorted((run / "rollouts").iterdir())]
        written_by = [{one.policy for one in some} for some in answers]
        assert all(len(policies) == 1 for policies in written_by)
        # Each version writes one iteration, the first also those that nobody is there for yet.
        versions = [policies.pop() for policies in written_by]
        assert len(set(versions)) == len(versions) - staleness
        assert len(set(versions[: staleness + 1])) == 1
        apart = [row["generator_apart"] for row in rows(run, "rollouts")]
        assert all(difference < 1e-4 for difference in apart)
    first = [read_rollouts(run / "rollouts" / "step-00000000.jsonl") for run in runs.values()]
    assert first[0] == first[1] == first[2]


def test_what_was_pretrained_is_learned_beside_the_answers(prepared, tmp_path):
    """The loss of the text is a mean over its own tokens, however the batch is cut up; and the policy keeps
    more of it."""
    first, known = {}, {}
    for ptx, size in ((0.0, 4), (1.0, 4), (1.0, 2)):
        text = f'\nptx = {ptx}\nptx_data = "{prepared.text}"' if ptx else ""
        recipe = prepared.recipe("grpo", 40, prepared.reward() + "\nkl = 0.0" + text)
        name = f"run-{ptx}-{size}"
        run = trained(tmp_path, recipe, name, f"batch.micro_batch_size={size}", init_from=prepared.policy)
        known[ptx, size] = _loss(run, prepared.text)
        first[ptx, size], *_, last = rows(run, "train")
        assert last.get("text_loss", 0) <= first[ptx, size].get("text_loss", 0)
    for size in (4, 2):
        row = first[1.0, size]
        assert row["loss"] - row["text_loss"] == pytest.approx(first[0.0, 4]["loss"], abs=1e-5)
    assert known[1.0, 4] < known[0.0, 4]


def _loss(run: Path, dataset: Path) -> float:
    loaded = load_model(run)
    tokens = torch.from_numpy(Dataset.open(dataset).split("train").tokens(0, 33).astype(np.int64))[None]
    with torch.no_grad():
        everywhere = torch.ones(1, 32, dtype=torch.bool)
        return float(-token_log_probs(loaded.model, tokens, everywhere)[0].mean())


def test_a_judge_and_tests_are_rewards(prepared, tmp_path):
    """A judge behind an endpoint that prefers what is longer, and is not asked again; and asserts
    in a sandbox, of which these prompts have none."""
    with endpoint_of(longer) as server:
        settings = tmp_path / "judge.toml"
        settings.write_text(f'url = "{server.url}"\nmodel = "m"\npause_s = 0.01')
        recipe = prepared.recipe("grpo", 4, f'rewards = ["judge:{settings}", "parses"]')
        run = trained(tmp_path, recipe, "run", "checkpoint.every_steps=2", init_from=prepared.policy)
        answers = [one for file in sorted((run / "rollouts").iterdir()) for one in read_rollouts(file)]
        parts = [one.reward.parts[f"judge:{settings}"] for one in answers]
        assert set(parts) <= {0.0, 0.5, 1.0}
        assert len(set(parts)) > 1
        asked, whole = len(server.seen), full_hash(run, 4)
        again, _ = resume(run, [], from_step=2)
        train(again, tmp_path / "again")
        assert (len(server.seen), full_hash(run, 4)) == (asked, whole)
    gone = prepared.recipe("grpo", 2, f'rewards = ["judge:{settings}"]\nretries = 0')
    settings.write_text(settings.read_text() + "\nnum_tries = 1")
    with pytest.raises(TrainingError, match=r"16 of 16 answers have no reward \(16 unreachable\)"):
        trained(tmp_path, gone, "gone", init_from=prepared.policy)
    no_tests = prepared.recipe("grpo", 2, 'rewards = ["tests"]')
    with pytest.raises(TrainingError, match=r"16 malformed\), such as: no assert in the response"):
        trained(tmp_path, no_tests, "tests", init_from=prepared.policy)


def test_a_branch_goes_on_only_from_the_state_that_its_method_needs(prepared, tmp_path):
    recipe = prepared.recipe("grpo", 4, prepared.reward())
    run = trained(tmp_path, recipe, "run", init_from=prepared.policy)
    with pytest.raises(ConfigError, match=r"objective\.name = 'ppo'"):
        fork(run, tmp_path / "other", ["objective.name=ppo"])
    for change in ("rl.answers=8", "rl.epochs=2"):
        with pytest.raises(ConfigError, match=change.split("=")[0].replace(".", r"\.")):
            fork(run / "checkpoints" / "step-3", tmp_path / "cut", [change])
    assert not (tmp_path / "other").exists()
