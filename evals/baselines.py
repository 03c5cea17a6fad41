"""What general-purpose compressors and an n-gram model need for the same bytes.

A language model is a compressor with its decoder left out, so these are the scores that it has to beat.
Compressors read all documents as one stream, one after the other: that favours them, since from the second
document on they have seen the earlier ones, which the model never has. "Primed" xz also reads the training
text first, in a window that holds everything; its cost is what the documents add to the compressed size.
"""

import gzip
import lzma
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evals.intervals import clusters_of, measure, ratio_of
from evals.ngram import NgramModel, choose_order

# The xz encoder takes eleven times its window in memory, the n-gram model forty times its text.
MAX_TRAIN_BYTES = 48 * 1024 * 1024
XZ_PRESET = 9 | lzma.PRESET_EXTREME


@dataclass(frozen=True)
class Baseline:
    """Bits per byte of one method; an interval where the method scores documents one by one."""

    name: str
    label: str
    value: float
    low: float | None
    high: float | None
    train_bytes: int
    seconds: float
    note: str


def gzip_bytes(text: bytes) -> int:
    """Size under `gzip -9`."""
    return len(gzip.compress(text, 9, mtime=0))


def xz_bytes(text: bytes, window_bytes: int = 64 * 1024 * 1024) -> int:
    """Size under `xz -9e`, with a window of `window_bytes` (64 MiB, the preset's own, where not given).

    A window larger than the text changes nothing but the memory that is taken, so it is cut to that.
    """
    window = max(4096, min(window_bytes, len(text)))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": XZ_PRESET, "dict_size": window}]
    return len(lzma.compress(text, filters=filters))


def primed_xz_bytes(text: bytes, train: bytes) -> int:
    """What `text` adds to the compressed size of `train`, with a window over both."""
    together = train + text
    return xz_bytes(together, len(together)) - xz_bytes(train, len(together))


def baselines(documents: Sequence[bytes], train: Iterable[bytes] = ()) -> list[dict[str, Any]]:
    """All baselines over `documents`, as rows for JSON; those that learn only where `train` has text.

    Of `train`, at most MAX_TRAIN_BYTES is used, as whole documents from its start; each row says how
    many bytes it was.
    """
    text = b"".join(documents)
    if not text:
        raise ValueError("baselines need at least one byte to score")
    train_documents, is_cut = _at_most(train, MAX_TRAIN_BYTES)
    cut = "; the training text was cut to fit in memory" if is_cut else ""
    rows = [
        _compressor("gzip", "gzip -9", gzip_bytes, text, "documents as one stream"),
        _compressor("xz", "xz -9e", xz_bytes, text, "documents as one stream"),
    ]
    if train_documents:
        joined = b"".join(train_documents)
        note = f"one stream after the training text, in a window over both{cut}"
        rows.append(
            _compressor(
                "xz-primed",
                "xz -9e, primed",
                lambda text: primed_xz_bytes(text, joined),
                text,
                note,
                len(joined),
            )
        )
        rows.append(_ngram(documents, train_documents, cut))
    return [asdict(row) for row in rows]


def _compressor(
    name: str, label: str, size: Callable[[bytes], int], text: bytes, note: str, train_bytes: int = 0
) -> Baseline:
    started = time.monotonic()
    value = size(text) * 8 / len(text)
    return Baseline(name, label, value, None, None, train_bytes, time.monotonic() - started, note)


def _ngram(documents: Sequence[bytes], train: Sequence[bytes], cut: str) -> Baseline:
    started = time.monotonic()
    order = choose_order(train)
    model = NgramModel.fit(train, order)
    statistic = ratio_of(list(model.document_bits(documents)), [len(d) for d in documents], "log")
    estimate = measure(statistic, clusters_of(range(len(documents))))
    bounded = math.isfinite(estimate.low)
    return Baseline(
        name="ngram",
        label=f"{order + 1}-gram, bytes",
        value=estimate.value,
        low=estimate.low if bounded else None,
        high=estimate.high if bounded else None,
        train_bytes=model.train_bytes,
        seconds=time.monotonic() - started,
        note=f"Witten-Bell interpolation up to {order} bytes of context, order chosen on training text{cut}",
    )


def _at_most(documents: Iterable[bytes], max_bytes: int) -> tuple[list[bytes], bool]:
    """Documents from the start while they fit in `max_bytes`, and whether any was left."""
    taken: list[bytes] = []
    size = 0
    for document in documents:
        size += len(document)
        if size > max_bytes:
            return taken, True
        if document:
            taken.append(document)
    return taken, False
