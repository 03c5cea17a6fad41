"""Building is deterministic, whole or absent, and done once."""

import gzip
import json
import os
import random
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
    """Everything in the dataset; the note of which files it was built from is not part of it."""
    files = (file for file in path.rglob("*") if file.is_file() and file.name != "built_from.json")
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


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
    assert "0007.txt" in rows[-1]["detail"]
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


def test_building_again_removes_what_a_kill_after_the_last_rename_left(tmp_path):
    """Otherwise it would lie beside the dataset for ever."""
    config, out = config_of(corpus(tmp_path / "source")), tmp_path / "out"
    build_dataset(config, out)
    (tmp_path / ".out.building" / "survey").mkdir(parents=True)
    (tmp_path / ".out.lock").touch()
    build_dataset(config, out)
    assert sorted(os.listdir(tmp_path)) == ["out", "source"]


PEAK_MEMORY = """
import sys
from data.build import build_dataset
from data.config import DataConfig
source, out = sys.argv[1:]
build_dataset(DataConfig(source=source, vocab_size=400, near_duplicate_threshold=0), out)
status = open("/proc/self/status").read()
print(status.split("VmHWM:")[1].split()[0])
"""


@pytest.mark.long
def test_memory_does_not_grow_with_a_compressed_file(tmp_path):
    """Otherwise one .jsonl.gz, which cannot be cut into parts, would need a machine of its own size."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 9))) for _ in range(5000)]
    peaks_kb = []
    for num_documents in (3_000, 30_000):
        source = tmp_path / f"{num_documents}"
        source.mkdir()
        with gzip.open(source / "all.jsonl.gz", "wt", compresslevel=1) as file:
            for _ in range(num_documents):
                file.write(json.dumps({"text": " ".join(rng.choices(words, k=300))}) + "\n")
        command = [
            sys.executable,
            "-P",
            "-c",
            PEAK_MEMORY,
            str(source),
            str(tmp_path / f"{num_documents}.out"),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        peaks_kb.append(int(result.stdout))
    assert peaks_kb[1] < peaks_kb[0] + 40_000, peaks_kb


def test_building_again_repairs_a_damaged_dataset(tmp_path):
    """Otherwise the advice to rebuild would lead back to the same error."""
    config, out = config_of(corpus(tmp_path / "source")), tmp_path / "out"
    build_dataset(config, out)
    before = contents(out)
    tokens = "part-00000/train-000.tokens"
    (out / tokens).write_bytes(before[tokens][::-1])
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


BUILD = """
import sys
from data.build import build_dataset
from data.build.workers import LocalProcesses
from data.config import DataConfig
source, out, workers = sys.argv[1:]
config = DataConfig(source=source, vocab_size=400, part_bytes=200_000, shard_tokens=20_000)
build_dataset(config, out, LocalProcesses(int(workers)))
"""


def start_build(source: Path, out: Path, workers: int) -> subprocess.Popen:
    command = [sys.executable, "-P", "-c", BUILD, str(source), str(out), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> None:
    output = process.communicate(timeout=120)
    assert process.returncode == 0, output


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A source of some ten parts, and what one worker makes of it undisturbed."""
    folder = tmp_path_factory.mktemp("large")
    source = corpus(folder / "source", 150, 2000)
    (source / "copy.txt").write_text((source / "0007.txt").read_text())
    finish(start_build(source, folder / "out", 1))
    return source, contents(folder / "out")


@pytest.mark.parametrize("workers", [2, 4])
def test_any_number_of_workers_gives_the_same_bytes(large, tmp_path, workers):
    """Otherwise the same corpus would be another dataset on another machine."""
    source, expected = large
    finish(start_build(source, tmp_path / "out", workers))
    assert contents(tmp_path / "out") == expected
    assert len({name.partition("/")[0] for name in expected if name.startswith("part-")}) > 5


def kill_after(source: Path, folder: Path, delay: float, workers: int) -> bool:
    """Build for `delay` seconds, then kill it and, by its death, its workers; whether there was time to."""
    process = start_build(source, folder / "out", workers)
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return not (folder / "out").exists()
    process.communicate()
    return False


def finished_after_kills(source: Path, folder: Path) -> dict[str, bytes]:
    finish(start_build(source, folder / "out", 2))
    assert sorted(os.listdir(folder)) == ["out"]
    return contents(folder / "out")


def test_killed_build_goes_on_from_what_was_finished(large, tmp_path):
    """Otherwise a preempted job would begin again, lose or double documents, or leave half a dataset."""
    source, expected = large
    for turn, delay in enumerate([0.8, 1.0, 1.2]):
        kill_after(source, tmp_path, delay, 1 + turn % 2)
    assert finished_after_kills(source, tmp_path) == expected


