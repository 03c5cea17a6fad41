"""JSON Lines, plain and compressed: what is read, what is counted, what stops a build."""

import gzip
import json
import subprocess
import sys

import pytest

from data.config import DataConfig
from data.sources import Document, Drop, open_source
from seedbed.errors import DataError


def lines_of(rows) -> bytes:
    return b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)


def compress(name: str, content: bytes) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(content)
    if name.endswith(".zst"):
        zstandard = pytest.importorskip(
            "zstandard", reason="zstandard is not installed: .jsonl.zst not tested"
        )
        return zstandard.ZstdCompressor().compress(content)
    return content


def read(path, **options):
    """The documents, the drops, and (bytes reported, bytes announced)."""
    source = open_source(DataConfig(source=str(path), **options))
    counted = []
    items = list(source.documents(counted.append))
    documents = [item for item in items if isinstance(item, Document)]
    return documents, [item for item in items if isinstance(item, Drop)], (sum(counted), source.total_bytes)


FORMS = ["rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst"]


@pytest.mark.parametrize("name", FORMS)
def test_rows_become_documents(tmp_path, name):
    """Otherwise the commonest form of public corpora could not be used, or text would change on the way."""
    rows = [{"id": f"r{n}", "text": f"row {n}: é\r\n😀\u2028", "lang": "en"} for n in range(5000)]
    path = tmp_path / name
    path.write_bytes(compress(name, lines_of(rows)))
    documents, drops, (counted, total) = read(path)
    assert not drops
    assert [(d.id, d.text) for d in documents] == [(row["id"], row["text"]) for row in rows]
    assert documents[41].source == f"{name}:42"
    assert documents[41].meta == {"lang": "en"}
    assert counted == total


@pytest.mark.parametrize("name", FORMS)
def test_several_compressed_members_are_one_file(tmp_path, name):
    """Otherwise `cat a.gz b.gz` would lose b."""
    path = tmp_path / name
    path.write_bytes(compress(name, b'{"text": "one, c') + compress(name, b'ut here"}\n{"text": "two"}'))
    documents, _, _ = read(path)
    assert [document.text for document in documents] == ["one, cut here", "two"]


@pytest.mark.parametrize("name", FORMS[1:])
@pytest.mark.parametrize("keep", [0.5, 0.999])
def test_cut_off_compressed_file_is_an_error(tmp_path, name, keep):
    """Otherwise half a download would pass for a corpus."""
    content = compress(name, lines_of({"text": f"{n} {n * n} {n**3}"} for n in range(50_000)))
    path = tmp_path / name
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DataError, match=r"rows\.jsonl\.(gz|zst) is damaged or cut off"):
        read(path)


@pytest.mark.parametrize("name", FORMS[1:])
def test_damaged_compressed_file_is_an_error(tmp_path, name):
    """Otherwise a flipped bit would end in a traceback of some library."""
    content = bytearray(compress(name, lines_of({"text": f"{n}"} for n in range(5000))))
    content[0] ^= 0xFF
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged or cut off"):
        read(path)


def test_each_bad_row_is_dropped_by_its_own_reason(tmp_path):
    """Otherwise a user could not tell a broken file from a wrong field name."""
    rows = [
        {"text": "good"},
        b'{"text": "half\n',
        b"\n",
        b"[1, 2]\n",
        {"body": "no text"},
        {"id": "n", "text": 7},
        b'{"text": "caf\xe9"}\n',
        b'{"text": "\\ud800 alone"}\n',
        {"text": "  "},
        b"[" * 100_000 + b"\n",
    ]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines_of(rows))
    documents, drops, _ = read(path, max_malformed_share=1)
    assert [document.id for document in documents] == ["rows.jsonl:1"]
    assert [(drop.id, drop.reason) for drop in drops] == [
        ("rows.jsonl:2", "malformed"),
        ("rows.jsonl:4", "malformed"),
        ("rows.jsonl:5", "missing_field"),
        ("n", "missing_field"),
        ("rows.jsonl:7", "undecodable"),
        ("rows.jsonl:8", "undecodable"),
        ("rows.jsonl:9", "empty"),
        ("rows.jsonl:10", "malformed"),
    ]


def test_too_many_malformed_rows_fail_with_the_first_one(tmp_path):
    """Otherwise a file of the wrong format would train a model on its few lucky lines."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines_of([{"text": f"{n}"} for n in range(98)] + [b"oops\n", b"oops\n"]))
    with pytest.raises(DataError, match=r"2 of the 100 rows.*rows\.jsonl:99"):
        read(path)
    assert len(read(path, max_malformed_share=0.02)[0]) == 98


def test_wrong_field_name_fails_early_and_names_the_setting(tmp_path):
    """Otherwise a wrong data.text_field would cost a reading of the whole corpus."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines_of({"content": f"{n}"} for n in range(60_000)))
    source = open_source(DataConfig(source=str(path)))
    counted = []
    with pytest.raises(DataError, match="'text' is missing") as raised:
        list(source.documents(counted.append))
    assert "data.text_field" in raised.value.fix
    assert sum(counted) < source.total_bytes / 10
    assert len(read(path, text_field="content")[0]) == 60_000


def test_undecodable_rows_can_be_replaced_or_fail(tmp_path):
    """Otherwise the policy would hold for text files alone."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "caf\xe9"}\n{"text": "\\ud800!"}\n{"text": "a\\u0000b"}\n')
    documents, drops, _ = read(path, on_undecodable="replace")
    assert [(d.text, d.replaced) for d in documents] == [
        ("caf\ufffd", True),
        ("\ufffd!", True),
        ("a\ufffdb", True),
    ]
    assert not drops
    with pytest.raises(DataError, match=r"rows\.jsonl:1.*byte 13"):
        read(path, on_undecodable="fail")


def test_ids_may_be_numbers_or_hold_what_cannot_be_encoded(tmp_path):
    """Otherwise an odd id would crash the build when provenance is written."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"id": 12, "text": "a"}\n{"id": "\\udc00", "text": "b"}\n{"id": null, "text": "c"}\n')
    assert [document.id for document in read(path)[0]] == ["12", "\\udc00", "rows.jsonl:3"]


def test_byte_order_mark_before_the_first_row_is_no_error(tmp_path):
    """Otherwise the first row of every file that was saved on Windows would be lost."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n')
    assert [document.text for document in read(path)[0]] == ["a", "b"]


def test_folder_mixes_rows_and_text(tmp_path):
    """Otherwise a folder of JSONL parts would be read as plain text."""
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "row"}\n'))
    (tmp_path / "b.txt").write_text("whole file")
    documents, _, _ = read(tmp_path)
    assert [(d.id, d.text) for d in documents] == [("a.jsonl.gz:1", "row"), ("b.txt", "whole file")]


def test_zst_without_its_package_names_the_extra(tmp_path):
    """Otherwise a plain installation would answer a .zst file with a traceback."""
    path = tmp_path / "rows.jsonl.zst"
    path.write_bytes(b"any")
    code = (
        "import sys; sys.modules['zstandard'] = None\n"
        "from data.config import DataConfig; from data.sources import open_source\n"
        f"list(open_source(DataConfig(source={str(path)!r})).documents(lambda count: None))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "DataError" in done.stderr
    assert "seedbed[zstd]" in done.stderr
