"""Requests as tokens: where a continuation begins, what does not fit, which windows a text has.

Context and continuation are encoded together, as a text that holds both would be, and the continuation is
what follows the tokens of the context alone; spaces at the end of a context count to the continuation, whose
first token holds them. Encoded apart, the two would be tokens that no text has.
"""

from collections.abc import Sequence
from typing import NamedTuple

from evals.bits_per_byte import rolling_spans
from evals.items import Tokenizer
from evals.requests import LogLikelihood, Rolling
from evals.scoring.backend import Span, common_length
from seedbed.errors import DataError


class Encoded(NamedTuple):
    """A request, and what has to be known of it beside its spans."""

    spans: list[Span]
    utf8_bytes: int
    num_cut: int = 0
    is_merged: bool = False


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[list[int], list[int], bool]:
    """(context, continuation, whether a token spans the two), neither of them empty.

    Without a context, the end-of-text token is one. Where a token spans the boundary it is scored.
    """
    if not context:
        return [tokenizer.end_of_text_id], tokenizer.encode(continuation), False
    text = context + continuation
    before = tokenizer.encode(context.rstrip()) if context.strip() else []
    whole = tokenizer.encode(text)
    is_merged = whole[: len(before)] != before or len(whole) == len(before)
    length = common_length(before, whole[:-1])
    if length < 1:
        return [tokenizer.end_of_text_id], whole, is_merged
    return whole[:length], whole[length:], is_merged


def encode_likelihood(tokenizer: Tokenizer, request: LogLikelihood, limit: int) -> Encoded:
    """See `cut_to_fit`. DataError for a continuation that is empty."""
    if not request.continuation:
        raise DataError(
            f"item {request.item!r} asks for the likelihood of an empty text",
            "give it a text, or leave it out",
        )
    context, continuation, is_merged = encode_pair(tokenizer, request.context, request.continuation)
    return cut_to_fit(
        request.item, context, continuation, limit, len(request.continuation.encode()), is_merged
    )


def cut_to_fit(
    item: str,
    context: Sequence[int],
    continuation: Sequence[int],
    limit: int,
    utf8_bytes: int,
    is_merged: bool = False,
) -> Encoded:
    """The span of these tokens, its context cut at its beginning so that the model reads `limit` at most.

    A continuation that is longer by itself is scored in windows, the first after the context's last token.
    """
    room = limit + 1 - len(continuation)
    if room < 1:
        spans = windows(item, continuation, context[-1], limit, max(1, limit // 2))
        return Encoded(spans, utf8_bytes, len(context) - 1, is_merged)
    span = Span(item, tuple(context[-room:]), tuple(continuation))
    return Encoded([span], utf8_bytes, len(context) - len(span.context), is_merged)


def encode_rolling(tokenizer: Tokenizer, request: Rolling, limit: int, stride: int) -> Encoded:
    """The windows of a text after the end-of-text token; `stride` is how far they are apart."""
    tokens = tokenizer.encode(request.text)
    return Encoded(
        windows(request.item, tokens, tokenizer.end_of_text_id, limit, stride), len(request.text.encode())
    )


def windows(item: str, tokens: Sequence[int], start_id: int, limit: int, stride: int) -> list[Span]:
    """Spans that score every token once, the first one after `start_id` alone."""
    text = [start_id, *tokens]
    return [
        Span(item, tuple(text[start : first_new + 1]), tuple(text[first_new + 1 : end + 1]))
        for start, first_new, end in rolling_spans(len(tokens), limit, stride)
    ]
