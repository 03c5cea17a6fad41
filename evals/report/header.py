"""The top of a report: what this run is, how it stands, and the few numbers that are asked for first."""

import math
from html import escape

import numpy as np

from evals.report.axes import value_label
from evals.report.record import Row, RunRecord, number
from evals.report.results import newest_result
from evals.report.series import column, moving_mean, smoothing_window
from evals.report.tables import NONE, clock, interval
from seedbed.progress import human_count, human_time
from training.goodput import account, time_by_cause
from training.metrics import productive_seconds, working_seconds


def header_section(record: RunRecord, now: float) -> str:
    """Name, state, progress and key figures."""
    silence_s = record.silence_s(now)
    state, css = (
        (f"{record.state}, silent for {human_time(silence_s)}", "silent")
        if silence_s
        else (record.state,) * 2
    )
    message = str(record.status.get("message") or "")
    box = (
        f'<p class="message">{escape(message)}</p>'
        if message and record.state in ("failed", "preempted")
        else ""
    )
    return (
        f'<header><div class="title"><h1>{escape(record.name)}</h1>'
        f'<span class="pill {escape(css)}">{escape(state)}</span></div>'
        f'<p class="lead">{escape(_lead(record, now))}</p>{box}'
        f"{_progress(record)}{_tiles(record, now)}</header>"
    )


def _lead(record: RunRecord, now: float) -> str:
    recipe = str(record.recipe.get("recipe") or "")
    last = record.last_sign_of_life
    parts = [
        f"recipe {recipe}" if recipe else "",
        f"last written to {clock(last)}" if last else "",
        f"report of {clock(now)}",
    ]
    return " · ".join(part for part in parts if part)


def _step(record: RunRecord) -> int:
    train = record.of_kind("train")
    return int(train[-1]["step"]) if train else int(number(record.status.get("step")) or 0)


def _progress(record: RunRecord) -> str:
    if not record.num_steps:
        return '<div class="bar-of-steps"></div>'
    share = min(1.0, _step(record) / record.num_steps)
    # An SVG, since the page's security policy refuses style attributes.
    return (
        f'<div class="bar-of-steps" role="img" aria-label="{share:.0%} of all steps">'
        f'<svg width="100%" height="4"><rect width="{share:.2%}" height="4"/></svg></div>'
    )


def _tiles(record: RunRecord, now: float) -> str:
    train, validation = record.of_kind("train"), record.of_kind("eval")
    last = train[-1] if train else {}
    tiles = [
        _step_tile(record),
        ("Tokens", _count(last.get("tokens")), _planned("of", record.plan.get("tokens"))),
        _loss_tile(train, validation),
        _bits_tile(record, validation),
        _time_tile(record, now),
        _rate_tile(train),
        ("Goodput", _percent(last.get("goodput")), _lost(record)),
        (
            "Restarts",
            f"{record.count('restarted'):,}",
            _deaths(record),
        ),
    ]
    return (
        '<dl class="tiles">'
        + "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(small)}</small></dd></div>"
            for name, value, small in tiles
        )
        + "</dl>"
    )


def _step_tile(record: RunRecord) -> tuple[str, str, str]:
    return "Step", f"{_step(record):,}", f"of {record.num_steps:,}" if record.num_steps else ""


def _loss_tile(train: list[Row], validation: list[Row]) -> tuple[str, str, str]:
    loss = column(train, "loss")
    window = smoothing_window(len(loss))
    smooth = moving_mean(loss, window)
    # The centred mean of the last steps has seen half a window; that is what the chart's label says, too.
    last = smooth[np.isfinite(smooth)][-1:]
    known = [value for row in validation if (value := number(row.get("val_loss"))) is not None]
    small = f"validation {value_label(known[-1])}" if known else "nats per token, training"
    return "Loss", value_label(float(last[0])) if len(last) else NONE, small


def _bits_tile(record: RunRecord, validation: list[Row]) -> tuple[str, str, str]:
    """The evaluated score when there is one, otherwise the last one of validation."""
    result = newest_result(record)
    if result is not None:
        ends = interval(number(result.get("low")), number(result.get("high")))
        where = f"evaluated at step {result['step']:,}"
        return "Bits per byte", f"{result['value']:.3f}", f"{ends}, {where}" if ends else where
    known = [
        (row["step"], v) for row in validation if (v := number(row.get("val_bits_per_byte"))) is not None
    ]
    if not known:
        return "Bits per byte", NONE, "not measured yet"
    return "Bits per byte", f"{known[-1][1]:.3f}", f"validation at step {known[-1][0]:,}"


def _time_tile(record: RunRecord, now: float) -> tuple[str, str, str]:
    going = record.state in ("starting", "running") and not record.silence_s(now)
    end = now if going else record.last_sign_of_life or now
    if any(event.get("kind") == "session_started" for event in record.events):
        wall_s = working_seconds(record.path, end)
    else:
        wall_s = end - min((row["time"] for row in (*record.rows, *record.events)), default=end)
    useful = [row for row in record.of_kind("train") if number(row.get("step_s")) is not None]
    small = f"{human_time(productive_seconds(useful))} in steps that count"
    return "Time", human_time(wall_s) if wall_s > 0 else NONE, small


def _rate_tile(train: list[Row]) -> tuple[str, str, str]:
    rates = column(train, "tokens_per_s")
    rates = rates[np.isfinite(rates)]
    return "Tokens/s", human_count(float(np.median(rates))) if len(rates) else NONE, "median of all steps"


def _lost(record: RunRecord) -> str:
    """What kept the run from steps that count; of a run without records of it, what goodput is."""
    _, _, lost = account(time_by_cause(record.path)).partition("; ")
    return lost or "share of wall time in steps that count"


def _deaths(record: RunRecord) -> str:
    deaths = record.count("worker_died")
    return f"{deaths:,} {'worker' if deaths == 1 else 'workers'} died" if deaths else "no worker died"


def _count(value: object) -> str:
    known = number(value)
    return human_count(known) if known is not None else NONE


def _planned(word: str, value: object) -> str:
    known = number(value)
    return f"{word} {human_count(known)}" if known is not None else ""


def _percent(value: object) -> str:
    known = number(value)
    return f"{known:.1%}" if known is not None and math.isfinite(known) else NONE
