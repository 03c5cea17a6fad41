"""Continuous batching: many texts grow side by side, and one that ends leaves its slot to the next.

    while anything is waiting or running:
        read the prompts of waiting texts into free slots
        advance every running text by one token
        sample the next token of all of them

Nothing is padded: the tokens of all texts lie in one row, and each text attends to its own slot. On a CPU in
float32, with packed matrices, every number is the same whatever else is in that row: the batch is a matter of
scheduling alone (`Engine.batch_invariant`).

Shapes: B texts, N tokens of all of them, D width, V vocabulary.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain

import torch
import torch.nn.functional as F
from torch import Tensor

from models.cache import Cache
from models.generation.packed import Packed, can_pack, pack, share
from models.generation.penalties import penalised
from models.generation.requests import (
    Completion,
    Decode,
    Finish,
    Request,
    SamplingOptions,
    Token,
    check,
)
from models.generation.sampler import log_probs_of, sample
from models.generation.stops import ends_with_stop
from models.generation.weights import load_weights, weights_hash
from models.transformer import Transformer
from seedbed.errors import UsageError
from seedbed.randomness import uniform_of

PREFILL_TOKENS = 512
"""Tokens of prompts that are read at once: what bounds the memory of their activations."""
BF16_TOLERANCE = 2**-5
"""How far log-probabilities of the same tokens in bfloat16 may differ between batches, and from a forward."""
SAMPLED_ROWS = 16
"""Rows that are sampled at once: their logits stay in the processor's cache."""


