"""The charts of a run's metrics, with marks where it was interrupted or saved."""

from collections.abc import Sequence

import numpy as np

from evals.report.charts import TALL, Chart, Mark, Series, line_chart
from evals.report.record import Row, RunRecord, number
from evals.report.results import newest_result
from evals.report.series import column, moving_mean, smoothing_window

KIB = 1024.0


def curves_section(record: RunRecord) -> str:
    """All charts that the run's metrics give; a sentence while there are none."""
    train, validation = record.of_kind("train"), record.of_kind("eval")
    marks = marks_of(record)
    charts = [_loss(record, train, validation, marks), _bits_per_byte(record, validation, marks)]
    if train:
        charts += [
            _single(train, marks, "Learning rate", "lr", "", from_zero=True),
            _gradient_norm(train, marks),
            _single(train, marks, "Throughput", "tokens_per_s", "tokens/s", from_zero=True),
            _utilisation(train, marks),
            _memory(train, marks),
        ]
    drawn = "".join(filter(None, charts))
    body = (
        f'<div class="charts">{drawn}</div>' if drawn else "<p class=note>No step has been recorded yet.</p>"
    )
    return f"<h2>Curves</h2>{body}"


def marks_of(record: RunRecord) -> list[Mark]:
    """Where attempts began after the first one, workers died, and checkpoints were saved."""
    marks = [
        Mark(step, "attempt", f"attempt {event.get('attempt', '?')} began from step {step:,.0f}")
        for event in record.attempts[1:]
        if (step := number(event.get("from_step"))) is not None
    ]
    for event in record.events:
        step = number(event.get("step"))
        if step is None and (time := number(event.get("time"))) is not None:
            step = record.step_at(time)
        if event.get("kind") == "worker_died" and step is not None:
            marks.append(
                Mark(step, "death", f"{event.get('message') or 'a worker died'}, near step {step:,.0f}")
            )
    for row in record.of_kind("checkpoint"):
        marks.append(Mark(row["step"], "checkpoint", f"checkpoint of step {row['step']:,}"))
    return marks


def _loss(record: RunRecord, train: Sequence[Row], validation: Sequence[Row], marks: Sequence[Mark]) -> str:
    steps, loss = column(train, "step"), column(train, "loss")
    window = smoothing_window(len(train))
    series = []
    if window > 1:
        series.append(Series("each step", steps, loss, "train", "faint"))
        series.append(Series(f"training, mean of {window} steps", steps, moving_mean(loss, window), "train"))
    elif train:
        series.append(Series("training", steps, loss, "train"))
    if validation:
        points = column(validation, "step"), column(validation, "val_loss")
        series.append(Series("validation", *points, "validation", "dots"))
    undone = record.num_abandoned
    note = f"{undone:,} {'step' if undone == 1 else 'steps'} of earlier attempts, undone by a restart, are not drawn."
    return line_chart(
        Chart(
            "Loss",
            "nats per token",
            series,
            marks,
            height=TALL,
            show_mark_key=True,
            css_class="full",
            note=note if undone else "",
        )
    )


def _bits_per_byte(record: RunRecord, validation: Sequence[Row], marks: Sequence[Mark]) -> str:
    values = column(validation, "val_bits_per_byte")
    if not np.isfinite(values).any():
        return ""
    result = newest_result(record)
    rows = (result or {}).get("baselines") or []
    references = [(str(row["label"]), row["value"]) for row in rows if number(row.get("value"))]
    return line_chart(
        Chart(
            "Bits per byte",
            "validation",
            [Series("validation", column(validation, "step"), values, "validation", "dots")],
            marks,
            references=references,
            css_class="full" if references else "",
            note="Validation reads held-out windows, always the same; the baselines read whole held-out documents."
            if references
            else "",
        )
    )


def _gradient_norm(train: Sequence[Row], marks: Sequence[Mark]) -> str:
    norms = column(train, "grad_norm")
    positive = norms[np.isfinite(norms) & (norms > 0)]
    is_log = bool(len(positive)) and positive.max() / positive.min() > 20
    unit = "before clipping, log scale" if is_log else "before clipping"
    return _single(train, marks, "Gradient norm", "grad_norm", unit, from_zero=True, is_log=is_log)


def _utilisation(train: Sequence[Row], marks: Sequence[Mark]) -> str:
    """Model FLOPs utilisation, on whichever count of the attention's FLOPs the run knows a peak for."""
    for key, what in (
        ("mfu_causal", "causal attention counted once"),
        ("mfu_full", "full attention counted"),
    ):
        if np.isfinite(column(train, key)).any():
            return _single(
                train, marks, "Model FLOPs utilisation", key, f"%, {what}", scale=0.01, from_zero=True
            )
    return ""


def _memory(train: Sequence[Row], marks: Sequence[Mark]) -> str:
    memory = column(train, "memory_bytes")
    largest = np.nanmax(memory) if np.isfinite(memory).any() else 0.0
    power, unit = (3, "GiB") if largest >= KIB**3 else (2, "MiB")
    return _single(
        train,
        marks,
        "Memory",
        "memory_bytes",
        f"{unit} of the fullest rank",
        scale=KIB**power,
        from_zero=True,
    )


def _single(
    train: Sequence[Row],
    marks: Sequence[Mark],
    title: str,
    key: str,
    unit: str,
    *,
    scale: float = 1.0,
    from_zero: bool = False,
    is_log: bool = False,
) -> str:
    values = column(train, key) / scale
    series = [Series(title.lower(), column(train, "step"), values)]
    if not np.isfinite(values).any():
        return ""
    return line_chart(Chart(title, unit, series, marks, is_log=is_log, from_zero=from_zero and not is_log))
