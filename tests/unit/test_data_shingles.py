"""Words and n-grams by array are those that one would find by reading."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.shingles import hash_ngrams, hash_words, in_groups, ngram_starts, split_words

MIXED = st.text(
    alphabet=st.one_of(st.sampled_from("aB9_ \n.,'“éß漢字ไทยİΣς\u0301\U0001f600"), st.characters())
)


def plain_words(text):
    """Words character by character."""
    words, open_word = [], False
    for character in text:
        lower = character.lower()[0].replace("\u03c2", "\u03c3")
        name = unicodedata.name(character, "")
        if not (character == "_" or character.isalnum() or unicodedata.category(character)[0] == "M"):
            open_word = False
        elif name.startswith(("CJK UNIFIED", "THAI", "HIRAGANA LETTER", "KATAKANA LETTER")):
            words.append(lower)
            open_word = False
        elif open_word:
            words[-1] += lower
        else:
            words.append(lower)
            open_word = True
    return words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("...", []),
        ("The U.S.A.'s snake_case, x86-64", ["the", "u", "s", "a", "s", "snake_case", "x86", "64"]),
        ("“Naïve” ÉCOLE", ["naïve", "école"]),
        ("e\u0301cole", ["e\u0301cole"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("GPT模型は大きい。", ["gpt", "模", "型", "は", "大", "き", "い"]),
        ("ΟΔΟΣ οδος", ["οδοσ", "οδοσ"]),
        ("\ud800lone", ["lone"]),
    ],
)
def test_words(text, words):
    """Otherwise near-copies and evaluation items would be missed for case, dots or a script."""
    assert split_words(text) == words
    assert len(hash_words([text]).hashes) == len(words)


@given(st.text(alphabet=st.sampled_from("aB9_ \n.,'“éßİΣς漢字ไทยひカ\u0301\U0001f600\x00")))
def test_words_are_those_read_character_by_character(text):
    """Otherwise array code would cut words where there is no edge."""
    assert split_words(text) == plain_words(text)


@given(st.lists(MIXED, max_size=6))
def test_equal_words_and_only_they_have_equal_hashes(texts):
    """Otherwise batches would change results, or different words count as one."""
    words = [split_words(text) for text in texts]
    hashes, bounds = hash_words(texts)
    assert bounds.tolist() == np.cumsum([0, *map(len, words)]).tolist()
    flat = [word for of_text in words for word in of_text]
    by_word = dict(zip(flat, hashes.tolist(), strict=True))
    assert [by_word[word] for word in flat] == hashes.tolist()
    assert len(set(by_word.values())) == len(by_word)
    for word, value in by_word.items():
        assert hash_words([word]).hashes.tolist() == [value]


def test_words_longer_than_a_page_of_arrays():
    """Otherwise a word on the edge of a page would hash as two, and copies elsewhere would differ."""
    words = ["x" * 100_000, "y", "abc" * 40_000, "x" * 100_000, "x" * 99_999, *["word"] * 20_000]
    for text in (" ".join(words), " " * 32_767 + " ".join(words), "é—" + " ".join(words)):
        hashes = hash_words([text]).hashes[-len(words) :]
        alone = {word: hash_words([word]).hashes[0] for word in set(words)}
        assert hashes.tolist() == [alone[word] for word in words]


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 6))
def test_ngrams_stay_inside_their_text(counts, size):
    """Otherwise the end of one document and the start of the next would be a shingle."""
    texts = [" ".join(f"w{number}x{place}" for place in range(count)) for number, count in enumerate(counts)]
    words = [split_words(text) for text in texts]
    expected = [
        [tuple(own[start : start + size]) for start in range(max(len(own) - size + 1, min(len(own), 1)))]
        for own in words
    ]
    hashed = hash_words(texts)
    ngrams, (starts, bounds) = hash_ngrams(hashed, size), ngram_starts(hashed.bounds, size)
    assert ngrams.bounds.tolist() == bounds.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert len(starts) == len(ngrams.hashes) == len(set(ngrams.hashes.tolist()))
    for number, of_text in enumerate(expected):
        for place, ngram in enumerate(of_text):
            alone = hash_ngrams(hash_words([" ".join(ngram)]), size).hashes
            assert alone.tolist() == [ngrams.hashes[bounds[number] + place]]


def test_order_of_words_counts():
    """Otherwise two texts of the same vocabulary would be copies of each other."""
    hashes = [
        hash_ngrams(hash_words([text]), 2).hashes[0] for text in ("a b", "b a", "a a", "b b", "ab", "a")
    ]
    assert len(set(hashes)) == 6


@given(st.lists(st.integers(0, 50)), st.integers(1, 60))
def test_groups_hold_every_text_once(lengths, num_characters):
    """Otherwise documents would be skipped, or memory grow with the batch."""
    texts = ["x" * length for length in lengths]
    groups = list(in_groups(texts, num_characters))
    assert [text for group in groups for text in texts[group]] == texts
    for group in groups:
        assert len(texts[group]) == 1 or sum(map(len, texts[group][:-1])) <= num_characters
