"""What a run reads, step by step, without training: the hashes that its metrics record as `data_hash`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.mixture import MixtureStream
from data.order_hash import add_digests, show_digest
from seedbed.errors import UsageError
from training.batch_layout import BatchLayout, batch_layout
from training.checkpoint.layout import step_dir
from training.config import Config
from training.datasets import micro_batches, open_datasets, resolve_data, training_stream
from training.metrics import surviving_rows
from training.run_directory import read_json
from training.tasks import filled_in, make_task


def trace(config: Config, first: int, last: int, run: Path | None = None) -> Iterator[dict[str, Any]]:
    """Steps `first` .. `last` (from 1): position, hash, samples per source; of a `run`, what it recorded.

    The dataset is built if it is missing. The hash does not depend on `config.engine.num_ranks`.
    """
    layout = batch_layout(config)
    data = resolve_data(config.data, rebuild=True)
    datasets = open_datasets(data)
    config = config.model_copy(update={"data": data})
    config = config.model_copy(update={"model": filled_in(config, datasets)})
    stream = training_stream(make_task(config, datasets), datasets, config)
    rows = [row for row in surviving_rows(run) if row["kind"] == "train"] if run else []
    recorded = {row["step"]: row for row in rows}
    begun_at, begun_position = _beginning(run, rows, layout) if run else (0, 0)
    last_step, last_position = (
        (rows[-1]["step"], rows[-1]["position"]) if rows else (begun_at, begun_position)
    )
    if first <= begun_at:
        raise UsageError(
            f"{run} began with step {begun_at + 1}, as a branch",
            "trace earlier steps of the run it came from",
        )
    for step in range(first, last + 1):
        row = recorded.get(step, {})
        end = row.get("position", last_position + (step - last_step) * layout.samples_per_step)
        position = end - layout.samples_per_step
        parts = (micro_batches(stream, layout, rank, position)[1] for rank in range(layout.num_ranks))
        traced = {"step": step, "position": position, "data_hash": show_digest(add_digests(parts))}
        if isinstance(stream, MixtureStream):
            before, after = stream.counts(position), stream.counts(end)
            traced["sources"] = {name: after[name] - before[name] for name in after}
        if "data_hash" in row:
            traced |= {"recorded": row["data_hash"], "same": row["data_hash"] == traced["data_hash"]}
        yield traced


def _beginning(run: Path, rows: list[dict[str, Any]], layout: BatchLayout) -> tuple[int, int]:
    """The step and the data position that a run began from: (0, 0) unless it is a branch."""
    if rows:
        return rows[0]["step"] - 1, rows[0]["position"] - layout.samples_per_step
    forked = read_json(run / "recipe.json").get("forked_from")
    if not forked:
        return 0, 0
    manifest = read_json(step_dir(run, forked["step"]) / "manifest.json")
    return forked["step"], manifest.get("position", 0)
