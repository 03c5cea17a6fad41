"""Token-by-token sampling with a key-value cache.

The draw for the n-th new token of a sequence is a pure function of (seed, n): it depends neither
on what else is sampled nor on how often the process was restarted.

Shapes: T time, V vocabulary.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from models.transformer import Transformer
from seedbed.errors import UsageError
from seedbed.randomness import uniform_of


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen. Temperature 0 is greedy; top_k 0 and top_p 1 keep all tokens."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UsageError(
                f"temperature = {self.temperature} is not a number from 0", "use 0 (greedy) or more"
            )
        if self.top_k < 0:
            raise UsageError(f"top_k = {self.top_k} is negative", "use 0 (all tokens) or more")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p = {self.top_p} is not in (0, 1]", "use 1 to keep all tokens")


def choose(logits_V: Tensor, options: SamplingOptions, uniform: float) -> int:
    """The token that `uniform` in [0, 1) picks from the (truncated) distribution of `logits_V`."""
    if options.temperature == 0:
        return int(logits_V.argmax())
    scores_V = logits_V.double() / options.temperature
    sorted_V, order_V = scores_V.sort(descending=True, stable=True)
    probabilities_V = sorted_V.softmax(-1)
    if options.top_k:
        probabilities_V[options.top_k :] = 0
    if options.top_p < 1:
        before_V = probabilities_V.cumsum(-1) - probabilities_V
        probabilities_V[before_V >= options.top_p] = 0
    cumulative_V = probabilities_V.cumsum(-1)
    index = int(torch.searchsorted(cumulative_V, uniform * cumulative_V[-1], right=True))
    return int(order_V[min(index, int(probabilities_V.count_nonzero()) - 1)])


@torch.no_grad()
def generate(
    model: Transformer,
    prompt: list[int],
    *,
    max_new_tokens: int,
    options: SamplingOptions | None = None,
    seed: int = 0,
    stop_id: int | None = None,
) -> Iterator[int]:
    """Yield new tokens one at a time, up to `stop_id` (not yielded), `max_new_tokens` or the context's end.

    Raises UsageError when the prompt is empty or leaves no room in the context.
    """
    options = options or SamplingOptions()
    context = model.config.context
    if not prompt:
        raise UsageError("the prompt is empty", "start with the end-of-text token to sample from nothing")
    if len(prompt) >= context:
        raise UsageError(
            f"the prompt has {len(prompt)} tokens and the model's context is {context}", "shorten the prompt"
        )
    if max(prompt) >= model.config.vocab_size:
        raise UsageError(
            f"token {max(prompt)} is outside the model's vocabulary of {model.config.vocab_size}",
            "encode the prompt with the tokenizer that the model was trained with",
        )
    device = model.embedding.weight.device
    cache = model.new_cache(1)
    step_input = torch.tensor([prompt], device=device)
    for count in range(min(max_new_tokens, context - len(prompt))):
        logits_V = model(step_input, cache)[0, -1]
        token = choose(logits_V, options, uniform_of(seed, "sample", count))
        if token == stop_id:
            return
        yield token
        step_input = torch.tensor([[token]], device=device)
