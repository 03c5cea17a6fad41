"""Every text comes back as it was, and no text becomes the end of a document."""

import json
import os
import subprocess
import sys

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models

from data.tokenizers import END_OF_TEXT, find_tokenizer, load_tokenizer, train_tokenizer
from data.tokenizers.tokenizer_json import JsonTokenizer
from seedbed.errors import DataError

TEXTS = [
    "def add(left, right):\n    return left + right\n",
    "The end is <|endoftext|> and then it goes on.\r\n\tIt goes on.",
    "Größe, 日本語 and 😀 in one line; numbers 1234567890.",
] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(iter(TEXTS), 512)


@given(st.lists(st.one_of(st.text(), st.sampled_from([END_OF_TEXT, "<|", "endoftext", " ", "\r\n", "\0"]))))
@settings(max_examples=300, deadline=None)
def test_any_text_round_trips(tokenizer, pieces):
    """Otherwise a model would learn from text that nobody wrote, and bits per byte would be wrong."""
    text = "".join(pieces)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text, ""]) == [ids, []]
    assert tokenizer.end_of_text_id not in ids
    assert all(0 <= id < tokenizer.vocab_size for id in ids)


def test_every_byte_has_a_token(tokenizer):
    """Otherwise text of a kind that training did not see would be lost."""
    text = "".join(chr(code) for code in [*range(0x180), *range(0x1F600, 0x1F640), 0x10FFFF])
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_spelled_out_end_of_text_is_text(tokenizer):
    """Otherwise a web page could end documents where it likes."""
    ids = tokenizer.encode(f"a{END_OF_TEXT}b")
    assert tokenizer.end_of_text_id not in ids
    assert len(ids) > 3
    assert tokenizer.decode([tokenizer.end_of_text_id]) == END_OF_TEXT


@pytest.mark.parametrize("kind", ["byte-bpe", "unigram", "sentencepiece-bpe", "wordpiece"])
def test_training_is_deterministic_whatever_the_number_of_threads(kind):
    """Otherwise the same corpus would give another vocabulary, and another dataset, each time."""
    code = (
        "import hashlib, os, pathlib, sys, sysconfig; from data.tokenizers import train_tokenizer\n"
        "os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])\n"
        "root = pathlib.Path(sysconfig.get_path('stdlib'))\n"
        "texts = [p.read_text() for p in sorted(root.glob('*.py'))[:10]]\n"
        f"trained = train_tokenizer(iter(texts), 1024, {kind!r})\n"
        "print(trained.fingerprint, hashlib.sha256(trained.to_bytes()).hexdigest())"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", code, num_cores],
            env=os.environ | {"TOKENIZERS_PARALLELISM": parallel},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for num_cores, parallel in (("2", "true"), ("2", "true"), ("1", "false"))
    }
    assert len(prints) == 1


