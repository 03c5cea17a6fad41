"""Requests to log-likelihoods: numbers that depend on neither batch nor ranks, and on every token once."""

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from test_models import PARTS, tiny, tiny_of

from evals.requests import GenerateUntil, LogLikelihood, Rolling
from evals.scoring import CachedBackend, PaddedBackend, Scorer, Span
from evals.scoring.backend import shared_preamble
from evals.scoring.dispatch import dispatched, fitted
from evals.scoring.encoding import encode_pair, windows
from seedbed.errors import DataError, UsageError

pytestmark = pytest.mark.usefixtures("one_thread")

every_part = pytest.mark.parametrize("part", PARTS)
CONTEXT = 32
END = 0


class Letters:
    """A tokenizer of ASCII, a token for each character, and one for "th"."""

    end_of_text_id = END
    fingerprint = "letters"
    TH = 100

    def encode(self, text: str) -> list[int]:
        ids = [ord(character) % 100 for character in text.replace("th", "\x63")]
        return [self.TH if number == 99 else number for number in ids]

    def decode(self, ids) -> str:
        return "".join("th" if number == self.TH else chr(number) for number in ids)


def choices(preamble: int = 0, count: int = 12, seed: int = 0) -> list[Span]:
    """Four choices for each of `count` contexts, short ones and long ones, after a common beginning."""
    rng = random.Random(seed)
    common = [rng.randrange(101) for _ in range(preamble)]
    spans = []
    for number in range(count):
        own = [
            rng.randrange(101)
            for _ in range(rng.choice([1, 3, 17, 22]) if not preamble else rng.choice([1, 8]))
        ]
        for _ in range(4):
            continuation = tuple(rng.randrange(101) for _ in range(rng.randrange(1, 7)))
            spans.append(Span(f"item {number}", (*common, *own), continuation))
    return spans


@every_part
@pytest.mark.parametrize("preamble", [0, 16])
def test_batch_size_and_company_change_no_bit(part, preamble):
    """A score that moves with the batch size cannot be reproduced on a machine with another memory."""
    model, spans = tiny_of(part), choices(preamble)
    shared = shared_preamble(spans)
    assert (shared > 0) == (preamble > 0)
    scores = CachedBackend(model, batch_size=64).score(spans, shared)
    assert CachedBackend(model, batch_size=1).score(spans, shared) == scores
    assert CachedBackend(model, batch_size=7).score(spans[::-1], shared) == scores[::-1]
    assert [CachedBackend(model).score([span], shared)[0] for span in spans[::5]] == scores[::5]


@every_part
def test_sharing_a_context_computes_what_a_forward_does(part):
    """Choices would be compared by numbers that the model does not give them."""
    model, spans = tiny_of(part), choices(16)
    plain = PaddedBackend(model, context=CONTEXT).score(spans)
    for found in (CachedBackend(model).score(spans, 16), CachedBackend(model).score(spans)):
        assert [one.nats for one in found] == pytest.approx([one.nats for one in plain], abs=1e-5)
        assert [one.is_greedy for one in found] == [one.is_greedy for one in plain]


def test_threads_change_no_bit():
    """Two ranks with a thread each would not give what one rank with two gives."""
    model, spans = tiny("gpt2", context=128, width=64, num_heads=4), choices(60)
    one = CachedBackend(model).score(spans, 60)
    torch.set_num_threads(2)
    assert CachedBackend(model).score(spans, 60) == one


@pytest.mark.parametrize("part", ["gpt2", "llama-gqa", "latent"])
def test_fixed_shapes_change_no_bit_where_nothing_is_packed(part):
    """On a GPU, a product of another shape may be rounded in another way."""
    model, spans = tiny_of(part), choices()

    def scores(batch_size: int) -> list:
        backend = CachedBackend(model, batch_size=batch_size)
        backend.engine.packed = False
        backend.engine.refresh()
        return backend.score(spans)

    assert scores(64) == scores(1) == scores(7)
    padded = PaddedBackend(model, context=CONTEXT).score(spans)
    assert [PaddedBackend(model, context=CONTEXT, batch_size=n).score(spans) for n in (1, 7)] == [padded] * 2


def test_texts_longer_than_a_row_are_read_in_pieces(monkeypatch):
    """A long context would be read wrongly, or take memory without bound."""
    model, spans = tiny("gpt2", context=128), choices(90)
    whole = CachedBackend(model).score(spans)
    monkeypatch.setattr("evals.scoring.cached.FORWARD_TOKENS", 40)
    found = CachedBackend(model).score(spans)
    assert [one.nats for one in found] == pytest.approx([one.nats for one in whole], abs=1e-5)
    assert CachedBackend(model, batch_size=3).score(spans) == found


@pytest.mark.parametrize(("length", "stride"), [(1, 32), (32, 32), (33, 32), (100, 32), (100, 16), (77, 1)])
def test_windows_score_every_token_once_and_the_last_has_all_the_context_there_is(length, stride):
    """A token that is left out, or counted twice, makes every perplexity wrong."""
    tokens = list(range(1, length + 1))
    spans = windows("a", tokens, END, CONTEXT, stride)
    assert [token for span in spans for token in span.continuation] == tokens
    assert all(span.num_inputs <= CONTEXT for span in spans)
    assert spans[0].context[0] == END
    if length > CONTEXT:
        assert spans[-1].num_inputs == CONTEXT