class Engine:
    """Generates with the parameters of `model`, which `load_weights` changes in place.

    `num_slots` texts are advanced at a time. `decode` turns tokens into text, for stop strings. `packed` (the
    default for float32 on a CPU) keeps a second copy of the matrices, which is multiplied faster and in the
    same way in every batch; `refresh` renews it after someone else has changed the model's parameters.
    """

    def __init__(
        self,
        model: Transformer,
        *,
        num_slots: int = 64,
        decode: Decode | None = None,
        packed: bool | None = None,
    ) -> None:
        if not isinstance(model, Transformer):
            raise UsageError(
                f"a {type(model).__name__} does not continue texts", "generate with a decoder, such as a GPT"
            )
        if num_slots < 1:
            raise UsageError(f"num_slots = {num_slots}", "use 1 slot or more")
        self.model, self.num_slots, self.decode = model, num_slots, decode
        self.packed = can_pack(model) if packed is None else packed
        self.padded = model.embedding.weight.device.type != "cpu"
        """See `models.cache.Cache`."""
        self.refresh()

    @property
    def batch_invariant(self) -> bool:
        """Whether an answer has the same bits in every batch; where not, they differ as rounding does.

        In bfloat16 by at most `BF16_TOLERANCE`, until a token is another.
        """
        return self.packed and not self.padded

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """The answers, in the order of `requests`."""
        completions = [Completion([], [], "length") for _ in requests]
        for event in self.stream(requests):
            done = completions[event.index]
            done.tokens.append(event.token)
            done.log_probs.append(event.log_prob)
            if event.finish:
                completions[event.index] = Completion(done.tokens, done.log_probs, event.finish)
        return completions

    def stream(self, requests: Iterable[Request]) -> Iterator[Token]:
        """Every new token as it is made. Raises UsageError, before the first one, for a bad request."""
        texts = [_Text(index, request) for index, request in enumerate(requests)]
        for text in texts:
            name = f"the prompt of request {text.index}" if len(texts) > 1 else "the prompt"
            check(text.request, self.model.config, self.decode, name)
        return self._stream(deque(texts))

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Take new weights, by canonical name, in place; UsageError, and no change, unless all fit."""
        load_weights(self.model, tensors)
        self.refresh()

    def weights_hash(self) -> str:
        """What `seedbed checkpoint hash` prints of a checkpoint of these weights."""
        return weights_hash(self.model)

    def refresh(self) -> None:
        """Renew what was derived from the model's parameters."""
        self._decoder = pack(self.model) if self.packed else share(self.model)
        self._head = Packed(self.model.head_weight) if self.packed else None

    def new_cache(self, num_slots: int) -> Cache:
        """An empty cache for `read` and `step`."""
        weight = self.model.embedding.weight
        return Cache(self.model.config, num_slots, weight.device, weight.dtype, padded=self.padded)

    def read(self, cache: Cache, slots: Sequence[int], prompts: Sequence[Sequence[int]]) -> Tensor:
        """[B, D]: the last hidden state of each prompt, whose tokens its empty slot then holds.

        Prompts are read together as far as they fit into `PREFILL_TOKENS`; longer ones alone, in parts.
        """
        last: list[Tensor] = []
        for group in _groups([len(prompt) for prompt in prompts]):
            for start in range(0, len(prompts[group[0]]), PREFILL_TOKENS):
                parts = [prompts[index][start : start + PREFILL_TOKENS] for index in group]
                hidden_ND = self.hidden(cache, [slots[index] for index in group], parts)
            ends = list(accumulate(len(part) for part in parts))
            last.append(hidden_ND[[end - 1 for end in ends]])
        return torch.cat(last)

    def step(self, cache: Cache, slots: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """[B, D]: the hidden states of one more token in each of `slots`."""
        return self.hidden(cache, slots, [[token] for token in tokens])

    def hidden(self, cache: Cache, slots: Sequence[int], parts: Sequence[Sequence[int]]) -> Tensor:
        """[N, D]: the hidden states of new tokens, `parts[i]` in `slots[i]`, one part after the other."""
        tokens_1N = torch.tensor([[*chain.from_iterable(parts)]], device=cache.device)
        return self._decoder.hidden(tokens_1N, cache.extend(slots, [len(part) for part in parts]))[0]

    def logits(self, hidden_BD: Tensor) -> Tensor:
        """[B, V], of the next token."""
        logits_BV = self._head(hidden_BD) if self._head else F.linear(hidden_BD, self.model.head_weight)
        return logits_BV.float()

    @torch.inference_mode()
    def _stream(self, waiting: "deque[_Text]") -> Iterator[Token]:
        cache = self.new_cache(min(self.num_slots, len(waiting)))
        free = list(range(len(cache.lengths)))[::-1]
        running: list[_Text] = []
        while waiting or running:
            hidden = self._advance(cache, running) + self._admit(cache, waiting, free, running)
            tokens, log_probs = _next_tokens(self.logits(torch.cat(hidden)), running)
            for text, token, log_prob in zip(list(running), tokens, log_probs, strict=True):
                text.tokens.append(token)
                finish = self._finish(text)
                if finish:
                    running.remove(text)
                    cache.clear(text.slot)
                    free.append(text.slot)
                yield Token(text.index, token, log_prob, finish)

    def _advance(self, cache: Cache, running: "list[_Text]") -> list[Tensor]:
        if not running:
            return []
        return [self.step(cache, [text.slot for text in running], [text.tokens[-1] for text in running])]

    def _admit(
        self, cache: Cache, waiting: "deque[_Text]", free: list[int], running: "list[_Text]"
    ) -> list[Tensor]:
        """Read the prompts of waiting texts into free slots; one that several share is read once."""
        arrived = [waiting.popleft() for _ in range(min(len(waiting), len(free)))]
        first: dict[tuple[int, ...], _Text] = {}
        for text in arrived:
            text.slot = free.pop()
            first.setdefault(tuple(text.request.prompt), text)
        if not arrived:
            return []
        running += arrived
        hidden_BD = self.read(cache, [text.slot for text in first.values()], list(first))
        rows = {prompt: row for row, prompt in enumerate(first)}
        for text in arrived:
            source = first[tuple(text.request.prompt)]
            if source is not text:
                cache.copy([source.slot], [text.slot])
        return [hidden_BD[[rows[tuple(text.request.prompt)] for text in arrived]]]

    def _finish(self, text: "_Text") -> Finish | None:
        request = text.request
        if text.tokens[-1] in request.stop_ids:
            return "stop"
        if self.decode and ends_with_stop(text.tokens, request.stop_strings, self.decode):
            return "stop"
        if len(text.tokens) == request.max_new_tokens:
            return "length"
        full = len(request.prompt) + len(text.tokens) == self.model.config.context
        return "context" if full else None


class _Text:
    """A request on its way."""

    def __init__(self, index: int, request: Request) -> None:
        self.index, self.request = index, request
        self.slot = -1
        self.tokens: list[int] = []


def _next_tokens(logits_BV: Tensor, texts: "list[_Text]") -> tuple[list[int], list[float]]:
    """The next token of each text and its log-probability; texts with the same options together."""
    groups: dict[SamplingOptions, list[int]] = {}
    for row, text in enumerate(texts):
        groups.setdefault(text.request.options, []).append(row)
    tokens, log_probs = [0] * len(texts), [0.0] * len(texts)
    for options, members in groups.items():
        for start in range(0, len(members), SAMPLED_ROWS):
            rows = members[start : start + SAMPLED_ROWS]
            own = [texts[row] for row in rows]
            chosen_BV = logits_BV if len(rows) == len(texts) else logits_BV[rows]
            tokens_B, log_probs_B = _sample(chosen_BV, own, options)
            for row, token, log_prob in zip(rows, tokens_B.tolist(), log_probs_B.tolist(), strict=True):
                tokens[row], log_probs[row] = token, log_prob
    return tokens, log_probs


def _sample(logits_BV: Tensor, texts: "list[_Text]", options: SamplingOptions) -> tuple[Tensor, Tensor]:
    """[B] tokens, [B] log-probabilities."""
    chosen_from_BV = logits_BV
    if options.penalises:
        pairs = zip(logits_BV, texts, strict=True)
        chosen_from_BV = torch.stack(
            [penalised(one_V, text.request.prompt, text.tokens, options) for one_V, text in pairs]
        )
    uniforms = [uniform_of(text.request.seed, "sample", len(text.tokens)) for text in texts]
    tokens_B = sample(chosen_from_BV, options, uniforms)
    return tokens_B, log_probs_of(logits_BV, tokens_B, options.temperature)


def _groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Neighbours that together have at most `PREFILL_TOKENS` tokens; a longer one is a group by itself."""
    group: list[int] = []
    for index, length in enumerate(lengths):
        if group and sum(lengths[i] for i in group) + length > PREFILL_TOKENS:
            yield group
            group = []
        group.append(index)
    yield group


def generate(
    model: Transformer,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    options: SamplingOptions | None = None,
    seed: int = 0,
    stop_id: int | None = None,
) -> Iterator[int]:
    """Yield new tokens one at a time, up to `stop_id` (not yielded), `max_new_tokens` or the context's end.

    For a single text; raises UsageError when the prompt is empty or leaves no room in the context.
    """
    stop_ids = frozenset() if stop_id is None else frozenset([stop_id])
    request = Request(prompt, max_new_tokens, options or SamplingOptions(), seed, stop_ids)
    for event in Engine(model, num_slots=1).stream([request]):
        if event.token != stop_id:
            yield event.token
