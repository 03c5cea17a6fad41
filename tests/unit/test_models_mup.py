"""muP: what a step changes does not depend on the width, so that neither does the best learning rate."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from models import mup
from models.attention import score_scale
from models.config import ModelConfig
from models.heads import RewardModel
from models.initialization import initial_values, initialize
from models.sizes import parameter_shapes
from models.transformer import Transformer
from training.optimizers import make_optimizer
from training.sections import OptimizerConfig

WIDTHS = (64, 128, 256, 512)
TINY = {"num_layers": 2, "context": 16, "vocab_size": 64}
BASE = {"mup_base_width": 64, "mup_base_head_width": 16}
NUM_STEPS = 12


def more_heads(width):
    return {"num_heads": width // 16}


def wider_heads(width):
    return {"num_heads": 4}


def grouped(width):
    return {"family": "llama", "num_heads": width // 16, "num_kv_heads": width // 32}


def experts(width):
    heads = {"num_heads": width // 16}
    return {"family": "mixtral", "num_experts": 4, "mlp_width": width, "expert_width": width // 2, **heads}


@pytest.fixture(autouse=True)
def one_thread():
    """Products this small are slower on many."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def observed(model, tokens):
    """Name -> values of what every part gives in one forward, scores of attention among them."""
    seen = {}
    hooks = [
        module.register_forward_hook(lambda _m, _in, out, name=name: seen.__setitem__(name, out.detach()))
        for name, module in model.named_modules()
        if name.startswith("blocks.") and name.endswith(("attention", "mlp", "query", "key", "router"))
    ]
    seen["logits"] = model(tokens).detach()
    for hook in hooks:
        hook.remove()
    for name in [name for name in seen if name.endswith("query")]:
        queries, keys = seen.pop(name), seen.pop(name.replace("query", "key"))
        K = model.config.head_size
        scale = score_scale(model.config, K) or K**-0.5
        per_group = model.config.num_heads // model.config.kv_heads
        heads = keys.unflatten(-1, (-1, K)).repeat_interleave(per_group, 2)
        scores = torch.einsum("bthk,bshk->bhts", queries.unflatten(-1, (-1, K)), heads) * scale
        seen[name.replace("query", "scores")] = scores
    return seen


def change(config):
    """Name -> mean change of what every part gives, after a few steps on one batch."""
    model = Transformer(config)
    initialize(model, config, seed=0)
    optimizer = make_optimizer(
        model.named_parameters(), OptimizerConfig(lr=2**-9), partial(mup.learning_rate_scale, config=config)
    )
    tokens = torch.randint(0, 64, (4, 17), generator=torch.Generator().manual_seed(1))
    before = observed(model, tokens[:, :-1])
    for _ in range(NUM_STEPS):
        F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = observed(model, tokens[:, :-1])
    return {name: (after[name] - before[name]).abs().mean().item() for name in before}


def slopes(shape, **changes):
    """Name -> slope of log(change) over log(width)."""
    logs = []
    for width in WIDTHS:
        config = ModelConfig(**{"width": width, **TINY, **shape(width), **changes})
        logs.append({name: math.log(moved) for name, moved in change(config).items()})
    x = torch.tensor([math.log(width) for width in WIDTHS])
    x = x - x.mean()
    return {
        name: (x @ torch.tensor([log[name] for log in logs]) / x.square().sum()).item() for name in logs[0]
    }


@pytest.mark.parametrize("shape", [more_heads, wider_heads, grouped, experts])
def test_coordinates_move_alike_at_every_width(shape):
    """A learning rate found on a small model would be too large, or too small, for a wide one."""
    for name, slope in slopes(shape, **BASE).items():
        # Sums over the whole width also hold a part of the first weights, which fades as the width grows.
        fades = name.endswith(("scores", "router", "logits"))
        assert (-0.4 if fades else -0.15) < slope < 0.15, (name, slope)


def test_without_it_they_move_more_the_wider_the_model():
    """The test above could not fail."""
    assert all(slope > 0.5 for slope in slopes(more_heads).values())


