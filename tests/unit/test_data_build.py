"""Building is deterministic, whole or absent, and done once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.build import build_dataset, ensure_dataset
from data.config import DataConfig
from data.inspect import inspect_dataset
from data.shards import Dataset
from data.tokenizers import load_tokenizer, train_tokenizer
from seedbed.errors import DataError
from seedbed.randomness import generator

REPOSITORY = Path(__file__).parents[2]


def corpus(folder: Path, count: int = 40, num_words: int = 100) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        words = generator(number, "text").integers(3000, size=num_words)
        (folder / f"{number:04d}.txt").write_text(" ".join(f"word{value}" for value in words))
    return folder


def config_of(source: Path, **options) -> DataConfig:
    return DataConfig(source=str(source), **({"vocab_size": 400} | options))


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_same_input_gives_the_same_bytes_and_digest(tmp_path):
    """Otherwise two people could not tell whether they train on the same data."""
    config = config_of(corpus(tmp_path / "source"))
    first = build_dataset(config, tmp_path / "first")
    for file in (tmp_path / "source").iterdir():
        os.utime(file, (1, 1))
    second = build_dataset(config, tmp_path / "deeper" / "second")
    assert contents(first) == contents(second)
    other = build_dataset(config.model_copy(update={"seed": 1}), tmp_path / "other")
    assert Dataset.open(other).digest != Dataset.open(first).digest


def test_counts_add_up_and_drops_are_listed(tmp_path):
    """Otherwise documents could vanish between the source and the shards."""
    source = corpus(tmp_path / "source")
    (source / "empty.txt").write_text(" ")
    (source / "latin.txt").write_bytes(b"caf\xe9")
    (source / "picture.png").write_bytes(b"\x89PNG\0\0")
    (source / "copy.txt").write_text((source / "0007.txt").read_text())
    path = build_dataset(config_of(source), tmp_path / "out")
    manifest = Dataset.open(path, verify=True).manifest
    assert manifest["drops"] == {"binary": 1, "empty": 1, "exact_duplicate": 1, "undecodable": 1}
    rows = [json.loads(line) for line in (path / "drops.jsonl").read_text().splitlines()]
    assert {row["id"]: row["reason"] for row in rows} == {
        "copy.txt": "exact_duplicate",
        "empty.txt": "empty",
        "latin.txt": "undecodable",
        "picture.png": "binary",
    }
    assert "0007.txt" in rows[0]["detail"]
    splits = manifest["splits"]
    assert splits["train"]["documents"] + splits["holdout"]["documents"] == 40
    kept = sum(file.stat().st_size for file in source.glob("00*.txt"))
    assert splits["train"]["utf8_bytes"] + splits["holdout"]["utf8_bytes"] == kept


def test_replaced_documents_are_counted(tmp_path):
    """Otherwise altered text would be in the dataset unannounced."""
    source = corpus(tmp_path / "source", 10)
    (source / "latin.txt").write_bytes(b"caf\xe9 au lait")
    path = build_dataset(config_of(source, on_undecodable="replace"), tmp_path / "out")
    assert Dataset.open(path).manifest["replaced"] == 1
    listed = [json.loads(line) for line in (path / "drops.jsonl").read_text().splitlines()]
    assert [row["reason"] for row in listed] == ["replaced"], "and named"


def test_tokenizer_is_trained_on_the_train_split_alone(tmp_path):
    """Otherwise the vocabulary would have seen the holdout, and flatter its loss."""
    source = corpus(tmp_path / "source", 30)
    dataset = Dataset.open(build_dataset(config_of(source, holdout_fraction=0.2), tmp_path / "out"))
    train = [(source / row["source"]).read_text() for row, _ in dataset.split("train").documents()]
    everything = [file.read_text() for file in sorted(source.iterdir())]
    assert 0 < len(train) < len(everything)
    assert dataset.tokenizer_fingerprint == train_tokenizer(iter(train), 400).fingerprint
    assert dataset.tokenizer_fingerprint != train_tokenizer(iter(everything), 400).fingerprint


def test_given_tokenizer_is_used_as_it_is(tmp_path):
    """Otherwise text for fine-tuning would be encoded with another vocabulary than the model's."""
    first = build_dataset(config_of(corpus(tmp_path / "source", 30)), tmp_path / "first")
    config = config_of(corpus(tmp_path / "other", 50), tokenizer=str(first / "tokenizer.json"))
    second = build_dataset(config, tmp_path / "second")
    assert Dataset.open(second).tokenizer_fingerprint == load_tokenizer(first).fingerprint
    assert (first / "tokenizer.json").read_bytes() == (second / "tokenizer.json").read_bytes()


