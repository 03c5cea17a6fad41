"""Any causal model, as a function from tokens to logits: padded, in shapes that do not depend on the batch.

A text of n tokens goes through the model in a row of the next multiple of `QUANTUM`, and as many rows as make
up `PADDED_TOKENS`, filled up with padding where there are fewer texts. Padding comes after the tokens, where
a causal model cannot see it. So a text meets the same kernels whatever else is scored, in whichever batch.

Shapes: R rows, T tokens of a row, V vocabulary.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from evals.scoring.backend import Advance, Span, SpanScore, total
from models.generation import Completion, Request
from models.generation.requests import Finish
from models.generation.sampler import log_probs_of, sample
from models.generation.stops import ends_with_stop
from seedbed.errors import UsageError
from seedbed.randomness import uniform_of

LogitsOf = Callable[[torch.Tensor], torch.Tensor]
"""[R, T] int64 -> [R, T, V]."""
QUANTUM = 64
PADDED_TOKENS = 512


class PaddedBackend:
    """Scores with `logits`, whose weights are someone else's care; `batch_size` only says how many texts
    are taken at a time."""

    def __init__(
        self,
        logits: LogitsOf,
        *,
        context: int,
        padding_id: int = 0,
        batch_size: int = 64,
        device: str | torch.device = "cpu",
        decode: Callable[[Sequence[int]], str] | None = None,
    ) -> None:
        self.logits, self.context, self.padding_id = logits, context, padding_id
        self.batch_size, self.device, self.decode = batch_size, device, decode

    @torch.inference_mode()
    def score(
        self, spans: Sequence[Span], preamble: int = 0, advance: Advance | None = None
    ) -> list[SpanScore]:
        """See `Backend`."""
        order = sorted(range(len(spans)), key=lambda number: -spans[number].num_inputs)
        scores: dict[int, SpanScore] = {}
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            while chosen:
                width = self._width(spans[chosen[0]].num_inputs)
                taken = [number for number in chosen if self._width(spans[number].num_inputs) == width]
                taken = taken[: max(1, PADDED_TOKENS // width)]
                scores |= zip(taken, self._score_rows([spans[n] for n in taken], width), strict=True)
                chosen = chosen[len(taken) :]
                if advance:
                    advance(len(taken))
        return [scores[number] for number in range(len(spans))]

    def complete(self, requests: Sequence[Request], advance: Advance | None = None) -> list[Completion]:
        """See `Backend`. Text by text, each read whole for every token: for models that are not ours."""
        done = []
        for request in requests:
            done.append(self._complete(request))
            if advance:
                advance(1)
        return done

    def _width(self, num_tokens: int) -> int:
        return min(self.context, -(-num_tokens // QUANTUM) * QUANTUM)

    def _logits_of(self, rows: Sequence[Sequence[int]], width: int) -> torch.Tensor:
        tokens_RT = np.full((max(1, PADDED_TOKENS // width), width), self.padding_id, dtype=np.int64)
        for row, tokens in zip(tokens_RT, rows, strict=False):
            row[: len(tokens)] = tokens
        return self.logits(torch.from_numpy(tokens_RT).to(self.device))

    def _score_rows(self, spans: Sequence[Span], width: int) -> list[SpanScore]:
        inputs = [(*span.context, *span.continuation[:-1]) for span in spans]
        logits_RTV = self._logits_of(inputs, width)
        scores = []
        for logits_TV, span in zip(logits_RTV, spans, strict=False):
            targets_T = torch.tensor(span.continuation, device=logits_TV.device)
            own_TV = logits_TV[len(span.context) - 1 : span.num_inputs]
            exact_TV = own_TV.to(torch.promote_types(own_TV.dtype, torch.float32))
            log_probs_T = exact_TV.log_softmax(-1).gather(1, targets_T[:, None])[:, 0]
            is_greedy = bool((exact_TV.argmax(-1) == targets_T).all())
            scores.append(SpanScore(total(span.item, log_probs_T.tolist()), is_greedy))
        return scores

    @torch.inference_mode()
    def _complete(self, request: Request) -> Completion:
        if request.options.penalises:
            raise UsageError("this kind of model samples without penalties", "leave them out")
        tokens: list[int] = []
        log_probs: list[float] = []
        finish: Finish = "length"
        while len(tokens) < request.max_new_tokens:
            text = [*request.prompt, *tokens]
            if len(text) > self.context:
                finish = "context"
                break
            next_1V = self._logits_of([text], self._width(len(text)))[0, len(text) - 1][None].float()
            uniform = uniform_of(request.seed, "sample", len(tokens))
            token_1 = sample(next_1V, request.options, [uniform])
            tokens.append(int(token_1))
            log_probs.append(float(log_probs_of(next_1V, token_1, request.options.temperature)))
            if tokens[-1] in request.stop_ids or (
                self.decode and ends_with_stop(tokens, request.stop_strings, self.decode)
            ):
                finish = "stop"
                break
        return Completion(tokens, log_probs, finish)