@pytest.mark.parametrize("shape", [more_heads, grouped, experts])
def test_at_the_base_width_everything_is_as_without_it(shape):
    """The small model of a search would be another one than that of a plain run."""
    plain, base = (ModelConfig(width=64, **TINY, **shape(64), **changes) for changes in ({}, BASE))
    models = [Transformer(config) for config in (plain, base)]
    for model, config in zip(models, (plain, base), strict=True):
        initialize(model, config, seed=3)
    for name in parameter_shapes(plain):
        assert torch.equal(*(model.get_parameter(name) for model in models)), name
        assert mup.learning_rate_scale(name, base) == 1, name
    tokens = torch.randint(0, 64, (2, 16))
    assert torch.equal(*(model(tokens) for model in models))


def test_initial_deviations_and_rates_are_those_of_the_table():
    """Yang et al. 2022, table 8, for a model four times as wide as its base."""
    config = ModelConfig(width=256, **TINY, **experts(256), **BASE, tie_embeddings=False)

    base = ModelConfig(width=64, **TINY, **experts(64), **BASE, tie_embeddings=False)

    def ratio(name):
        own, first = (initial_values(name, 0, 4096, one, 0).std() for one in (config, base))
        return own / first, mup.learning_rate_scale(name, config)

    assert ratio("embedding.weight") == pytest.approx((1, 1))
    assert ratio("head.weight") == pytest.approx((1, 1))
    assert ratio("blocks.0.attention.query.weight") == pytest.approx((1 / 2, 1 / 4))
    assert ratio("blocks.0.mlp.experts.down") == pytest.approx((1 / 2, 1 / 4))
    assert ratio("blocks.0.mlp.router.weight") == pytest.approx((1 / 4, 1 / 4))
    for name in ("norm.weight", "blocks.1.attention.query.bias"):
        assert mup.learning_rate_scale(name, config) == 1
    tied = ModelConfig(width=256, num_heads=16, **TINY, **BASE)
    reward = RewardModel(tied)
    initialize(reward, tied, seed=0)
    # 1/sqrt(D + 1) of the base model.
    assert reward.reward.weight.std().item() == pytest.approx(65**-0.5, rel=0.15)
    assert reward.multiplier == 1 / 4


def test_groups_carry_their_rate_and_forget_equally_fast():
    config = ModelConfig(width=256, num_heads=16, **TINY, **BASE)
    model = Transformer(config)
    optimizer = make_optimizer(
        model.named_parameters(),
        OptimizerConfig(lr=0.5, weight_decay=0.1),
        partial(mup.learning_rate_scale, config=config),
    )
    found = {(g["lr"], g["lr_scale"], g["weight_decay"]): g["params"] for g in optimizer.param_groups}
    assert found.keys() == {(0.5, 1.0, 0.1), (0.5 / 4, 1 / 4, 0.1 * 4), (0.5, 1.0, 0.0)}
    slow = {id(p) for p in found[0.5 / 4, 1 / 4, 0.1 * 4]}
    assert {name for name, p in model.named_parameters() if id(p) in slow} == {
        f"blocks.{layer}.{name}.weight"
        for layer in range(2)
        for name in (
            "attention.query",
            "attention.key",
            "attention.value",
            "attention.output",
            "mlp.up",
            "mlp.down",
        )
    }


def test_without_it_there_are_the_two_groups_of_before():
    """State of a run under way would be given to other parameters."""
    model = Transformer(ModelConfig(width=64, num_heads=4, **TINY))
    groups = make_optimizer(model.named_parameters(), OptimizerConfig(weight_decay=0.1)).param_groups
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
    assert [g["lr_scale"] for g in groups] == [1.0, 1.0]
    assert [id(p) for p in groups[0]["params"]] == [id(p) for p in model.parameters() if p.ndim > 1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mup_base_head_width": 0}, "go together"),
        ({"mup_base_width": 0}, "go together"),
        ({"initialization": "xavier"}, 'initialization = "gpt2"'),
        ({"positions": "sinusoidal"}, "sinusoidal"),
        ({"num_kv_heads": 1}, "multi-query"),
        (
            {"family": "deepseek_v2", "latent_width": 8, "head_width": 16, "rope_width": 4},
            "latent attention",
        ),
    ],
)
def test_what_is_not_worked_out_is_refused(changes, said):
    """It would look like a scaling and be none."""
    with pytest.raises(ValueError, match=said):
        ModelConfig(**{"width": 128, "num_heads": 8, **TINY, **BASE, **changes})
