"""How tensors are named and laid out in another format: a table that is read both ways.

A rule pairs a name (or several) of theirs with a name (or several) of ours and a way to turn one
side into the other. `{layer}` stands for each block, and `{expert}` for each expert in its order.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.config import ModelConfig
from models.sizes import parameter_shapes

Turn = Callable[[list[Tensor], ModelConfig], Sequence[Tensor]]


class Transform(NamedTuple):
    """Tensors of one rule, from their layout to ours and back."""

    to_ours: Turn
    to_theirs: Turn


class Rule(NamedTuple):
    """Names on both sides, and what happens between them."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    transform: Transform


SAME = Transform(lambda theirs, _: theirs, lambda ours, _: ours)
"""Nothing happens."""

TRANSPOSED = Transform(lambda theirs, _: [theirs[0].T], lambda ours, _: [ours[0].T])
"""GPT's linear layers are stored as [in, out]."""

FUSED = Transform(lambda theirs, _: theirs[0].chunk(3), lambda ours, _: [torch.cat(ours)])
"""Three vectors in one."""

FUSED_TRANSPOSED = Transform(lambda theirs, _: theirs[0].T.chunk(3), lambda ours, _: [torch.cat(ours).T])
"""Three matrices in one, stored as [in, out]."""

STACKED = Transform(lambda theirs, _: [torch.stack(theirs)], lambda ours, _: ours[0].unbind())
"""A matrix for each expert, in one tensor of ours."""


def rule(theirs: str | tuple[str, ...], ours: str | tuple[str, ...], transform: Transform = SAME) -> Rule:
    """A line of a table."""
    return Rule(
        (theirs,) if isinstance(theirs, str) else theirs,
        (ours,) if isinstance(ours, str) else ours,
        transform,
    )


def expand(rules: Iterable[Rule], config: ModelConfig) -> list[Rule]:
    """The rules for every block and expert of `config`, less those of parameters that it does not have."""
    shapes = parameter_shapes(config)
    found: list[Rule] = []
    for theirs, ours, transform in rules:
        for layer in range(config.num_layers if "{layer}" in ours[0] else 1):
            here = tuple(name.replace("{layer}", str(layer)) for name in ours)
            if all(name in shapes for name in here):
                there = tuple(
                    name.replace("{layer}", str(layer)).replace("{expert}", str(expert))
                    for name in theirs
                    for expert in range(config.num_experts if "{expert}" in name else 1)
                )
                found.append(Rule(there, here, transform))
    covered = sorted(name for one in found for name in one.ours)
    assert covered == sorted(shapes), "the family's table must name every parameter once"
    return found
