"""Axes of charts: where they begin and end, and which round values are written beside them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from seedbed.progress import human_count


@dataclass(frozen=True)
class Axis:
    """A range of values, linear or logarithmic, with its ticks as (value, label)."""

    low: float
    high: float
    ticks: list[tuple[float, str]]
    is_log: bool = False

    def fraction(self, value: float) -> float:
        """Where `value` lies between the ends: 0 at `low`, 1 at `high`."""
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_axis(low: float, high: float, *, tight: bool = False, num_ticks: int = 5) -> Axis:
    """An axis over low..high; `tight` keeps these ends, otherwise they move out to ticks."""
    if not high > low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
        tight = False
    step = nice_step((high - low) / num_ticks)
    first = math.ceil(low / step - 1e-9) if tight else math.floor(low / step + 1e-9)
    last = math.floor(high / step + 1e-9) if tight else math.ceil(high / step - 1e-9)
    # Rounding takes 7 * 0.2 = 1.4000000000000001 back to the 1.4 that is written beside it.
    values = [float(f"{index * step:.12g}") for index in range(first, last + 1)]
    ticks = list(zip(values, tick_labels(values), strict=True))
    return Axis(low, high, ticks) if tight else Axis(values[0], values[-1], ticks)


def log_axis(low: float, high: float, *, tight: bool = False, num_ticks: int = 6) -> Axis:
    """A logarithmic axis over low..high (both > 0), with as many ticks per decade as leave it readable.

    `tight` goes but a little beyond these ends; otherwise they move out to ticks.
    """
    if tight and high > low:
        pad = (high / low) ** 0.03
        low, high = low / pad, high * pad
        for mantissas in ((1, 2, 5), (1, 3), (1,)):
            values = [value for value in _log_ticks(low, high, mantissas) if low <= value <= high]
            if len(values) <= num_ticks:
                break
        if len(values) < 3:
            # Within a decade, even steps say more.
            return Axis(low, high, linear_axis(low, high, tight=True, num_ticks=8).ticks, is_log=True)
        shown = values[:: math.ceil(len(values) / num_ticks)]
        return Axis(low, high, [(value, value_label(value)) for value in shown], is_log=True)
    for mantissas in ((1, 2, 5), (1, 3), (1,)):
        inside = _log_ticks(low, high, mantissas)
        if len(inside) <= num_ticks:
            break
    shown = inside[:: math.ceil(len(inside) / num_ticks)]
    return Axis(inside[0], inside[-1], [(value, value_label(value)) for value in shown], is_log=True)


def _log_ticks(low: float, high: float, mantissas: Sequence[int]) -> list[float]:
    """The multiples of powers of ten from the last one at or below `low` to the first at or above `high`."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    grid = [float(f"{m}e{power}") for power in powers for m in mantissas]
    first = max(i for i, value in enumerate(grid) if value <= low)
    last = min(i for i, value in enumerate(grid) if value >= high)
    return grid[first : max(last, first + 1) + 1]


def nice_step(raw: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that is not below `raw`."""
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))


def tick_labels(values: Sequence[float]) -> list[str]:
    """Labels of evenly spaced ticks, as short as they can be while they all differ."""
    largest = max(abs(value) for value in values)
    if largest >= 10_000:
        short = [human_count(value) for value in values]
        return short if len(set(short)) == len(short) else [f"{value:,.0f}" for value in values]
    if 0 < largest < 0.01:
        return [value_label(value) for value in values]
    step = abs(values[1] - values[0]) if len(values) > 1 else largest
    decimals = next((d for d in range(7) if abs(round(step, d) - step) <= step * 1e-6), 6)
    return [f"{value:,.{decimals}f}" for value in (v + 0.0 for v in values)]


def value_label(value: float) -> str:
    """One number in at most four digits: 2.345, 12.3k, 3e-4."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    if abs(value) < 0.01:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    if abs(value) >= 1e15:
        return f"{value:.4g}".replace("e+", "e")
    return human_count(value) if abs(value) >= 10_000 else f"{value:.4g}"
