"""How busy the host is, as rows of a run that trackers copy."""

import json
import time

from training import recorder as recorders
from training.mirror import _metrics_of
from training.recipes import load_config
from training.recorder import Recorder
from training.run_directory import RunDirectory
from training.system_metrics import SystemMetrics


def test_a_reading_tells_what_the_host_does(tmp_path):
    """A user who asks why a run became slow would see that it did, and not what else went on."""
    system = SystemMetrics(tmp_path)
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        pass
    found = system.read()
    assert 10 < found["cpu_percent"] <= 100
    assert 0 < found["memory_percent"] < 100
    assert found["memory_used_bytes"] > 2**24
    assert found["disk_free_bytes"] > 0
    assert all(value >= 0 for value in found.values())


def test_rows_of_the_host_stand_between_those_of_steps(tmp_path, monkeypatch):
    """The figures would be missing in the tracker, or drown those of training."""
    recorder = Recorder(RunDirectory(tmp_path), load_config("gpt-demo"), 0, 0)
    recorder.row("train", 1, loss=3.0)
    # The kernel counts in hundredths of a second.
    time.sleep(0.1)
    monkeypatch.setattr(recorders, "EVERY_S", -1.0)
    recorder.row("train", 2, loss=2.0)
    monkeypatch.setattr(recorders, "EVERY_S", 60.0)
    recorder.row("train", 3, loss=1.0)
    recorder.row("eval", 3, val_loss=1.0)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["kind"], row["step"]) for row in rows] == [
        ("train", 1), ("train", 2), ("system", 2), ("train", 3), ("eval", 3),
    ]  # fmt: skip
    names = {metric.key for metric in _metrics_of(lines[2].encode())}
    assert {"system/cpu_percent", "system/memory_percent", "system/disk_free_bytes"} <= names
