"""What a task asks of a model, and what it gets back.

    loglikelihood    how likely is this continuation after this context?
    rolling          how likely is this text, whole?
    generate-until   what does the model write after this context, up to a stop string?

Every task is made of these three, and whoever can answer them can be evaluated.
"""

from dataclasses import dataclass, field

from models.generation import SamplingOptions

GREEDY = SamplingOptions(temperature=0)


@dataclass(frozen=True)
class LogLikelihood:
    """log p(continuation | context), of texts. Without a context, the end-of-text token is one."""

    item: str
    """What an error names."""
    context: str
    continuation: str


@dataclass(frozen=True)
class Rolling:
    """log p(text), every token scored once, in windows where the text is longer than the model's context."""

    item: str
    text: str


@dataclass(frozen=True)
class GenerateUntil:
    """What follows `context`, up to the first of `until`, the end-of-text token or `max_new_tokens`."""

    item: str
    context: str
    max_new_tokens: int
    until: tuple[str, ...] = ()
    options: SamplingOptions = field(default=GREEDY)
    seed: int = 0


@dataclass(frozen=True)
class Scored:
    """The answer to a likelihood."""

    log_likelihood: float
    """In nats, of all scored tokens together."""
    is_greedy: bool
    """Whether each scored token was the likeliest one at its place."""
    tokens: int
    """That were scored."""
    utf8_bytes: int
    """Of the text that was asked about."""
    num_cut: int = 0
    """Tokens at the start of the context that did not fit into the model's context."""
    is_merged: bool = False
    """Whether a token spans the boundary between context and continuation; it is scored, whole."""


@dataclass(frozen=True)
class Generated:
    """The answer to a generation."""

    text: str
    """Up to the stop string."""
    tokens: int
    finish: str
    """"stop", "length" or "context": `models.generation.requests.Finish`."""
    num_cut: int = 0
