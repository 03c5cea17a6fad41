"""Datasets from the command line: full disks, drops, a corpus too large to build here."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seedbed.randomness import generator

ROOT = Path(__file__).parents[2]


def corpus(folder: Path, count: int = 60, num_words: int = 400) -> Path:
    folder.mkdir()
    for number in range(count):
        words = generator(number, "text").integers(3000, size=num_words)
        (folder / f"{number:03d}.txt").write_text(" ".join(f"word{value}" for value in words))
    return folder


@pytest.mark.root
def test_a_full_disk_loses_nothing_that_is_finished(tmp_path, seedbed_cli):
    """Otherwise hours of work would be lost to a disk that someone else filled, or half a dataset be left."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small file system")
    source, disk = corpus(tmp_path / "source", 300, 2000), tmp_path / "disk"
    disk.mkdir()
    options = ["--set", "data.vocab_size=400", "--set", "data.part_bytes=500000", "--workers", "1"]
    command = ["data", "build", str(source), "--out", str(disk / "out"), *options]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=True)
    try:
        outcome = seedbed_cli(*command)
        assert outcome.code == 3, outcome.stderr
        assert "space" in outcome.stderr
        assert "goes on from what is finished" in outcome.stderr
        assert not (disk / "out").exists()
        assert list(disk.glob(".out.building/survey/*/survey.json"))
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        outcome = seedbed_cli(*command)
        assert outcome.code == 0, outcome.stderr
        assert seedbed_cli("data", "inspect", str(disk / "out"), "--verify").code == 0
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_what_was_dropped_can_be_listed_by_reason(tmp_path, seedbed_cli):
    """Otherwise a count of drops could not be followed up."""
    source = corpus(tmp_path / "source", 20)
    (source / "empty.txt").write_text(" ")
    (source / "copy.txt").write_text((source / "007.txt").read_text())
    build = seedbed_cli("data", "build", str(source), "--out", "out", "--set", "data.vocab_size=400")
    assert build.code == 0, build.stderr
    listed = seedbed_cli("data", "drops", "out", "--reason", "exact_duplicate", "--json")
    assert [json.loads(line)["id"] for line in listed.stdout.splitlines()] == ["copy.txt"]
    assert "empty.txt" in seedbed_cli("data", "drops", "out").stdout
    assert seedbed_cli("data", "drops", "out", "--reason", "ugly").code == 2


def test_fifteen_trillion_tokens_open_at_once_and_in_little_memory(tmp_path):
    """Otherwise training would begin minutes late, with every rank holding an index of its own."""
    code = (
        "import sys; sys.path.append('benchmarks'); from data_bench.scale import run; import json;"
        "print(json.dumps(run(True)))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    results = json.loads(done.stdout)
    assert results["tokens"] == 15 * 10**12
    for packing in ("concat", "best-fit"):
        assert results[packing]["first_batch_s"]["min"] < 1
        assert results[packing]["peak_memory_mb"]["max"] < 200


def test_every_setting_is_listed_with_its_meaning(seedbed_cli):
    """Otherwise a user would have to read the source to learn what can be set."""
    outcome = seedbed_cli("settings", "data", "--json")
    assert outcome.code == 0, outcome.stderr
    rows = {row["name"]: row for row in json.loads(outcome.stdout)["settings"]}
    assert rows["data.vocab_size"]["default"] == 4096
    assert all(row["meaning"] for row in rows.values())
    everything = json.loads(seedbed_cli("settings", "--json").stdout)["settings"]
    assert [row["name"] for row in everything if not row["meaning"]] == []
    assert "order.packing" in seedbed_cli("settings", "order").stdout
    assert seedbed_cli("settings", "dat").code == 2


def test_a_build_on_a_terminal_shows_rate_tokens_and_time_left(tmp_path):
    """Otherwise nobody could tell a slow build from a stuck one."""
    corpus(tmp_path / "source", 300, 2000)
    command = [
        str(Path(sys.executable).with_name("seedbed")), "data", "build", str(tmp_path / "source"),
        "--out", str(tmp_path / "out"), "--workers", "2",
        "--set", "data.vocab_size=400", "--set", "data.part_bytes=200000",
    ]  # fmt: skip
    terminal, end = os.openpty()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=end)
    os.close(end)
    shown = b""
    with contextlib.suppress(OSError):  # what a terminal says when its last writer has gone
        while block := os.read(terminal, 4096):
            shown += block
    os.close(terminal)
    assert process.wait() == 0
    for label in (b"survey", b"train tokenizer", b"encode"):
        assert label in shown
    assert b"B/s" in shown
    assert b" left" in shown
    assert b" tokens" in shown
