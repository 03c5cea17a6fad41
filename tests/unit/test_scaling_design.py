"""Designs of sweeps: what each cell is, costs and shares, by the arithmetic of models and plans."""

from pathlib import Path

import numpy as np
import pytest

from evals.scaling.design import BESIROGLU, Grid, Pricing, check, design, isoflops, neighbours, widest
from evals.scaling.fit import fit
from evals.scaling.intervals import bootstrap
from evals.scaling.ladder import Dial
from evals.scaling.laws import Points
from evals.scaling.optimum import compute_optimal
from models.config import ModelConfig
from models.families import count_parameters, flops_per_token
from seedbed.errors import UsageError
from training.plan import make_plan
from training.recipes import load_config
from training.schedules import learning_rate

GRID = Grid((1e13, 1e14, 1e15))
BASE = ["model.vocab_size=2048", "engine.num_ranks=1"]


def make(more):
    return load_config("gpt-demo", [*BASE, *more])


def strings(settings):
    return [
        f'{name}="{value}"' if isinstance(value, str) else f"{name}={value}"
        for name, value in settings.items()
    ]


@pytest.fixture(scope="module")
def made():
    dial = Dial(make([]))
    return design(dial, make, isoflops(dial, BESIROGLU, GRID), GRID, BESIROGLU, Pricing())


def test_flops_of_every_cell_are_those_of_models_and_plans(made):
    """A budget would be another one than `seedbed plan` prints, and than the run is measured by."""
    seen = 0
    for trunk in made["trunks"]:
        for cell in trunk["cells"]:
            config = make(strings(trunk["settings"] | cell["settings"]))
            assert cell["flops"] == flops_per_token(config.model).causal * cell["tokens"]
            plan = make_plan(config, Path("runs"))
            assert cell["flops"] == pytest.approx(plan["total_flops"], rel=1e-12)
            assert cell["tokens"] == plan["tokens"]
            assert cell["parameters"] == count_parameters(config.model).total
            # Whole steps are all that keeps it from the budget.
            assert abs(cell["flops"] / cell["budget"] - 1) <= 0.5 / cell["steps"] + 1e-12
            seen += 1
    assert seen >= 12


def test_rows_lie_about_the_best_size(made):
    """Parabolas whose lowest point is outside of their sizes are extrapolations."""
    for budget in GRID.budgets:
        sizes = [
            trunk["parameters"] for trunk in made["trunks"] if budget in {c["budget"] for c in trunk["cells"]}
        ]
        best = compute_optimal(BESIROGLU, budget).parameters
        assert min(sizes) < best / 1.5
        assert max(sizes) > best * 1.5
        assert len(sizes) >= 4


def test_a_branch_goes_on_from_where_its_trunk_is(made):
    """A cell would not be the run that it stands for: rates must agree at every step that is shared."""
    trunk = max(made["trunks"], key=lambda one: len(one["cells"]))
    assert len(trunk["cells"]) == len(trunk["legs"]) == 3
    legs = [make(strings(trunk["settings"] | leg["settings"])) for leg in trunk["legs"]]
    for cell in trunk["cells"]:
        config = make(strings(trunk["settings"] | cell["settings"]))
        leave = cell["branch_at"]
        for step in {1, 2, trunk["warmup_steps"], trunk["warmup_steps"] + 1, leave - 1, leave}:
            leg = next(one for one in legs if one.run.steps >= step)
            assert learning_rate(step, leg) == pytest.approx(learning_rate(step, config), rel=1e-9), step
        assert learning_rate(leave, config) == pytest.approx(config.optimizer.lr)
        assert learning_rate(leave + 1, config) < config.optimizer.lr
        end = config.optimizer.lr * config.schedule.min_ratio
        assert learning_rate(cell["steps"], config) == pytest.approx(end)


def test_a_trunk_costs_its_longest_way_and_its_branches(made):
    """A price that nobody would pay, or one that nobody could keep to."""
    for trunk in made["trunks"]:
        per_step = trunk["flops_per_token"] * trunk["tokens_per_step"]
        steps = max(cell["branch_at"] for cell in trunk["cells"])
        steps += sum(cell["steps"] - cell["branch_at"] for cell in trunk["cells"])
        assert trunk["cost"]["flops"] == pytest.approx(steps * per_step)
        assert trunk["cost"]["flops"] <= trunk["cost"]["flops_one_by_one"] * (1 + 1e-12)
    assert made["cost"]["flops"] < made["cost"]["flops_one_by_one"]
    assert made["cost"]["hours"] is None


