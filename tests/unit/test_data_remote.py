"""Shards at an URL: proved bytes through a cache that is bounded, shared, and mends itself."""

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from s3_server import BUCKET, s3_server

import data.remote
from data import storage
from data.remote import ChunkCache, RemoteFile, fetch_bytes
from seedbed.errors import DataError
from seedbed.files import hash_file

SLICE_BYTES = 4096
CHUNK_BYTES = 4 * SLICE_BYTES
NUM_BYTES = 20 * CHUNK_BYTES + 1234


@pytest.fixture(scope="module")
def s3():
    with s3_server() as fs:
        yield fs


@pytest.fixture(scope="module")
def content():
    return np.random.default_rng(0).integers(0, 256, NUM_BYTES, dtype=np.uint8).tobytes()


@pytest.fixture
def shard(s3, content, tmp_path, monkeypatch):
    """The URL and receipt of a shard on the server; chunks are small, and nobody waits between tries."""
    monkeypatch.setattr(data.remote, "CHUNK_BYTES", CHUNK_BYTES)
    monkeypatch.setattr(data.remote, "RETRY_PAUSES_S", (0.0, 0.0))
    (tmp_path / "shard").write_bytes(content)
    key = f"{BUCKET}/{tmp_path.name}"
    s3.pipe_file(key, content)
    return f"s3://{key}", hash_file(tmp_path / "shard", SLICE_BYTES)


@pytest.fixture
def cache(tmp_path):
    return ChunkCache(tmp_path / "cache", 2**30)


class Watched:
    """The server's file system, which notes the ranges that are asked for, and fails when told to."""

    def __init__(self):
        self.asked, self.errors = [], []

    def __call__(self, url):
        self.fs, path = storage.filesystem(url)
        return self, path

    def cat_file(self, path, start=None, end=None):
        self.asked.append((start, end))
        if self.errors:
            raise self.errors.pop(0)
        return self.fs.cat_file(path, start=start, end=end)


@pytest.fixture
def server(monkeypatch):
    watched = Watched()
    monkeypatch.setattr(data.remote, "filesystem", watched)
    return watched


def chunks(cache):
    return sorted(path for path in cache.root.glob("*/*") if path.is_file())


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 1), (5, 5), (CHUNK_BYTES - 1, CHUNK_BYTES + 1), (70_000, 200_000), (0, NUM_BYTES)]
)
def test_any_range_is_what_was_written(shard, content, cache, start, stop):
    """Otherwise a model would be trained on other tokens than those of its dataset."""
    read = RemoteFile(*shard, cache).read(start, stop)
    assert read.dtype == np.uint8
    assert read.tobytes() == content[start:stop]


def test_only_the_chunks_that_are_read_are_fetched_and_once(shard, content, cache, server):
    """Otherwise a run would download its whole corpus before its first step, or all the time."""
    file = RemoteFile(*shard, cache)
    file.read(CHUNK_BYTES + 10, CHUNK_BYTES + 20)
    file.read(CHUNK_BYTES, 2 * CHUNK_BYTES)
    assert server.asked == [(CHUNK_BYTES, 2 * CHUNK_BYTES)]
    RemoteFile(*shard, cache).read(CHUNK_BYTES, CHUNK_BYTES + 1)
    assert len(server.asked) == 1, "another process would fetch it again"
    assert file.read_all() == content
    file.verify()
    assert len(server.asked) == 21


def test_damaged_chunk_in_the_cache_is_fetched_again(shard, content, cache, server, capsys):
    """Otherwise a bad disk on one node would poison a run, or stop it though the truth is at hand."""
    RemoteFile(*shard, cache).read(0, 1)
    [path] = chunks(cache)
    raw = bytearray(path.read_bytes())
    raw[SLICE_BYTES + 7] ^= 1
    path.write_bytes(raw)
    assert RemoteFile(*shard, cache).read(0, CHUNK_BYTES).tobytes() == content[:CHUNK_BYTES]
    assert len(server.asked) == 2
    assert f"{path} in the cache is damaged" in capsys.readouterr().err
    path.write_bytes(raw[:100])
    assert RemoteFile(*shard, cache).read(0, CHUNK_BYTES).tobytes() == content[:CHUNK_BYTES]


