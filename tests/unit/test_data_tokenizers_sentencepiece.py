"""SentencePiece models, ours and those of other makers: nothing is lost, or it is said what is."""

import io
import unicodedata

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from data.tokenizers import load_tokenizer, train_tokenizer
from data.tokenizers.sentencepiece import SentencePieceTokenizer
from seedbed.errors import DataError

TEXTS = [
    "def add(left, right):\n    return left + right\n",
    "  Two  spaces,\ttabs and ▁ in the text, then it goes on.\r\n\tIt goes on.",
    "Größe, 日本語 and 😀 in one line; numbers 1234567890.",
] * 30
SPELLED = [
    "▁",
    "▁▁",
    " ",
    "  ",
    "</s>",
    "<s>",
    "<unk>",
    "<0x41>",
    " ⁇ ",
    "\r\n",
    "\t",
    "\0",
    "\x85",
    "e\u0301",
]
KINDS = ["unigram", "sentencepiece-bpe"]


@pytest.fixture(scope="module")
def trained():
    return {kind: train_tokenizer(iter(TEXTS), 400, kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@given(pieces=st.lists(st.one_of(st.text(), st.sampled_from([*SPELLED, "left", "spaces"]))))
@settings(max_examples=300, deadline=None)
def test_any_text_round_trips(trained, kind, pieces):
    """Otherwise a model would learn from text that nobody wrote: "▁" would be a space, two spaces one."""
    tokenizer, text = trained[kind], "".join(pieces)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text, "", "a"]) == [ids, [], tokenizer.encode("a")]
    assert not set(ids) & set(tokenizer.special_ids.values())
    assert tokenizer.byte_lengths()[ids].sum() == len(text.encode())


@pytest.mark.parametrize("kind", KINDS)
@given(texts=st.lists(st.lists(st.one_of(st.text(), st.sampled_from(SPELLED))).map("".join), max_size=8))
@settings(max_examples=100, deadline=None)
def test_flat_ids_are_those_of_each_text(trained, kind, texts):
    """Otherwise a build would write other ids than a prompt becomes."""
    known = [text for text in texts if all(unicodedata.category(character) != "Cn" for character in text)]
    ids, ends = trained[kind].encode_flat(known)
    assert [row.tolist() for row in np.split(ids, ends[:-1])][: len(known)] == trained[kind].encode_batch(
        known
    )


def test_special_tokens_appear_by_name(trained):
    """Otherwise a sample would hide where a document ended."""
    tokenizer = trained["unigram"]
    end = tokenizer.end_of_text_id
    assert tokenizer.end_of_text == "</s>"
    assert tokenizer.decode([*tokenizer.encode("a "), end, end, *tokenizer.encode(" b")]) == "a </s></s> b"
    assert tokenizer.decode(tokenizer.encode("é")[:1]) == "\ufffd"


def test_encoders(trained):
    """Otherwise nobody would know what made the ids of a dataset."""
    assert trained["sentencepiece-bpe"].describe_encoder().startswith("gigatoken")
    assert trained["unigram"].describe_encoder().startswith("sentencepiece")


def test_saved_and_loaded_is_the_same(trained, tmp_path):
    """Otherwise generation from a checkpoint would speak another vocabulary than training."""
    for kind, tokenizer in trained.items():
        folder = tmp_path / kind
        folder.mkdir()
        (folder / tokenizer.file_name).write_bytes(tokenizer.to_bytes())
        loaded = load_tokenizer(folder)
        assert (loaded.kind, loaded.fingerprint) == (kind, tokenizer.fingerprint)
        assert loaded.encode_batch(TEXTS[:3]) == tokenizer.encode_batch(TEXTS[:3])
        exact = load_tokenizer(folder, encoder="exact")
        assert exact.describe_encoder().startswith("sentencepiece")
        assert exact.encode_flat(TEXTS)[0].tolist() == loaded.encode_flat(TEXTS)[0].tolist()


def model(**options):
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in TEXTS for line in text.splitlines()]),
        model_writer=writer,
        minloglevel=2,
        **{"vocab_size": 350, "model_type": "bpe", "byte_fallback": True, "hard_vocab_limit": False}
        | options,
    )
    return writer.getvalue()


def test_models_of_other_makers_say_what_they_lose():
    """Otherwise a Llama model's space before the text would be taken for the text's own."""
    llama = model(normalization_rule_name="identity", remove_extra_whitespaces=False)
    loaded = SentencePieceTokenizer(llama, "llama")
    assert loaded.lossy_because == "it puts a space before the text"
    assert loaded.describe_encoder().startswith("gigatoken")
    processor = sentencepiece.SentencePieceProcessor(model_proto=llama)
    assert loaded.encode_batch(TEXTS) == processor.encode(TEXTS)
    assert loaded.encode_flat(TEXTS)[0].tolist() == [id for row in processor.encode(TEXTS) for id in row]
    older = SentencePieceTokenizer(model(byte_fallback=False, model_type="unigram", vocab_size=120), "older")
    for reason in ("normalises", "joins", "byte fallback"):
        assert reason in older.lossy_because


def test_the_fingerprint_covers_normaliser_and_scores():
    """Otherwise datasets of two tokenizers could be mixed."""
    plain = model(normalization_rule_name="identity")
    prints = {
        SentencePieceTokenizer(content, "model").fingerprint
        for content in (
            plain,
            model(normalization_rule_name="nfkc"),
            model(normalization_rule_name="identity", add_dummy_prefix=False),
            model(normalization_rule_name="identity", model_type="unigram"),
            model(normalization_rule_name="identity", vocab_size=340),
        )
    }
    assert len(prints) == 5
    # How many threads trained it is recorded in the file, and changes no id.
    again = model(normalization_rule_name="identity", num_threads=3)
    assert again != plain
    assert SentencePieceTokenizer(again, "again").fingerprint in prints


def test_a_model_without_end_is_refused():
    """Otherwise documents would run into each other."""
    with pytest.raises(DataError, match=r"endoftext"):
        SentencePieceTokenizer(model(eos_id=-1), "model")
    ended = SentencePieceTokenizer(model(eos_id=-1, control_symbols=["<|endoftext|>"]), "model")
    assert ended.end_of_text == "<|endoftext|>"


def test_damaged_models_are_refused(tmp_path):
    """Otherwise a download that stopped would end in an error of a C++ library."""
    content, path = model(), tmp_path / "tokenizer.model"
    for damaged in (b"", b"garbage" * 10, content[:-5], content[:1000], b"\xff" * 20, b"\x08\x96\x01"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"tokenizer\.model: not a SentencePiece model"):
            load_tokenizer(path)


def test_too_small_a_vocabulary_is_explained():
    """Otherwise a user would read a C++ condition without a hint."""
    with pytest.raises(DataError, match="of 257 pieces") as raised:
        train_tokenizer(iter(TEXTS), 257, "unigram")
    assert "data.vocab_size" in raised.value.fix
