"""What `seedbed train --verify-exact` does: the user's own recipe, a few steps, on several layouts.

The weights and the optimizer's state must have one hash on all of them; the same layout without exact mode
says what that costs.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cluster.output import note
from cluster.trial import run_trial, trial_assignments, trial_folder
from seedbed.errors import TrainingError, UsageError
from training.checkpoint.layout import resolve
from training.checkpoint.reader import Checkpoint
from training.devices import threads_per_rank
from training.recipes import load_config

STEPS = 6


class Layout(NamedTuple):
    """Where the recipe is run."""

    engine: str
    num_ranks: int
    exact: bool = True


def verify_exact(recipe: str, assignments: Sequence[str]) -> dict[str, Any]:
    """The hash and the speed of every layout, and what exact mode costs on the recipe's own.

    Raises TrainingError when two hashes differ, UsageError when the recipe's engine has no exact mode.
    """
    engine = load_config(recipe, assignments).engine
    if engine.name.startswith("zero"):
        raise UsageError(
            f'exact mode goes without engine.name = "{engine.name}": the sums over ranks are DeepSpeed\'s',
            "--set engine.name=fsdp, or ddp",
        )
    if engine.replicas > 1:
        raise UsageError("exact mode goes without engine.replicas", "leave it out")
    ranks = max(2, engine.num_ranks)
    threads = threads_per_rank(engine.model_copy(update={"exact": True}))
    plain = Layout(engine.name, ranks, exact=False)
    layouts = [Layout("fsdp", 1), Layout("ddp", ranks), Layout("fsdp", ranks), plain]
    rows = []
    with trial_folder(Path("runs")) as folder:
        for number, layout in enumerate(layouts):
            note(f"== {layout.engine} on {layout.num_ranks} rank(s), {'exact' if layout.exact else 'plain'}")
            values = layout_assignments([*assignments, f"engine.threads_per_rank={threads}"], layout)
            rows.append({**layout._asdict(), **_run(recipe, values, folder / str(number))})
    hashes = {row["hash"] for row in rows if row["exact"]}
    if len(hashes) > 1:
        shown = ", ".join(
            f"{row['engine']} on {row['num_ranks']}: {row['hash'][:12]}" for row in rows if row["exact"]
        )
        raise TrainingError(
            f"exact mode is not exact here: {shown}",
            "set engine.threads_per_rank, and report this with the output of: seedbed doctor",
        )
    times = {Layout(row["engine"], row["num_ranks"], row["exact"]): row["step_s"] for row in rows}
    cost = times[plain._replace(exact=True)] / times[plain] - 1
    return {"recipe": recipe, "steps": STEPS, "hash": hashes.pop(), "layouts": rows, "cost": cost}


def layout_assignments(assignments: Sequence[str], layout: Layout) -> list[str]:
    """`assignments` of a recipe for a few steps on a layout."""
    settings = {
        "engine.name": layout.engine,
        "engine.num_ranks": layout.num_ranks,
        "engine.exact": str(layout.exact).lower(),
        # Not every engine can, and where tensors lie is no part of the arithmetic's order.
        "engine.offload": "none",
        **({} if layout.exact else {"engine.exact_lanes": 0}),
    }
    return trial_assignments(assignments, STEPS, settings)


def _run(recipe: str, assignments: Sequence[str], path: Path) -> dict[str, Any]:
    """One run in an empty folder: its hash, and the median time of its steps but the first."""
    steps = [row["step_s"] for row in run_trial(recipe, assignments, path)]
    checkpoint = Checkpoint.open(resolve(path))
    return {"hash": checkpoint.hash(optimizer=True), "step_s": statistics.median(steps[1:])}


def verification_text(result: dict[str, Any]) -> str:
    """The result for a terminal."""
    from cluster.render import table

    rows = [{**row, "hash": row["hash"][:16], "step_s": f"{row['step_s']:.3f}"} for row in result["layouts"]]
    return "\n".join(
        [
            str(table(rows, ("engine", "num_ranks", "exact", "hash", "step_s"))),
            f"one hash after {result['steps']} steps, optimizer state included; cost of exact mode "
            f"{result['cost']:+.1%} (few steps: a first impression)",
        ]
    )
