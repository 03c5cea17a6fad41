"""Beam search: the likeliest texts, as far as keeping a few at a time can find them.

    score(y) = sum_t log p(y_t | y_<t) / |y|^alpha

(length normalisation; alpha 0 is the plain sum, which favours short texts). The K best unfinished texts are
continued; a continuation that ends, and is among the K best, joins the finished ones, of which the K best are
kept. The search is over when no unfinished text can overtake the worst of them.

Shapes: K beams, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from models.generation.engine import Engine
from models.generation.requests import Finish, Request, check
from seedbed.errors import UsageError


class Beam(NamedTuple):
    """One text found."""

    tokens: list[int]
    """New ones; a stop id that ended them included."""
    score: float
    """Sum of log-probabilities, in nats, divided by the number of tokens to the power `length_penalty`."""
    finish: Finish


@torch.inference_mode()
def beam_search(
    engine: Engine,
    prompt: Sequence[int],
    *,
    num_beams: int,
    max_new_tokens: int,
    length_penalty: float = 1.0,
    stop_ids: frozenset[int] = frozenset(),
) -> list[Beam]:
    """The `num_beams` best texts found, best first. UsageError for a prompt that cannot be continued."""
    check(Request(prompt, max_new_tokens), engine.model.config, None)
    room = engine.model.config.context - len(prompt)
    limit = min(max_new_tokens, room)
    if not 1 <= num_beams <= engine.model.config.vocab_size:
        raise UsageError(f"num_beams = {num_beams}", "use 1 beam or more, and no more than there are tokens")
    cache = engine.new_cache(num_beams)
    logits_KV = engine.logits(engine.read(cache, [0], [prompt]))
    beams: list[list[int]] = [[]]
    sums_K = torch.zeros(1, device=logits_KV.device)
    finished: list[Beam] = []
    for length in range(1, limit + 1):
        totals_KV = sums_K[:, None] + logits_KV.log_softmax(-1)
        # As many as it takes for K to be left when every beam ends.
        best = totals_KV.flatten().topk(min(num_beams * (1 + len(stop_ids)), totals_KV.numel()))
        parents, tokens = (best.indices // logits_KV.shape[1]).tolist(), best.indices % logits_KV.shape[1]
        candidates = list(zip(best.values.tolist(), parents, tokens.tolist(), strict=True))
        for total, parent, token in candidates[:num_beams]:
            if token in stop_ids:
                finished.append(Beam([*beams[parent], token], total / length**length_penalty, "stop"))
        finished = sorted(finished, key=lambda beam: -beam.score)[:num_beams]
        going = [one for one in candidates if one[2] not in stop_ids][:num_beams]
        beams = [[*beams[parent], token] for _, parent, token in going]
        sums_K = torch.tensor([total for total, _, _ in going], device=logits_KV.device)
        # Sums only fall; but where long texts weigh less, the best unfinished one may yet gain by its length.
        weight = (limit if length_penalty > 0 else length) ** length_penalty
        if not going or (len(finished) == num_beams and going[0][0] / weight <= finished[-1].score):
            return finished
        if length < limit:
            slots = list(range(len(going)))
            cache.copy([parent for _, parent, _ in going], slots)
            logits_KV = engine.logits(engine.step(cache, slots, [token for _, _, token in going]))
    why: Finish = "length" if max_new_tokens <= room else "context"
    ends = [Beam(beam, float(s) / length**length_penalty, why) for beam, s in zip(beams, sums_K, strict=True)]
    return sorted(finished + ends, key=lambda beam: -beam.score)[:num_beams]
