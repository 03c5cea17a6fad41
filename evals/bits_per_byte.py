"""Bits per byte: how many bits a causal language model needs for each byte of a text.

The score of a document is the sum of -log2 p(token | tokens before it) over its own tokens, divided by
its length in UTF-8 bytes. The first token is predicted from end_of_text alone; the end_of_text after the
document is not scored, since it stands for no byte. The unit is what compressors are measured in, and it
does not depend on the tokenizer.

A document longer than the context is scored by a rolling likelihood: overlapping windows, in which every
token is scored exactly once and, after the first window, with at least `context - stride` tokens before
it. All windows go through the model in one padded shape, so that a score does not depend on which documents
share a batch; the logarithm is taken in at least float32, row by row, and the sum over tokens in float64.

Shapes: B windows of a batch, T tokens of the context, V vocabulary.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from evals.intervals import clusters_of, measure, ratio_of
from evals.items import Item
from seedbed.errors import UsageError
from seedbed.statistics import Estimate

LogitsOf = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class DocumentScore:
    """The bits that a model needs for one document."""

    id: str
    source: str
    bits: float
    utf8_bytes: int
    tokens: int


@dataclass(frozen=True)
class _Window:
    """The tokens of one window, and which of its predictions are new.

    `tokens` holds one more than there are predictions: prediction i is tokens[i + 1] after tokens[: i + 1].
    Predictions before `first_new` were scored by the window before.
    """

    document: int
    tokens: np.ndarray
    first_new: int


def rolling_spans(num_tokens: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(start, first new, end) of the windows over predictions 0..num_tokens.

    The spans first new..end tile all predictions. The last window is moved back until it is full, so
    that the tail of a document has as much context as there is.
    """
    scored = 0
    while scored < num_tokens:
        end = min(num_tokens, context if scored == 0 else scored + stride)
        yield max(0, end - context), scored, end
        scored = end


def score_documents(
    model: LogitsOf,
    documents: Iterable[Item],
    *,
    context: int,
    end_of_text_id: int,
    stride: int | None = None,
    batch_size: int = 8,
    device: str | torch.device = "cpu",
    on_tokens: Callable[[int], None] | None = None,
) -> list[DocumentScore]:
    """The score of every document, in order.

    `model` maps tokens [B, T] int64 to logits [B, T, V] and is causal; whether it is in eval mode is the
    caller's care. `stride` defaults to half of `context`; a smaller one gives every token more context
    and costs more. `on_tokens` hears how many tokens each batch scored, for a progress bar.
    """
    step = max(1, context // 2) if stride is None else stride
    if not 1 <= step <= context:
        raise UsageError(
            f"a stride of {step} tokens does not fit a context of {context}",
            "give a stride between 1 and the context",
        )
    items = list(documents)
    nats = [0.0] * len(items)
    windows = _windows_of(items, context, step, end_of_text_id)
    with torch.no_grad():
        while batch := list(islice(windows, batch_size)):
            # Sums run over windows in document order, whatever the batch size: the same bits each time.
            for window, value in zip(
                batch, _score_batch(model, batch, (batch_size, context), end_of_text_id, device), strict=True
            ):
                nats[window.document] += value
            if on_tokens:
                on_tokens(sum(len(w.tokens) - 1 - w.first_new for w in batch))
    return [
        DocumentScore(item.id, item.source, value / math.log(2), item.utf8_bytes, len(item.tokens))
        for item, value in zip(items, nats, strict=True)
    ]


def _windows_of(items: Sequence[Item], context: int, stride: int, end_of_text_id: int) -> Iterator[_Window]:
    for index, item in enumerate(items):
        tokens = np.concatenate([[end_of_text_id], item.tokens]).astype(np.int64)
        for start, first_new, end in rolling_spans(len(item.tokens), context, stride):
            yield _Window(index, tokens[start : end + 1], first_new - start)


def _score_batch(
    model: LogitsOf,
    batch: Sequence[_Window],
    shape: tuple[int, int],
    padding: int,
    device: str | torch.device,
) -> list[float]:
    """Nats of the new predictions of each window. Padding comes after the tokens, where a causal model
    cannot see it, and fills the batch up to `shape`."""
    tokens_BT = np.full(shape, padding, dtype=np.int64)
    for row, window in enumerate(batch):
        tokens_BT[row, : len(window.tokens) - 1] = window.tokens[:-1]
    logits_BTV = model(torch.from_numpy(tokens_BT).to(device))
    sums = []
    for logits_TV, window in zip(logits_BTV, batch, strict=False):
        targets = torch.from_numpy(window.tokens[window.first_new + 1 :]).to(device)
        new_logits = logits_TV[window.first_new : len(window.tokens) - 1]
        exact = new_logits.to(torch.promote_types(new_logits.dtype, torch.float32))
        log_probs = exact.log_softmax(dim=-1).gather(1, targets[:, None])[:, 0]
        sums.append(-float(log_probs.cpu().numpy().astype(np.float64).sum()))
    return sums


def bits_per_byte(scores: Sequence[DocumentScore]) -> Estimate:
    """All bits over all bytes, with a 95 % interval that treats each document as one independent draw."""
    statistic = ratio_of([s.bits for s in scores], [s.utf8_bytes for s in scores], "log")
    return measure(statistic, clusters_of(range(len(scores))))


def by_source(scores: Iterable[DocumentScore]) -> dict[str, dict[str, Any]]:
    """Bits per byte of every group of documents with one top-level folder, the largest group first.

    Values: value, low, high (the ends are None where one document gives no interval), documents,
    utf8_bytes, tokens.
    """
    groups: dict[str, list[DocumentScore]] = defaultdict(list)
    for score in scores:
        groups[top_level(score.source)].append(score)
    table: dict[str, dict[str, Any]] = {
        name: {
            **estimate_as_json(bits_per_byte(members)),
            "documents": len(members),
            "utf8_bytes": sum(s.utf8_bytes for s in members),
            "tokens": sum(s.tokens for s in members),
        }
        for name, members in groups.items()
        if any(s.utf8_bytes for s in members)
    }
    return dict(sorted(table.items(), key=lambda entry: (-entry[1]["utf8_bytes"], entry[0])))


def top_level(source: str) -> str:
    """The first folder of a source such as "asyncio/tasks.py"; "." for a file in no folder."""
    folder, slash, _ = source.strip("/").partition("/")
    return folder if slash else "."


def estimate_as_json(estimate: Estimate) -> dict[str, float | None]:
    """value, low and high, where an end that is not finite becomes None (JSON has no infinity)."""
    return {
        "value": estimate.value,
        "low": estimate.low if math.isfinite(estimate.low) else None,
        "high": estimate.high if math.isfinite(estimate.high) else None,
    }
