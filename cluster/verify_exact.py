"""What `seedbed train --verify-exact` does: the user's own recipe, a few steps, on several layouts.

The weights and the optimizer's state must have one hash on all of them; the same layout without exact mode
says what that costs.
"""

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cluster.output import note
from seedbed.errors import TrainingError, UsageError
from training import prepare
from training.checkpoint.layout import resolve
from training.checkpoint.reader import Checkpoint
from training.devices import threads_per_rank
from training.metrics import surviving_rows
from training.recipes import load_config
from training.supervisor import Supervisor

STEPS = 6


class Layout(NamedTuple):
    """Where the recipe is run."""

    engine: str
    num_ranks: int
    exact: bool = True


def verify_exact(recipe: str, assignments: Sequence[str]) -> dict[str, Any]:
    """The hash and the speed of every layout, and what exact mode costs on the recipe's own.

    Raises TrainingError when two hashes differ.
    """
    engine = load_config(recipe, assignments).engine
    if engine.replicas > 1:
        raise UsageError("exact mode goes without engine.replicas", "leave it out")
    ranks = max(2, engine.num_ranks)
    threads = threads_per_rank(engine.model_copy(update={"exact": True}))
    plain = Layout(engine.name, ranks, exact=False)
    layouts = [Layout("fsdp", 1), Layout("ddp", ranks), Layout("fsdp", ranks), plain]
    rows = []
    with tempfile.TemporaryDirectory(prefix="seedbed-verify-") as folder:
        for number, layout in enumerate(layouts):
            note(f"== {layout.engine} on {layout.num_ranks} rank(s), {'exact' if layout.exact else 'plain'}")
            found = _run(
                recipe,
                [*assignments, f"engine.threads_per_rank={threads}"],
                layout,
                Path(folder, str(number)),
            )
            rows.append({**layout._asdict(), **found})
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


def _run(recipe: str, assignments: list[str], layout: Layout, path: Path) -> dict[str, Any]:
    """One run in an empty folder: its hash, and the median time of its steps but the first."""
    settings = {
        "engine.name": layout.engine,
        "engine.num_ranks": layout.num_ranks,
        "engine.exact": str(layout.exact).lower(),
        "run.steps": STEPS,
        "eval.every_steps": 0,
        "checkpoint.every_steps": STEPS,
        "tracking.mlflow": "false",
        **({} if layout.exact else {"engine.exact_lanes": 0}),
    }
    run, _ = prepare.start(
        recipe, [*assignments, *(f"{name}={value}" for name, value in settings.items())], path
    )
    with run.lock() as lock:
        Supervisor(run, lock).supervise()
    steps = [row["step_s"] for row in surviving_rows(path) if row["kind"] == "train"]
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
