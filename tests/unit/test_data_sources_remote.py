"""Sources at URLs: the same documents as from a folder, read from a real S3-compatible server."""

import gzip
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from s3_server import BUCKET, s3_server

from data.config import DataConfig
from data.sources import open_source, read_piece
from seedbed.errors import DataError


@pytest.fixture(scope="module")
def s3():
    with s3_server() as fs:
        yield fs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A local folder of every kind of file."""
    root = tmp_path_factory.mktemp("local") / "mixed"
    rows = [{"id": f"r{n}", "text": f"row {n}: é😀 " * (n % 9 + 1)} for n in range(2000)]
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    (root / "sub" / ".cache").mkdir(parents=True)
    (root / "a.txt").write_text("whole file\n")
    (root / "sub" / "b.jsonl").write_bytes(lines[:-1] + b"\noops\n")
    (root / "sub" / "c.jsonl.gz").write_bytes(gzip.compress(lines))
    (root / "sub" / "d.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(lines))
    (root / "sub" / ".cache" / "x.txt").write_text("not text of the corpus")
    (root / ".hidden").write_text("not text of the corpus")
    columns = {name: [row[name] for row in rows] for name in ("id", "text")}
    pq.write_table(pa.table(columns), root / "e.parquet", row_group_size=100)
    return root


def documents(source, **options):
    opened = open_source(DataConfig(source=str(source), **options))
    counted = []
    items = list(opened.documents(counted.append))
    assert sum(counted) == opened.total_bytes
    return items


def test_folder_on_s3_reads_like_the_same_folder_here(s3, folder):
    """Otherwise a corpus would have to be copied before it could be built."""
    s3.put(str(folder), f"{BUCKET}/mixed", recursive=True)
    url = f"s3://{BUCKET}/mixed"
    assert documents(url) == documents(folder)
    assert documents(url, pattern="*.gz,*.txt") == documents(folder, pattern="*.gz,*.txt")
    config = DataConfig(source=url)
    parts = open_source(config).parts(20_000)
    assert parts == open_source(config).parts(20_000)
    local = open_source(DataConfig(source=str(folder))).parts(20_000)
    assert [[(p.relative, p.start, p.stop, p.first_line) for p in part] for part in parts] == [
        [(p.relative, p.start, p.stop, p.first_line) for p in part] for part in local
    ]
    items = [
        item for part in parts for piece in part for item in read_piece(piece, config, lambda count: None)
    ]
    assert items == documents(url)[2:]


def test_part_is_read_by_a_process_that_knows_only_its_json(s3):
    """Otherwise a worker on another machine could not read a part."""
    s3.pipe_file(f"{BUCKET}/alone/rows.jsonl", b'{"text": "a"}\n' * 100)
    config = DataConfig(source=f"s3://{BUCKET}/alone/rows.jsonl")
    last = open_source(config).parts(500)[-1][0]
    code = (
        "import json, sys; from data.config import DataConfig; from data.sources import Piece, read_piece\n"
        "piece = Piece.from_json(json.loads(sys.argv[1]))\n"
        "print([item.id for item in read_piece(piece, DataConfig(), lambda count: None)])"
    )
    command = [sys.executable, "-c", code, json.dumps(last.as_json())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.replace("'", '"')) == [f"rows.jsonl:{n}" for n in range(73, 101)]


def test_lone_text_file_on_s3_is_cut_into_passages(s3, tmp_path):
    """Otherwise the same file would be another dataset because of where it lies."""
    book = b"".join(b"verse %d, a line\nand another\n\n" % number for number in range(3000))
    (tmp_path / "book.txt").write_bytes(book)
    s3.pipe_file(f"{BUCKET}/book.txt", book)
    assert documents(f"s3://{BUCKET}/book.txt") == documents(tmp_path / "book.txt")


def test_identity_changes_with_the_objects_and_old_pieces_are_refused(s3):
    """Otherwise the cache would hand out the dataset of yesterday's objects."""
    s3.pipe_file(f"{BUCKET}/changing/a.txt", b"one")
    config = DataConfig(source=f"s3://{BUCKET}/changing")
    before = open_source(config)
    assert open_source(config).identity() == before.identity()
    s3.pipe_file(f"{BUCKET}/changing/a.txt", b"two")
    assert open_source(config).identity() != before.identity()
    with pytest.raises(DataError, match=r"a\.txt changed while"):
        list(before.documents(lambda count: None))