def test_one_dial_derives_the_shape_and_the_rate():
    """Every further dial would be another thing that differs between the points of a law."""
    dial = Dial(make([]))
    half, base, double = (dial.rung(width) for width in (64, 128, 256))
    assert base.model == make([]).model
    assert base.settings["optimizer.lr"] == 2.5e-3
    assert (double.model.num_layers, double.model.num_heads, double.model.head_size) == (8, 8, 32)
    assert (half.model.num_layers, half.model.num_heads) == (2, 2)
    assert half.settings["optimizer.lr"] > base.settings["optimizer.lr"] > double.settings["optimizer.lr"]
    assert dial.batch_tokens(1e9) > dial.batch_tokens(1e6)
    assert dial.batch_tokens(1e6) % (4 * 256) == 0
    assert Dial(make([]), count="non_embedding").rung(128).parameters < base.parameters
    grouped = Dial(make(["model.num_kv_heads=2"]))
    assert grouped.step == 64
    assert grouped.rung(192).model.kv_heads == 3


def test_with_mup_every_width_has_the_recipes_rate():
    """A rate that was found at the smallest width would be changed once by muP, and once more here."""
    dial = Dial(make([]), is_mup=True)
    small, large = dial.rung(64), dial.rung(512)
    assert small.settings["optimizer.lr"] == large.settings["optimizer.lr"] == 2.5e-3
    assert isinstance(large.model, ModelConfig)
    assert (large.model.mup_base_width, large.model.mup_base_head_width) == (128, 32)


def test_cells_are_added_where_the_law_is_known_the_least():
    """Compute would go where the answer is known: here nothing large was ever run."""
    draw = np.random.default_rng(0)
    quantities = np.array([(n, d) for n in (1e5, 3e5, 1e6) for d in (1e6, 4e6, 1.6e7, 6.4e7)])
    losses = BESIROGLU.loss(quantities) * np.exp(0.01 * draw.standard_normal(12))
    points = Points(quantities, losses)
    found = fit(points)
    thetas = bootstrap(points, found, 200).thetas
    dial = Dial(make([]))
    cells = isoflops(dial, BESIROGLU, GRID)
    candidates = neighbours(dial, BESIROGLU, GRID, cells)
    known = {(cell.budget, cell.rung.parameters) for cell in cells}
    assert not known & {(cell.budget, cell.rung.parameters) for cell in candidates}
    added = widest(thetas, 0.01, cells, candidates, 3)
    assert len(added) == 3
    assert added[0][1] >= added[1][1] >= added[2][1] > 0
    # What is chosen is no neighbour of what was just chosen: each run narrows those beside it.
    assert len({(cell.budget, cell.rung.parameters) for cell, _ in added}) == 3
    again = widest(thetas, 0.01, [*cells, added[0][0]], candidates, 1)
    assert again[0][1] < added[0][1]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (Grid(()), "a design needs budgets"),
        (Grid((1e14, -1.0)), "-1 is no budget"),
        (Grid((1e14,), tokens=(1e9,)), "a design needs budgets"),
        (Grid(tokens=(1e9,)), "a design needs budgets"),
        (Grid((1e14,), num_sizes=2), "show no lowest point"),
        (Grid((1e14,), span=1.0), "show no lowest point"),
        (Grid((1e14,), decay_share=0.99), "stable stretch"),
    ],
)
def test_grids_that_show_nothing_are_refused(grid, message):
    """Days of compute for a parabola without a vertex."""
    with pytest.raises(UsageError, match=message):
        check(grid)


def test_models_that_do_not_follow_a_width_are_refused():
    """Their cells would differ in more than size."""
    with pytest.raises(UsageError, match="a ladder is of decoders"):
        Dial(load_config("bert-demo", ["model.vocab_size=2048"])).rung(64)
    with pytest.raises(UsageError, match="more than 512 rungs"):
        Dial(make([])).nearest([1e14])
