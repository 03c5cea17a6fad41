"""Repetition controls: what was said before, made less likely or impossible.

Shapes: V vocabulary.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from models.generation.requests import SamplingOptions


def penalised(
    logits_V: Tensor, prompt: Sequence[int], made: Sequence[int], options: SamplingOptions
) -> Tensor:
    """The logits of the next token after `prompt` and `made`, as `options` ask for them; a new tensor.

    The repetition penalty and the ban on repeated n-grams look at prompt and answer, the frequency and the
    presence penalty at the answer alone.
    """
    logits_V = logits_V.clone()
    if options.repetition_penalty != 1:
        said = torch.tensor(sorted({*prompt, *made}), device=logits_V.device)
        scores = logits_V[said]
        factor = options.repetition_penalty
        logits_V[said] = torch.where(scores > 0, scores / factor, scores * factor)
    if made and (options.frequency_penalty or options.presence_penalty):
        counts = Counter(made)
        answered = torch.tensor(list(counts), device=logits_V.device)
        times = torch.tensor(list(counts.values()), device=logits_V.device)
        logits_V[answered] -= options.frequency_penalty * times + options.presence_penalty
    if options.no_repeat_ngram:
        banned = list(_continuations([*prompt, *made], options.no_repeat_ngram))
        # Where nothing else could follow, the ban is lifted: one text must not stop all that grow beside it.
        if len(set(banned)) < len(logits_V):
            logits_V[banned] = -torch.inf
    return logits_V


def _continuations(tokens: list[int], n: int) -> Iterator[int]:
    """The tokens that once followed the last n - 1 tokens."""
    start = len(tokens) - n + 1
    if start < 0:
        return
    for end in range(n - 1, len(tokens)):
        if tokens[end - n + 1 : end] == tokens[start:]:
            yield tokens[end]
