"""From requests to log-likelihoods and texts.

encoding.py   requests -> tokens: where a continuation begins, what is cut, which windows a text has
backend.py    the protocol: who computes with tokens
cached.py     a decoder of ours: what requests share is computed once, nothing is padded
padded.py     any function from tokens to logits, in fixed shapes
dispatch.py   a model larger than one device, by `accelerate`
ranks.py      several processes, each with a model of its own; worker.py is one of them
scorer.py     all of it together: `Scorer`
"""

from evals.scoring.backend import Backend, Span, SpanScore
from evals.scoring.cached import CachedBackend
from evals.scoring.padded import PaddedBackend
from evals.scoring.scorer import Scorer

__all__ = ["Backend", "CachedBackend", "PaddedBackend", "Scorer", "Span", "SpanScore"]
