"""What is too large, cut off or of the wrong kind: named or dropped, and never held in memory."""

import gzip
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import zstandard

from data.config import DataConfig
from data.sources import Document, open_source
from seedbed.errors import DataError

GIB = 2**30

# Reads a source in a process that may map no more than so many bytes, and prints what came.
READ_IN_LITTLE_MEMORY = """
import resource, sys
from data.config import DataConfig
from data.sources import Document, open_source, read_piece
config = DataConfig(source=sys.argv[1], max_document_bytes=int(sys.argv[2]))
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]), int(sys.argv[3])))
source, told = open_source(config), 0
def advance(num_bytes):
    global told
    told += num_bytes
for item in source.documents(advance):
    print(item.id, "document" if isinstance(item, Document) else item.reason)
for part in source.parts(2**29):
    for piece in part:
        for item in read_piece(piece, config, lambda num_bytes: None):
            print(item.id, "document" if isinstance(item, Document) else item.reason)
assert told == source.total_bytes, (told, source.total_bytes)
"""


def read_in_little_memory(path, max_document_bytes=2**26, memory=600 * 2**20):
    """The ids and fates of a source, read as a whole and by parts."""
    arguments = [str(path), str(max_document_bytes), str(memory)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(
        [sys.executable, "-c", READ_IN_LITTLE_MEMORY, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    whole, parts = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    assert whole == parts
    return whole


def write_with_hole(path, before, hole, after):
    """A file with `hole` zero bytes in the middle, which take no room on the disk."""
    with open(path, "wb") as file:
        file.write(before)
        file.seek(hole, os.SEEK_CUR)
        file.write(after)


def test_line_of_a_gibibyte_is_passed_over(tmp_path):
    """Otherwise one broken line would take the memory of the machine, and the lines after it."""
    path = tmp_path / "rows.jsonl"
    write_with_hole(path, b'{"text": "a"}\n{"text": "', GIB, b'"}\n{"text": "b"}\n')
    assert read_in_little_memory(path) == [
        "rows.jsonl:1 document",
        "rows.jsonl:2 too_long",
        "rows.jsonl:3 document",
    ]


@pytest.mark.parametrize("form", ["gz", "zst"])
def test_line_that_unpacks_to_much_is_passed_over(tmp_path, form):
    """Otherwise a few KB would do the same to whoever unpacks them."""
    path = tmp_path / f"rows.jsonl.{form}"
    if form == "gz":
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    else:
        packer = zstandard.ZstdCompressor(level=1).compressobj()
    with open(path, "wb") as file:
        file.write(packer.compress(b'{"text": "a"}\n{"text": "'))
        for _ in range(64):
            file.write(packer.compress(bytes(2**22)))
        file.write(packer.compress(b'"}\n{"text": "b"}\n') + packer.flush())
    fates = read_in_little_memory(path, max_document_bytes=2**20, memory=200 * 2**20)
    assert [fate.split()[1] for fate in fates] == ["document", "too_long", "document"]


def test_lone_text_file_with_a_huge_line_keeps_the_rest(tmp_path):
    """Otherwise a book with a picture in it would take the memory of the machine."""
    path = tmp_path / "book.txt"
    verses = b"a verse of some length\n\n" * 5000
    write_with_hole(path, verses, 2**28, b"\n\n" + verses)
    lines = read_in_little_memory(path, max_document_bytes=2**20, memory=200 * 2**20)
    fates = [line.split()[1] for line in lines]
    assert fates.count("too_long") == 1
    assert fates.count("document") >= 5


def test_file_of_a_folder_that_is_too_large_is_dropped_unread(tmp_path):
    """Otherwise a picture in a folder of text would take the memory of the machine."""
    write_with_hole(tmp_path / "b.txt", b"a", GIB, b"z")
    (tmp_path / "c.txt").write_text("text")
    assert read_in_little_memory(tmp_path) == ["b.txt too_long", "c.txt document"]


@pytest.mark.parametrize(("extra", "reason"), [(0, "document"), (1, "too_long")])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_limit_is_exact(tmp_path, extra, reason, end):
    """Otherwise the stated limit would not be the one that holds."""
    line = b'{"text": "%s"}' % (b"x" * 50)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(line + end)
    [item] = open_source(DataConfig(source=str(path), max_document_bytes=len(line) - extra)).documents(
        lambda num_bytes: None
    )
    assert ("document" if isinstance(item, Document) else item.reason) == reason


def test_frame_cut_off_between_blocks_is_an_error(tmp_path):
    """Otherwise a download that stopped at an unlucky place would pass for a corpus."""
    path = tmp_path / "rows.jsonl.zst"
    packer = zstandard.ZstdCompressor().compressobj()
    rows = b'{"text": "a"}\n' * 1000
    path.write_bytes(packer.compress(rows) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    with pytest.raises(DataError, match=r"rows\.jsonl\.zst is damaged or cut off"):
        list(open_source(DataConfig(source=str(path))).documents(lambda num_bytes: None))


def test_rubbish_after_a_member_is_an_error(tmp_path):
    """Otherwise a file that another one was written over would pass for a short corpus."""
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n') + b"not gzip")
    with pytest.raises(DataError, match=r"rows\.jsonl\.gz is damaged or cut off"):
        list(open_source(DataConfig(source=str(path))).documents(lambda num_bytes: None))


def test_lone_pipe_is_refused(tmp_path):
    """Otherwise a build would wait for ever for somebody to write."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a folder nor a file"):
        open_source(DataConfig(source=str(tmp_path / "pipe")))


def test_link_to_itself_is_refused_and_in_a_folder_listed(tmp_path):
    """Otherwise a loop of links would end in a traceback."""
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    (tmp_path / "a.txt").write_text("text")
    assert [(drop.id, drop.reason) for drop in open_source(DataConfig(source=str(tmp_path))).drops] == [
        ("loop.txt", "not_a_file")
    ]
    with pytest.raises(DataError, match=r"loop\.txt"):
        open_source(DataConfig(source=str(tmp_path / "loop.txt")))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_file_that_vanished_since_it_was_listed_is_named(tmp_path, name):
    """Otherwise a corpus that lost a file, or whose permissions are wrong, would silently be smaller."""
    (tmp_path / name).write_text("x")
    source = open_source(DataConfig(source=str(tmp_path)))
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=rf"cannot read .*{name}"):
        list(source.documents(lambda num_bytes: None))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that even root cannot read")
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_file_that_the_disk_does_not_give_is_named(tmp_path, name):
    """Otherwise a disk with bad sectors would end in a traceback, or in a smaller corpus."""
    (tmp_path / name).symlink_to("/proc/self/mem")
    with pytest.raises(DataError, match=rf"cannot read .*{name}"):
        list(open_source(DataConfig(source=str(tmp_path))).documents(lambda num_bytes: None))
