"""The design of a ladder: from options of `seedbed scale plan`, or from a file that says them.

    description = "..."
    recipe = "gpt-demo"                       # the ladder's base, as everywhere
    tokens = [4.5e5, 9e5, 1.8e6]              # every size at each; or
    parameters = [8e4, 1.6e5, 3.2e5]          # (the rungs next to these)
    # budgets = [1e13, 1e14]                  # FLOP: `sizes` of them about the best, within a factor `span`
    hold_out = 6e12                           # FLOP above which cells are forecast before they are run

    [set]                                     # of all runs
    engine.num_ranks = 1

sizes, span, warmup, decay, count and mup are the options of `seedbed scale plan`, with the same defaults.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.pipelines import read_tables
from cluster.sweeps.points import dotted
from evals.scaling.design import BESIROGLU, Grid, Pricing, cells_of, check, design, neighbours, widest
from evals.scaling.ladder import Dial
from evals.scaling.study import study
from seedbed.errors import ConfigError, UsageError, did_you_mean
from seedbed.files import digest_of
from training.recipes import parse_overrides, toml_value

if TYPE_CHECKING:
    from training.config import Config
    from training.layout_search import Machines

COUNTS = ("total", "active", "non_embedding")
"""What N may be."""
GRID = {
    "budgets": "budgets", "tokens": "tokens", "parameters": "parameters", "sizes": "num_sizes",
    "span": "span", "warmup": "warmup_share", "decay": "decay_share",
}  # fmt: skip
"""Key of a ladder's file -> field of `Grid`."""
TEXT, NUMBER = ((str,), "a text"), ((int, float), "a number")
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "description": TEXT,
    "recipe": TEXT,
    "count": TEXT,
    "mup": ((bool,), "true or false"),
    "hold_out": NUMBER,
    "sizes": ((int,), "a whole number"),
}
VERSION = 1
"""Of a design as JSON."""
KEYS = ("description", "recipe", *GRID, "count", "mup", "hold_out", "set")


@dataclass(frozen=True)
class Asked:
    """What a design is made from."""

    recipe: str
    sets: Sequence[str]
    grid: Grid
    count: str = "total"
    is_mup: bool = False
    runs: Path | None = None
    """A table of runs made so far, on whose law the design is centred."""
    extra: int = 0
    """Cells where that law's loss is known the least."""
    on: str | None = None
    nodes: int | None = None
    price: float | None = None


@dataclass(frozen=True)
class Ladder:
    """A design with its name, and what of it is to be forecast."""

    name: str
    description: str
    design: dict[str, Any]
    hold_out: float | None = None
    """FLOP above which a cell is held out of the fit, and forecast."""

    @property
    def digest(self) -> str:
        """Of all that is trained: what its forecasts are of."""
        trained = [
            [trunk["settings"], trunk["legs"], [[cell["steps"], cell["settings"]] for cell in trunk["cells"]]]
            for trunk in self.design["trunks"]
        ]
        return digest_of([self.design["recipe"], self.design["sets"], trained])

    @property
    def cells(self) -> list[dict[str, Any]]:
        """All, trunk by trunk."""
        return [cell for trunk in self.design["trunks"] for cell in trunk["cells"]]

    def is_held_out(self, cell: Mapping[str, Any]) -> bool:
        """Whether a cell is forecast from the others before it is run."""
        return self.hold_out is not None and cell["flops"] > self.hold_out


def designed(asked: Asked) -> dict[str, Any]:
    """Trunks and cells with the cost of all, as JSON values. Raises UsageError or ConfigError."""
    if asked.count not in COUNTS:
        raise UsageError(f"--count {asked.count} is unknown", f"one of {', '.join(COUNTS)}")
    check(asked.grid)
    given = parse_overrides(asked.sets)
    if decided := sorted(given.get("schedule", {}).keys() & {"name", "warmup_share", "decay_share"}):
        raise ConfigError(
            f"a ladder decides schedule.{decided[0]} by itself", "see --warmup and --decay, and leave it out"
        )

    def make(more: Sequence[str]) -> "Config":
        return _config(asked.recipe, [*asked.sets, *more], asked.on, asked.nodes)[0]

    machines = _config(asked.recipe, asked.sets, asked.on, asked.nodes)[1]
    dial = Dial(_config(asked.recipe, asked.sets, None, None)[0], asked.count, asked.is_mup)
    done = study(asked.runs) if asked.runs else None
    law = done.found.law if done else BESIROGLU
    cells = cells_of(dial, law, asked.grid)
    added: list[dict[str, Any]] = []
    if done and asked.extra:
        noise = float(done.residuals().std())
        candidates = neighbours(dial, law, asked.grid, cells)
        more = widest(done.drawn.thetas, noise, cells, candidates, asked.extra)
        cells = [*cells, *(cell for cell, _ in more)]
        added = [
            {"budget": cell.budget, "parameters": cell.rung.parameters, "deviation_of_log_loss": deviation}
            for cell, deviation in more
        ]
    value = design(dial, make, cells, asked.grid, law, Pricing(machines, asked.price))
    source = str(asked.runs) if asked.runs else "Besiroglu et al. 2024, arXiv:2404.10102"
    # A file is meant wherever the design is run.
    recipe = str(Path(asked.recipe).resolve()) if Path(asked.recipe).is_file() else asked.recipe
    of = {"version": VERSION, "recipe": recipe, "sets": list(asked.sets), "centred_on": source}
    whole = {**of, **value, "added": added}
    return {**whole, "digest": digest_of(whole)}


