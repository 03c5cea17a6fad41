"""What DeepSpeed is told, and the boxes that a run of elements is made of."""

import math
from typing import Any

import pytest
import torch

from seedbed.errors import ConfigError
from training.engines.zero import boxes
from training.plan import make_plan
from training.recipes import load_config
from training.zero_settings import zero_settings


def settings(deepspeed: str, *assignments: str) -> dict[str, Any]:
    given = ["engine.name=zero2", f"engine.deepspeed={deepspeed}", "optimizer.clip_norm=0.5", *assignments]
    return zero_settings(load_config("gpt-demo", given))


def test_more_settings_of_deepspeed_go_along_and_contradict_nothing():
    """A clipping of DeepSpeed's own, say, would silently replace the recorded one."""
    found = settings("{zero_optimization = {reduce_bucket_size = 1000}, gradient_clipping = 0.5}")
    assert found["zero_optimization"]["reduce_bucket_size"] == 1000
    assert found["zero_optimization"]["stage"] == 2
    assert found["gradient_clipping"] == 0.5
    with pytest.raises(ConfigError, match=r"engine\.deepspeed\.zero_optimization\.stage = 3 contradicts 2"):
        settings("{zero_optimization = {stage = 3}}")
    with pytest.raises(ConfigError, match=r"zero_optimization = 3 contradicts"):
        settings("{zero_optimization = 3}")
    with pytest.raises(ConfigError, match=r"offload_optimizer\.device = 'cpu' contradicts 'none'"):
        settings('{zero_optimization = {offload_optimizer = {device = "cpu"}}}')


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("{train_batch_size = 3}", r"engine\.deepspeed\.train_batch_size = 3 contradicts 8"),
        ("{optimizer = {type = 'Adam'}}", r"engine\.deepspeed\.optimizer would stand beside \[optimizer\]"),
        ("{bf16 = {enabled = true}}", r"engine\.deepspeed\.bf16\.enabled = True contradicts False"),
    ],
)
def test_the_plan_refuses_what_deepspeed_would_refuse(given, problem, tmp_path):
    """A launched run would find it out, and try it as often as it restarts."""
    assignments = ["engine.name=zero2", "engine.num_ranks=2", "data.vocab_size=500", "model.vocab_size=500"]
    config = load_config("gpt-demo", [*assignments, f"engine.deepspeed={given}"])
    with pytest.raises(ConfigError, match=problem):
        make_plan(config, tmp_path)


def test_offloading_is_passed_on():
    found = settings("{}", "engine.offload=optimizer")
    assert found["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert found["zero_optimization"]["offload_param"]["device"] == "none"


@pytest.mark.parametrize(
    ("shape", "start", "stop"),
    [((), 0, 1), ((7,), 2, 5), ((4, 5), 3, 17), ((4, 5), 6, 9), ((3, 2, 5), 7, 24)],
)
def test_a_run_of_elements_is_a_few_boxes(shape, start, stop):
    """An element that is in none would be missing from a checkpoint."""
    elements = torch.arange(math.prod(shape)).view(shape)
    found = list(boxes(shape, start, stop))
    cut = [elements[tuple(slice(o, o + n) for o, n in zip(*box, strict=True))] for box in found]
    assert torch.cat([piece.flatten() for piece in cut]).tolist() == list(range(start, stop))
    assert len(found) <= max(1, 2 * len(shape) - 1)
