"""Texts that hold a piece of an evaluation are found, and no others."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import decontamination
from data.decontamination import Decontaminator
from data.shingles import split_words
from seedbed.errors import DataError
from seedbed.randomness import generator


def words(seed, count):
    return [f"w{number}" for number in generator(seed, "test").integers(10_000, size=count)]


def text_file(folder, text, name="items.txt"):
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def jsonl_file(folder, *rows, name="items.jsonl"):
    return text_file(folder, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), name)


def test_thirteen_words_in_a_row_are_a_collision_and_twelve_are_not(tmp_path):
    """Otherwise benchmarks would be learnt by heart, or common phrases cost documents."""
    item = words(1, 40)
    file = text_file(tmp_path, " ".join(item))
    around = " ".join(words(2, 300))
    texts = [" ".join([around, *item[5 : 5 + count], around]) for count in (12, 13, 14)]
    texts += [" ".join(item[-13:]), " ".join(item[:12]), around, ""]
    assert Decontaminator([file]).find(texts) == [None, file, file, file, None, None, None]


def test_case_spaces_and_punctuation_do_not_hide_an_item(tmp_path):
    """Otherwise a copy with other quotes or line breaks would pass."""
    item = "If Alice has 3 apples, and Bob gives her 4 more: how many has she now?"
    index = Decontaminator([text_file(tmp_path, item)])
    shouted = "(...) IF ALICE HAS “3” APPLES —\nAND BOB\tGIVES HER 4 MORE... HOW MANY HAS SHE NOW"
    assert index.find([shouted, shouted.replace("BOB", "CAROL")]) == [str(tmp_path / "items.txt"), None]


def test_every_string_of_a_row_is_an_item(tmp_path):
    """Otherwise answers and nested choices would leak."""
    question, answer, choice = (" ".join(words(seed, 20)) for seed in (3, 4, 5))
    file = jsonl_file(
        tmp_path,
        {"id": 7, "question": question},
        {"answers": [{"text": answer, "score": 1.5}], "none": None},
        [["short", choice]],
    )
    index = Decontaminator([file])
    assert index.find([answer, choice, question]) == [f"{file}:2", f"{file}:3", f"{file}:1"]
    assert index.describe()["items"] == 3
    assert index.describe()["items_too_short"] == 1
    assert index.describe()["ngrams"] == 3 * 8


def test_keys_and_neighbouring_items_make_no_ngrams(tmp_path):
    """Otherwise every file with the same columns would be contaminated."""
    first, second = words(6, 20), words(7, 20)
    key = " ".join(words(8, 20))
    index = Decontaminator([jsonl_file(tmp_path, {key: " ".join(first), "b": " ".join(second)})])
    assert index.find([key, " ".join(first[-8:] + second[:8])]) == [None, None]


@pytest.mark.parametrize("count", [8, 10, 12])
def test_short_items_count_as_a_whole(tmp_path, count):
    """Otherwise a question of ten words could be learnt with its answer."""
    item = words(9, count)
    file = jsonl_file(tmp_path, {"question": " ".join(item), "label": "B"})
    index = Decontaminator([file])
    around = " ".join(words(10, 50))
    texts = [f"{around} {' '.join(item)} {around}", " ".join(item), " ".join(item[1:]), " ".join(item[:-1])]
    assert index.find(texts) == [f"{file}:1", f"{file}:1", None, None]


def test_the_number_of_words_is_a_choice(tmp_path):
    """Otherwise data.decontaminate_words would be ignored."""
    item = words(11, 30)
    file = text_file(tmp_path, " ".join(item))
    text = " ".join([*words(12, 20), *item[3:9], *words(13, 20)])
    assert Decontaminator([file], num_words=6).find([text]) == [file]
    assert Decontaminator([file], num_words=7).find([text]) == [None]


def test_the_first_file_with_an_ngram_is_named(tmp_path):
    """Otherwise the drop list would name another file in every run."""
    item = " ".join(words(14, 20))
    files = [text_file(tmp_path, item, name) for name in ("b.txt", "a.txt")]
    assert Decontaminator(files).find([item]) == [files[0]]
    assert Decontaminator(files[::-1]).find([item]) == [files[1]]


def test_scripts_without_spaces(tmp_path):
    """Otherwise no Chinese evaluation could be kept out."""
    file = text_file(tmp_path, "北京是中华人民共和国的首都。位于华北平原的北部。")
    texts = ["众所周知、北京是中华人民共和国的首都位于华北。", "上海是一个很大的城市。"]
    assert Decontaminator([file]).find(texts) == [file, None]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_found_is_what_sets_of_ngrams_say(tmp_path_factory, data):
    """Otherwise array code and the rule in words would disagree."""
    some_words = st.lists(st.sampled_from("abcd"), max_size=24).map(" ".join)
    items = [*data.draw(st.lists(some_words, max_size=4)), "a b c d d c b a"]
    texts = data.draw(st.lists(some_words, max_size=5))
    file = jsonl_file(tmp_path_factory.mktemp("items"), items)
    found = Decontaminator([file], num_words=9).find(texts)

    def ngrams(text, size):
        own = split_words(text)
        return {tuple(own[start : start + size]) for start in range(len(own) - size + 1)}

    for text, name in zip(texts, found, strict=True):
        sizes = [(item, min(9, len(item.split()))) for item in items if len(item.split()) >= 8]
        hit = any(ngrams(text, size) & ngrams(item, size) for item, size in sizes)
        assert (name is not None) == hit


def test_equal_hashes_alone_drop_no_document(tmp_path, monkeypatch):
    """Otherwise, among trillions of n-grams, innocent documents would go."""

    def everything_collides(words, size):
        ngrams = real(words, size)
        return ngrams._replace(hashes=ngrams.hashes & 1)

    real = decontamination.hash_ngrams
    monkeypatch.setattr(decontamination, "hash_ngrams", everything_collides)
    item = words(15, 13)
    file = text_file(tmp_path, " ".join(item))
    assert Decontaminator([file]).find([" ".join(words(16, 200)), " ".join(item)]) == [None, file]


def test_batches_and_processes_change_nothing(tmp_path):
    """Otherwise what is dropped would depend on the worker."""
    item = words(17, 60)
    file = text_file(tmp_path, " ".join(item))
    texts = [" ".join(words(seed, 3000) + item[seed : seed + 10 + seed % 6]) for seed in range(18, 42)]
    index = Decontaminator([file])
    found = index.find(texts)
    assert 0 < found.count(file) < len(texts)
    assert [name for text in texts for name in index.find([text])] == found
    code = f"from data.decontamination import Decontaminator; print(Decontaminator([{file!r}]).digest)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == index.digest


def test_the_digest_is_of_the_items_and_the_rule(tmp_path):
    """Otherwise a cached build could have been filtered by other items."""
    item = " ".join(words(50, 30))
    file, moved = text_file(tmp_path, item), text_file(tmp_path, item, "moved.txt")
    other = text_file(tmp_path, item + " more", "other.txt")
    digest = Decontaminator([file]).digest
    assert Decontaminator([moved]).digest == digest
    assert Decontaminator([other]).digest != digest
    assert Decontaminator([file], num_words=12).digest != digest


def test_unusable_files_are_named(tmp_path):
    """Otherwise an evaluation would silently not be kept out."""
    good = {"question": " ".join(words(51, 20))}
    cases = {
        "missing.txt": (None, "cannot be read: No such file"),
        "empty.txt": (b"", "no item of 8 or more words"),
        "blank.jsonl": (b"\n\n", "no item of 8 or more words"),
        "short.jsonl": (b'{"answer": "B"}\n', "no item of 8 or more words"),
        "latin.txt": ("é".encode("latin-1") * 20, "not UTF-8 text"),
        "torn.jsonl": (json.dumps(good).encode() + b'\n\n{"question": "wh', "malformed row in line 3"),
        "deep.jsonl": (b"[" * 100_000, "malformed row in line 1"),
        "table.parquet": (b"PAR1", "neither text nor JSONL"),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            Decontaminator([str(tmp_path / name)])
        assert name in str(caught.value)
        assert caught.value.fix
    with pytest.raises(DataError, match="Is a directory"):
        Decontaminator([str(tmp_path)])
