"""The lower half of a report: samples, the plan beside what was measured, data, configuration, events."""

from collections.abc import Mapping
from html import escape
from typing import Any

from evals.report.record import Row, RunRecord, number
from evals.report.tables import NONE, card, clock, facts, table
from seedbed.progress import human_bytes, human_count, human_time
from training.plan import measure

LATEST_SAMPLES = 3
LATEST_EVENTS = 20


def samples_section(record: RunRecord) -> str:
    """Continuations of the prompt over the course of training, the newest first."""
    # A step that was run twice has two samples; the one of the later attempt is of the weights that are left.
    by_place = {
        (row.get("step"), row.get("prompt")): row
        for row in record.samples
        if number(row.get("step")) is not None
    }
    ordered = sorted(by_place.values(), key=lambda row: -row["step"])
    if not ordered:
        return ""
    newest = "".join(map(_sample, ordered[:LATEST_SAMPLES]))
    older = "".join(map(_sample, ordered[LATEST_SAMPLES:]))
    num_older = len(ordered) - LATEST_SAMPLES
    rest = f"<details><summary>{num_older:,} earlier</summary>{older}</details>" if older else ""
    return f"<h2>Samples</h2>{newest}{rest}"


def _sample(row: Row) -> str:
    prompt, text = escape(str(row.get("prompt", ""))), escape(str(row.get("text", "")))
    return (
        f'<div class="card sample"><h3>step {row["step"]:,}</h3>'
        f'<pre><span class="prompt">{prompt}</span>{text}</pre></div>'
    )


def plan_section(record: RunRecord) -> str:
    """What was predicted beside what came, with the ratio."""
    plan = record.plan
    if not plan:
        return ""
    predicted, measured = plan.get("predicted") or {}, _measured(record)
    memory = plan.get("memory_bytes_per_device") or {}
    rows = [
        _compared(
            "Tokens per second", predicted.get("tokens_per_s"), measured.get("tokens_per_s"), human_count
        ),
        _compared(
            "Time in steps", _seconds(predicted.get("hours")), _seconds(measured.get("hours")), human_time
        ),
        _compared("Memory per device", memory.get("total"), measured.get("memory_bytes"), human_bytes),
        _compared("Checkpoint", plan.get("checkpoint_bytes"), measured.get("checkpoint_bytes"), human_bytes),
    ]
    comparison = table(["", "planned", "measured", "ratio"], rows, numbers=(1, 2, 3))
    going = (
        "" if plan.get("measured") else "<p class=note>Measured so far: time grows until the last step.</p>"
    )
    return (
        "<h2>Plan and measurement</h2>"
        f'<div class="two">{card("Planned and measured", comparison + going)}'
        f"{card('Sizes', facts(_sizes(plan)))}</div>"
    )


def _measured(record: RunRecord) -> Row:
    if record.plan.get("measured"):
        return record.plan["measured"]
    baseline = number(record.attempts[-1].get("baseline_bytes")) if record.attempts else None
    rows = [row for row in record.rows if row.get("kind") != "train" or _is_whole(row)]
    if "batch" not in record.plan:
        return {}
    return measure(record.plan, rows, int(baseline or 0)).get("measured") or {}


def _is_whole(row: Row) -> bool:
    return number(row.get("step_s")) is not None and number(row.get("memory_bytes")) is not None


def _compared(name: str, planned: Any, measured: Any, show: Any) -> list[str]:
    a, b = number(planned), number(measured)
    ratio = f"{b / a:.2f} x" if a and b is not None else ""
    return [name, NONE if a is None else show(a), NONE if b is None else show(b), ratio]


def _seconds(hours: Any) -> float | None:
    value = number(hours)
    return None if value is None else value * 3600


def _sizes(plan: Row) -> list[tuple[str, str]]:
    parameters, flops = plan.get("parameters") or {}, plan.get("flops_per_token") or {}
    batch, memory = plan.get("batch") or {}, plan.get("memory_bytes_per_device") or {}
    parts = [
        f"{name} {human_bytes(size)}" for name, size in memory.items() if name != "total" and number(size)
    ]
    return [
        (
            "Parameters",
            _count(parameters.get("total"), ", of them ", parameters.get("non_embedding"), " not embedding"),
        ),
        ("Tokens", _count(plan.get("tokens"), ", ", plan.get("tokens_per_parameter"), " per parameter")),
        (
            "FLOPs per token",
            _count(flops.get("causal"), " causal, ", flops.get("full"), " with full attention"),
        ),
        (
            "Batch",
            ", ".join(f"{str(name).replace('_', ' ')} {_plain(value)}" for name, value in batch.items()),
        ),
        ("Memory", ", ".join(parts)),
        ("Disk free", human_bytes(free) if (free := number(plan.get("disk_free_bytes"))) else ""),
    ]


