"""Where a run's time went: steps that count, and what kept it from them, by cause."""

from pathlib import Path
from statistics import median
from typing import Any

from seedbed.files import read_lines
from training.metrics import productive_seconds, read_events, surviving_rows, working_seconds

Row = dict[str, Any]


def time_by_cause(run_dir: Path, now: float | None = None) -> dict[str, float]:
    """Seconds of `wall` time since submission: `productive` in steps that count, the others lost to a cause.

    `starting` is from a start by the user to the first step; `saving` and `validating` are what training
    waited for; `skipped` are steps that guards did not learn from. What lies between the last step that
    counts before an interruption and the first one after it, steps that are trained again among it, is lost
    to the cause of the interruption: `infrastructure`, `program`, `preemptions`, `rolled_back` or `resizing`.
    The rest is `other`. Empty before the first start.
    """
    events, rows = read_events(run_dir), surviving_rows(run_dir)
    starts = [float(event["time"]) for event in events if event.get("kind") == "session_started"]
    if not starts:
        return {}
    steps = [row for row in read_lines(run_dir / "metrics.jsonl") if _is_step(row)]
    lost = _interruptions(events, rows, steps)
    lost["saving"] = sum(float(row.get("blocked_s") or 0.0) for row in rows)
    lost["validating"] = sum(float(row.get("eval_s") or 0.0) for row in rows)
    skipped = [row for row in rows if _is_step(row) and row.get("skipped")]
    lost["skipped"] = sum(float(row.get("step_s") or 0.0) for row in skipped)
    lost = {cause: seconds for cause, seconds in lost.items() if seconds}
    signs = [float(row["time"]) for row in [*events, *rows] if "time" in row]
    wall = working_seconds(run_dir, now if now is not None else max(signs))
    productive = productive_seconds(rows)
    other = max(0.0, wall - productive - sum(lost.values()))
    return {"wall": wall, "productive": productive, **lost, "other": other}


def save_costs(rows: list[Row]) -> dict[str, float]:
    """What saves cost, in seconds, medians: `blocked_s`, `written_s`, and `slowed_s`, by which the steps that
    began beside the writing were slower than the run's median step. Empty without a save that was followed by
    a step; `rows` are the surviving ones."""
    saves = [row for row in rows if row.get("kind") == "checkpoint"]
    steps = [row for row in rows if _is_step(row) and row.get("step_s")]
    beside = [row for row in steps if row.get("beside_save")]
    alone = [float(row["step_s"]) for row in steps if not row.get("beside_save")]
    saved = sorted(int(row["step"]) for row in saves)
    # Steps belong to the last save that began before them: the step that it saves is their predecessor.
    slowed = dict.fromkeys((step for step in saved if steps and step < int(steps[-1]["step"])), 0.0)
    if not slowed or not alone:
        return {}
    usual_s = median(alone)
    for row in beside:
        before = max((step for step in saved if step < int(row["step"])), default=None)
        if before is not None:
            slowed[before] = slowed.get(before, 0.0) + float(row["step_s"]) - usual_s
    return {
        "num_saves": len(saves),
        "blocked_s": median(float(row["blocked_s"]) for row in saves),
        "written_s": median(float(row["written_s"]) for row in saves),
        "slowed_s": median(slowed.values()),
    }


def told_saves(costs: dict[str, float]) -> str:
    """`8 save(s), medians: training blocked 9 ms, steps beside them slower by 12 ms, written in 0.21 s`."""
    if not costs:
        return ""
    blocked_ms, slowed_ms = 1000 * costs["blocked_s"], 1000 * costs["slowed_s"]
    return (
        f"{costs['num_saves']:.0f} save(s), medians: training blocked {blocked_ms:.0f} ms, "
        f"steps beside them slower by {slowed_ms:.0f} ms, written in {costs['written_s']:.2f} s"
    )


def account(times: dict[str, float]) -> str:
    """`goodput 91%; lost: infrastructure 4%, starting 3%, other 2%`, what is above half a percent."""
    if not times.get("wall"):
        return ""
    shares = {cause: seconds / times["wall"] for cause, seconds in times.items() if cause != "wall"}
    productive = min(1.0, shares.pop("productive"))
    named = sorted(shares.items(), key=lambda item: -item[1])
    text = ", ".join(f"{cause.replace('_', ' ')} {share:.0%}" for cause, share in named if share >= 0.005)
    return f"goodput {productive:.0%}" + (f"; lost: {text}" if text else "")


def _is_step(row: Row) -> bool:
    return row.get("kind") == "train" and "time" in row


def _interruptions(events: list[Row], surviving: list[Row], steps: list[Row]) -> dict[str, float]:
    """Seconds between steps that count, by what lay between them."""
    lost: dict[str, float] = {}
    began: dict[int, float] = {}
    for row in steps:
        began.setdefault(int(row.get("attempt", 0)), float(row["time"]) - float(row.get("step_s") or 0.0))
    # A save or a validation after the last step that counts is accounted for by itself.
    counted = sorted((float(row["time"]), int(row.get("attempt", 0))) for row in surviving if "time" in row)
    cause, since = "starting", 0.0
    for event in events:
        kind = event.get("kind")
        if kind == "session_started":
            cause, since = "starting", float(event["time"])
        elif kind == "worker_died":
            cause = str(event.get("cause", "infrastructure"))
        elif kind == "rolled_back":
            cause = "rolled_back"
        elif kind == "attempt_started" and int(event.get("attempt", 0)) in began:
            attempt = int(event["attempt"])
            before = [moment for moment, number in counted if number < attempt and moment >= since]
            lost[cause] = lost.get(cause, 0.0) + max(0.0, began[attempt] - max(before, default=since))
            # An attempt that follows without any of these is of another number of ranks.
            cause, since = "resizing", began[attempt]
    return lost
