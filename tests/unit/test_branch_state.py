"""Which settings a branch may change: those that need no state which its parent did not keep."""

from pathlib import Path
from typing import get_args

import pytest

from seedbed.errors import ConfigError
from training.checkpoint.reader import Checkpoint
from training.first_weights import check_state
from training.optimizers import state_names
from training.recipes import load_config
from training.sections import OptimizerConfig

NUM_DIMS = {"embedding.weight": 2, "blocks.0.attention.query.weight": 2, "norm.weight": 1}


def lacking(before: str, now: str) -> str:
    """What is said of a branch with settings `now` off a run with settings `before`; empty when it may be."""
    parent, branch = (
        load_config("gpt-demo", ["engine.precision=bf16", *text.split()]) for text in (before, now)
    )
    names = [f"model/{name}" for name in NUM_DIMS] + sorted(state_names(NUM_DIMS, parent.optimizer))
    if parent.optimizer.ema_decay:
        names += [f"ema/{name}" for name in NUM_DIMS]
    if parent.engine.precision == "fp16":
        names += ["optimizer/loss_scale", "optimizer/loss_scale_steps"]
    shapes = {name: [2] * NUM_DIMS.get(name.removeprefix("model/"), 0) for name in names}
    tensors = {name: {"shape": shape} for name, shape in shapes.items()}
    checkpoint = Checkpoint(Path("step-1"), {"files": [], "tensors": tensors})
    try:
        check_state(checkpoint, parent, branch)
    except ConfigError as error:
        return f"{error.message.partition(' with ')[2]}; {error.fix.partition(': ')[2]}"
    return ""


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ("", "optimizer.ema_decay=0.999", "optimizer.ema_decay = 0.999"),
        ("", "engine.precision=fp16", "engine.precision = 'fp16'"),
        ("", "optimizer.name=muon", "optimizer.name = 'muon'"),
        ("optimizer.name=adam", "optimizer.name=amsgrad", "optimizer.name = 'amsgrad'"),
        ("optimizer.name=sgd", "optimizer.name=sgd optimizer.momentum=0.9", "optimizer.momentum = 0.9"),
        (
            "",
            "optimizer.name=lion engine.precision=fp16",
            "optimizer.name = 'lion', engine.precision = 'fp16'",
        ),
        ("optimizer.name=amsgrad", "optimizer.name=adam", ""),
        ("optimizer.ema_decay=0.9", "optimizer.ema_decay=0", ""),
        ("engine.precision=fp16", "engine.precision=bf16", ""),
        ("", "optimizer.name=sgd optimizer.lr=1e-5", ""),
    ],
)
def test_a_branch_that_needs_other_state_is_refused_with_the_settings_that_need_it(before, now, said):
    """It would be made, and end in its workers with the name of a tensor."""
    assert lacking(before, now) == (f"{said}; --init-from step-1" if said else "")


def test_every_optimizer_can_go_on_from_its_own_state():
    """A branch that changes nothing would be refused."""
    constant = "schedule.name=constant schedule.warmup_share=0"
    for name in get_args(OptimizerConfig.model_fields["name"].annotation):
        assert lacking(f"optimizer.name={name} {constant}", f"optimizer.name={name} {constant}") == ""
        kept = state_names(NUM_DIMS, OptimizerConfig(name=name))
        assert kept or name == "sgd"
