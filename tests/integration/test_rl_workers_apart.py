"""Critic, reference, rewards on workers of their own: answers, rewards and weights of a run without."""

import json

import pytest

from tests.integration.test_rl_training import Prepared, full_hash, rows, trained
from training.checkpoint.layout import list_steps
from training.rl.rollouts import read_rollouts

SEEN = """
import os

def vowels(prompts, answers, rows):
    with open(os.path.join(os.path.dirname(__file__), "asked"), "a") as file:
        file.write(f"{os.getppid()}\\n")
    return [sum(letter in "aeiou" for letter in answer) / 8 for answer in answers]
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("rl"))


def recipe(prepared, more=""):
    (prepared.folder / "seen.py").write_text(SEEN)
    rewards = f'rewards = ["{prepared.folder}/seen.py:vowels"]\ngold = ["parses"]'
    return prepared.recipe("ppo", 4, f"{rewards}\n{more}", 'exact = true\nname = "ddp"')


def test_scores_are_those_of_ranks_that_score_themselves(prepared, tmp_path, seedbed_cli):
    """And the ranks do not score."""
    path = recipe(prepared, "epochs = 2")
    alone = trained(tmp_path, path, "alone", init_from=prepared.policy)
    asked = prepared.folder / "asked"
    asked.unlink()
    apart = tmp_path / "apart"
    sets = ("--set", "engine.num_ranks=2", "--set", "rl.scoring_workers=2")
    outcome = seedbed_cli("train", path, "--init-from", prepared.policy, "--run-dir", apart, *sets)
    assert outcome.code == 0, outcome.stderr
    assert "2 worker(s) beside the ranks" in outcome.stderr
    assert full_hash(apart, 4) == full_hash(alone, 4)
    files = [sorted((run / "rollouts").iterdir()) for run in (alone, apart)]
    for one, other in zip(*files, strict=True):
        assert read_rollouts(one) == read_rollouts(other)
    pids = {json.loads((apart / "heartbeats" / f"rank-{n}.json").read_text())["pid"] for n in (2, 3)}
    assert set(map(int, asked.read_text().split())) == pids


def apart_from(prepared, tmp_path, seedbed_cli, name, ranks, critic, scoring=0, *more):
    counts = {"engine.num_ranks": ranks, "rl.critic_workers": critic, "rl.scoring_workers": scoring}
    sets = [text for key, count in counts.items() for text in ("--set", f"{key}={count}")]
    begun = ("--init-from", prepared.policy, "--run-dir", tmp_path / name)
    return seedbed_cli("train", *(more or (critic_recipe(prepared), *begun)), *sets)


def critic_recipe(prepared, engine="ddp"):
    """Saved in mid-iteration too, of which there are three in twelve steps."""
    settings = prepared.reward() + "\n" + prepared.everything("ppo")
    return prepared.recipe("ppo", 12, settings, f'exact = true\nname = "{engine}"')


@pytest.mark.parametrize(
    ("ranks", "critic", "scoring"), [(1, 2, 0), pytest.param(2, 1, 1, marks=pytest.mark.long)]
)
def test_a_critic_of_its_own_workers_learns_what_one_on_the_ranks_does(
    prepared, tmp_path, seedbed_cli, ranks, critic, scoring
):
    """Its state is in the same checkpoints, under the same names."""
    alone = trained(tmp_path, critic_recipe(prepared), "alone", init_from=prepared.policy)
    outcome = apart_from(prepared, tmp_path, seedbed_cli, "apart", ranks, critic, scoring)
    assert outcome.code == 0, outcome.stderr
    assert f"{critic} worker(s) beside the ranks hold the critic" in outcome.stderr
    for step in list_steps(alone):
        assert full_hash(tmp_path / "apart", step) == full_hash(alone, step)
    rows_of = [rows(run, "train") for run in (alone, tmp_path / "apart")]
    assert all(row["value_loss"] > 0 for row in rows_of[0])
    assert [row["value_loss"] for row in rows_of[0]] == [row["value_loss"] for row in rows_of[1]]


@pytest.mark.long
@pytest.mark.parametrize(("engine", "critic"), [("zero1", 1), ("zero2", 0), ("zero3", 2)])
def test_deepspeed_trains_policy_and_critic(prepared, tmp_path, seedbed_cli, engine, critic):
    """Losses are those of a run under ddp, but for rounding."""
    settings = prepared.reward() + "\nepochs = 2"
    path = prepared.recipe("ppo", 6, settings, f'name = "{engine}"')
    alone = trained(tmp_path, path, "alone", "engine.name=ddp", init_from=prepared.policy)
    begun = (path, "--init-from", prepared.policy, "--run-dir", tmp_path / "run")
    outcome = apart_from(prepared, tmp_path, seedbed_cli, "run", 1, critic, 0, *begun)
    assert outcome.code == 0, outcome.stderr
    for name in ("loss", "value_loss"):
        found = [[row[name] for row in rows(run, "train")] for run in (alone, tmp_path / "run")]
        assert found[1] == pytest.approx(found[0], abs=1e-4), name


@pytest.mark.long
def test_a_critic_moves_to_workers_of_its_own_and_back(prepared, tmp_path, seedbed_cli):
    """From one part of a run to the next, in the middle of iterations."""
    alone = trained(tmp_path, critic_recipe(prepared), "alone", init_from=prepared.policy)
    run = tmp_path / "run"
    places = [(1, 0), (2, 1), (1, 2)]
    for step, (ranks, critic) in zip((4, 7, 12), places, strict=True):
        pause = ("--set", f"run.pause_at={step if step < 12 else 0}")
        begun = (critic_recipe(prepared), "--init-from", prepared.policy, "--run-dir", run)
        begun = ("--resume", run) if run.exists() else begun
        outcome = apart_from(prepared, tmp_path, seedbed_cli, "run", ranks, critic, 0, *begun, *pause)
        assert outcome.code == (5 if step < 12 else 0), outcome.stderr
    assert full_hash(run, 12) == full_hash(alone, 12)


@pytest.mark.long
def test_a_step_that_one_rank_cannot_read_is_put_aside_by_all(prepared, tmp_path, seedbed_cli):
    """The critic's workers, which can read theirs, too."""
    path, run = critic_recipe(prepared, "fsdp"), tmp_path / "run"
    alone = trained(tmp_path, path, "alone", "engine.name=ddp", init_from=prepared.policy)
    begun = (path, "--init-from", prepared.policy, "--run-dir", run, "--set", "run.pause_at=6")
    outcome = apart_from(prepared, tmp_path, seedbed_cli, "run", 2, 1, 0, *begun)
    assert outcome.code == 5, outcome.stderr
    part = run / "checkpoints" / "step-6" / "rank-1.safetensors"
    data = bytearray(part.read_bytes())
    data[-200:] = bytes(byte ^ 255 for byte in data[-200:])
    part.write_bytes(data)
    more = ("--resume", run, "--set", "run.pause_at=0", "--set", "timeouts.collective_s=60")
    outcome = apart_from(prepared, tmp_path, seedbed_cli, "run", 2, 1, 0, *more)
    assert outcome.code == 0, outcome.stderr
    assert "step 6 is damaged and was put aside" in outcome.stderr
    assert full_hash(run, 12) == full_hash(alone, 12)


