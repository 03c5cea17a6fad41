"""A dataset built by Ray tasks is the one that local workers build."""

import json
import os
from pathlib import Path

import pytest

from seedbed.randomness import generator


def corpus(folder: Path) -> Path:
    folder.mkdir()
    for number in range(60):
        words = generator(number, "text").integers(3000, size=400)
        (folder / f"{number:02d}.txt").write_text(" ".join(f"word{value}" for value in words))
    return folder


@pytest.mark.timeout(180)
def test_ray_and_local_workers_write_the_same_manifest(tmp_path, seedbed_cli):
    """Otherwise a corpus built on the cluster would be another than the one tried out on a laptop."""
    source = corpus(tmp_path / "source")
    options = ["--set", "data.vocab_size=400", "--set", "data.part_bytes=30000"]
    manifests = {}
    for on in ("local", "ray"):
        out = tmp_path / on
        outcome = seedbed_cli(
            "data", "build", str(source), "--out", str(out), "--on", on, "--workers", "2", "--json", *options
        )
        assert outcome.code == 0, outcome.stderr
        manifests[on] = (out / "manifest.json").read_bytes()
        assert json.loads(outcome.stdout)["digest"] == json.loads(manifests[on])["digest"]
    assert manifests["local"] == manifests["ray"]
    parts = [name for name in os.listdir(tmp_path / "ray") if name.startswith("part-")]
    assert len(parts) > 3


@pytest.mark.timeout(120)
def test_a_bad_input_on_ray_ends_in_the_same_error(tmp_path, seedbed_cli):
    """Otherwise a cluster's traceback would hide which file to repair."""
    source = corpus(tmp_path / "source")
    (source / "30.txt").write_bytes(b"caf\xe9")
    outcome = seedbed_cli(
        "data", "build", str(source), "--out", str(tmp_path / "out"), "--on", "ray", "--workers", "2",
        "--set", "data.part_bytes=30000", "--set", "data.on_undecodable=fail",
    )  # fmt: skip
    assert outcome.code == 3, outcome.stderr
    assert "30.txt" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.timeout(120)
def test_an_address_without_a_cluster_is_named(tmp_path, seedbed_cli):
    """Otherwise a mistyped address would end in a traceback, or wait for ever."""
    source = corpus(tmp_path / "source")
    outcome = seedbed_cli(
        "data", "build", str(source), "--out", str(tmp_path / "out"), "--on", "127.0.0.1:1", "--workers", "2"
    )
    assert outcome.code not in (0, 2), outcome.stderr
    assert "127.0.0.1:1" in outcome.stderr
    assert "Traceback" not in outcome.stderr