def test_saved_and_loaded_is_the_same(tokenizer, tmp_path):
    """Otherwise generation from a checkpoint would speak another vocabulary than training."""
    path = tmp_path / "tokenizer.json"
    path.write_bytes(tokenizer.to_bytes())
    loaded = load_tokenizer(path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.vocab_size == tokenizer.vocab_size
    assert [loaded.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    assert find_tokenizer(tmp_path) == path
    step = tmp_path / "run" / "checkpoints" / "step-5"
    step.mkdir(parents=True)
    (step / path.name).write_bytes(path.read_bytes())
    assert find_tokenizer(tmp_path / "run") == step / path.name
    assert load_tokenizer(tmp_path).fingerprint == tokenizer.fingerprint
    elsewhere = load_tokenizer("s3://bucket/tokenizer.json", content=tokenizer.to_bytes())
    assert elsewhere.fingerprint == tokenizer.fingerprint


def test_fingerprint_follows_meaning_not_spelling(tokenizer):
    """Otherwise a library upgrade would make every dataset look foreign, or a changed merge look equal."""
    parsed = json.loads(tokenizer.to_bytes())
    older = json.loads(tokenizer.to_bytes())
    older["model"]["merges"] = [" ".join(merge) for merge in older["model"]["merges"]]
    older["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    same = JsonTokenizer(json.dumps(older, indent=3), "older")
    assert same.fingerprint == tokenizer.fingerprint
    assert same.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])
    parsed["model"]["merges"][0], parsed["model"]["merges"][1] = parsed["model"]["merges"][1::-1]
    assert JsonTokenizer(json.dumps(parsed), "changed").fingerprint != tokenizer.fingerprint


def altered(tokenizer, change):
    parsed = json.loads(tokenizer.to_bytes())
    change(parsed)
    return json.dumps(parsed)


LOSSY = {
    "lower-cases": (lambda p: p.update(normalizer={"type": "Lowercase"}), "normalises", "A", "a"),
    "adds a space": (lambda p: p["pre_tokenizer"].update(add_prefix_space=True), "space before", "a", " a"),
    "no decoder": (lambda p: p.update(decoder=None), "decoder", " ", "Ġ"),
}


@pytest.mark.parametrize("case", LOSSY)
def test_lossy_tokenizers_say_so(tokenizer, tmp_path, case):
    """Otherwise a vocabulary of somebody else would silently lower-case a corpus."""
    change, reason, text, comes_back = LOSSY[case]
    path = tmp_path / "tokenizer.json"
    path.write_text(altered(tokenizer, change))
    lossy = load_tokenizer(path)
    assert lossy.decode(lossy.encode(text)) == comes_back
    assert reason in lossy.lossy_because
    assert reason in lossy.describe()["lossy_because"]
    assert lossy.fingerprint != tokenizer.fingerprint
    assert "lossy_because" not in tokenizer.describe()


REFUSED = {
    "dropout": (lambda p: p["model"].update(dropout=0.1), "dropout"),
    "no end of text": (lambda p: p["added_tokens"][0].update(special=False), END_OF_TEXT),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_tokenizers_are_refused(tokenizer, tmp_path, case):
    """Otherwise a text would have other ids each time, or documents would run into each other."""
    change, message = REFUSED[case]
    path = tmp_path / "tokenizer.json"
    path.write_text(altered(tokenizer, change))
    with pytest.raises(DataError, match=rf"tokenizer\.json: .*{message.replace('|', '[|]')}"):
        load_tokenizer(path)


def test_missing_and_broken_files_are_refused(tmp_path):
    """Otherwise a wrong path would end in an error of a Rust or C++ library."""
    path = tmp_path / "tokenizer.json"
    with pytest.raises(DataError, match="cannot read the tokenizer"):
        load_tokenizer(path)
    with pytest.raises(DataError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        load_tokenizer(tmp_path)
    for broken in (b"{}", b"\xff", b'{"version": "1.0"'):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"tokenizer\.json"):
            load_tokenizer(path)
    other = tmp_path / "vocab.txt"
    other.write_text("a")
    with pytest.raises(DataError, match=r"neither a \.json nor a \.model file"):
        load_tokenizer(other)
    with pytest.raises(ValueError, match="exact"):
        load_tokenizer(path, encoder="fastest")


def word_level(names):
    vocabulary = {name: id for id, name in enumerate(["[UNK]", "hello", *names])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.add_special_tokens(list(names))
    return backend


def unigram(names):
    pieces = [("<unk>", 0.0), ("hello", -1.0), *((name, -1.0) for name in names)]
    backend = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    backend.add_special_tokens(list(names))
    return backend


@pytest.mark.parametrize(("make", "kind"), [(word_level, "word-level"), (unigram, "unigram")])
def test_files_of_other_makers_load(tmp_path, make, kind):
    """Otherwise a model of somebody else could not be trained further."""
    path = tmp_path / "tokenizer.json"
    make(["</s>", "<eos>"]).save(str(path))
    loaded = load_tokenizer(path)
    assert (loaded.kind, loaded.end_of_text) == (kind, "</s>")
    assert loaded.special_ids == {"</s>": 2, "<eos>": 3}
    ids, ends = loaded.encode_flat(["hello", "", "</s>"])
    assert ids[: ends[0]].tolist() == loaded.encode("hello") == [1]
    assert 2 not in ids
    assert "tokenizers" in loaded.describe_encoder()
    assert loaded.lossy_because


@pytest.mark.parametrize("kind", ["byte-bpe", "unigram", "sentencepiece-bpe", "wordpiece"])
def test_an_error_in_the_text_stays_the_error(kind):
    """Otherwise a source that breaks during training would be blamed on the vocabulary's size."""

    def texts():
        yield "some words to learn " * 50
        raise DataError("the source broke")

    with pytest.raises(DataError, match="the source broke"):
        train_tokenizer(texts(), 400, kind)


def test_an_unknown_kind_is_refused():
    """Otherwise a misspelled kind would be another one."""
    with pytest.raises(DataError, match="wordpeice") as raised:
        train_tokenizer(iter(TEXTS), 400, "wordpeice")
    assert raised.value.fix == "use wordpiece"


def test_encoding_works_in_a_forked_child_without_warning():
    """Otherwise a data worker that is forked after a build would hang for ever."""
    code = (
        "import os; from data.tokenizers import train_tokenizer\n"
        "t = train_tokenizer(iter(['some words to learn'] * 99), 300)\n"
        "t.encode_batch(['words'] * 5000)\n"
        "pid = os.fork()\n"
        "ids = t.encode_batch(['words'] * 5000)\n"
        "if pid == 0: os._exit(0 if len(ids) == 5000 else 1)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    for setting in ({}, {"TOKENIZERS_PARALLELISM": "true"}):
        env = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=env | setting,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