def test_the_context_ends_where_its_own_tokens_do():
    """Context and continuation encoded apart are tokens that no text has, and score worse."""
    letters = Letters()
    assert encode_pair(letters, "ab", "cd") == (letters.encode("ab"), letters.encode("cd"), False)
    # A space at the end belongs to the first word of the continuation, as in text that was trained on.
    assert encode_pair(letters, "ab ", "cd") == (letters.encode("ab"), letters.encode(" cd"), False)
    # A token that spans the boundary is scored whole: none of the continuation is left out.
    assert encode_pair(letters, "at", "he") == (letters.encode("a"), letters.encode("the"), True)
    assert encode_pair(letters, "t", "h") == ([END], [letters.TH], True)
    assert encode_pair(letters, "", "ab") == ([END], letters.encode("ab"), False)
    assert encode_pair(letters, "  ", "ab") == ([END], letters.encode("  ab"), False)


def test_a_long_context_loses_its_beginning_and_is_counted():
    """An item that does not fit would be left out, or its answer cut off, and nobody would know."""
    scorer = Scorer(CachedBackend(tiny_of("gpt2")), Letters())
    long, short = scorer.log_likelihoods(
        [LogLikelihood("long", "x" * 40 + "ab", "cd"), LogLikelihood("short", "x" * 29 + "ab", "cd")]
    )
    assert (long.num_cut, short.num_cut) == (11, 0)
    assert long.log_likelihood == short.log_likelihood
    (huge,) = scorer.log_likelihoods([LogLikelihood("huge", "xxa", "b" * 50)])
    assert (huge.tokens, huge.num_cut) == (50, 2)
    with pytest.raises(DataError, match=r"'none'.*empty"):
        scorer.log_likelihoods([LogLikelihood("none", "a", "")])


def test_an_output_that_is_no_number_names_its_item():
    """A mean of NaN, without a word of which item it came from, would cost a day."""
    model = tiny_of("gpt2")
    with torch.no_grad():
        model.embedding.weight[77] = torch.nan
    spans = [Span("fine", (1, 2), (3,)), Span("broken", (1, 77), (3,))]
    for backend in (CachedBackend(model), PaddedBackend(model, context=CONTEXT)):
        with pytest.raises(DataError, match=r"item '(fine|broken)'.*not finite"):
            backend.score(spans)

    def one_row(tokens: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*tokens.shape, 101)
        logits[(tokens == 77).any(1)] = torch.nan
        return logits

    with pytest.raises(DataError, match=r"item 'broken'.*not finite"):
        PaddedBackend(one_row, context=CONTEXT).score(spans)


class Fake:
    """Gives 2/3 nat to every token."""

    context = 16

    def score(self, spans, preamble=0, advance=None):
        from evals.scoring import SpanScore

        return [SpanScore(-2 / 3 * len(span.continuation), False) for span in spans]

    def complete(self, requests, advance=None):
        raise NotImplementedError


def test_two_thirds_of_a_nat_per_byte_is_the_known_number():
    """A wrong unit, or a miscounted token, would make every published score wrong."""
    texts = ["a", "abc" * 5, "xyz" * 100, "q" * 16, "q" * 17]
    scored = Scorer(Fake(), Letters()).rolling([Rolling(text, text) for text in texts])
    bits = -sum(one.log_likelihood for one in scored) / math.log(2)
    assert bits / sum(one.utf8_bytes for one in scored) == pytest.approx(0.9617966939, abs=1e-10)
    assert math.exp(bits * math.log(2) / sum(map(len, texts))) == pytest.approx(1.9477340411, abs=1e-10)


def test_generation_stops_at_strings_and_the_end_of_text():
    """An answer would carry the question that the model asks itself next."""
    model = tiny_of("gpt2")
    scorer = Scorer(CachedBackend(model, decode=Letters().decode), Letters())
    ask = [GenerateUntil("a", "abc", 12), GenerateUntil("b", "x" * 60, 12)]
    free, cut = scorer.generate(ask)
    assert cut.num_cut == 40
    assert free.finish in ("length", "stop")
    if len(free.text) > 3:
        stop = free.text[2]
        found = scorer.generate([GenerateUntil("a", "abc", 12, until=(stop,))])[0]
        assert found.text == free.text[: free.text.index(stop)]
    padded = PaddedBackend(model, context=CONTEXT, decode=Letters().decode)
    assert Scorer(padded, Letters()).generate(ask) == [free, cut]
    with pytest.raises(UsageError, match="'c' asks for 40"):
        scorer.generate([GenerateUntil("c", "a", 40)])


def test_a_model_whose_blocks_lie_on_disk_scores_the_same(tmp_path: Path):
    """A model larger than the machine could not be scored."""
    pytest.importorskip("accelerate")
    spans = choices()
    whole = PaddedBackend(tiny_of("gpt2"), context=CONTEXT).score(spans)
    model = tiny_of("gpt2")
    places = fitted(model, {"cpu": 0})
    assert set(places.values()) == {"disk"}
    assert dispatched(model, places, folder=tmp_path).score(spans) == whole
    assert any(tmp_path.iterdir())
    with pytest.raises(UsageError, match="no folder"):
        dispatched(tiny_of("gpt2"), places)


def test_scores_of_windows_are_those_of_the_text():
    """Perplexity of a long text would depend on how it was cut."""
    scorer = Scorer(CachedBackend(tiny_of("gpt2")), Letters())
    text = "".join(chr(97 + number % 26) for number in np.random.default_rng(0).integers(0, 26, 90))
    (found,) = scorer.rolling([Rolling("a", text)], stride=32)
    backend = PaddedBackend(tiny_of("gpt2"), context=CONTEXT)
    parts = backend.score(windows("a", Letters().encode(text), END, CONTEXT, 32))
    assert found.tokens == found.utf8_bytes == 90
    assert found.log_likelihood == pytest.approx(sum(part.nats for part in parts), abs=1e-4)
    with pytest.raises(UsageError, match="stride of 33"):
        scorer.rolling([Rolling("a", text)], stride=33)
