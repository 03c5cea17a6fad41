"""Parquet: rows to documents by row groups, of a whole file or of a part; what damaged files say."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.config import DataConfig
from data.sources import Document, Drop, open_source, read_piece
from seedbed.errors import DataError


def write(path, columns, **options):
    pq.write_table(pa.table(columns), path, **options)
    return path


def read(path, **options):
    source = open_source(DataConfig(source=str(path), **options))
    counted = []
    items = list(source.documents(counted.append))
    assert sum(counted) == source.total_bytes
    return [item for item in items if isinstance(item, Document)], [i for i in items if isinstance(i, Drop)]


ROWS = {
    "id": [f"r{n}" for n in range(1000)],
    "text": [f"row {n}: é\r\n😀" * (n % 7 + 1) for n in range(1000)],
    "label": list(range(1000)),
}


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_rows_become_documents(tmp_path, kind, compression):
    """Otherwise most public corpora could not be read."""
    columns = ROWS | {"text": pa.array(ROWS["text"]).cast(kind)}
    path = write(tmp_path / "rows.parquet", columns, row_group_size=100, compression=compression)
    documents, drops = read(path)
    assert not drops
    assert [(d.id, d.text) for d in documents] == list(zip(ROWS["id"], ROWS["text"], strict=True))
    assert documents[437].source == "rows.parquet:438"


@pytest.mark.parametrize("part_bytes", [100, 1000, 5000, 10**9])
def test_parts_by_row_groups_are_the_file(tmp_path, part_bytes):
    """Otherwise rows would be read twice or never when a file is shared among workers."""
    columns = {"text": [f"{n}" * (n % 50 + 1) for n in range(1000)]}
    path = write(tmp_path / "rows.parquet", columns, row_group_size=70)
    config = DataConfig(source=str(path))
    source = open_source(config)
    counted = []
    parts = source.parts(part_bytes)
    items = [item for part in parts for piece in part for item in read_piece(piece, config, counted.append)]
    assert items == list(source.documents(lambda num_bytes: None))
    assert [item.id for item in items] == [f"rows.parquet:{n}" for n in range(1, 1001)]
    assert sum(counted) == source.total_bytes
    assert len(parts) == max(1, -(-path.stat().st_size // part_bytes))


def test_only_the_columns_that_are_used_are_read(tmp_path):
    """Otherwise a corpus of pictures with captions would be read at the speed of its pictures."""
    columns = {"text": ["a"], "picture": [b"x" * 1000]}
    path = write(tmp_path / "rows.parquet", columns, compression="none", write_page_checksum=True)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"x" * 1000)] ^= 1
    path.write_bytes(raw)
    assert [document.text for document in read(path)[0]] == ["a"]
    with pytest.raises(DataError, match="damaged"):
        read(path, text_field="picture")


def test_each_bad_cell_is_dropped_by_its_own_reason(tmp_path):
    """Otherwise nulls would be the word None, and bytes that are no text would stop a build."""
    cells = pa.array([b"good", None, b"caf\xe9", b"a\0b", b"  ", b"x" * 101, b"last"])
    text = pa.Array.from_buffers(pa.string(), 7, cells.buffers())
    path = write(tmp_path / "rows.parquet", {"id": [None, 7, 8, 9, 10, 11, 12], "text": text})
    documents, drops = read(path, max_malformed_share=1, max_document_bytes=100)
    assert [(document.id, document.text) for document in documents] == [
        ("rows.parquet:1", "good"),
        ("12", "last"),
    ]
    assert [(drop.id, drop.reason) for drop in drops] == [
        ("7", "missing_field"),
        ("8", "undecodable"),
        ("9", "binary"),
        ("10", "empty"),
        ("11", "too_long"),
    ]
    assert drops[1].source == "rows.parquet:3"


def test_too_many_nulls_fail_with_the_first_one(tmp_path):
    """Otherwise a column that is nearly empty would pass for a corpus."""
    path = write(tmp_path / "rows.parquet", {"text": ["a"] * 90 + [None] * 10})
    with pytest.raises(DataError, match=r"10 of the 100 rows.*rows\.parquet:91: .*null"):
        read(path)


def test_missing_column_lists_those_that_are_there(tmp_path):
    """Otherwise a user would have to open the file to learn the name."""
    path = write(tmp_path / "rows.parquet", {"content": ["a"], "url": ["b"]})
    with pytest.raises(DataError, match="no column 'text'; its columns are content, url") as raised:
        read(path)
    assert "data.text_field" in raised.value.fix
    assert read(path, text_field="content", id_field="url")[0][0].id == "b"


def test_column_of_numbers_is_refused(tmp_path):
    """Otherwise a model would be trained on the digits of labels."""
    with pytest.raises(DataError, match="column 'text' holds int64"):
        read(write(tmp_path / "rows.parquet", {"text": [1, 2]}))


@pytest.mark.parametrize("keep", [0, 3, 0.5, 0.999])
def test_cut_off_file_is_an_error(tmp_path, keep):
    """Otherwise half a download would end in a traceback of Arrow, or pass for a corpus."""
    path = write(tmp_path / "rows.parquet", ROWS)
    raw = path.read_bytes()
    path.write_bytes(raw[: keep if isinstance(keep, int) else int(len(raw) * keep)])
    with pytest.raises(DataError, match=r"rows\.parquet is damaged or cut off"):
        read(path)


def test_damaged_page_is_an_error(tmp_path):
    """Otherwise bytes that went bad on a disk would be trained on, where the file has checksums to tell."""
    path = write(tmp_path / "rows.parquet", ROWS, compression="none", write_page_checksum=True)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"row 500") + 3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"rows\.parquet is damaged or cut off"):
        read(path)


def test_empty_file_has_no_documents(tmp_path):
    """Otherwise one empty part of a corpus would stop its build."""
    path = write(tmp_path / "rows.parquet", {"text": pa.array([], pa.string())})
    assert read(path) == ([], [])


def test_without_pyarrow_the_extra_is_named(tmp_path):
    """Otherwise a plain installation would answer a Parquet file with a traceback."""
    path = write(tmp_path / "rows.parquet", {"text": ["a"]})
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from data.config import DataConfig; from data.sources import open_source\n"
        f"list(open_source(DataConfig(source={str(path)!r})).documents(lambda count: None))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "DataError" in done.stderr
    assert "seedbed[parquet]" in done.stderr
