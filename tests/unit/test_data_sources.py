"""Which text a folder or a file gives, and what becomes of what is not text."""

import os
import sysconfig
from pathlib import Path

import pytest

from data.config import DataConfig
from data.sources import Document, Drop, open_source
from seedbed.errors import DataError


def read(source, **options):
    """All documents and drops of a source, and how many bytes it said it read."""
    opened = open_source(DataConfig(source=str(source), **options))
    counted = []
    items = list(opened.documents(counted.append))
    documents = [item for item in items if isinstance(item, Document)]
    drops = [item for item in items if isinstance(item, Drop)]
    return documents, drops, (sum(counted), opened.total_bytes)


def write(folder: Path, **files: str | bytes):
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def test_folder_is_read_recursively_in_order_with_relative_ids(tmp_path):
    """Otherwise the same folder would give another dataset on another disk."""
    write(tmp_path, b_txt="bee", a__z_txt="zed", a__b__c_txt="sea")
    documents, drops, (counted, total) = read(tmp_path)
    assert [(d.id, d.source, d.text) for d in documents] == [
        ("a/b/c.txt", "a/b/c.txt", "sea"),
        ("a/z.txt", "a/z.txt", "zed"),
        ("b.txt", "b.txt", "bee"),
    ]
    assert not drops
    assert counted == total == 9


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.py", ["a.py", "sub/b.py"]),
        ("*.py, *.md", ["a.py", "c.md", "sub/b.py"]),
        ("sub/*", ["sub/b.py", "sub/d.txt"]),
    ],
)
def test_pattern_chooses_files(tmp_path, pattern, found):
    """Otherwise a user could not keep logs or pictures out of a corpus."""
    write(tmp_path, a_py="x", c_md="x", sub__b_py="x", sub__d_txt="x")
    documents, _, _ = read(tmp_path, pattern=pattern)
    assert [document.id for document in documents] == found


def test_newlines_and_byte_order_marks_stay(tmp_path):
    """Otherwise byte counts, and with them bits per byte, would not be those of the input."""
    raw = b"\xef\xbb\xbfone\r\ntwo\rthree\n"
    write(tmp_path, a_txt=raw)
    documents, _, _ = read(tmp_path)
    assert documents[0].text.encode() == raw


def test_loops_of_links_end_and_links_to_folders_are_followed(tmp_path):
    """Otherwise a link to a parent folder would make a build run for ever."""
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    write(corpus, sub__a_txt="text")
    write(elsewhere, b_txt="linked")
    (corpus / "sub" / "loop").symlink_to(corpus)
    (corpus / "link").symlink_to(elsewhere)
    documents, _, _ = read(corpus)
    assert [document.id for document in documents] == ["link/b.txt", "sub/a.txt"]


def test_hidden_names_pipes_and_dead_links_are_listed_not_read(tmp_path):
    """Otherwise a .git folder would be trained on, and a pipe would stop the build for ever."""
    write(tmp_path, a_txt="text")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("secret")
    (tmp_path / ".env").write_text("secret")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dead").symlink_to(tmp_path / "nowhere")
    documents, drops, _ = read(tmp_path)
    assert [document.id for document in documents] == ["a.txt"]
    found = {(drop.id, drop.reason) for drop in drops}
    assert found == {(".git/", "hidden"), (".env", "hidden"), ("pipe", "not_a_file"), ("dead", "not_a_file")}


def test_file_names_that_are_not_utf8_get_printable_ids(tmp_path):
    """Otherwise one file name from an old disk would crash the build at its end."""
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("text")
    documents, _, _ = read(tmp_path)
    assert documents[0].id.encode() == b"caf\\udce9.txt"


BAD = {"latin_txt": b"caf\xe9 au lait", "binary_txt": b"PK\x03\x00\x00", "good_txt": b"good"}


def test_undecodable_drop_lists_the_file_and_the_offset(tmp_path):
    """Otherwise a user would not know which files a dataset lacks."""
    write(tmp_path, **BAD)
    documents, drops, _ = read(tmp_path)
    assert [document.id for document in documents] == ["good.txt"]
    listed = {drop.id: (drop.reason, drop.detail) for drop in drops}
    assert listed["latin.txt"][0] == "undecodable"
    assert "byte 3 " in listed["latin.txt"][1]
    assert listed["binary.txt"] == ("binary", "NUL at byte 3")


