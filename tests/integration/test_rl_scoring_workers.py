"""Reference and rewards on workers of their own: answers, rewards and weights are those of a run without."""

import json

import pytest

from tests.integration.test_rl_training import Prepared, full_hash, trained
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


def test_what_a_scoring_worker_cannot_do_ends_the_run_with_its_words(prepared, tmp_path, seedbed_cli):
    path = recipe(prepared)
    (prepared.folder / "seen.py").write_text("import nowhere_to_be_found\n")
    outcome = seedbed_cli(
        "train", path, "--init-from", prepared.policy, "--run-dir", tmp_path / "run",
        "--set", "rl.scoring_workers=1",
    )  # fmt: skip
    assert outcome.code == 2
    assert "nowhere_to_be_found" in outcome.stderr
