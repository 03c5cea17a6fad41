"""A sweep as a file says it, and the points that it consists of.

    recipe = "gpt-demo"

    [set]                                    # of all points
    run.steps = 200

    [grid]                                   # all combinations; or [[point]] tables; or [random]
    optimizer.lr = [1e-3, 2e-3, 4e-3]
    model.width = [64, 128]

    [random]                                 # the first ones stay the same when there are to be more
    count = 16
    seed = 0
    optimizer.lr = { low = 1e-4, high = 1e-2, log = true }
    model.num_layers = { choices = [2, 4] }

    [halving]                                # with any of them: go on with the best of each rung
    first = 50
    factor = 3

Halving is that of Jamieson and Talwalkar 2016, in steps; a run stops in the middle of its own schedule, and
goes on from there, so that the last rung's runs are those that a sweep without halving would have made.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.pipelines.graph import check_names
from cluster.pipelines.stage import Stage
from seedbed.errors import ConfigError, did_you_mean
from seedbed.randomness import uniform_of
from training.recipes import parse_overrides

TABLES = ("description", "recipe", "inputs", "set", "grid", "point", "random", "halving")
KINDS = ("grid", "point", "random")
MOST_POINTS = 100_000


@dataclass(frozen=True)
class Halving:
    """Rungs in steps."""

    first: int
    factor: int

    def rungs(self, steps: int) -> list[int]:
        """Steps at which the best of what is left go on; the last is the run's end."""
        found = [self.first * self.factor**n for n in range(64) if self.first * self.factor**n < steps]
        return [*found, steps]

    def kept(self, count: int) -> int:
        """How many of `count` go on."""
        return max(1, math.ceil(count / self.factor))


@dataclass(frozen=True)
class Sweep:
    """A recipe at many points."""

    name: str
    description: str
    recipe: str
    common: dict[str, Any]
    """Settings of all points, dotted."""
    points: dict[str, dict[str, Any]]
    """Name -> its own settings, dotted."""
    inputs: dict[str, Path]
    halving: Halving | None

    def stages(self) -> dict[str, Stage]:
        """Each point as a stage that depends on no other."""
        words = ("train", self.recipe, "--run-dir", "{out}")
        return {
            name: Stage(name, words, {**self.common, **settings}) for name, settings in self.points.items()
        }


def parse_sweep(tables: Mapping[str, Any], name: str, assignments: Sequence[str] = ()) -> Sweep:
    """The sweep of a file's content, `--set` assignments over the settings of all points.

    Raises ConfigError for what cannot be one.
    """
    for key in tables:
        if key not in TABLES:
            raise ConfigError(
                f"{name}: unknown table or key '{key}'",
                did_you_mean(key, TABLES, f"a sweep has {', '.join(TABLES)}", "'{}'"),
            )
    recipe = tables.get("recipe")
    if not isinstance(recipe, str):
        raise ConfigError(f"{name} names no recipe", 'recipe = "gpt-demo", above all tables')
    kinds = [kind for kind in KINDS if kind in tables]
    if len(kinds) != 1:
        raise ConfigError(
            f"{name} has {' and '.join(kinds) or 'no points'}", "give one of [grid], [[point]] and [random]"
        )
    own = {"grid": _grid, "point": _listed, "random": _random}[kinds[0]](tables[kinds[0]], name)
    if not 1 <= len(own) <= MOST_POINTS:
        raise ConfigError(f"{name} has {len(own):,} points", f"give 1 to {MOST_POINTS:,}")
    seen: dict[str, int] = {}
    for number, settings in enumerate(own, start=1):
        if (first := seen.setdefault(repr(sorted(settings.items())), number)) != number:
            raise ConfigError(f"{name}: points {first} and {number} are the same", "leave one of them out")
    common = {**dotted(tables.get("set", {}), name)}
    for section, fields in parse_overrides(assignments).items():
        common |= {f"{section}.{field}": value for field, value in fields.items()}
    digits = len(str(len(own)))
    points = {f"p{number:0{digits}}": settings for number, settings in enumerate(own, start=1)}
    if both := sorted(common.keys() & {key for settings in own for key in settings}):
        raise ConfigError(f"{name}: {both[0]} is set for all points, and by each", "leave one of them out")
    paths = {key: Path(str(path)).expanduser() for key, path in tables.get("inputs", {}).items()}
    description = str(tables.get("description", ""))
    sweep = Sweep(name, description, recipe, common, points, paths, _halving(tables.get("halving"), name))
    for stage in sweep.stages().values():
        check_names(stage, [*paths], name)
    return sweep