def test_a_critic_on_more_workers_than_there_is_work_for_is_refused(prepared, tmp_path, seedbed_cli):
    outcome = apart_from(prepared, tmp_path, seedbed_cli, "run", 1, 99)
    assert outcome.code == 2
    assert "rl.critic_workers = 99 is more than the" in outcome.stderr
    assert not (tmp_path / "run").exists()


def test_a_critic_of_a_method_without_is_refused(prepared, tmp_path, seedbed_cli):
    recipe = prepared.recipe("rloo", 4, prepared.reward() + "\ncritic_workers = 1")
    outcome = seedbed_cli("train", recipe, "--init-from", prepared.policy, "--run-dir", tmp_path / "run")
    assert outcome.code == 2
    assert "rl.critic_workers = 1 does nothing for rloo" in outcome.stderr


def test_what_a_scoring_worker_cannot_do_ends_the_run_with_its_words(prepared, tmp_path, seedbed_cli):
    path = recipe(prepared)
    (prepared.folder / "seen.py").write_text("import nowhere_to_be_found\n")
    outcome = seedbed_cli(
        "train", path, "--init-from", prepared.policy, "--run-dir", tmp_path / "run",
        "--set", "rl.scoring_workers=1",
    )  # fmt: skip
    assert outcome.code == 2
    assert "nowhere_to_be_found" in outcome.stderr
