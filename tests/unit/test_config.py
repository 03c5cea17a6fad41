"""Configurations: strict, complete, and saved so that they can be read again."""

import pytest

from models.families import CONFIGS
from seedbed.errors import ConfigError
from training.batch_layout import batch_layout
from training.config import Config, identity_of, items, kind_of, section_models
from training.recipes import load_config, make_config, parse_toml, recipe_names, to_toml
from training.schedules import learning_rate


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("optimizer.learning_rate=1e-3", "unknown key 'optimizer.learning_rate'"),
        ("optimiser.lr=1e-3", "did you mean 'optimizer.lr'"),
        ("run.lr=1e-3", "did you mean 'optimizer.lr'"),
        ("model.num_layer=3", "did you mean 'model.num_layers'"),
        ("run.steps=many", "run.steps"),
        ("run.steps=1.5", "run.steps"),
        ("run.steps=-4", "run.steps"),
        ("run.steps=true", "run.steps"),
        ("optimizer.lr=nan", "optimizer.lr"),
        ("engine.exact_lanes=2", "without engine.exact"),
        ("engine.replicas=3", "equal groups"),
        ("engine.deepspeed={prescale_gradients = true}", "engine.deepspeed does nothing"),
        ("engine.name=zero4", "engine.name"),
        ("engine.checkpointing=budget", "engine.compile = true"),
        ("engine.offload=optimizer", "possible are fsdp: parameters; zero1: optimizer"),
        ("engine.memory_budget=0.5", "does nothing without engine.checkpointing"),
        ("schedule.warmup_share=0.7", "overlap"),
        ("checkpoint.keep=1", "checkpoint.keep"),
        ("tracking.profile=13:10", "FIRST <= LAST"),
        ("tracking.profile=4:999999", "goes beyond run.steps"),
        ("steps=4", "section.field=value"),
    ],
)
def test_a_wrong_setting_is_named_with_its_fix(assignment, said):
    """A misspelt setting would silently not be set."""
    with pytest.raises(ConfigError) as caught:
        load_config("gpt-demo", [assignment])
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (["engine.exact=true"], "the sums over ranks are DeepSpeed's"),
        (["engine.replicas=2", "engine.num_ranks=2"], 'belongs to engine.name = "fsdp"'),
        (["engine.name=zero3", "engine.compile=true"], "gathers parameters within blocks"),
        (["optimizer.name=adagrad"], "DeepSpeed updates runs of elements"),
    ],
)
def test_what_zero_cannot_honour_is_refused(assignments, said):
    """It would be another run than the one asked for."""
    with pytest.raises(ConfigError) as caught:
        load_config("gpt-demo", ["engine.name=zero1", *assignments])
    assert said in str(caught.value)


def test_a_recipe_that_does_not_exist_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'gpt-demo'"):
        load_config("gpt-dmo")


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_parses_and_lays_out(name):
    """A user would find it broken."""
    assert batch_layout(load_config(name)).turns >= 1


def test_a_saved_configuration_reads_back_equal():
    """A resumed run would be another run."""
    config = load_config("gpt-demo", ['eval.prompt=a "quoted"\\ \n\t line', "optimizer.betas=[0.8, 0.99]"])
    assert make_config(parse_toml(to_toml(config), "x")) == config


def test_every_field_has_a_kind_and_a_description():
    """`--set` could change what a run is without anyone noticing; help would have holes."""
    kinds = {name: kind_of(*name.split(".", 1)) for name, _ in items(Config())}
    assert set(kinds.values()) == {"identity", "schedule", "placement"}
    assert kinds["run.steps"] == "schedule"
    assert kinds["engine.num_ranks"] == "placement"
    # They decide when patience ends, and which step is the best.
    assert {kinds["eval.every_steps"], kinds["eval.num_samples"]} == {"schedule"}
    assert {"run.seed", "batch.tokens_per_step", "model.width", "optimizer.lr"} <= set(identity_of(Config()))
    for section, model in [*section_models().items(), *(("model", config) for config in CONFIGS.values())]:
        for field, inner in model.model_fields.items():
            assert inner.description, f"{section}.{field} has no docstring"


def config_with(**engine_and_batch: int) -> Config:
    tokens, micro, ranks = (engine_and_batch[key] for key in ("tokens", "micro", "ranks"))
    return make_config(
        {
            "model": {"context": 64, "vocab_size": 300},
            "batch": {"tokens_per_step": tokens, "micro_batch_size": micro},
            "engine": {"num_ranks": ranks},
        }
    )


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8])
def test_every_micro_batch_belongs_to_one_rank_and_turn(ranks):
    """Data would be trained on twice, or not at all."""
    layout = batch_layout(config_with(tokens=64 * 4 * 8, micro=4, ranks=ranks))
    owned = [layout.micro_batch(r, t) for r in range(ranks) for t in range(layout.turns)]
    assert sorted(i for i in owned if i is not None) == list(range(8))


def test_a_batch_that_no_layout_makes_offers_the_nearest():
    with pytest.raises(ConfigError, match=r"set batch\.tokens_per_step to 768 or 1024"):
        batch_layout(config_with(tokens=1000, micro=4, ranks=1))


def test_more_ranks_than_micro_batches_is_refused():
    with pytest.raises(ConfigError, match=r"engine\.num_ranks = 3 is more than the 2"):
        batch_layout(config_with(tokens=512, micro=4, ranks=3))


def test_schedules_rise_hold_and_fall_as_asked():
    """The learning rate would not be what the recipe says."""

    def at(step: int, name: str) -> float:
        config = load_config(
            "gpt-demo",
            [
                f"schedule.name={name}",
                "run.steps=100",
                "schedule.warmup_share=0.1",
                "schedule.decay_share=0.2",
                "schedule.min_ratio=0.1",
                "optimizer.lr=1.0",
            ],
        )
        return learning_rate(step, config)

    for name in ("cosine", "wsd", "constant"):
        assert [at(step, name) for step in (1, 5, 10)] == [0.1, 0.5, 1.0]
    assert at(55, "cosine") == pytest.approx(0.55)
    assert at(100, "cosine") == pytest.approx(0.1)
    assert [at(step, "wsd") for step in (11, 80)] == [1.0, 1.0]
    assert at(90, "wsd") == pytest.approx(0.55)
    assert at(100, "wsd") == pytest.approx(0.1)
    assert at(100, "constant") == 1.0