def _count(value: Any, joint: str, other: Any, end: str) -> str:
    a, b = number(value), number(other)
    if a is None:
        return ""
    return human_count(a) + (f"{joint}{human_count(b)}{end}" if b is not None else "")


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def data_section(record: RunRecord) -> str:
    """Where the training text came from, and what was left out of it."""
    manifest = record.manifest
    if not manifest:
        where = record.dataset_path or "unknown"
        return f"<h2>Data</h2><p class=note>The dataset ({escape(where)}) cannot be read here.</p>"
    tokenizer = manifest.get("tokenizer") or {}
    splits = manifest.get("splits") or {}
    rows = [
        [
            name,
            _plain(split.get("documents")),
            _plain(split.get("tokens")),
            human_bytes(split.get("utf8_bytes") or 0),
        ]
        for name, split in splits.items()
    ]
    provenance = [
        ("Source", _in_words(manifest.get("source"))),
        ("Directory", record.dataset_path),
        (
            "Tokenizer",
            f"{tokenizer.get('kind', '')}, {_plain(tokenizer.get('vocab_size'))} entries, "
            f"fingerprint {str(tokenizer.get('fingerprint', ''))[:16]}",
        ),
        ("Dropped", _in_words(manifest.get("drops")) or "no document"),
        ("Repaired", f"{_plain(manifest['replaced'])} documents" if manifest.get("replaced") else ""),
        ("Near-copies", _in_words(manifest.get("near_duplicate_groups"))),
        ("Digest", str(manifest.get("digest", ""))),
    ]
    sizes = table(["split", "documents", "tokens", "text"], rows, numbers=(1, 2, 3))
    return (
        f'<h2>Data</h2><div class="two">{card("Splits", sizes)}{card("Provenance", facts(provenance))}</div>'
    )


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {_in_words(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    return "" if value is None else _plain(value)


def config_section(record: RunRecord) -> str:
    """Every setting, those that differ from the recipe marked."""
    if not record.config:
        return ""
    changed = record.recipe.get("difference") or {}
    sections = "".join(
        card(section, _settings(section, fields, changed))
        for section, fields in record.config.items()
        if fields
    )
    recipe = str(record.recipe.get("recipe") or "")
    note = (
        f"{len(changed)} of these differ from the recipe {recipe}; they are marked."
        if changed
        else (f"As in the recipe {recipe}." if recipe else "")
    )
    hashes = facts(
        (name, str(record.recipe.get(key, "")))
        for name, key in (("Config hash", "config_hash"), ("Identity hash", "identity_hash"))
    )
    return (
        f'<h2>Configuration</h2><p class="note">{escape(note)}</p>'
        f'<div class="sections">{sections}</div>{card("Identity", hashes)}'
    )


def _settings(section: str, fields: Row, changed: Row) -> str:
    rows, css = [], []
    for name, value in fields.items():
        difference = changed.get(f"{section}.{name}")
        before = (
            f"recipe: {_toml(difference[0])}" if isinstance(difference, list) and len(difference) == 2 else ""
        )
        rows.append([name, _toml(value), before])
        css.append("changed" if f"{section}.{name}" in changed else "")
    return table(["key", "value", ""], rows, css_classes=css)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def events_section(record: RunRecord) -> str:
    """What happened, the newest first."""
    if not record.events:
        return ""
    rows = [
        [
            clock(number(event.get("time"))),
            str(event.get("kind", "")).replace("_", " "),
            str(event.get("message", "")),
        ]
        for event in reversed(record.events)
    ]
    kinds = [f"event {event.get('kind', '')}" for event in reversed(record.events)]
    head = ["time", "event", ""]
    newest = table(head, rows[:LATEST_EVENTS], css_classes=kinds)
    older = table(head, rows[LATEST_EVENTS:], css_classes=kinds[LATEST_EVENTS:])
    num_older = len(rows) - LATEST_EVENTS
    rest = f"<details><summary>{num_older:,} earlier</summary>{older}</details>" if num_older > 0 else ""
    return f'<h2>Events</h2><div class="card">{newest}{rest}</div>'
