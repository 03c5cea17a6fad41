"""What reinforcement learning is given that it cannot use: said before anything is made, or borne."""

import functools
import json

import pytest

from data.build import build_dataset
from data.config import DataConfig
from seedbed.errors import ConfigError, DataError, UsageError
from tests.integration.test_rl_training import RECIPE, Prepared, rows, trained
from training.prepare import start
from training.rl.rollouts import read_rollouts


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("rl"))


@pytest.fixture(scope="module")
def stranger(prepared, tmp_path_factory):
    """A reward model whose tokens are other ones."""
    folder = tmp_path_factory.mktemp("stranger")
    pairs = [{"prompt": f"{n}", "chosen": f" good {n}", "rejected": f" bad {n}"} for n in range(40)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    config = DataConfig(
        source=str(folder / "pairs.jsonl"), format="preference", template="plain", vocab_size=270,
        near_duplicate_threshold=0,
    )  # fmt: skip
    data = build_dataset(config, folder / "data")
    text = RECIPE.format(data=data, objective="reward", steps=1, rl="", engine="")
    before, after = text.split("[rl]")
    (folder / "rm.toml").write_text(before + '[model]\nhead = "reward"' + after.split("[model]")[1])
    return trained(folder, folder / "rm.toml", "rm", init_from=None)


ACCURATE = 'rl.rewards=["accuracy"]'


@pytest.mark.parametrize(
    ("objective", "settings", "words"),
    [
        ("grpo", [], "needs rewards"),
        ("grpo", ['rl.rewards=["acuracy"]'], '"acuracy" is none; there are accuracy'),
        ("grpo", ['rl.rewards=["lost.py:f"]'], r"there is no file .*lost\.py"),
        ("grpo", ['rl.rewards=["judge:lost.toml"]'], r"lost\.toml cannot be read"),
        ("grpo", [ACCURATE, "rl.ptx=1"], "rl.ptx and rl.ptx_data go together"),
        ("grpo", [ACCURATE, "rl.ptx=1", "rl.ptx_data={data}"], "holds examples"),
        ("grpo", [ACCURATE, "rl.answers=1"], "compares answers to one prompt"),
        ("grpo", [ACCURATE, "rl.prompts=3"], "12 answers, and a step 8"),
        ("grpo", [ACCURATE, "rl.max_new_tokens=32"], "none of the .* leaves room"),
        ("grpo", [ACCURATE, "rl.kl_estimator=k1"], "k1 has no gradient in a loss"),
        ("grpo", [ACCURATE, "model.dropout=0.1"], "makes the policy that learns another"),
        ("grpo", [ACCURATE, "engine.precision=fp16"], 'is not for engine.precision = "fp16"'),
        ("ppo", ['rl.rewards=["model:{policy}"]'], "is no reward model"),
        ("ppo", [ACCURATE, "rl.critic={policy}"], "is no reward model"),
        ("ppo", [ACCURATE, "rl.dual_clip=0.5"], "is not above 1"),
        ("ppo", [ACCURATE, "rl.over_optimised=stop"], "needs rl.gold"),
        ("ppo", [ACCURATE, "rl.kl=0", "rl.kl_target=1"], "needs an rl.kl above 0"),
        ("grpo", [ACCURATE, "rl.critic_warmup=2"], "rl.critic_warmup = 2 does nothing for grpo"),
        ("rloo", [ACCURATE, "rl.baseline=false"], "rl.baseline = False does nothing for rloo"),
        ("sft", [], "rl.prompts = 4 does nothing for the objective sft"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(prepared, tmp_path, objective, settings, words):
    recipe = prepared.recipe(objective, 4)
    paths = {"{policy}": str(prepared.policy), "{data}": str(prepared.data)}
    sets = [functools.reduce(lambda text, one: text.replace(*one), paths.items(), word) for word in settings]
    with pytest.raises((ConfigError, UsageError), match=words):
        start(str(recipe), sets, tmp_path / "run", prepared.policy)
    assert not (tmp_path / "run" / "config.toml").exists()


@pytest.mark.parametrize(
    "setting", ['rl.rewards=["model:{rm}"]', 'rl.critic="{rm}"', 'rl.gold=["model:{rm}"]']
)
def test_a_reward_model_of_other_tokens_is_refused(prepared, stranger, tmp_path, setting):
    """It would read other texts than were written."""
    sets = [ACCURATE, setting.replace("{rm}", str(stranger))]
    with pytest.raises((ConfigError, UsageError), match="tokenizer"):
        start(str(prepared.recipe("ppo", 4)), sets, tmp_path / "run", prepared.policy)
    assert not (tmp_path / "run" / "config.toml").exists()


def test_no_prompts_are_an_error_that_names_the_file(prepared, tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    recipe = prepared.recipe("grpo", 4)
    path = tmp_path / "empty.toml"
    source = f'source = "{tmp_path / "rows.jsonl"}"\nformat = "prompt-response"\ntemplate = "plain"'
    path.write_text(recipe.read_text().replace(f'path = "{prepared.data}"', source))
    with pytest.raises(DataError, match=r"rows\.jsonl"):
        start(str(path), [ACCURATE], tmp_path / "run", prepared.policy)


def test_prompts_that_leave_no_room_are_left_out_and_counted(prepared, tmp_path):
    prompts = [f"beta {n}" for n in range(8)] + [f"{n} " + "gamma " * 40 for n in range(3)]
    examples = [{"prompt": prompt, "response": " beta"} for prompt in prompts]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in examples))
    config = DataConfig(
        source=str(tmp_path / "rows.jsonl"), format="prompt-response", template="plain",
        tokenizer=str(prepared.text), near_duplicate_threshold=0, holdout_fraction=0,
    )  # fmt: skip
    path = prepared.recipe("grpo", 2, prepared.reward())
    path.write_text(
        path.read_text().replace(str(prepared.data), str(build_dataset(config, tmp_path / "data")))
    )
    _, notices = start(str(path), [], tmp_path / "run", prepared.policy)
    assert any("3 are left out, which leave no room" in notice for notice in notices), notices


def test_a_policy_that_never_ends_is_cut_and_pays(prepared, tmp_path):
    """And learns from what it wrote."""
    reward = prepared.reward("nothing") + "\nmissing_end_penalty = 0.5\nkl = 0"
    run = trained(tmp_path, prepared.recipe("reinforce", 4, reward), "run", init_from=None)
    told = rows(run, "rollouts")
    assert all(row["ended"] < 0.5 for row in told)
    answers = [one for path in (run / "rollouts").iterdir() for one in read_rollouts(path)]
    cut = [one for one in answers if not one.ended]
    assert {len(one.answer) for one in cut} == {8}
    assert len(cut) > len(answers) / 2
    assert all(row["loss"] is not None for row in rows(run, "train"))
