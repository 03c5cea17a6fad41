"""Parts: whoever reads them, and however a source is cut, the documents are those of the whole."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.config import DataConfig
from data.sources import Document, Drop, Piece, Tally, check_malformed, open_source, read_piece
from seedbed.errors import DataError


def nothing(num_bytes):
    pass


def whole_and_parts(source, part_bytes, **options):
    """What the source gives read as a whole, and read by its parts after a journey as JSON."""
    config = DataConfig(source=str(source), max_malformed_share=1, **options)
    opened = open_source(config)
    told, items = [], list(opened.drops)
    parts = opened.parts(part_bytes)
    assert parts == open_source(config).parts(part_bytes), "another process would cut it differently"
    for piece in (piece for part in parts for piece in part):
        before = sum(told)
        items += read_piece(Piece.from_json(json.loads(json.dumps(piece.as_json()))), config, told.append)
        assert sum(told) - before == piece.size
    assert sum(told) == opened.total_bytes
    return list(opened.documents(nothing)), items, parts


line = st.one_of(
    st.builds(lambda text: json.dumps({"text": text}).encode(), st.text(max_size=40)),
    st.builds(lambda n: json.dumps({"id": n, "text": f"row {n}", "n": n}).encode(), st.integers(0, 99)),
    st.sampled_from([b"", b"   ", b"oops", b'{"body": 1}', b'{"text": "caf\xe9"}', b"\xef\xbb\xbf[]"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(line, max_size=30), st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.integers(1, 400))
def test_ranges_of_rows_are_the_file(tmp_path_factory, lines, end, ended, part_bytes):
    """Otherwise the number of workers would decide what is read, or line numbers would send a user astray."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_bytes(end.join(lines) + (end if ended else b""))
    whole, items, parts = whole_and_parts(path, part_bytes)
    assert items == whole
    assert all(sum(piece.size for piece in part) <= part_bytes or len(part) == 1 for part in parts)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["word " * 40, "", " \t", "é" * 700, "x" * 5000]), max_size=60),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(1, 9000),
    st.sampled_from([2**26, 3000]),
)
def test_ranges_of_passages_are_the_file(tmp_path_factory, lines, end, part_bytes, max_bytes):
    """Otherwise a large book would be cut at other places than a small part of it."""
    path = tmp_path_factory.mktemp("book") / "book.txt"
    path.write_bytes(end.join(lines).encode())
    whole, items, _ = whole_and_parts(path, part_bytes, max_document_bytes=max_bytes)
    assert items == whole
    if max_bytes == 2**26 and not any(isinstance(item, Drop) for item in items):
        assert "".join(item.text for item in items).encode() == path.read_bytes()


def test_passages_are_those_of_the_definition(tmp_path):
    """Otherwise a faster way to find them would change every dataset made of a lone file."""
    raw = b"".join(b"line %d of a verse\n" % n + (b" \n" if n % 97 == 0 else b"") for n in range(20_000))
    path = tmp_path / "book.txt"
    path.write_bytes(raw)
    expected, passage = [], b""
    wanted = len(raw) // 64
    for row in raw.splitlines(keepends=True):
        passage += row
        if (not row.strip() and len(passage) >= wanted) or len(passage) >= 4 * wanted:
            expected.append(passage.decode())
            passage = b""
    documents = open_source(DataConfig(source=str(path))).documents(nothing)
    assert [document.text for document in documents] == [*expected, passage.decode()]


def test_small_files_share_a_part_and_large_ones_are_cut(tmp_path):
    """Otherwise a million small files would be a million tasks, or one large file one task."""
    for number in range(10):
        (tmp_path / f"{number}.txt").write_text("x" * 10)
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "a"}\n' * 20)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 20))
    (tmp_path / ".hidden").write_text("x")
    whole, items, parts = whole_and_parts(tmp_path, 50)
    assert items == whole
    assert [len(part) for part in parts[:2]] == [5, 5]
    kinds = [[(piece.relative, piece.start > 0) for piece in part] for part in parts[2:]]
    assert kinds[0] == [("rows.jsonl", False)]
    assert kinds[-1] == [("rows.jsonl.gz", False)]
    assert len(kinds) == 7


def test_malformed_rows_are_counted_over_all_ranges_of_a_file(tmp_path):
    """Otherwise a build would fail or pass by where a file happened to be cut."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "good"}\n' * 90 + b"oops\n" * 10)
    config = DataConfig(source=str(path), max_malformed_share=0.1)
    tallies = []
    for piece in (piece for part in open_source(config).parts(300) for piece in part):
        tally = Tally()
        list(read_piece(piece, config, nothing, tally))
        tallies.append(json.loads(json.dumps({piece.relative: tally.as_json()})))
    assert len(tallies) > 4
    check_malformed(tallies, config)
    with pytest.raises(DataError, match=r"10 of the 100 rows.*rows\.jsonl:91: not JSON"):
        check_malformed(tallies, DataConfig(max_malformed_share=0.09))


def test_bad_stretch_in_the_middle_is_no_reason_to_stop(tmp_path):
    """Otherwise a file within the allowed share would fail if a range happened to begin at its bad rows."""
    path = tmp_path / "rows.jsonl"
    good, bad = b'{"text": "good row"}\n', b"bad row, not even JSON\n"
    path.write_bytes(good * 3000 + bad * 1500 + good * 3000)
    config = DataConfig(source=str(path), max_malformed_share=0.5)
    pieces = [piece for part in open_source(config).parts(3000 * len(good)) for piece in part]
    assert pieces[1].first_line == 3000
    assert sum(isinstance(item, Drop) for item in read_piece(pieces[1], config, nothing)) == 1500


def test_file_that_changed_since_it_was_listed_is_refused(tmp_path):
    """Otherwise ranges would begin inside of lines, and a dataset would be of two versions of its input."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\n' * 10)
    config = DataConfig(source=str(path))
    (first, *_), *_ = open_source(config).parts(20)
    path.write_bytes(b'{"text": "bb"}\n' * 10)
    with pytest.raises(DataError, match=r"rows\.jsonl changed while"):
        list(read_piece(first, config, nothing))


@pytest.mark.parametrize(
    "row",
    [
        b'{"id": 99999999999999999999999999, "text": "a"}',
        b'{"id": 1.5, "text": "a"}',
        b'{"id": true, "text": "a"}',
        b'{"id": "i", "text": "a", "x": NaN}',
        b'{"text": "a", "text": "b"}',
        b'{"text": "a", "x": 1e999}',
        b'{"text": "\\ud83d\\ude00"}',
        b"[" * 500 + b"]" * 500,
        b'{"text": "a"} trailing',
        b"\xef\xbb\xbf" + b'{"text": "a"}',
        b'{"text": "a\tb"}',
    ],
)
def test_fast_parser_reads_rows_as_pythons_own_does(tmp_path, row):
    """Otherwise rows that used to be read would be lost, or be called something else, for speed."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(row)
    [item] = open_source(DataConfig(source=str(path), max_malformed_share=1)).documents(nothing)
    try:
        expected = json.loads(row.decode().removeprefix("\ufeff"))
    except ValueError:
        expected = None
    if isinstance(expected, dict):
        assert isinstance(item, Document)
        assert item.text == expected["text"]
        named = isinstance(expected.get("id"), str | int)
        assert item.id == (str(expected["id"]) if named else "rows.jsonl:1")
    else:
        assert isinstance(item, Drop)
        assert item.reason == "malformed"