def dotted(table: Any, origin: str) -> dict[str, Any]:
    """{"run.steps": 3} of {"run": {"steps": 3}}; ConfigError for a table that is not of settings."""
    if not isinstance(table, dict) or not all(isinstance(fields, dict) for fields in table.values()):
        raise ConfigError(f"{origin}: settings stand as section.field = value", "such as run.steps = 200")
    return {
        f"{section}.{field}": value for section, fields in table.items() for field, value in fields.items()
    }


def _grid(table: Any, origin: str) -> list[dict[str, Any]]:
    axes = dotted(table, origin)
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{origin}: grid.{key} = {values!r} is no list of values", "[1e-3, 2e-3]")
    if math.prod(map(len, axes.values())) > MOST_POINTS:
        raise ConfigError(f"{origin}: the grid has more than {MOST_POINTS:,} points", "take [random]")
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _listed(tables: Any, origin: str) -> list[dict[str, Any]]:
    if not isinstance(tables, list):
        raise ConfigError(f"{origin}: [point] is one table", "write [[point]] for each")
    return [dotted(table, origin) for table in tables]


def _random(table: Any, origin: str) -> list[dict[str, Any]]:
    count, seed = table.get("count"), table.get("seed", 0)
    if type(count) is not int or type(seed) is not int or not 1 <= count <= MOST_POINTS:
        raise ConfigError(f"{origin}: random.count = {count!r}, random.seed = {seed!r}", "give whole numbers")
    axes = dotted({key: value for key, value in table.items() if key not in ("count", "seed")}, origin)
    return [
        {key: _drawn(axis, f"{origin}: random.{key}", seed, number, key) for key, axis in axes.items()}
        for number in range(count)
    ]


def _drawn(axis: Any, what: str, seed: int, number: int, key: str) -> Any:
    """A function of (seed, number, key): more points, or another axis, change no other draw."""
    draw = uniform_of(seed, "sweep", number, key)
    axis = axis if isinstance(axis, dict) else {}
    if isinstance(choices := axis.get("choices"), list) and choices:
        return choices[int(draw * len(choices))]
    low, high, is_log = axis.get("low"), axis.get("high"), axis.get("log", False)
    is_range = isinstance(low, int | float) and isinstance(high, int | float) and low < high
    if is_range and (low > 0 or not is_log):
        value = low * (high / low) ** draw if is_log else low + (high - low) * draw
        return round(value) if isinstance(low, int) and isinstance(high, int) else float(f"{value:.6g}")
    raise ConfigError(
        f"{what} = {axis!r} is no range", "{ low = 1e-4, high = 1e-2, log = true }, or { choices = [...] }"
    )


def _halving(table: Any, origin: str) -> Halving | None:
    if table is None:
        return None
    first, factor = table.get("first"), table.get("factor", 3)
    if table.keys() - {"first", "factor"} or type(first) is not int or type(factor) is not int:
        raise ConfigError(f"{origin}: [halving] has first and factor, whole numbers", "first = 50")
    if first < 1 or factor < 2:
        raise ConfigError(f"{origin}: halving.first = {first}, factor = {factor}", "at least 1 and 2")
    return Halving(first, factor)