def test_chunk_that_another_process_replaced_is_proved_again(shard, content, cache):
    """Otherwise what was proved once would be trusted for ever."""
    file = RemoteFile(*shard, cache)
    file.read(0, 1)
    file.read(0, 1)
    [path] = chunks(cache)
    other = path.with_name("other")
    other.write_bytes(bytes(CHUNK_BYTES))
    os.replace(other, path)
    assert file.read(0, CHUNK_BYTES).tobytes() == content[:CHUNK_BYTES]


@pytest.mark.parametrize("damage", ["altered", "cut off", "missing"])
def test_damage_at_the_source_is_an_error_with_the_url(s3, shard, content, cache, damage):
    """Otherwise damage in the store would be trained on."""
    url, receipt = shard
    key = url.removeprefix("s3://")
    if damage == "altered":
        s3.pipe_file(key, content[:100] + b"!" + content[101:])
    elif damage == "cut off":
        s3.pipe_file(key, content[:SLICE_BYTES])
    else:
        s3.rm_file(key)
    expected = {
        "altered": "is damaged: bytes 0 to 4095 do not",
        "cut off": r"is damaged: bytes 4096 to 8191 do not.*4,096 of 16,384 bytes came",
        "missing": "does not exist",
    }
    with pytest.raises(DataError, match=f"{url} {expected[damage]}"):
        RemoteFile(url, receipt, cache).read(0, 1)
    assert chunks(cache) == []


def test_failures_that_pass_are_tried_again_and_others_are_not(shard, content, cache, server):
    """Otherwise one lost connection would end a run of weeks, or a wrong key would be tried for minutes."""
    server.errors = [TimeoutError("slow"), ConnectionResetError("gone")]
    assert RemoteFile(*shard, cache).read(0, 9).tobytes() == content[:9]
    assert len(server.asked) == 3
    server.errors = [TimeoutError("slow")] * 3
    with pytest.raises(DataError, match=f"{shard[0]}: TimeoutError: slow"):
        RemoteFile(*shard, cache).read(CHUNK_BYTES, CHUNK_BYTES + 1)
    server.asked, server.errors = [], [PermissionError("not yours")]
    with pytest.raises(DataError, match="no permission"):
        RemoteFile(*shard, cache).read(CHUNK_BYTES, CHUNK_BYTES + 1)
    assert len(server.asked) == 1


def test_cache_stays_within_its_bound_and_keeps_what_was_used_last(shard, content, tmp_path, server):
    """Otherwise a long run would fill the disk of every node."""
    cache = ChunkCache(tmp_path / "cache", 8 * CHUNK_BYTES)
    for number in range(20):
        file = RemoteFile(*shard, cache)
        assert file.read(number * CHUNK_BYTES, number * CHUNK_BYTES + 1)[0] == content[number * CHUNK_BYTES]
        # The first chunk is used all the time.
        assert file.read(0, 1)[0] == content[0]
        assert sum(path.stat().st_size for path in chunks(cache)) <= 8 * CHUNK_BYTES
    assert len(server.asked) == 20
    assert {path.name for path in chunks(cache)} >= {"0", "19", "18", "17"}


def test_bound_that_holds_no_chunk_is_refused(shard, tmp_path):
    """Otherwise a bound in the wrong unit would be ignored, or every read be a download."""
    with pytest.raises(DataError, match="SEEDBED_CACHE_BYTES"):
        RemoteFile(*shard, ChunkCache(tmp_path / "cache", 1000)).read(0, 1)


def test_cache_is_where_the_environment_says(shard, content, tmp_path, monkeypatch):
    """Otherwise a user could not keep it off a small or shared disk."""
    monkeypatch.setenv("SEEDBED_CACHE", str(tmp_path / "there"))
    monkeypatch.setenv("SEEDBED_CACHE_BYTES", str(100 * CHUNK_BYTES))
    assert RemoteFile(*shard).read_all() == content
    assert len(chunks(ChunkCache(tmp_path / "there" / "remote", 0))) == 21
    monkeypatch.setenv("SEEDBED_CACHE_BYTES", "50 GB")
    with pytest.raises(DataError, match="SEEDBED_CACHE_BYTES is '50 GB'"):
        RemoteFile(*shard)