def test_source_without_a_usable_document_says_what_was_dropped(tmp_path):
    """Otherwise a folder of pictures would end in an obscure error about empty arrays."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.png").write_bytes(b"\0")
    with pytest.raises(DataError, match="1 binary"):
        build_dataset(config_of(tmp_path / "source"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_document_is_too_few(tmp_path):
    """Otherwise a run would begin without anything to validate on."""
    with pytest.raises(DataError, match="too few documents"):
        build_dataset(config_of(corpus(tmp_path / "source", 1)), tmp_path / "out")


def test_existing_directory_is_kept_unless_it_is_the_same_dataset(tmp_path):
    """Otherwise a mistyped --out would destroy a folder, or mix two datasets."""
    source = corpus(tmp_path / "source")
    config, out = config_of(source), tmp_path / "out"
    out.mkdir()
    build_dataset(config, out)
    before = contents(out)
    assert build_dataset(config, out) == out
    with pytest.raises(DataError, match=r"data\.vocab_size"):
        build_dataset(config_of(source, vocab_size=500), out)
    (source / "new.txt").write_text("something new in the source")
    with pytest.raises(DataError, match="other content"):
        build_dataset(config, out)
    assert contents(out) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep me")
    with pytest.raises(DataError, match="not a dataset"):
        build_dataset(config, tmp_path / "mine")
    assert sorted(os.listdir(tmp_path)) == ["mine", "out", "source"]


def test_building_again_repairs_a_damaged_dataset(tmp_path):
    """Otherwise the advice to rebuild would lead back to the same error."""
    config, out = config_of(corpus(tmp_path / "source")), tmp_path / "out"
    build_dataset(config, out)
    before = contents(out)
    (out / "train-00000.tokens").write_bytes(before["train-00000.tokens"][::-1])
    build_dataset(config, out)
    assert contents(out) == before


def start(code: str, **env: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_killed_build_leaves_no_dataset_and_the_next_one_cleans_up(tmp_path):
    """Otherwise a preempted job would leave half a dataset that looks whole, or fill the disk."""
    source, out = corpus(tmp_path / "source", 150, 2000), tmp_path / "out"
    code = (
        "from data.build import build_dataset; from data.config import DataConfig;"
        f"build_dataset(DataConfig(source={str(source)!r}, vocab_size=400), {str(out)!r})"
    )
    for wanted in ("drops.jsonl", "train-00000.tokens"):
        process = start(code)
        while not list(tmp_path.glob(f".out.building-*/{wanted}")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not out.exists()
        assert len(list(tmp_path.glob(".out.building-*"))) == 1
    build_dataset(config_of(source), out)
    Dataset.open(out, verify=True)
    assert sorted(os.listdir(tmp_path)) == ["out", "source"]


def test_two_processes_that_ask_at_once_build_once(tmp_path):
    """Otherwise the ranks of a job would tear each other's cache apart, or each build for itself."""
    source = corpus(tmp_path / "source", 100, 2000)
    code = (
        "from data.build import ensure_dataset; from data.config import DataConfig;"
        f"print(ensure_dataset(DataConfig(source={str(source)!r}, vocab_size=400)))"
    )
    processes = [start(code, SEEDBED_CACHE=str(tmp_path / "cache")) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    # A second build would fail, since its directory cannot take the place of the first.
    assert results[0][0] == results[1][0]
    path = Path(results[0][0].strip())
    assert os.listdir(tmp_path / "cache" / "datasets") == [path.name]
    assert path.name.startswith("source-")
    Dataset.open(path, verify=True)


def test_cache_is_found_again_and_follows_its_inputs(tmp_path, monkeypatch):
    """Otherwise every run would build again, or train on the text of last week."""
    monkeypatch.setenv("SEEDBED_CACHE", str(tmp_path / "cache"))
    source = corpus(tmp_path / "source")
    config = config_of(source)
    path = ensure_dataset(config)
    built = (path / "manifest.json").stat().st_mtime_ns
    assert ensure_dataset(config) == path
    assert (path / "manifest.json").stat().st_mtime_ns == built
    assert ensure_dataset(config_of(source, vocab_size=401)) != path
    (source / "0000.txt").write_text("other words entirely")
    assert ensure_dataset(config) != path
    assert ensure_dataset(DataConfig(path=str(path))) == path
    with pytest.raises(DataError, match="not a dataset"):
        ensure_dataset(DataConfig(path=str(tmp_path)))


def test_damaged_cache_is_built_again(tmp_path, monkeypatch, capfd):
    """Otherwise a disk that was once full would break every later run."""
    monkeypatch.setenv("SEEDBED_CACHE", str(tmp_path / "cache"))
    config = config_of(corpus(tmp_path / "source"))
    path = ensure_dataset(config)
    before = contents(path)
    (path / "train-00000.tokens").write_bytes(b"")
    shutil.copytree(path, tmp_path / "kept")
    assert ensure_dataset(config) == path
    assert contents(path) == before
    assert "damaged" in capfd.readouterr().err


def test_source_that_changes_while_it_is_read_is_noticed(tmp_path):
    """Otherwise documents would be trained on that no split rule ever saw."""
    from data.corpus import kept_documents, survey
    from data.sources import open_source

    source = open_source(config_of(corpus(tmp_path / "source")))
    known = survey(source, 0.5, lambda drop: None, lambda count: None)
    assert len(list(kept_documents(source, known, lambda count: None))) == 40
    (tmp_path / "source" / "0003.txt").write_text("changed since")
    with pytest.raises(DataError, match=r"0003\.txt changed"):
        list(kept_documents(source, known, lambda count: None))


def test_stdlib_builds_in_time_and_can_be_inspected(tmp_path):
    """Otherwise the quick start would not be quick, and nobody would see what a model is fed."""
    started = time.perf_counter()
    path = build_dataset(DataConfig(), tmp_path / "stdlib")
    seconds = time.perf_counter() - started
    report = inspect_dataset(path, num_samples=2, verify=True)
    print(f"stdlib: {report['utf8_bytes'] / 1e6:.1f} MB in {seconds:.1f} s")
    assert seconds < 90
    assert report["utf8_bytes"] / seconds > 100_000
    assert 2.5 < report["bytes_per_token"] < 5
    held = report["splits"]["holdout"]
    assert 0.01 < held["utf8_bytes"] / report["utf8_bytes"] < 0.12
    assert held["documents"] >= 10
    for name, split in report["splits"].items():
        assert sum(row["documents"] for row in report["length_histogram"][name]) == split["documents"]
        samples = [row for row in report["samples"] if row["split"] == name]
        assert len(samples) == 2
        assert all(sample["id"].endswith(".py") and sample["text"] for sample in samples)
    assert report["samples"] == inspect_dataset(path, num_samples=2)["samples"]
    json.dumps(report)
