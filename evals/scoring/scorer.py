"""`Scorer`: requests in, answers out, in the same order, whatever the model is and wherever it runs."""

import math
from collections.abc import Sequence

from evals.items import Tokenizer
from evals.requests import Generated, GenerateUntil, LogLikelihood, Rolling, Scored
from evals.scoring.backend import Advance, Backend, shared_preamble
from evals.scoring.encoding import Encoded, encode_likelihood, encode_rolling
from models.generation import Request
from models.generation.stops import cut_at_stop
from seedbed.errors import UsageError


class Scorer:
    """Texts through `tokenizer` and `backend`."""

    def __init__(self, backend: Backend, tokenizer: Tokenizer) -> None:
        self.backend, self.tokenizer = backend, tokenizer

    def log_likelihoods(
        self, requests: Sequence[LogLikelihood], advance: Advance | None = None
    ) -> list[Scored]:
        """log p(continuation | context). DataError for a continuation that is empty."""
        limit = self.backend.context
        encoded = [encode_likelihood(self.tokenizer, request, limit) for request in requests]
        spans = [span for one in encoded for span in one.spans]
        return self._scored(encoded, shared_preamble(spans), advance)

    def rolling(
        self, requests: Sequence[Rolling], stride: int | None = None, advance: Advance | None = None
    ) -> list[Scored]:
        """log p(text). Windows are `stride` tokens apart, half the model's context unless said."""
        limit = self.backend.context
        step = max(1, limit // 2) if stride is None else stride
        if not 1 <= step <= limit:
            raise UsageError(
                f"a stride of {step} tokens does not fit a context of {limit}",
                "give a stride between 1 and the context",
            )
        encoded = [encode_rolling(self.tokenizer, request, limit, step) for request in requests]
        return self._scored(encoded, 0, advance)

    def generate(self, requests: Sequence[GenerateUntil], advance: Advance | None = None) -> list[Generated]:
        """What the model writes; a context that leaves no room for the answer loses its beginning."""
        asked, cuts = [], []
        for request in requests:
            room = self.backend.context - request.max_new_tokens
            if room < 1:
                raise UsageError(
                    f"item {request.item!r} asks for {request.max_new_tokens} tokens, and the model "
                    f"reads {self.backend.context}",
                    "ask for fewer",
                )
            prompt = self.tokenizer.encode(request.context) or [self.tokenizer.end_of_text_id]
            cuts.append(max(0, len(prompt) - room))
            asked.append(
                Request(
                    prompt[-room:],
                    request.max_new_tokens,
                    request.options,
                    request.seed,
                    frozenset([self.tokenizer.end_of_text_id]),
                    request.until,
                )
            )
        answers = self.backend.complete(asked, advance)
        found = []
        for request, answer, cut in zip(requests, answers, cuts, strict=True):
            tokens = [token for token in answer.tokens if token != self.tokenizer.end_of_text_id]
            text = cut_at_stop(self.tokenizer.decode(tokens), request.until)
            found.append(Generated(text, len(answer.tokens), answer.finish, cut))
        return found

    def _scored(self, encoded: Sequence[Encoded], preamble: int, advance: Advance | None) -> list[Scored]:
        spans = [span for one in encoded for span in one.spans]
        scores = iter(self.backend.score(spans, preamble, advance))
        found = []
        for one in encoded:
            own = [next(scores) for _ in one.spans]
            found.append(
                Scored(
                    math.fsum(score.nats for score in own),
                    all(score.is_greedy for score in own),
                    sum(len(span.continuation) for span in one.spans),
                    one.utf8_bytes,
                    one.num_cut,
                    one.is_merged,
                )
            )
        return found
