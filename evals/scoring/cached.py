"""A decoder of ours, scored without computing anything twice and without padding.

    the preamble (few-shot examples)   read once for all spans
    a context                          read once for its choices, which go on from a copy of what it left
    the choices                        read side by side, many texts in one row of tokens

Only hidden states that predict a scored token go through the head. On a CPU in fp32 a row's numbers are the
same whatever lies beside it (`models.generation.packed`), and which tokens are read together depends on a
span alone: the batch size shows in no bit. Elsewhere every product is of one fixed shape: a row of
`FORWARD_TOKENS`, filled up, and `HEAD_ROWS` at the head.

Shapes: N tokens of a row, D width, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from typing import NamedTuple

import torch
from torch import Tensor

from evals.scoring.backend import MIN_SHARED, Advance, Span, SpanScore, grouped, total
from models.cache import Cache
from models.generation import Completion, Engine, Request
from models.generation.requests import Decode
from models.transformer import Transformer

FORWARD_TOKENS = 512
"""Tokens that go through the model at once; longer texts go in pieces."""
HEAD_ROWS = 64
"""Hidden states that go through the head at once."""
MIN_READ = 16
"""Of a text, tokens that are read at once at least, some of them again: attention of fewer is computed in
another way by one thread than by several, and rounded otherwise."""
CACHE_BYTES, CACHE_TOKENS = 2**30, 8192
"""Memory for keys and values, and how many fill some rows and stay warm; a group of choices may need more."""
BATCH_SIZE = 64


class _Part(NamedTuple):
    """What a slot is to hold, of which it may have the beginning."""

    slot: int
    text: Sequence[int]
    wanted: int
    """The first token whose hidden state is asked for."""


class CachedBackend:
    """Scores with `model`; `batch_size` texts at most are worked on at a time, but choices stay together."""

    def __init__(
        self, model: Transformer, *, batch_size: int = BATCH_SIZE, decode: Decode | None = None
    ) -> None:
        self.engine = Engine(model, num_slots=batch_size, decode=decode)
        self.context, self.batch_size = model.config.context, batch_size
        per_token = sum(G * K for G, K in model.config.cached_per_token) * model.config.num_layers
        most = CACHE_BYTES // (per_token * model.embedding.weight.element_size())
        self._max_cached = max(1, min(CACHE_TOKENS, most))

    @property
    def batch_invariant(self) -> bool:
        """Whether it is promised that the batch size shows in no bit."""
        return self.engine.batch_invariant

    @torch.inference_mode()
    def score(
        self, spans: Sequence[Span], preamble: int = 0, advance: Advance | None = None
    ) -> list[SpanScore]:
        """See `Backend`."""
        scores: dict[int, SpanScore] = {}
        start = self._new_cache(1)
        if preamble and spans:
            self._read(start, [_Part(0, spans[0].context[:preamble], preamble - 1)])
        cache: Cache | None = None
        for batch in self._batches(spans):
            numbers = [number for group in batch for number in group]
            longest = max(spans[number].num_inputs for number in numbers)
            cache = self._emptied(cache, len(numbers), longest)
            groups = [[spans[number] for number in group] for group in batch]
            found = self._score_batch(groups, start, cache)
            scores |= zip(numbers, found, strict=True)
            if advance:
                advance(len(numbers))
        return [scores[number] for number in range(len(spans))]

    def complete(self, requests: Sequence[Request], advance: Advance | None = None) -> list[Completion]:
        """See `Backend`."""
        done = self.engine.complete(requests)
        if advance:
            advance(len(requests))
        return done

    def _batches(self, spans: Sequence[Span]) -> Iterator[list[list[int]]]:
        """Groups that are worked on together."""
        batch: list[list[int]] = []
        num_texts = longest = 0
        for group in grouped(spans):
            num_texts += len(group)
            longest = max(longest, *(spans[number].num_inputs for number in group))
            if batch and (num_texts > self.batch_size or num_texts * longest > self._max_cached):
                yield batch
                batch, num_texts = [], len(group)
                longest = max(spans[number].num_inputs for number in group)
            batch.append(group)
        if batch:
            yield batch

    def _score_batch(self, groups: list[list[Span]], start: Cache, cache: Cache) -> Iterator[SpanScore]:
        spans = list(chain.from_iterable(groups))
        if start.lengths[0]:
            cache.begin_with(start)
        # By slot: the hidden state that predicts the first scored token, where the context was read.
        first_1D = self._read_contexts(cache, groups)
        parts = [
            _Part(slot, (*span.context, *span.continuation[:-1]), len(span.context) - (slot not in first_1D))
            for slot, span in enumerate(spans)
        ]
        left = [part for part in parts if len(part.text) > cache.lengths[part.slot]]
        read_ND = dict(zip((part.slot for part in left), self._read(cache, left), strict=True))
        rows = [known[slot] for slot in range(len(spans)) for known in (first_1D, read_ND) if slot in known]
        targets = list(chain.from_iterable(span.continuation for span in spans))
        log_probs, is_best = self._at_targets(torch.cat(rows), targets)
        stops = accumulate(len(span.continuation) for span in spans)
        for span, stop in zip(spans, stops, strict=True):
            own = slice(stop - len(span.continuation), stop)
            yield SpanScore(total(span.item, log_probs[own]), all(is_best[own]))

    def _read_contexts(self, cache: Cache, groups: list[list[Span]]) -> dict[int, Tensor]:
        """Let slots hold their contexts, where these are worth reading by themselves; their last hidden
        states."""
        past = cache.lengths[0]
        first, members, parts = 0, [], []
        for group in groups:
            context = group[0].context
            if past or len(context) >= MIN_SHARED:
                members.append(range(first, first + len(group)))
                parts.append(_Part(first, context, len(context) - 1))
            first += len(group)
        last_1D: dict[int, Tensor] = {}
        for slots, hidden_1D in zip(members, self._read(cache, parts), strict=True):
            last_1D |= dict.fromkeys(slots, hidden_1D)
            if len(slots) > 1:
                cache.copy([slots[0]] * (len(slots) - 1), slots[1:])
        return last_1D

    def _read(self, cache: Cache, parts: Sequence[_Part]) -> list[Tensor]:
        """[N, D] of each part: the hidden states that are asked for."""
        new = []
        for slot, text, _ in parts:
            cache.lengths[slot] = min(cache.lengths[slot], max(0, len(text) - MIN_READ))
            new.append(text[cache.lengths[slot] :])
        found: dict[int, Tensor] = {}
        for row in _rows([len(tokens) for tokens in new], [cache.lengths[part.slot] == 0 for part in parts]):
            slots = [parts[index].slot for index in row]
            past = [cache.lengths[slot] for slot in slots]
            pieces = [
                self._hidden(cache, slots, [new[index][start:stop] for index in row])
                for start, stop in _pieces(max(len(new[index]) for index in row))
            ]
            hidden = torch.cat(pieces).split([len(new[index]) for index in row])
            for index, before, hidden_ND in zip(row, past, hidden, strict=True):
                found[index] = hidden_ND[parts[index].wanted - before :].clone()
        return [found[index] for index in range(len(parts))]

    def _hidden(self, cache: Cache, slots: list[int], tokens: list[Sequence[int]]) -> Tensor:
        """[N, D]; where it matters, the row is filled up by a text that nobody asked for, in the last
        slot."""
        num_tokens = sum(map(len, tokens))
        if self.engine.packed or num_tokens == FORWARD_TOKENS:
            return self.engine.hidden(cache, slots, tokens)
        filler = len(cache.lengths) - 1
        left = FORWARD_TOKENS - num_tokens
        while left:
            size = min(left, self.context)
            slots, tokens, left = [*slots, filler], [*tokens, [0] * size], left - size
            filler -= 1
        hidden_ND = self.engine.hidden(cache, slots, tokens)[:num_tokens]
        for slot in range(filler + 1, len(cache.lengths)):
            cache.clear(slot)
        return hidden_ND

    def _emptied(self, cache: Cache | None, num_texts: int, longest: int) -> Cache:
        """`cache` without its texts, if it has slots enough, or another: fresh memory is slow to write."""
        if cache is None or len(cache.lengths) < num_texts + self._num_fillers:
            # Texts become shorter from batch to batch, so that more of them may share one.
            cache = self._new_cache(max(num_texts, min(self.batch_size, self._max_cached // longest)))
        for slot in range(len(cache.lengths)):
            cache.clear(slot)
        cache.reserve(longest)
        return cache

    @property
    def _num_fillers(self) -> int:
        """Slots for what fills rows up."""
        return 0 if self.engine.packed else -(-FORWARD_TOKENS // self.context)

    def _new_cache(self, num_slots: int) -> Cache:
        """With slots at its end for what fills rows up."""
        weight = self.engine.model.embedding.weight
        # Each text attends by itself: together they would attend to as many tokens as the longest has.
        num_slots += self._num_fillers
        return Cache(self.engine.model.config, num_slots, weight.device, weight.dtype, padded=False)

    def _at_targets(self, hidden_ND: Tensor, targets: Sequence[int]) -> tuple[list[float], list[bool]]:
        """Of each target, its log-probability and whether no other token had a greater one."""
        log_probs: list[float] = []
        is_best: list[bool] = []
        targets_N = torch.tensor(targets, device=hidden_ND.device)
        for rows_ND, targets_R in zip(hidden_ND.split(HEAD_ROWS), targets_N.split(HEAD_ROWS), strict=True):
            R = len(rows_ND)
            if not self.engine.packed and R < HEAD_ROWS:
                rows_ND = torch.cat([rows_ND, rows_ND.new_zeros(HEAD_ROWS - R, rows_ND.shape[1])])
            logits_RV = self.engine.logits(rows_ND)[:R]
            log_probs += logits_RV.log_softmax(-1).gather(1, targets_R[:, None])[:, 0].tolist()
            is_best += (logits_RV.argmax(-1) == targets_R).tolist()
        return log_probs, is_best


def _rows(sizes: Sequence[int], is_fresh: Sequence[bool]) -> Iterator[list[int]]:
    """Numbers of texts that are read in one row: as many as fit, or a longer one by itself.

    First tokens and later ones are not mixed: attention may compute the two in different ways.
    """
    row: list[int] = []
    used = 0
    for index in sorted(range(len(sizes)), key=lambda index: is_fresh[index]):
        if row and (used + sizes[index] > FORWARD_TOKENS or is_fresh[index] != is_fresh[row[0]]):
            yield row
            row, used = [], 0
        row.append(index)
        used += sizes[index]
    if row:
        yield row


def _pieces(num_tokens: int) -> Iterator[tuple[int, int]]:
    """Where the pieces of a long text begin and end, the last one with `MIN_READ` tokens or more."""
    start = 0
    while start < num_tokens:
        stop = min(num_tokens, start + FORWARD_TOKENS)
        if 0 < num_tokens - stop < MIN_READ:
            stop = num_tokens - MIN_READ
        yield start, stop
        start = stop
