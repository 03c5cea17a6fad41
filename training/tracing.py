"""What a run reads, step by step, without training: the hashes that its metrics record as `data_hash`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.mixture import MixtureStream
from data.order_hash import add_digests, show_digest
from training.batch_layout import batch_layout
from training.config import Config
from training.datasets import micro_batches, open_datasets, resolve_data, training_stream
from training.metrics import surviving_rows


def trace(config: Config, first: int, last: int, run: Path | None = None) -> Iterator[dict[str, Any]]:
    """Steps `first` .. `last` (from 1): position, hash, samples per source; of a `run`, what it recorded.

    The dataset is built if it is missing. The hash does not depend on `config.engine.num_ranks`.
    """
    layout = batch_layout(config)
    stream = training_stream(open_datasets(resolve_data(config.data)), config)
    recorded = {row["step"]: row for row in surviving_rows(run) if row["kind"] == "train"} if run else {}
    for step in range(first, last + 1):
        row = recorded.get(step, {})
        end = row.get("position", step * layout.samples_per_step)
        position = end - layout.samples_per_step
        parts = (micro_batches(stream, layout, rank, position)[1] for rank in range(layout.num_ranks))
        traced = {"step": step, "position": position, "data_hash": show_digest(add_digests(parts))}
        if isinstance(stream, MixtureStream):
            before, after = stream.counts(position), stream.counts(end)
            traced["sources"] = {name: after[name] - before[name] for name in after}
        if "data_hash" in row:
            traced |= {"recorded": row["data_hash"], "same": row["data_hash"] == traced["data_hash"]}
        yield traced
