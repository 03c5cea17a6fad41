"""`tracking.layer_norms`: the norms of every layer, whichever rank holds what."""

import math

import pytest
import torch
from torch import nn

from models.families import block_of, initial_values, parameter_shapes
from tests.integration.engine_runs import MODEL, told, train
from training.engines.layer_norms import LayerNorms
from training.recipes import make_config


@pytest.mark.long
def test_norms_are_those_of_the_whole_model_on_any_ranks(tmp_path):
    """A layer that blows up would look smaller the more ranks hold it, or a part of it would be shown."""
    one = train(tmp_path / "one", "fsdp", 1, steps=1, watch=True)
    layers = told(one)["layers"]
    assert list(layers["weights"]) == ["outside blocks", "blocks.0", "blocks.1"]
    assert list(layers["activations"]) == ["blocks.0", "blocks.1"]
    # Before clipping, divided by the step's weight: what the engine calls the gradient's norm.
    total = sum(norm**2 for norm in layers["gradients"].values()) ** 0.5
    assert total == pytest.approx(told(one)["norms"][-1], rel=1e-5)
    for engine, ranks, options in (("fsdp", 3, {}), ("ddp", 1, {"checkpointing": "full"})):
        other = train(tmp_path / engine, engine, ranks, steps=1, watch=True, **options)
        for kind, norms in told(other)["layers"].items():
            assert norms == pytest.approx(layers[kind], rel=1e-4), (engine, kind)
    model = make_config({"model": MODEL}).model
    squares = dict.fromkeys(layers["weights"], 0.0)
    for name, shape in parameter_shapes(model).items():
        values = initial_values(name, 0, math.prod(shape), model, 5)
        squares[block_of(name) or "outside blocks"] += (values.astype(float) ** 2).sum()
    assert layers["weights"] == pytest.approx({layer: value**0.5 for layer, value in squares.items()})


def test_a_norm_that_is_not_finite_is_null():
    """Infinity is no JSON: a step that fp16 skips would leave a row that other programs refuse."""
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(2, 2)])})
    names = [name for name, _ in model.named_parameters()]
    gradients = [torch.full((2, 2), torch.inf), None]
    norms = LayerNorms(model, names).end(
        list(model.parameters()), gradients, 4.0, lambda values: values, lambda values: values
    )
    assert norms["gradients"] == {"blocks.0": None}
    assert norms["weights"]["blocks.0"] > 0
    norms = LayerNorms(model, names).end(
        list(model.parameters()), [torch.ones(2, 2), None], 4.0, lambda values: values, lambda values: values
    )
    assert norms["gradients"] == {"blocks.0": 0.5}
