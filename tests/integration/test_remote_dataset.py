"""A dataset behind s3:// is the one that was put there: looked at, trained on, and never read damaged."""

from pathlib import Path

import numpy as np
import pytest

from data.build import build_dataset
from data.config import DataConfig
from data.shards import Dataset
from seedbed.errors import DataError
from seedbed.randomness import generator
from tests.s3_server import BUCKET, s3_server
from training.metrics import surviving_rows

TINY = {
    "model.num_layers": 1,
    "model.width": 32,
    "model.num_heads": 2,
    "model.num_kv_heads": 2,
    "model.context": 32,
    "batch.tokens_per_step": 256,
    "run.steps": 3,
    "eval.prompt": "",
    "tracking.mlflow": "false",
    "engine.num_ranks": 1,
}


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    """A dataset here, its copy in a bucket, and the bucket's file system."""
    folder = tmp_path_factory.mktemp("remote")
    (folder / "source").mkdir()
    for number in range(40):
        words = generator(number, "text").integers(2000, size=200)
        (folder / "source" / f"{number:02d}.txt").write_text(" ".join(f"word{value}" for value in words))
    config = DataConfig(source=str(folder / "source"), vocab_size=400, part_bytes=20_000)
    local = build_dataset(config, folder / "dataset")
    with s3_server() as fs:
        fs.put(str(local), f"{BUCKET}/dataset", recursive=True)
        yield local, f"s3://{BUCKET}/dataset", fs


def test_every_token_document_and_tokenizer_is_that_of_the_copy_here(remote, tmp_path, monkeypatch):
    """Otherwise a cluster would learn from other data than what was checked on a laptop."""
    monkeypatch.setenv("SEEDBED_CACHE", str(tmp_path / "cache"))
    local, url, _ = remote
    here, there = Dataset.open(local), Dataset.open(url, verify=True)
    assert there.digest == here.digest
    assert there.tokenizer().fingerprint == here.tokenizer_fingerprint
    for name in here.splits:
        mine, other = here.split(name), there.split(name)
        assert np.array_equal(mine.tokens(0, mine.num_tokens), other.tokens(0, other.num_tokens))
        assert [row for row, _ in mine.documents()] == [row for row, _ in other.documents()]
    assert any((tmp_path / "cache" / "remote").rglob("*"))


def test_a_run_reads_the_same_from_the_bucket_as_from_here(remote, tmp_path, seedbed_cli):
    """Otherwise the place of the data would be part of the result."""
    local, url, _ = remote
    hashes = []
    for number, path in enumerate((local, url)):
        settings = {**TINY, "data.path": path}
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        outcome = seedbed_cli("train", "gpt-demo", "--run-dir", f"r{number}", *sets)
        assert outcome.code == 0, outcome.stderr
        rows = surviving_rows(tmp_path / f"r{number}")
        hashes.append([row["data_hash"] for row in rows if row["kind"] == "train"])
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 3
    assert seedbed_cli("data", "inspect", url, "--samples", "1").code == 0


def test_a_damaged_object_is_an_error_and_not_a_sample(remote, tmp_path, monkeypatch):
    """Otherwise a bucket that lost bytes would train a model on noise."""
    monkeypatch.setenv("SEEDBED_CACHE", str(tmp_path / "cache"))
    local, _, fs = remote
    fs.put(str(local), f"{BUCKET}/damaged", recursive=True)
    name = "part-00000/train-000.tokens"
    raw = bytearray(Path(local, name).read_bytes())
    raw[len(raw) // 2] ^= 1
    fs.pipe_file(f"{BUCKET}/damaged/{name}", bytes(raw))
    damaged = Dataset.open(f"s3://{BUCKET}/damaged")
    with pytest.raises(DataError, match=name):
        damaged.split("train").tokens(0, 10)