def test_undecodable_replace_marks_the_documents(tmp_path):
    """Otherwise text that was altered could not be told from text that was not."""
    write(tmp_path, **BAD)
    documents, drops, _ = read(tmp_path, on_undecodable="replace")
    assert {d.id: (d.text, d.replaced) for d in documents} == {
        "latin.txt": ("caf\ufffd au lait", True),
        "binary.txt": ("PK\x03\ufffd\ufffd", True),
        "good.txt": ("good", False),
    }
    assert not drops


@pytest.mark.parametrize(("name", "offset"), [("latin_txt", 3), ("binary_txt", 3)])
def test_undecodable_fail_names_file_and_offset(tmp_path, name, offset):
    """Otherwise a user who asked for strictness would have to search for the bad byte."""
    write(tmp_path, **{name: BAD[name]})
    with pytest.raises(DataError, match=rf"{name.replace('_', '.')}.*byte {offset}\b"):
        read(tmp_path, on_undecodable="fail")


def test_documents_of_white_space_are_dropped_as_empty(tmp_path):
    """Otherwise empty documents would teach a model to end at once."""
    write(tmp_path, a_txt="", b_txt=" \n\t\n", c_txt="c")
    documents, drops, _ = read(tmp_path)
    assert [document.id for document in documents] == ["c.txt"]
    assert [(drop.id, drop.reason) for drop in drops] == [("a.txt", "empty"), ("b.txt", "empty")]


def test_lone_text_file_is_cut_into_passages_that_are_the_file(tmp_path):
    """Otherwise a book could not be split into train and holdout, or would lose text at the cuts."""
    raw = b"".join(b"verse %d, a line\r\nand another\n\n" % number for number in range(3000))
    path = tmp_path / "book.txt"
    path.write_bytes(raw)
    documents, drops, (counted, total) = read(path)
    assert not drops
    assert 40 <= len(documents) <= 64
    assert "".join(document.text for document in documents).encode() == raw
    assert documents[1].id == "book.txt#1"
    assert all(document.text.endswith("\n\n") for document in documents)
    assert counted == total == len(raw)


def test_bad_byte_in_a_passage_is_named_by_its_offset_in_the_file(tmp_path):
    """Otherwise the offset would send the user to the wrong place of a large file."""
    raw = bytearray(b"a line of text\n\n" * 1000)
    raw[9000] = 0xFF
    path = tmp_path / "book.txt"
    path.write_bytes(raw)
    documents, drops, _ = read(path)
    assert [drop.reason for drop in drops] == ["undecodable"]
    assert "byte 9000 " in drops[0].detail
    assert len(documents) > 10


@pytest.mark.parametrize("source", ["", "/nowhere/at/all"])
def test_missing_source_is_named_with_a_fix(source):
    """Otherwise a mistyped path would end in a traceback."""
    with pytest.raises(DataError, match=r"data\.source") as raised:
        read(source)
    assert raised.value.fix


def test_folder_without_a_match_names_the_pattern(tmp_path):
    """Otherwise a wrong glob would build an empty dataset."""
    write(tmp_path, a_txt="x")
    with pytest.raises(DataError, match=r"\*\.rst"):
        read(tmp_path, pattern="*.rst")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_an_error_not_a_gap(tmp_path):
    """Otherwise a corpus with wrong permissions would silently be smaller."""
    write(tmp_path, a_txt="x")
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(DataError, match=r"a\.txt"):
        read(tmp_path)


def test_stdlib_is_the_library_without_packages_and_tests():
    """Otherwise the quick start would train on whatever is installed, or on broken test files."""
    documents, drops, _ = read("stdlib")
    ids = [document.id for document in documents]
    assert ids == sorted(ids)
    assert {"os.py", "json/decoder.py", "encodings/utf_8.py"} <= set(ids)
    parts = {part for id in ids for part in id.split("/")}
    assert not parts & {"site-packages", "dist-packages", "test", "tests", "__pycache__"}
    assert {drop.reason for drop in drops} <= {"empty"}
    os_py = next(document for document in documents if document.id == "os.py")
    assert os_py.text.encode() == (Path(sysconfig.get_path("stdlib")) / "os.py").read_bytes()


def test_identity_changes_with_the_files(tmp_path):
    """Otherwise the cache would hand out the dataset of yesterday's files."""
    write(tmp_path, a_txt="one")
    config = DataConfig(source=str(tmp_path))
    before = open_source(config).identity()
    assert open_source(config).identity() == before
    os.utime(tmp_path / "a.txt", ns=(1, 1))
    touched = open_source(config).identity()
    write(tmp_path, b_txt="two")
    assert len({str(before), str(touched), str(open_source(config).identity())}) == 3