@pytest.mark.chaos
@pytest.mark.long
def test_twenty_kills_at_random_moments_change_nothing(large, tmp_path):
    """Otherwise there would be a moment at which a kill corrupts a dataset."""
    source, expected = large
    started = time.monotonic()
    finish(start_build(source, tmp_path / "measured" / "out", 1))
    duration = time.monotonic() - started
    landed = builds = 0
    while landed < 20:
        folder = tmp_path / str(builds)
        folder.mkdir()
        for number in range(5):
            delay = duration * float(generator(builds, "kill", number).uniform(0.2, 1.0))
            landed += kill_after(source, folder, delay, 1 + number % 2)
        assert finished_after_kills(source, folder) == expected
        builds += 1
        assert builds < 40, "kills come too late to hit anything"


def test_what_a_crash_damaged_is_worked_again(large, tmp_path):
    """Otherwise a torn file of an unfinished build would become a dataset with good hashes and bad tokens."""
    source, expected = large
    process = start_build(source, tmp_path / "out", 1)
    work = tmp_path / ".out.building"
    while not len(list(work.glob("done/*.json"))) > 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    files = [file for file in work.rglob("*") if file.is_file() and file.stat().st_size]
    assert len({file.suffix for file in files}) >= 4
    for file in files:
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 1
        file.write_bytes(raw)
    finish(start_build(source, tmp_path / "out", 1))
    assert contents(tmp_path / "out") == expected


def test_finished_parts_are_not_worked_again(tmp_path, monkeypatch):
    """Otherwise a build that failed at its last part would cost everything again."""
    from data.build import stages

    source, config = corpus(tmp_path / "source", 40, 500), {"vocab_size": 400, "part_bytes": 20_000}
    (source / "0039.txt").write_bytes(b"\xff" * 100)
    failing = config_of(source, on_undecodable="fail", **config)
    with pytest.raises(DataError, match=r"0039\.txt"):
        build_dataset(failing, tmp_path / "out")
    (source / "0039.txt").write_text("repaired " * 30)
    worked = []
    survey = stages.survey_part
    monkeypatch.setattr(
        stages, "survey_part", lambda task, advance: worked.append(task["part"]) or survey(task, advance)
    )
    build_dataset(failing, tmp_path / "out")
    assert worked == [max(worked)], "only the part that failed"
    assert sorted(os.listdir(tmp_path)) == ["out", "source"]


def test_near_duplicates_are_dropped_when_asked(tmp_path):
    """Otherwise a page crawled twice with another date would be learnt twice."""
    source = corpus(tmp_path / "source", 20)
    text = (source / "0003.txt").read_text()
    (source / "later.txt").write_text(text.replace("word", "word", 1) + " and a date")
    path = build_dataset(config_of(source, drop_near_duplicates=True, holdout_fraction=0), tmp_path / "out")
    dataset = Dataset.open(path)
    assert dataset.manifest["drops"] == {"near_duplicate": 1}
    rows = [json.loads(line) for line in (path / "drops.jsonl").read_text().splitlines()]
    assert [(row["id"], "0003.txt" in row["detail"]) for row in rows] == [("later.txt", True)]
    assert dataset.split("train").num_documents == 20
    assert dataset.split("holdout").num_documents == 0
    assert inspect_dataset(path)["documents"] == 20


def test_filters_and_evaluation_items_drop_with_a_reason(tmp_path):
    """Otherwise junk would be learnt, and benchmarks would be scored on what was seen."""
    source = corpus(tmp_path / "source", 20)
    item = " ".join(f"question{number}" for number in range(20))
    (tmp_path / "eval.jsonl").write_text(json.dumps({"question": item}) + "\n")
    (source / "leak.txt").write_text((source / "0001.txt").read_text() + " " + item)
    (source / "short.txt").write_text("too short to teach")
    config = config_of(
        source,
        filters=("gopher_quality",),
        filter_options={"gopher_quality.min_stop_words": 0, "gopher_quality.min_letter_word_ratio": 0},
        decontaminate=(str(tmp_path / "eval.jsonl"),),
    )
    manifest = Dataset.open(build_dataset(config, tmp_path / "out")).manifest
    assert manifest["drops"]["contaminated"] == 1
    assert sum(manifest["drops"].values()) == 2
    assert "gopher_quality" in json.dumps(manifest["filters"])


