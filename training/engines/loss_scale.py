"""Mixed precision in float16: the loss is multiplied, so that small gradients do not vanish.

The factor is found while training (Micikevicius et al. 2018, section 3.2): halved when a gradient overflows,
and that step is skipped; doubled after many steps without. It is a power of two, so it changes no rounding
but float16's own, and it is state like any other.
"""

from collections.abc import Iterator

import torch

from seedbed.errors import TrainingError
from training.engines.base import Shard

FIRST, LEAST = 2.0**16, 2.0**-8
GROWTH_STEPS = 2000


class LossScale:
    """Of the mean loss; sums over a step whose weight is about `unit` are multiplied by `factor`."""

    def __init__(self, unit: int) -> None:
        self._unit = 2.0 ** (unit - 1).bit_length()
        self._scale = torch.tensor(FIRST, dtype=torch.float64)
        self._num_good = torch.tensor(0)

    @property
    def scale(self) -> float:
        """What the mean loss is multiplied by."""
        return self._scale.item()

    @property
    def factor(self) -> float:
        """What summed losses are multiplied by, and their gradients have to be divided by."""
        return self.scale / self._unit

    def update(self, finite: bool) -> None:
        """After a step, by whether all of its gradients are finite.

        Raises TrainingError when they overflow even though hardly anything is multiplied.
        """
        if finite:
            self._num_good += 1
            if self._num_good == GROWTH_STEPS:
                self._num_good.zero_()
                self._scale *= 2
            return
        self._num_good.zero_()
        self._scale /= 2
        if self.scale < LEAST:
            raise TrainingError(
                f"gradients overflow float16 even at a loss scale of {2 * self.scale:g}",
                'lower optimizer.lr, or set engine.precision to "bf16" or "fp32"',
            )

    def state(self) -> Iterator[Shard]:
        """The scale, and how many steps went well with it."""
        yield Shard("optimizer/loss_scale", self._scale, (), ())
        yield Shard("optimizer/loss_scale_steps", self._num_good, (), ())
