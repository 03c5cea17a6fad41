"""WordPiece: the cache of words gives exactly the ids of `tokenizers`, on any text."""

import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers

from data.tokenizers import load_tokenizer, train_tokenizer, word_cache
from data.tokenizers.tokenizer_json import JsonTokenizer

TEXTS = [
    "The quick brown fox jumps over the lazy dog; it wasn't there (again).",
    "Größe und Maß: naïve café, 日本語 中文 한국어 и русский. x_1 = foo.bar[0]",
    "unaffable embeddings embed embedding 1234567890 3.14 don't state-of-the-art",
] * 20
# White space of some definitions only, what joins and combines, what is isolated, and special tokens.
AWKWARD = [
    *"\x00\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2028\u2029\u202f\u3000\u200b\u200d\ufeff\ufffd",
    *" \t\r\n,.!?'\"-_[]()#$`~^¡§«·。\uff0c「—…\u0301\u0308\u0338\u0327",
    *"aAzéÉßİ\u0131\u017fǅﬁⅫ1²日本㐀\uf900\U00020000한\u1112\u1161\u11ab😀\U000e0041",
    "[MASK]",
    "[UNK]",
    "##ing",
    "x" * 100,
    "x" * 101,
    "the",
    "don't",
]
AWKWARD_TEXTS = st.lists(st.one_of(st.sampled_from(AWKWARD), st.text(max_size=4)), max_size=30).map("".join)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(iter(TEXTS), 600, "wordpiece")


def variants(tokenizer):
    """The same vocabulary under every setting of BERT's normaliser."""
    for options in (
        {"clean_text": False},
        {"lowercase": False},
        {"strip_accents": False},
        {"handle_chinese_chars": False, "clean_text": False, "strip_accents": False, "lowercase": False},
    ):
        parsed = json.loads(tokenizer.to_bytes())
        parsed["normalizer"] |= options
        yield JsonTokenizer(json.dumps(parsed), "variant")


@given(st.lists(AWKWARD_TEXTS, max_size=6))
@settings(max_examples=400, deadline=None)
def test_ids_are_those_of_tokenizers(tokenizer, texts):
    """Otherwise a BERT that was trained elsewhere would read words it never saw."""
    ids, ends = tokenizer.encode_flat(texts)
    expected = tokenizer.encode_batch(texts)
    assert ids.dtype == np.uint32
    assert ids.tolist() == [id for row in expected for id in row]
    assert np.diff(ends, prepend=0).tolist() == [len(row) for row in expected]


def test_every_setting_of_the_normaliser(tokenizer):
    """Otherwise a cased model's text would be split where an uncased one's is."""
    texts = [a + b + c for a in AWKWARD for b in AWKWARD for c in ("a", "\u0301")]
    for variant in variants(tokenizer):
        assert variant.describe_encoder().startswith("word cache")
        ids, _ = variant.encode_flat(texts)
        assert ids.tolist() == [id for row in variant.encode_batch(texts) for id in row]


def test_a_bounded_cache_changes_nothing(tokenizer, monkeypatch):
    """Otherwise a worker would grow with its corpus, or forget how to spell."""
    monkeypatch.setattr(word_cache, "MAX_WORDS", 5)
    monkeypatch.setattr(word_cache, "MAX_KEPT_CHARACTERS", 3)
    cache = word_cache.WordCache(tokenizer._backend, True)
    exact = load_exact(tokenizer)
    for text in TEXTS[:3] * 3:
        assert cache([text])[0].tolist() == exact.encode(text)
        assert all(len(word) <= 3 for word in cache._ids)
    assert len(cache._ids) < 60


def load_exact(tokenizer):
    return JsonTokenizer(tokenizer.to_bytes().decode(), "exact", encoder="exact")


def test_the_exact_encoder_can_be_asked_for(tokenizer, tmp_path):
    """Otherwise a build could not go on after a difference."""
    (tmp_path / tokenizer.file_name).write_bytes(tokenizer.to_bytes())
    exact = load_tokenizer(tmp_path, encoder="exact")
    assert exact.describe_encoder() == f"tokenizers {tokenizers.__version__}"
    assert exact.encode_flat(TEXTS)[0].tolist() == tokenizer.encode_flat(TEXTS)[0].tolist()


def test_special_tokens(tokenizer):
    """Otherwise masks could not be placed, or a page that spells [MASK] would be masked."""
    assert list(tokenizer.special_ids.values()) == [0, 1, 2, 3, 4]
    assert list(tokenizer.special_ids) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.end_of_text == "[SEP]"
    assert not {0, 2, 3, 4} & set(tokenizer.encode("[PAD] [CLS] [SEP] [MASK]"))
    assert tokenizer.vocab_size <= 600
    assert tokenizer.lossy_because
    assert tokenizer.decode(tokenizer.encode("The Fox, naïve")) == "the fox, naive"


def test_added_tokens_are_looked_for_across_words(tokenizer):
    """Otherwise a token that somebody added, such as "New York", would be split by the cache."""
    backend = tokenizers.Tokenizer.from_str(tokenizer.to_bytes().decode())
    backend.add_tokens(["quick brown"])
    added = JsonTokenizer(backend.to_str(), "added")
    assert added.encode_flat(TEXTS)[0].tolist() == [id for row in added.encode_batch(TEXTS) for id in row]
    assert backend.token_to_id("quick brown") in added.encode_flat(TEXTS)[0]


def test_other_pre_tokenizers_have_no_cache():
    """Otherwise a vocabulary that is split elsewhere would be split as BERT's."""
    backend = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "[SEP]": 1, "a": 2}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["[UNK]", "[SEP]"])
    assert JsonTokenizer(backend.to_str(), "other").describe_encoder().startswith("tokenizers")