def test_cut_off_object_is_an_error(s3):
    """Otherwise half an upload would pass for a corpus."""
    packed = gzip.compress(b"".join(b'{"text": "%d"}\n' % number for number in range(5000)))
    s3.pipe_file(f"{BUCKET}/cut/rows.jsonl.gz", packed[:-100])
    with pytest.raises(DataError, match=r"rows\.jsonl\.gz is damaged or cut off"):
        documents(f"s3://{BUCKET}/cut")


@pytest.mark.parametrize(
    "url", ["s3://no-such-bucket/folder", f"s3://{BUCKET}/no-such-folder", "nonsense://a/b", "memory://none"]
)
def test_url_that_leads_nowhere_is_named(s3, url):
    """Otherwise a typing error would end in a traceback of some client library."""
    with pytest.raises(DataError, match=url.split("//")[1].split("/")[0]) as raised:
        open_source(DataConfig(source=url))
    assert raised.value.fix


def test_server_that_does_not_answer_and_missing_credentials_are_named(s3):
    """Otherwise a wrong endpoint would look like a bug of ours."""
    code = (
        "from data.config import DataConfig; from data.sources import open_source\n"
        f"open_source(DataConfig(source='s3://{BUCKET}/mixed'))"
    )

    def error(**environment):
        inherited = {name: value for name, value in os.environ.items() if name not in environment}
        given = {name: value for name, value in environment.items() if value}
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, env=inherited | given, capture_output=True, text=True, check=False, timeout=120
        )
        return done.stderr.rpartition("seedbed.errors.")[2]

    refused = error(AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_MAX_ATTEMPTS="1")
    assert refused.startswith(f"DataError: cannot read s3://{BUCKET}/mixed: "), refused
    assert "AWS_ENDPOINT_URL" in refused
    unknown = error(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert unknown.startswith(f"DataError: cannot read s3://{BUCKET}/mixed: NoCredentialsError"), unknown


def test_without_fsspec_the_extra_is_named():
    """Otherwise a plain installation would answer s3:// with a traceback."""
    for package in ("fsspec", "s3fs"):
        code = (
            f"import sys; sys.modules[{package!r}] = None\n"
            "from data.config import DataConfig; from data.sources import open_source\n"
            "open_source(DataConfig(source='s3://bucket/folder'))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "DataError" in done.stderr
        assert "seedbed[remote]" in done.stderr


def test_file_urls_and_files_in_memory(tmp_path):
    """Otherwise "any fsspec URL" would mean s3:// alone."""
    import fsspec

    (tmp_path / "a.txt").write_text("text")
    assert documents(f"file://{tmp_path}") == documents(tmp_path)
    fsspec.filesystem("memory").pipe_file("/corpus/a.txt", b"text")
    assert documents("memory://corpus") == documents(tmp_path)


def test_file_on_a_web_server(tmp_path):
    """Otherwise a corpus could not be read from where most of them are published."""
    lines = b"".join(b'{"text": "row %d"}\n' % number for number in range(1000))
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(lines))
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    server = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        port = server.stdout.readline().split("port ")[1].split()[0]
        url = f"http://127.0.0.1:{port}"
        assert documents(f"{url}/rows.jsonl.gz") == documents(tmp_path / "rows.jsonl.gz")
        assert documents(f"{url}/") == documents(tmp_path)
        with pytest.raises(DataError, match="nothing"):
            open_source(DataConfig(source=f"{url}/nothing.txt"))
    finally:
        server.kill()
        server.wait()
