"""Bits per byte: the number that models are compared by must not depend on how it was computed."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from evals.bits_per_byte import (
    DocumentScore,
    bits_per_byte,
    by_source,
    estimate_as_json,
    rolling_spans,
    score_documents,
)
from evals.items import Item, items_digest
from seedbed.errors import UsageError

END = 256
VOCABULARY = 257


def item(text: bytes, name: str = "a/b.txt") -> Item:
    """A document in a byte tokenizer, where every byte is one token."""
    return Item(name, name, np.frombuffer(text, dtype=np.uint8).astype(np.int64), text)


def documents(lengths: list[int]) -> list[Item]:
    """Random bytes, alike in every run."""
    generator = np.random.default_rng(7)
    return [item(generator.bytes(length), f"f{index}") for index, length in enumerate(lengths)]


class Counting(nn.Module):
    """Gives probability e^(-2/3) to the byte that follows in the cycle 0 .. 255."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        following = torch.where(tokens == END, 0, (tokens + 1) % 256)
        other = math.log((1 - math.exp(-2 / 3)) / (VOCABULARY - 1))
        logits = torch.full((*tokens.shape, VOCABULARY), other, dtype=torch.float64)
        return logits.scatter(-1, following[..., None], -2 / 3)


class SmallGPT(nn.Module):
    """One block of causal attention and an MLP: what a batch's shape could disturb."""

    def __init__(self, context: int, width: int = 48, num_heads: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.num_heads = num_heads
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Embedding(context, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        num_rows, length = tokens.shape
        x = self.embedding(tokens) + self.positions(torch.arange(length))
        heads = self.qkv(self.norm(x)).view(num_rows, length, 3, self.num_heads, -1)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + attended.transpose(1, 2).reshape(num_rows, length, -1)
        return self.head(x + self.mlp(self.norm(x)))


def test_two_thirds_of_a_nat_per_byte_is_the_known_number():
    """A wrong unit or a miscounted token would make every published score wrong."""
    cycle = bytes(i % 256 for i in range(2000))
    items = [item(cycle[:length]) for length in (1, 3, 64, 65, 1000, 2000)]
    scores = score_documents(Counting(), items, context=64, end_of_text_id=END)
    assert bits_per_byte(scores).value == pytest.approx(0.9617966939, abs=1e-10)
    assert all(score.bits / score.utf8_bytes == pytest.approx(0.9617966939, abs=1e-10) for score in scores)


def test_batch_size_does_not_change_a_bit_of_the_score():
    """A score that moves with the batch size cannot be reproduced on another machine's memory."""
    context = 32
    model = SmallGPT(context).eval()
    items = documents([5, 200, 33, 1, 32, 31, 64, 2, 90])

    def bits(batch_size: int) -> list[float]:
        scores = score_documents(model, items, context=context, end_of_text_id=END, batch_size=batch_size)
        return [score.bits for score in scores]

    assert bits(1) == bits(7) == bits(64)


def test_the_company_of_other_documents_does_not_change_a_score():
    """Scores of a subset must be comparable with those of the whole, document by document."""
    model = SmallGPT(32).eval()
    items = documents([50, 200, 7])
    together = score_documents(model, items, context=32, end_of_text_id=END)
    alone = [score_documents(model, [one], context=32, end_of_text_id=END)[0] for one in items]
    assert together == alone


def test_every_token_is_scored_with_its_true_context():
    """Rolling windows must equal the plain sum over windows taken one token at a time by definition."""
    context, stride = 16, 4
    model = SmallGPT(context).eval()
    one = documents([70])[0]
    tokens = [END, *one.tokens.tolist()]
    expected = 0.0
    for start, first_new, end in rolling_spans(70, context, stride):
        for place in range(first_new, end):
            window = torch.tensor([tokens[start : place + 1]])
            with torch.no_grad():
                expected -= float(model(window)[0, -1].double().log_softmax(-1)[tokens[place + 1]])
    scored = score_documents(model, [one], context=context, end_of_text_id=END, stride=stride)[0]
    assert scored.bits == pytest.approx(expected / math.log(2), rel=1e-5)


@pytest.mark.parametrize(
    ("num_tokens", "context", "stride"),
    [(1, 8, 4), (8, 8, 4), (9, 8, 4), (100, 8, 4), (50, 8, 8), (77, 8, 1)],
)
def test_windows_tile_the_document_and_keep_their_context(num_tokens, context, stride):
    """A token scored twice or never, or one without context, shifts every result by a little."""
    spans = list(rolling_spans(num_tokens, context, stride))
    scored = [place for _, first_new, end in spans for place in range(first_new, end)]
    assert scored == list(range(num_tokens))
    for start, first_new, end in spans:
        assert 0 <= end - start <= context
        if first_new > 0:
            assert end - start == context
            assert first_new - start >= context - stride


def test_an_empty_document_costs_nothing():
    """A corpus with an empty file must not fail at the end of a long evaluation."""
    scores = score_documents(Counting(), [item(b""), item(b"\x00\x01")], context=8, end_of_text_id=END)
    assert (scores[0].bits, scores[0].utf8_bytes, scores[0].tokens) == (0.0, 0, 0)
    assert math.isfinite(bits_per_byte(scores).value)


def test_a_stride_beyond_the_context_is_refused():
    """Such a stride would leave tokens unscored without a word."""
    with pytest.raises(UsageError, match="stride of 9"):
        score_documents(Counting(), [item(b"abc")], context=8, end_of_text_id=END, stride=9)


def test_sources_add_up_to_the_whole():
    """The breakdown must be of the same documents as the total, or a reader is misled."""
    scores = [
        DocumentScore("1", "asyncio/tasks.py", 300.0, 100, 40),
        DocumentScore("2", "asyncio/queues.py", 100.0, 100, 40),
        DocumentScore("3", "os.py", 50.0, 50, 20),
    ]
    table = by_source(scores)
    assert list(table) == ["asyncio", "."]
    assert table["asyncio"]["value"] == 2.0
    assert table["asyncio"]["low"] < 2.0 < table["asyncio"]["high"]
    assert (table["."]["value"], table["."]["low"], table["."]["documents"]) == (1.0, None, 1)
    assert sum(row["utf8_bytes"] for row in table.values()) == 250


def test_the_interval_of_one_document_is_json():
    """Infinity is not JSON; a result with one document must still be readable by other tools."""
    assert estimate_as_json(bits_per_byte([DocumentScore("1", "a", 8.0, 4, 1)])) == {
        "value": 2.0,
        "low": None,
        "high": None,
    }


def test_a_folder_of_a_few_documents_is_not_sure_of_itself():
    """Four files would have an interval as if their spread were known, and half of it is missing."""
    scores = [
        DocumentScore(str(n), "a", bits, 100, 30) for n, bits in enumerate((180.0, 200.0, 210.0, 220.0))
    ]
    found = bits_per_byte(scores)
    spread = np.std([1.8, 2.0, 2.1, 2.2], ddof=1) / 2
    assert found.high - found.low == pytest.approx(2 * 3.1824 * spread, rel=0.02)


def test_the_digest_of_items_tells_texts_apart():
    """Two results are comparable only if they are of the same bytes, and the digest is how one knows."""
    a, b = item(b"ab", "x"), item(b"c", "y")
    assert items_digest([a, b]) == items_digest([item(b"ab", "x"), item(b"c", "y")])
    others = ([a, b], [b, a], [item(b"a", "x"), item(b"bc", "y")], [a])
    assert len({items_digest(items) for items in others}) == 4
