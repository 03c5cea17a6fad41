"""Baselines: what a language model has to beat must be computed right, and on the same bytes."""

import lzma
import math
from collections import Counter, defaultdict

import numpy as np
import pytest

import evals.baselines
from evals.baselines import baselines, gzip_bytes, primed_xz_bytes, xz_bytes
from evals.ngram import DEFAULT_ORDER, MAX_ORDER, NgramModel, choose_order

WORDS = b"return self value None import from class def for in range yield raise error name path".split()


def corpus(num_documents: int, seed: int = 0, words: int = 200) -> list[bytes]:
    """Documents of words with some structure, alike in every run."""
    generator = np.random.default_rng(seed)
    result = []
    for _ in range(num_documents):
        picks = generator.integers(0, len(WORDS), words)
        pairs = zip(picks.tolist(), picks[::-1].tolist(), strict=True)
        result.append(b" ".join(WORDS[min(pair)] for pair in pairs) + b"\n")
    return result


def witten_bell(documents: list[bytes], context: bytes, byte: int, order: int) -> float:
    """The recursion as the paper writes it, with dictionaries."""
    counts: dict[bytes, Counter[int]] = defaultdict(Counter)
    for document in documents:
        for place, following in enumerate(document):
            for j in range(min(order, place) + 1):
                counts[document[place - j : place]][following] += 1

    def probability(history: bytes) -> float:
        lower = probability(history[1:]) if history else 1 / 256
        seen = counts.get(history)
        if not seen:
            return lower
        return (seen[byte] + len(seen) * lower) / (seen.total() + len(seen))

    return probability(context[len(context) - order :] if order < len(context) else context)


def test_probabilities_sum_to_one_over_all_bytes():
    """A model whose probabilities sum to more than one wins every comparison by cheating."""
    documents = corpus(20)
    model = NgramModel.fit(documents, MAX_ORDER)
    generator = np.random.default_rng(1)
    text = b"".join(documents)
    for _ in range(60):
        start, size = int(generator.integers(0, len(text) - 12)), int(generator.integers(0, 10))
        for context in (text[start : start + size], generator.bytes(size)):
            distribution = model.distribution(context)
            assert distribution.min() > 0
            assert distribution.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("order", [0, 1, 3, 7])
def test_the_packed_model_is_the_recursion_of_the_paper(order):
    """The fast form must give the probabilities of the published method, which others can check."""
    train, held_out = corpus(6, words=30), [*corpus(2, seed=9, words=12), b"", b"\x00\xff", b"zq"]
    model = NgramModel.fit(train, order)
    for document, bits in zip(held_out, model.document_bits(held_out), strict=True):
        expected = [
            witten_bell(train, document[max(0, place - order) : place], byte, order)
            for place, byte in enumerate(document)
        ]
        assert bits == pytest.approx(-sum(map(math.log2, expected)), rel=1e-9, abs=1e-9)
        for place in range(len(document)):
            one = model.distribution(document[:place])[document[place]]
            assert one == pytest.approx(expected[place], rel=1e-12)


def test_contexts_do_not_cross_documents():
    """A score that depends on the order of documents could not be compared document by document."""
    train = corpus(8)
    a, b = corpus(2, seed=3)
    model = NgramModel.fit(train, 5)
    assert model.document_bits([a, b])[1] == pytest.approx(model.document_bits([b])[0], rel=1e-12)
    # With contexts that cross, "xy" next to "z" would have counted z after y.
    assert NgramModel.fit([b"xy", b"z"], 1).distribution(b"y")[ord("z")] == pytest.approx(
        NgramModel.fit([b"z", b"xy"], 1).distribution(b"y")[ord("z")], rel=1e-12
    )


def test_the_order_is_chosen_for_text_that_was_not_counted():
    """Chosen on counted text, the longest order always wins, and the baseline comes out weak."""
    generator = np.random.default_rng(0)
    noise = [generator.integers(97, 103, 400).astype(np.uint8).tobytes() for _ in range(40)]
    assert choose_order(noise, (1, 3, 7)) == 1
    assert choose_order(corpus(60), (1, 3, 7)) > 1
    assert choose_order([b"alone"]) == DEFAULT_ORDER


def test_orders_that_do_not_fit_are_refused():
    """Eight bytes of context and the next byte do not fit in 64 bits: counts would be of other text."""
    with pytest.raises(ValueError, match="order 8 is outside"):
        NgramModel.fit([b"abc"], 8)
    with pytest.raises(ValueError, match="training text"):
        NgramModel.fit([b""], 2)


def test_bits_decode_to_probabilities_below_one():
    """No document costs a negative number of bits, and familiar text costs less than noise."""
    model = NgramModel.fit(corpus(40), 5)
    familiar, noise = model.document_bits([corpus(1, seed=5)[0], np.random.default_rng(2).bytes(1000)])
    assert 0 < familiar < noise
    assert noise > 8 * 1000


def test_compressed_sizes_are_those_of_the_tools():
    """A reader checks the table with `gzip -9 | wc -c` and `xz -9e | wc -c`; it has to agree."""
    text = b"".join(corpus(30))
    assert xz_bytes(text) == pytest.approx(len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)), abs=16)
    assert gzip_bytes(text) < len(text) / 2


def test_priming_sees_the_whole_training_text():
    """With a window shorter than the training text, priming would not know its beginning."""
    generator = np.random.default_rng(4)
    letters = generator.integers(97, 113, 302_000).astype(np.uint8).tobytes()
    train, text = letters[:300_000], letters[300_000:]
    seen, unseen = primed_xz_bytes(text, text + train), primed_xz_bytes(text, train)
    assert seen < 100 < 900 < unseen
    short_window = 4096
    assert xz_bytes(text + train + text, short_window) - xz_bytes(text + train, short_window) > 900


def test_all_baselines_are_on_the_same_bytes():
    """Rows of one table must be comparable: same documents, with what each was trained on stated."""
    documents, train = corpus(5, seed=2), corpus(40)
    rows = {row["name"]: row for row in baselines(documents, iter(train))}
    assert list(rows) == ["gzip", "xz", "xz-primed", "ngram"]
    text = b"".join(documents)
    assert rows["gzip"]["value"] == gzip_bytes(text) * 8 / len(text)
    assert rows["xz-primed"]["train_bytes"] == rows["ngram"]["train_bytes"] == sum(map(len, train))
    assert rows["xz-primed"]["value"] < rows["xz"]["value"]
    assert rows["ngram"]["low"] < rows["ngram"]["value"] < rows["ngram"]["high"]
    assert all(0 < row["value"] < 8 for row in rows.values())


def test_without_training_text_only_compressors_are_compared():
    """A made-up row for an n-gram model that saw nothing would be worse than none."""
    assert [row["name"] for row in baselines([b"some text"])] == ["gzip", "xz"]


def test_training_text_that_was_cut_says_so(monkeypatch):
    """A primed baseline on part of the text is weaker; hiding that would flatter the model."""
    monkeypatch.setattr(evals.baselines, "MAX_TRAIN_BYTES", 3000)
    rows = {row["name"]: row for row in baselines(corpus(2), corpus(40))}
    assert 0 < rows["ngram"]["train_bytes"] <= 3000
    assert "cut" in rows["ngram"]["note"]
    assert "cut" in rows["xz-primed"]["note"]
