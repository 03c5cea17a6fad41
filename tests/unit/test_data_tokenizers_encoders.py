"""Fast encoders: the ids of the exact one, checked, and a fallback that says so."""

import json
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from data.tokenizers import END_OF_TEXT, EncoderMismatch, train_tokenizer
from data.tokenizers.encoders import CHECK_CHARACTERS, ONE_IN, CheckedEncoder
from data.tokenizers.tokenizer_json import JsonTokenizer

TEXTS = [
    "def add(left, right):\n    return left + right\n",
    f"The end is {END_OF_TEXT} and then it's <|im_end|> again.\r\n\tIt goes on.",
    "Größe, 日本語 and 😀 in one line; numbers 1234567890.",
] * 20
# The pre-tokenizers that most published byte-level vocabularies use: GPT-2's, Llama 3's, Qwen 2's.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {
    "gpt2": "",
    "llama3": WORDS.replace("NUMBER", r"\p{N}{1,3}"),
    "qwen2": WORDS.replace("NUMBER", r"\p{N}"),
}


def byte_bpe(maker):
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=maker == "llama3"))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not PATTERNS[maker])
    split = pre_tokenizers.Split(tokenizers.Regex(PATTERNS[maker]), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level]) if PATTERNS[maker] else byte_level
    backend.normalizer = normalizers.NFC() if maker == "qwen2" else None
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[END_OF_TEXT, "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(iter(TEXTS), trainer)
    return JsonTokenizer(backend.to_str(), maker)


@pytest.fixture(scope="module")
def made():
    return {maker: byte_bpe(maker) for maker in PATTERNS}


# Libraries of other Unicode versions may call a new character a letter, or not yet.
ASSIGNED = st.text(
    st.characters(exclude_categories=["Cn", "Cs"]).filter(lambda c: unicodedata.category(c) != "Cn")
)
SPELLED = [
    END_OF_TEXT,
    "<|im_end|>",
    "'s",
    "'LL",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "123",
    "4567",
    "\x85",
    "e\u0301",
]


@pytest.mark.parametrize("maker", PATTERNS)
@given(texts=st.lists(st.lists(st.one_of(ASSIGNED, st.sampled_from(SPELLED))).map("".join), max_size=5))
@settings(max_examples=150, deadline=None)
def test_gigatoken_gives_the_ids_of_tokenizers(made, maker, texts):
    """Otherwise a dataset would hold other ids than prompts become, special ones among them."""
    tokenizer = made[maker]
    assert tokenizer.describe_encoder().startswith("gigatoken")
    ids, ends = tokenizer.encode_flat(texts, check_first=True)
    expected = tokenizer.encode_batch(texts)
    assert (ids.dtype, ends.dtype) == (np.uint32, np.int64)
    assert ids.tolist() == [id for row in expected for id in row]
    assert np.diff(ends, prepend=0).tolist() == [len(row) for row in expected]
    assert not set(ids.tolist()) & set(tokenizer.special_ids.values())


def test_the_end_is_chosen_among_the_known(made):
    """Otherwise the documents of another maker's vocabulary would run into each other."""
    parsed = json.loads(made["gpt2"].to_bytes())
    parsed["added_tokens"] = [token for token in parsed["added_tokens"] if token["content"] != END_OF_TEXT]
    assert JsonTokenizer(json.dumps(parsed), "other").end_of_text == "<|im_end|>"
    assert made["gpt2"].end_of_text == END_OF_TEXT


def mismatched():
    """A fast encoder of another vocabulary than the exact one: it differs wherever its merges do."""
    exact = train_tokenizer(iter(TEXTS), 290)
    fast = train_tokenizer(iter(TEXTS), 300)
    return CheckedEncoder(fast._fast_encoder(fast._exact_encoder()), exact._exact_encoder())


def test_a_difference_in_the_first_texts_is_found():
    """Otherwise a small build would never be checked."""
    checked = mismatched()
    same, other = "1 2 3", TEXTS[0]
    assert checked.first_difference([same]) == ""
    assert checked.first_difference([same, other]) == other
    checked([other])
    with pytest.raises(EncoderMismatch, match=r"gigatoken .* and tokenizers .* differ from token \d+"):
        checked([same, other], check_first=True)


def test_the_sample_depends_on_the_texts_alone():
    """Otherwise one worker would see a difference that another one does not."""
    texts = [f"number {number}: {TEXTS[0]}" for number in range(6 * ONE_IN)]

    def found(batch):
        try:
            mismatched_encoder(batch)
        except EncoderMismatch:
            return True
        return False

    mismatched_encoder = mismatched()
    chosen = [text for text in texts if found([text])]
    assert 1 <= len(chosen) <= 20
    assert found(texts)
    assert found(texts[::-1])
    assert not found([text for text in texts if text not in chosen])


def test_a_long_text_is_checked_at_its_beginning():
    """Otherwise one book would be encoded twice, the second time at a hundredth of the speed."""
    checked = mismatched()
    plain = "1 2 3 " * CHECK_CHARACTERS
    checked([plain + TEXTS[0]], check_first=True)
    with pytest.raises(EncoderMismatch):
        checked([TEXTS[0] + plain], check_first=True)


def test_a_fast_encoder_that_differs_is_not_used(made, monkeypatch, capsys):
    """Otherwise a library with a fault would write a corpus before it is found."""
    tokenizer = JsonTokenizer(made["gpt2"].to_bytes().decode(), "broken")
    other = made["llama3"]
    monkeypatch.setattr(tokenizer, "_fast_encoder", lambda exact: other._fast_encoder(exact))
    described = tokenizer.describe_encoder()
    assert described.startswith("tokenizers")
    assert "gives other ids for" in described
    assert capsys.readouterr().err.startswith("notice: encoding with tokenizers")
    assert tokenizer.encode_flat(TEXTS)[0].tolist() == made["gpt2"].encode_flat(TEXTS)[0].tolist()


def test_without_gigatoken_the_notice_names_the_extra():
    """Otherwise a build would take thirty times as long, and nobody would know why."""
    code = (
        "import sys; sys.modules['gigatoken'] = None\n"
        "from data.tokenizers import train_tokenizer\n"
        "t = train_tokenizer(iter(['some words to learn'] * 99), 300)\n"
        "ids, ends = t.encode_flat(['some words', '', 'learn'])\n"
        "assert ids.tolist() == [i for row in t.encode_batch(['some words', '', 'learn']) for i in row]\n"
        "print(ends.tolist(), t.describe_encoder())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tokenizers" in done.stdout
    assert "seedbed[fast]" in done.stdout
    assert "seedbed[fast]" in done.stderr


def test_no_texts_and_empty_texts(made):
    """Otherwise the last batch of a part could stop a build."""
    for tokenizer in made.values():
        ids, ends = tokenizer.encode_flat([])
        assert (ids.tolist(), ends.tolist()) == ([], [])
        ids, ends = tokenizer.encode_flat(["", "a", ""])
        assert ends.tolist() == [0, 1, 1]