def read_ladder(name: str, sets: Sequence[str] = (), hold_out: float | None = None) -> Ladder:
    """The ladder of that name, of a TOML file, or the design that `scale plan --out` wrote.

    `sets` are settings over those of all runs. Raises ConfigError for what is none.
    """
    if name.endswith(".json"):
        if sets:
            raise UsageError(
                "a design that was written has its settings", "give --set to `seedbed scale plan`"
            )
        return _checked(Ladder(Path(name).stem, "", _read_design(Path(name)), hold_out))
    tables = read_tables(name, "cluster.ladders", "ladder")
    for key in tables:
        if key not in KEYS:
            raise ConfigError(
                f"{name}: unknown table or key '{key}'",
                did_you_mean(key, KEYS, f"a ladder has {', '.join(KEYS)}", "'{}'"),
            )
    for key, (kinds, words) in KINDS.items():
        if key in tables and type(tables[key]) not in kinds:
            raise ConfigError(f"{name}: {key} = {tables[key]!r}", f"give {words}")
    if "recipe" not in tables:
        raise ConfigError(f"{name} names no recipe", 'recipe = "gpt-demo", above all tables')
    common = [f"{key}={toml_value(value)}" for key, value in dotted(tables.get("set", {}), name).items()]
    grid = _grid(name, {key: value for key, value in tables.items() if key in GRID})
    asked = Asked(
        tables["recipe"], [*common, *sets], grid, tables.get("count", "total"), tables.get("mup", False)
    )
    hold_out = hold_out if hold_out is not None else tables.get("hold_out")
    return _checked(Ladder(Path(name).stem, tables.get("description", ""), designed(asked), hold_out))


def _grid(name: str, given: dict[str, Any]) -> Grid:
    fields: dict[str, Any] = {}
    for key, value in given.items():
        is_list = key in ("budgets", "tokens", "parameters")
        numbers = value if is_list and isinstance(value, list) else [value]
        if is_list != isinstance(value, list) or not all(type(one) in (int, float) for one in numbers):
            raise ConfigError(
                f"{name}: {key} = {value!r}", "give a list of numbers" if is_list else "give a number"
            )
        if "tokens" in given and key in ("budgets", "sizes", "span"):
            raise ConfigError(f"{name}: {key} is of budgets, and tokens are given", "leave one of them out")
        fields[GRID[key]] = tuple(numbers) if is_list else value
    return Grid(**fields)


LEAST_FITTED = 6
"""Cells: a law has five parameters."""


def _checked(ladder: Ladder) -> Ladder:
    if ladder.hold_out is None:
        return ladder
    held = [cell for cell in ladder.cells if ladder.is_held_out(cell)]
    if not held or len(ladder.cells) - len(held) < LEAST_FITTED:
        raise UsageError(
            f"{len(held)} of {len(ladder.cells)} cells take more than {ladder.hold_out:g} FLOP",
            f"hold out some (--hold-out), and leave {LEAST_FITTED} or more to fit a law to",
        )
    return ladder


def _read_design(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", _FIX) from None
    if not isinstance(value, dict) or not value.get("trunks"):
        raise ConfigError(f"{path} is no design of a ladder", _FIX)
    if value.get("version") != VERSION:
        raise ConfigError(f"{path} is of another version of Seedbed", _FIX)
    if value.get("digest") != digest_of({name: item for name, item in value.items() if name != "digest"}):
        raise ConfigError(f"{path} was changed after it was planned", f"plan what you want: {_FIX}")
    return value


_FIX = "write one with `seedbed scale plan RECIPE --budget ... --out design.json`"


def _config(
    recipe: str, sets: Sequence[str], on: str | None, nodes: int | None
) -> "tuple[Config, Machines | None]":
    """With its devices, where `on` names some."""
    from cluster.planned_devices import placed
    from training.devices import resolve_hardware
    from training.prepare import machines_at_hand, sized
    from training.recipes import load_config

    if on is None:
        return sized(load_config(recipe, sets)), None
    if on == "mine":
        config = sized(resolve_hardware(load_config(recipe, sets)))
        return config, machines_at_hand(config)
    return placed(recipe, list(sets), on, nodes)
