"""The charts of a run's metrics, with marks where it was interrupted or saved."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from evals.report.charts import TALL, Chart, Mark, Series, Tone, line_chart
from evals.report.record import Row, RunRecord, number
from evals.report.results import baselines_of, newest_result
from evals.report.series import column, moving_mean, smoothing_window
from training.metrics import scores_of

MIB = 1024.0**2
GIB = 1024.0**3
# From this ratio of its largest to its smallest value, a curve on a linear axis is a spike and a floor.
LOG_RATIO = 20.0


def curves_section(record: RunRecord) -> str:
    """All charts that the run's metrics give; a sentence while there are none."""
    train, validation = record.of_kind("train"), record.of_kind("eval")
    charts = [_loss(record, train, validation), _bits_per_byte(record, validation)]
    charts += [_score(validation, name) for name in _other_scores(validation)]
    charts += [
        _single(train, "Learning rate", "lr", ""),
        _gradient_norm(train),
        _single(train, "Throughput", "tokens_per_s", "tokens/s, all ranks", is_noisy=True),
        _utilisation(train),
        _memory(train),
    ]
    steps = [row["step"] for row in (*train, *validation)]
    x_range = (0.0, float(max(steps, default=1)))
    marks = marks_of(record)
    drawn = [line_chart(replace(chart, marks=marks, x_range=x_range)) for chart in charts if chart]
    if not any(drawn):
        return "<h2>Curves</h2><p class=note>No step has been recorded yet.</p>"
    return f'<h2>Curves</h2><div class="charts">{"".join(drawn)}</div>'


def marks_of(record: RunRecord) -> list[Mark]:
    """Where attempts began after the first one, workers died, and checkpoints were saved."""
    marks = []
    for event in record.attempts[1:]:
        step = number(event.get("from_step"))
        if step is not None:
            text = f"attempt {event.get('attempt', '?')} began from step {step:,.0f}"
            marks.append(Mark(step, "attempt", text))
    for event in record.events:
        time = number(event.get("time"))
        step = record.step_at(time) if time is not None else None
        if event.get("kind") == "worker_died" and step is not None:
            text = f"{event.get('message') or 'a worker died'}, after step {step:,.0f}"
            marks.append(Mark(step, "death", text))
    for row in record.of_kind("checkpoint"):
        marks.append(Mark(row["step"], "checkpoint", f"checkpoint of step {row['step']:,}"))
    return marks


def _loss(record: RunRecord, train: Sequence[Row], validation: Sequence[Row]) -> Chart:
    series = (
        _with_mean("training, mean", column(train, "step"), column(train, "loss"), "train") if train else []
    )
    if validation:
        points = column(validation, "step"), column(validation, "val_loss")
        series.append(Series("validation", *points, "validation", "dots"))
    undone = record.num_undone
    note = f"{undone:,} steps of earlier attempts, undone by a restart, are not drawn." if undone else ""
    return Chart("Loss", "nats per token", series, height=TALL, show_mark_key=True, is_wide=True, note=note)


def _bits_per_byte(record: RunRecord, validation: Sequence[Row]) -> Chart | None:
    values = column(validation, "val_bits_per_byte")
    if not np.isfinite(values).any():
        return None
    references = [(str(row["label"]), row["value"]) for row in baselines_of(newest_result(record))]
    note = "Dotted: baselines on whole held-out documents; validation reads fixed windows of them."
    series = Series("validation", column(validation, "step"), values, "validation", "dots")
    return Chart(
        "Bits per byte", "validation", [series], references=references, note=note if references else ""
    )


def _other_scores(validation: Sequence[Row]) -> list[str]:
    """What validation measured beside loss and bits per byte."""
    names = {name: None for row in validation for name in scores_of(row)}
    return [name for name in names if name != "bits_per_byte"]


def _score(validation: Sequence[Row], name: str) -> Chart:
    points = column(validation, "step"), column(validation, f"val_{name}")
    title = name.replace("_", " ").capitalize()
    return Chart(title, "validation", [Series("validation", *points, "validation", "dots")])


def _gradient_norm(train: Sequence[Row]) -> Chart | None:
    norms = column(train, "grad_norm")
    positive = norms[np.isfinite(norms) & (norms > 0)]
    is_log = bool(len(positive)) and positive.max() > LOG_RATIO * positive.min()
    unit = "before clipping, log scale" if is_log else "before clipping"
    return _single(train, "Gradient norm", "grad_norm", unit, is_log=is_log, is_noisy=True)


def _utilisation(train: Sequence[Row]) -> Chart | None:
    """Model FLOPs utilisation, where the run knew its device's peak."""
    for key, what in (("mfu_causal", "causal attention"), ("mfu_full", "full attention")):
        if np.isfinite(column(train, key)).any():
            return _single(
                train, "Model FLOPs utilisation", key, f"%, counting {what}", scale=0.01, is_noisy=True
            )
    return None


def _memory(train: Sequence[Row]) -> Chart | None:
    memory = column(train, "memory_bytes")
    known = memory[np.isfinite(memory)]
    scale, unit = (GIB, "GiB") if len(known) and known.max() >= GIB else (MIB, "MiB")
    return _single(train, "Memory", "memory_bytes", f"{unit}, rank 0", scale=scale)


def _single(
    train: Sequence[Row],
    title: str,
    key: str,
    unit: str,
    *,
    scale: float = 1.0,
    is_log: bool = False,
    is_noisy: bool = False,
) -> Chart | None:
    """A chart of one quantity of every step, from zero unless its axis is logarithmic."""
    values = column(train, key) / scale
    if not np.isfinite(values).any():
        return None
    steps, name = column(train, "step"), title.lower()
    series = _with_mean("mean", steps, values, "plain") if is_noisy else [Series(name, steps, values)]
    return Chart(title, unit, series, is_log=is_log, from_zero=not is_log)


def _with_mean(mean_label: str, steps: np.ndarray, values: np.ndarray, tone: Tone) -> list[Series]:
    """A noisy curve: every step, faint, under its moving mean. One that is too short stays as it is."""
    window = smoothing_window(len(values))
    if window == 1:
        return [Series("each step", steps, values, tone)]
    mean = moving_mean(values, window)
    return [
        Series("each step", steps, values, tone, "faint"),
        Series(f"{mean_label} of {window} steps", steps, mean, tone),
    ]
