"""Every text comes back as it was, and no text becomes the end of a document."""

import json
import os
import subprocess
import sys

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from data.tokenizers import END_OF_TEXT, Tokenizer, load_tokenizer, train_tokenizer
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


def test_training_is_deterministic_whatever_the_number_of_threads(tmp_path):
    """Otherwise the same corpus would give another vocabulary, and another dataset, each time."""
    code = (
        "import sysconfig, pathlib; from data.tokenizers import train_tokenizer;"
        "root = pathlib.Path(sysconfig.get_path('stdlib'));"
        "texts = [p.read_text() for p in sorted(root.glob('*.py'))[:60]];"
        "print(train_tokenizer(iter(texts), 2048).fingerprint)"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"TOKENIZERS_PARALLELISM": parallel},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for parallel in ("true", "true", "false")
    }
    assert len(prints) == 1


def test_saved_and_loaded_is_the_same(tokenizer, tmp_path):
    """Otherwise generation from a checkpoint would speak another vocabulary than training."""
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_json())
    loaded = load_tokenizer(path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.vocab_size == tokenizer.vocab_size
    assert [loaded.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    assert load_tokenizer(tmp_path).fingerprint == tokenizer.fingerprint


def test_fingerprint_follows_meaning_not_spelling(tokenizer):
    """Otherwise a library upgrade would make every dataset look foreign, or a changed merge look equal."""
    parsed = json.loads(tokenizer.to_json())
    older = json.loads(tokenizer.to_json())
    older["model"]["merges"] = [" ".join(merge) for merge in older["model"]["merges"]]
    older["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    same = Tokenizer(json.dumps(older, indent=3), "older")
    assert same.fingerprint == tokenizer.fingerprint
    assert same.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])
    parsed["model"]["merges"][0], parsed["model"]["merges"][1] = parsed["model"]["merges"][1::-1]
    assert Tokenizer(json.dumps(parsed), "changed").fingerprint != tokenizer.fingerprint


def altered(tokenizer, change):
    parsed = json.loads(tokenizer.to_json())
    change(parsed)
    return json.dumps(parsed)


REFUSED = {
    "lower-cases": (lambda p: p.update(normalizer={"type": "Lowercase"}), "normalises"),
    "adds a space": (lambda p: p["pre_tokenizer"].update(add_prefix_space=True), "space before"),
    "no decoder": (lambda p: p.update(decoder=None), "decoder"),
    "dropout": (lambda p: p["model"].update(dropout=0.1), "dropout"),
    "no end of text": (lambda p: p["added_tokens"][0].update(special=False), END_OF_TEXT),
}


@pytest.mark.parametrize("case", REFUSED)
def test_lossy_tokenizers_are_refused(tokenizer, tmp_path, case):
    """Otherwise a BERT vocabulary would silently lower-case a corpus."""
    change, message = REFUSED[case]
    path = tmp_path / "tokenizer.json"
    path.write_text(altered(tokenizer, change))
    with pytest.raises(DataError, match=rf"tokenizer\.json: .*{message.replace('|', '[|]')}"):
        load_tokenizer(path)


def test_wordpiece_missing_and_broken_files_are_refused(tmp_path):
    """Otherwise a wrong path would end in an error of a Rust library."""
    path = tmp_path / "tokenizer.json"
    with pytest.raises(DataError, match="cannot read the tokenizer"):
        load_tokenizer(path)
    path.write_text("{}")
    with pytest.raises(DataError, match=r"not a tokenizer\.json"):
        load_tokenizer(path)
    wordpiece = tokenizers.models.WordPiece(vocab={"[UNK]": 0, "a": 1}, unk_token="[UNK]")
    path.write_text(tokenizers.Tokenizer(wordpiece).to_str())
    with pytest.raises(DataError, match="not a byte-level BPE"):
        load_tokenizer(path)


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
