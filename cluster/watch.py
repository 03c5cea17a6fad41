"""How a run is doing, by what its own trainer and supervisor wrote: never by what a transport made of it."""

import time
from pathlib import Path
from typing import Any

from cluster.queue import RECORD, SUBMISSION
from seedbed.files import digest_of, read_lines
from training.checkpoint.layout import MANIFEST, list_steps, step_dir
from training.metrics import num_restarts, read_events, surviving_rows
from training.run_directory import TERMINAL_STATES, RunDirectory, read_json

SILENT_S = 60.0
NUM_RATE_STEPS = 20
"""Newest steps whose rate tells the time left."""


def run_status(path: Path) -> dict[str, Any]:
    """State and progress of the run at `path`.

    Raises UsageError when there is none. {"state", "message", "silent_s": since its last sign of life,
    "step", "steps", "tokens", "loss", "tokens_per_s", "mfu", "left_s", "checkpoint": {"step", "age_s",
    "verified"} or None, "restarts", "goodput", "ranks", "hosts", "exit_code", ...}.
    """
    run = RunDirectory.existing(path)
    config, status, events = run.config(), run.status(), read_events(path)
    steps = config.run.steps
    # A run that was made shorter and begins again has rows beyond its end, until the new ones come.
    rows = [row for row in surviving_rows(path) if row.get("kind") == "train" and row["step"] <= steps]
    last: dict[str, Any] = rows[-1] if rows else {}
    state = status["state"]
    beats = [read_json(beat) for beat in (path / "heartbeats").glob("rank-*.json")]
    is_over = state in TERMINAL_STATES
    signs = [float(value.get("time", 0.0)) for value in (status, last, *beats)]
    silent_s = time.time() - max(signs)
    submission, record = read_json(path / SUBMISSION), read_json(path / RECORD)
    return {
        "run": str(path),
        "name": config.run.name or path.resolve().name,
        "id": submission.get("id"),
        "state": state,
        "message": status.get("message", ""),
        "silent_s": None if is_over or state == "queued" else silent_s,
        "step": max(int(last.get("step", 0)), int(status.get("step", 0)) if is_over else 0),
        "steps": steps,
        "tokens": last.get("tokens", 0),
        "loss": last.get("loss"),
        "tokens_per_s": last.get("tokens_per_s"),
        "mfu": last.get("mfu_causal"),
        "left_s": None if is_over else _left_s(rows, steps),
        "checkpoint": _checkpoint(path),
        "restarts": num_restarts(events),
        "goodput": last.get("goodput"),
        "ranks": config.engine.num_ranks,
        "hosts": _hosts(events),
        "priority": submission.get("priority"),
        "exit_code": record.get("code") if is_over else None,
        "last_event": events[-1].get("message", "") if events else "",
    }


def unknown(path: str, why: str) -> dict[str, Any]:
    """The status of a run of which nothing can be learnt now."""
    return {"run": path, "name": Path(path).name, "state": "unknown", "message": why}


def _hosts(events: list[dict[str, Any]]) -> list[str]:
    placed = [event["hosts"] for event in events if event.get("kind") == "placed"]
    return placed[-1] if placed else []


def _left_s(rows: list[dict[str, Any]], steps: int) -> float | None:
    recent = [float(row["step_s"]) for row in rows[-NUM_RATE_STEPS:] if row.get("step_s")]
    return (steps - int(rows[-1]["step"])) * sum(recent) / len(recent) if recent else None


def _checkpoint(path: Path) -> dict[str, Any] | None:
    """The newest whose manifest and file sizes are what was written; others are passed over."""
    for step in reversed(list_steps(path)):
        folder = step_dir(path, step)
        if _is_whole(folder):
            age_s = time.time() - (folder / MANIFEST).stat().st_mtime
            return {"step": step, "age_s": age_s, "verified": True}
    return None


def _is_whole(folder: Path) -> bool:
    """As `Checkpoint.open` decides, which would import torch."""
    manifest = read_json(folder / MANIFEST)
    body = {key: value for key, value in manifest.items() if key != "digest"}
    if digest_of(body) != manifest.get("digest"):
        return False
    try:
        return all((folder / file["name"]).stat().st_size == file["bytes"] for file in manifest["files"])
    except OSError:
        return False


def losses(path: Path, number: int) -> list[float]:
    """Of the newest steps."""
    found = [row.get("loss") for row in read_lines(path / "metrics.jsonl") if row.get("kind") == "train"]
    return [value for value in found[-number:] if value is not None]


def status_text(value: dict[str, Any]) -> str:
    """A status for a person, in training's own words."""
    lines = [
        f"{value['name']}: {value['state']}" + (f" - {value['message']}" if value.get("message") else "")
    ]
    if value["state"] == "unknown":
        return lines[0]
    if (value["silent_s"] or 0.0) > SILENT_S:
        lines.append(
            f"  nothing heard for {duration(value['silent_s'])}: it may hang, or this host sees old files"
        )
    if value["step"]:
        parts = [f"step {value['step']:,} of {value['steps']:,}", f"{value['tokens']:,} tokens"]
        parts += [f"loss {value['loss']:.4f}"] if value["loss"] is not None else []
        parts += [f"{value['tokens_per_s']:,.0f} tokens/s"] if value["tokens_per_s"] else []
        parts += [f"MFU {value['mfu']:.1%}"] if value["mfu"] else []
        parts += [f"{duration(value['left_s'])} left"] if value["left_s"] is not None else []
        lines.append("  " + ", ".join(parts))
    saved = value["checkpoint"]
    words = [
        f"checkpoint: step {saved['step']}, verified, {duration(saved['age_s'])} old"
        if saved
        else "no checkpoint yet"
    ]
    words += [f"{value['restarts']} restart(s)"]
    words += [f"goodput {value['goodput']:.0%}"] if value["goodput"] is not None else []
    words += [f"{value['ranks']} rank(s)" + (f" on {', '.join(value['hosts'])}" if value["hosts"] else "")]
    lines.append("  " + ", ".join(words))
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """`3 min 20 s`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