def test_disk_that_refuses_names_the_cache(shard, tmp_path):
    """Otherwise a full disk would be a traceback of the operating system."""
    (tmp_path / "cache").write_text("a file, where a folder should be")
    with pytest.raises(DataError, match="cannot use the cache"):
        RemoteFile(*shard, ChunkCache(tmp_path / "cache", 2**30)).read(0, 1)


READER = """
import sys, random
from pathlib import Path
import data.remote
data.remote.CHUNK_BYTES = int(sys.argv[3])
from data.remote import ChunkCache, RemoteFile
from seedbed.files import hash_file
source, root, chunk, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
content = Path(source).read_bytes()
cache = ChunkCache(root, 5 * chunk)
file = RemoteFile("file://" + source, hash_file(Path(source), chunk // 4), cache)
draw = random.Random(seed)
for _ in range(100):
    start = draw.randrange(len(content))
    stop = min(len(content), start + draw.randrange(2 * chunk))
    assert file.read(start, stop).tobytes() == content[start:stop]
"""


def test_processes_and_threads_share_a_small_cache(content, tmp_path):
    """Otherwise the ranks of a node would read half-written chunks, or chunks that another one removed."""
    (tmp_path / "shard").write_bytes(content)
    cache = tmp_path / "cache"
    arguments = [str(tmp_path / "shard"), str(cache), str(CHUNK_BYTES)]
    readers = [
        subprocess.Popen([sys.executable, "-c", READER, *arguments, str(seed)], stderr=subprocess.PIPE)
        for seed in range(4)
    ]
    most = 0
    while any(reader.poll() is None for reader in readers):
        sizes = 0
        for path in cache.glob("*/[0-9]*"):
            try:
                sizes += path.stat().st_size
            except FileNotFoundError:
                continue
        most = max(most, sizes)
    for reader in readers:
        assert reader.wait() == 0, reader.stderr.read().decode()
    # Looking takes time: one may vanish while another appears, and both be counted.
    assert 0 < most <= 6 * CHUNK_BYTES


def test_threads_that_want_one_chunk_fetch_it_once(shard, content, cache, server):
    """Otherwise the threads of a loader would multiply what is downloaded."""
    file = RemoteFile(*shard, cache)
    with ThreadPoolExecutor(8) as pool:
        reads = list(pool.map(lambda number: file.read(number, number + 9).tobytes(), range(50)))
    assert reads == [content[number : number + 9] for number in range(50)]
    assert len(server.asked) == 1


def test_what_a_crash_leaves_behind_never_breaks_the_bound(shard, content, tmp_path):
    """Otherwise every crash would let the cache grow a little further."""
    cache = ChunkCache(tmp_path / "cache", 4 * CHUNK_BYTES)
    assert RemoteFile(*shard, cache).read_all() == content
    folder = chunks(cache)[0].parent
    for number in range(3):
        (folder / f".{number}.tmp").write_bytes(bytes(CHUNK_BYTES))
        os.utime(folder / f".{number}.tmp", (1, 1))
    (cache.root / "used_bytes").write_text("rubbish")
    assert RemoteFile(*shard, cache).read_all() == content
    assert sum(path.stat().st_size for path in chunks(cache)) <= 4 * CHUNK_BYTES


def test_small_files_are_fetched_whole(s3, content):
    """Otherwise a manifest at an URL could not be read."""
    s3.pipe_file(f"{BUCKET}/manifest.json", b"{}")
    assert fetch_bytes(f"s3://{BUCKET}/manifest.json") == b"{}"
    with pytest.raises(FileNotFoundError, match=f"s3://{BUCKET}/nothing"):
        fetch_bytes(f"s3://{BUCKET}/nothing")


def test_two_files_with_one_name_have_their_own_chunks(s3, shard, content, cache, tmp_path):
    """Otherwise a dataset that was built again at the same place would be read from the old one's chunks."""
    url, receipt = shard
    RemoteFile(url, receipt, cache).read_all()
    s3.pipe_file(url.removeprefix("s3://"), content[::-1])
    (tmp_path / "other").write_bytes(content[::-1])
    again = RemoteFile(url, hash_file(Path(tmp_path / "other"), SLICE_BYTES), cache)
    assert hashlib.sha256(again.read_all()).digest() == hashlib.sha256(content[::-1]).digest()
