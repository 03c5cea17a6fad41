"""The doctor on this machine as it is, and on machines that have something wrong with them."""

import os
import subprocess
import sys

import pytest

from cluster.doctor import diagnose


def by_name(report: dict) -> dict[str, dict]:
    return {check["name"]: check for check in report["checks"]}


def doctor_in(cwd, **environment: str) -> subprocess.CompletedProcess:
    """`diagnose` in a process of its own, whose environment may be broken."""
    script = "import json; from cluster.doctor import diagnose; print(json.dumps(diagnose()))"
    return subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_this_machine_can_train(tmp_path):
    """A user would be told that a working machine is broken, or wait long to hear that it works."""
    report = diagnose(tmp_path / "runs" / "not there yet")
    assert [check for check in report["checks"] if check["state"] == "failed"] == []
    checks = by_name(report)
    assert {"python", "torch", "torch devices", "gloo", "fsdp2", "runs folder", "loopback"} <= set(checks)
    assert "precision: " in checks["torch devices"]["detail"]
    assert report["took_s"] < 60  # some 5 s on an idle machine
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_named(tmp_path):
    """A user with a `data.py` on PYTHONPATH would meet an ImportError from inside training."""
    (tmp_path / "data.py").write_text("raise RuntimeError('the wrong data')\n")
    done = doctor_in(tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert '"state": "failed"' in done.stdout
    assert f"`data` is found at {tmp_path / 'data.py'}" in done.stdout
    # Without PYTHONPATH the same folder does no harm: nothing is imported from where one stands.
    assert "data of this folder stay" in doctor_in(tmp_path).stdout


def test_a_torch_that_crashes_is_a_finding(tmp_path):
    """A user whose torch dies at import would get the doctor's traceback in place of its advice."""
    (tmp_path / "torch.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)\n")
    done = doctor_in(tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "the probes ended with [-4, -4]" in done.stdout


@pytest.mark.root
def test_a_full_disk_fails(tmp_path):
    """A user would lose the first checkpoint to a disk that was known to be too small."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this container may not mount")
    try:
        finding = by_name(diagnose(small))["runs folder"]
    finally:
        subprocess.run(["umount", small], check=True)
    assert finding["state"] == "failed"
    assert "at least 1 GiB" in finding["fix"]