def test_repeated_ids_are_kept_and_listed(tmp_path):
    """Otherwise a document could not be found by its id, and nobody would know."""
    rows = [
        json.dumps({"id": f"{number % 9}", "text": f"text number {number} " * 20}) for number in range(12)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    path = build_dataset(config_of(tmp_path / "rows.jsonl", part_bytes=1000), tmp_path / "out")
    assert Dataset.open(path).manifest["repeated_ids"] == 3
    listed = [json.loads(line) for line in (path / "drops.jsonl").read_text().splitlines()]
    assert [(row["id"], row["reason"]) for row in listed] == [(name, "repeated_id") for name in "012"]
    assert "rows.jsonl:1" in listed[0]["detail"]
    assert listed[0]["source"].endswith(":10")


def test_malformed_rows_are_counted_over_all_parts_of_a_file(tmp_path):
    """Otherwise a file of rubbish would pass, a part at a time, or fail for one bad part."""
    rows = [json.dumps({"text": f"text number {number} " * 20}) for number in range(200)]
    rows[150] = rows[151] = "{not json"
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    config = config_of(tmp_path / "rows.jsonl", part_bytes=4000, max_malformed_share=0.009)
    with pytest.raises(DataError, match=r"2 of the 200 rows.*rows\.jsonl:151"):
        build_dataset(config, tmp_path / "out")
    build_dataset(config.model_copy(update={"max_malformed_share": 0.01}), tmp_path / "out")


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
    path = Path(ensure_dataset(config))
    built = (path / "manifest.json").stat().st_mtime_ns
    assert ensure_dataset(config) == str(path)
    assert (path / "manifest.json").stat().st_mtime_ns == built
    assert ensure_dataset(config_of(source, vocab_size=401)) != str(path)
    (source / "0000.txt").write_text("other words entirely")
    assert ensure_dataset(config) != str(path)
    assert ensure_dataset(DataConfig(path=str(path))) == str(path)
    with pytest.raises(DataError, match="not a dataset"):
        ensure_dataset(DataConfig(path=str(tmp_path)))


def test_damaged_cache_is_built_again(tmp_path, monkeypatch, capfd):
    """Otherwise a disk that was once full would break every later run."""
    monkeypatch.setenv("SEEDBED_CACHE", str(tmp_path / "cache"))
    config = config_of(corpus(tmp_path / "source"))
    path = Path(ensure_dataset(config))
    before = contents(path)
    (path / "part-00000" / "train-000.tokens").write_bytes(b"")
    shutil.copytree(path, tmp_path / "kept")
    assert ensure_dataset(config) == str(path)
    assert contents(path) == before
    assert "damaged" in capfd.readouterr().err


def test_source_that_changes_while_it_is_read_is_noticed(tmp_path, monkeypatch):
    """Otherwise documents would be trained on that no split rule ever saw."""
    from data.build import stages

    source = corpus(tmp_path / "source")
    decide = stages.decide

    def change(*args):
        (source / "0003.txt").write_text("changed since")
        return decide(*args)

    monkeypatch.setattr(stages, "decide", change)
    with pytest.raises(DataError, match=r"0003\.txt changed"):
        build_dataset(config_of(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


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


def test_a_file_name_that_is_not_utf8_is_read_and_escaped(tmp_path):
    """Otherwise one oddly named file would stop the build of a whole corpus."""
    source = corpus(tmp_path / "source", 10)
    (source / os.fsdecode(b"odd\xff.txt")).write_text("a text with an odd name, and more words to read")
    path = build_dataset(config_of(source, holdout_fraction=0, part_bytes=2000), tmp_path / "out")
    ids = [row["id"] for row, _ in Dataset.open(path, verify=True).split("train").documents()]
    assert len(ids) == 11
    assert any(name.startswith("odd\\") for name in ids)


@pytest.mark.parametrize("given", [False, True])
def test_an_encoder_that_errs_is_noticed_and_everything_encoded_anew(tmp_path, monkeypatch, capfd, given):
    """Otherwise a fault of the fast encoder would be in the dataset, or in some of its parts."""
    from data.tokenizers.gigatoken import GigatokenEncoder

    source = corpus(tmp_path / "source", 40, 300)
    options = {"part_bytes": 20_000}
    if given:
        other = build_dataset(config_of(corpus(tmp_path / "other", 30)), tmp_path / "tokenizer")
        options["tokenizer"] = str(other / "tokenizer.json")
    config = config_of(source, **options)
    right = contents(build_dataset(config, tmp_path / "right"))
    assert "notice" not in capfd.readouterr().err
    encode = GigatokenEncoder.__call__

    def err(encoder, texts):
        ids, ends = encode(encoder, texts)
        wrong = ids.copy()
        # Only in a late part, and not in the texts that are tried before a build.
        if any("word" in text for text in texts) and (source / "0039.txt").read_text() in texts:
            wrong[0] += 1
        return wrong, ends

    monkeypatch.setattr(GigatokenEncoder, "__call__", err)
    monkeypatch.setattr("data.tokenizers.encoders.ONE_IN", 1)
    monkeypatch.setattr("data.tokenizers.loading._LOADED", {})
    assert contents(build_dataset(config, tmp_path / "anew")) == right
    said = capfd.readouterr().err
    assert said.count("notice") == 1
    assert "encoded anew" in said
    assert "gigatoken" in said
