"""What a run's records say, for tables and for comparisons."""

from pathlib import Path
from typing import Any

from training.checkpoint.layout import list_steps, step_dir
from training.config import items
from training.goodput import save_costs, time_by_cause
from training.metrics import num_restarts, read_events, scores_of, surviving_rows, time_shares
from training.run_directory import RunDirectory, read_json


def summarize_run(path: Path) -> dict[str, Any]:
    """Name, state, progress and last figures of a run."""
    run = RunDirectory.existing(path)
    config, rows, events = run.config(), surviving_rows(path), read_events(path)
    last: dict[str, Any] = next((row for row in reversed(rows) if row.get("kind") == "train"), {})
    validation: dict[str, Any] = next((row for row in reversed(rows) if row.get("kind") == "eval"), {})
    attempts = [event for event in events if event.get("kind") == "attempt_started"]
    return {
        "name": config.run.name or path.resolve().name,
        "state": run.status()["state"],
        "step": last.get("step", 0),
        "steps": config.run.steps,
        "tokens": last.get("tokens", 0),
        "loss": last.get("loss"),
        "val_loss": validation.get("val_loss"),
        "val_bits_per_byte": validation.get("val_bits_per_byte"),
        "scores": scores_of(validation),
        "tokens_per_s": last.get("tokens_per_s"),
        "mfu_full": last.get("mfu_full"),
        "mfu_causal": last.get("mfu_causal"),
        "peak_source": attempts[-1].get("peak_source") if attempts else None,
        "matmul_flops": attempts[-1].get("matmul_flops") if attempts else None,
        "time_shares": time_shares(rows),
        "goodput": last.get("goodput"),
        "time_by_cause": time_by_cause(path),
        "save_costs": save_costs(rows),
        "restarts": num_restarts(events),
        "recipe": read_json(path / "recipe.json").get("recipe"),
        "config_hash": read_json(path / "recipe.json").get("config_hash"),
        "started": events[0]["time"] if events else None,
        "path": str(path),
    }


def describe_run(path: Path) -> dict[str, Any]:
    """`summarize_run`, with configuration differences, checkpoints, events and plan."""
    run = RunDirectory.existing(path)
    return {
        "summary": summarize_run(path),
        "difference": read_json(path / "recipe.json").get("difference", {}),
        "checkpoints": [{"step": step, "path": str(step_dir(path, step))} for step in list_steps(path)],
        "events": read_events(path)[-12:],
        "plan": read_json(run.plan_path),
        "config": run.config().model_dump(mode="json"),
    }


def compare_runs(paths: list[Path]) -> dict[str, Any]:
    """Summaries of several runs, and every setting that is not the same in all of them."""
    summaries = [summarize_run(path) for path in paths]
    names = [summary["name"] for summary in summaries]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
        for summary, name in zip(summaries, names, strict=True):
            summary["name"] = name
    settings = [dict(items(RunDirectory.existing(path).config())) for path in paths]
    differences = {
        key: {name: values[key] for name, values in zip(names, settings, strict=True)}
        for key in settings[0]
        if len({repr(values[key]) for values in settings}) > 1
    }
    return {"runs": summaries, "differences": differences}
