"""The digest of a state is one number however it is cut, and another for any other state."""

import numpy as np
import pytest
import torch

from training.checkpoint.state_digest import digests, shown, together
from training.engines.base import Shard

WHOLE = torch.arange(7 * 6 * 4, dtype=torch.float32).reshape(7, 6, 4).sin()


def box(name, start, stop, values=WHOLE):
    cut = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return Shard(name, values[cut], tuple(values.shape), start)


def whole(values=WHOLE, name="model/w"):
    return digests([Shard(name, values, tuple(values.shape), (0,) * values.ndim)])


@pytest.mark.parametrize(
    "cuts",
    [
        [((0, 0, 0), (3, 6, 4)), ((3, 0, 0), (7, 6, 4))],
        # Runs of elements that begin within a row, as DeepSpeed cuts them.
        [((0, 0, 0), (2, 6, 4)), ((2, 0, 0), (3, 3, 4)), ((2, 3, 0), (3, 6, 4)), ((3, 0, 0), (7, 6, 4))],
        [((0, 0, 0), (7, 6, 2)), ((0, 0, 2), (7, 6, 4))],
    ],
)
def test_it_does_not_depend_on_the_cut(cuts):
    """A resume on other ranks would be reported as another state."""
    parts = [digests([box("model/w", *cut)]) for cut in cuts]
    assert together(parts) == whole()


def test_any_other_state_has_another():
    """A tensor loaded into the wrong place, or a flipped bit, would go unseen."""
    changed = WHOLE.clone()
    changed.view(torch.int32)[3, 2, 1] ^= 1
    swapped = WHOLE.clone()
    swapped[0, 0, 1], swapped[5, 2, 3] = WHOLE[5, 2, 3], WHOLE[0, 0, 1]
    others = [whole(changed), whole(swapped), whole(name="model/v"), whole(WHOLE.flip(0))]
    found = [shown(sums) for sums in [whole(), *others]]
    assert len(set(found)) == len(found)


def test_every_type_that_is_saved_has_one():
    for dtype in (torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool):
        values = torch.arange(20).to(dtype)
        assert whole(values) != whole(values.flip(0))
    assert digests([Shard("optimizer/step", torch.tensor(7.0), (), ())])["optimizer/step"]


def test_large_tensors_are_summed_piece_by_piece():
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((1500, 1000), dtype=np.float32))
    parts = [digests([Shard("model/w", part, (1500, 1000), (start, 0))])
             for start, part in ((0, values[:700]), (700, values[700:]))]  # fmt: skip
    assert together(parts) == digests([Shard("model/w", values, (1500, 1000), (0, 0))])
