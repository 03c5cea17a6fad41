"""What is asked of a generator, and what it answers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from models.config import ModelConfig
from seedbed.errors import UsageError

Decode = Callable[[Sequence[int]], str]
"""Tokens to text, as a tokenizer does it."""
Finish = Literal["stop", "length", "context"]
"""Why a text ended: a stop id or string, `max_new_tokens`, or a full context."""


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen. The defaults sample from the model's own distribution."""

    temperature: float = 1.0
    """Logits are divided by it; 0 is greedy."""
    top_k: int = 0
    """Keep the k likeliest tokens (Fan et al. 2018); 0 keeps all."""
    top_p: float = 1.0
    """Of what is kept, the likeliest tokens that together have this probability (Holtzman et al. 2019)."""
    min_p: float = 0.0
    """Keep tokens at least this many times as likely as the likeliest (Nguyen et al. 2024)."""
    repetition_penalty: float = 1.0
    """Logits of tokens in prompt or answer: divided by it above 0, multiplied below (Keskar et al. 2019)."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit for each time that the answer has it."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens that the answer has."""
    no_repeat_ngram: int = 0
    """No n tokens in a row occur twice (Paulus et al. 2017); 0 lets them."""

    def __post_init__(self) -> None:
        for name, low, high, fix in (
            ("temperature", 0, math.inf, "use 0 (greedy) or more"),
            ("top_k", 0, math.inf, "use 0 (all tokens) or more"),
            ("min_p", 0, 1, "use 0 to keep all tokens"),
            ("frequency_penalty", -math.inf, math.inf, "use 0 for none"),
            ("presence_penalty", -math.inf, math.inf, "use 0 for none"),
            ("no_repeat_ngram", 0, math.inf, "use 0 for none"),
        ):
            value = getattr(self, name)
            if not (low <= value <= high and math.isfinite(value)):
                raise UsageError(f"{name} = {value} is not a number from {low} to {high}", fix)
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p = {self.top_p} is not in (0, 1]", "use 1 to keep all tokens")
        if not 0 < self.repetition_penalty < math.inf:
            raise UsageError(
                f"repetition_penalty = {self.repetition_penalty} is not above 0", "use 1 for none"
            )

    @property
    def penalises(self) -> bool:
        """Whether what was said before changes what is likely now."""
        repeats = self.repetition_penalty != 1 or self.no_repeat_ngram > 0
        return repeats or self.frequency_penalty != 0 or self.presence_penalty != 0


@dataclass(frozen=True)
class Request:
    """One text to continue."""

    prompt: Sequence[int]
    """Tokens, at least one."""
    max_new_tokens: int
    options: SamplingOptions = field(default_factory=SamplingOptions)
    seed: int = 0
    """The n-th draw is a function of (seed, n); where the engine is batch-invariant, so is the token, given
    weights and request."""
    stop_ids: frozenset[int] = frozenset()
    """Tokens that end the text; the one that does is part of the answer's tokens."""
    stop_strings: tuple[str, ...] = ()
    """Strings that end the text, wherever in a token they begin or end."""


@dataclass(frozen=True)
class Token:
    """One new token of a stream."""

    index: int
    """Which of the requests it belongs to."""
    token: int
    log_prob: float
    """Natural logarithm, under the model's own distribution: see `Completion.log_probs`."""
    finish: Finish | None
    """Set on the last token of its text."""


@dataclass(frozen=True)
class Completion:
    """The answer to one request."""

    tokens: list[int]
    """All that were sampled: the stop id, and the tokens that hold a stop string, are among them."""
    log_probs: list[float]
    """Of each, in nats: under softmax(logits / temperature), before any penalty and before top-k, top-p and
    min-p; greedy counts as temperature 1. These are what a trainer recomputes from the same weights."""
    finish: Finish


def check(request: Request, config: ModelConfig, decode: Decode | None, name: str = "the prompt") -> None:
    """Raise UsageError for a request that cannot be honoured."""
    if not request.prompt:
        raise UsageError(f"{name} is empty", "start with the end-of-text token to sample from nothing")
    if len(request.prompt) >= config.context:
        raise UsageError(
            f"{name} has {len(request.prompt)} tokens and the model's context is {config.context}",
            "shorten the prompt",
        )
    for token in (min(request.prompt), max(request.prompt)):
        if not 0 <= token < config.vocab_size:
            raise UsageError(
                f"{name}: token {token} is outside the model's vocabulary of {config.vocab_size}",
                "encode the prompt with the tokenizer that the model was trained with",
            )
    if request.max_new_tokens < 1:
        raise UsageError(f"{name}: max_new_tokens = {request.max_new_tokens}", "ask for 1 token or more")
    if "" in request.stop_strings:
        raise UsageError(f"{name}: a stop string is empty", "leave it out")
    if request.stop_strings and decode is None:
        raise UsageError(
            f"{name} has stop strings, and the generator has no tokenizer to find them with",
            "pass the tokenizer's decode, or use stop_ids",
        )
