"""Whether this machine can train, found out by trying: `seedbed doctor`.

Every check gives a state (ok, warning, failed), what was found, and what to do about it. A warning is
something that a plain training run does without; a failure is something that it will run into.
"""

import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from seedbed.files import fsync_dir
from seedbed.progress import human_bytes

PACKAGES = ("seedbed", "data", "models", "training", "evals", "cluster")
OURS = Path(__file__).resolve().parent.parent
PROBE_TIMEOUT_S = 90.0
DISK_SAMPLE_BYTES = 32 * 1024**2


@dataclass(frozen=True)
class Check:
    """One finding; `state` is "ok", "warning" or "failed", and `fix` is empty when it is "ok"."""

    name: str
    state: str
    detail: str
    fix: str = ""


def diagnose(runs: Path = Path("runs")) -> dict[str, Any]:
    """Run every check, in some ten seconds; `runs` is the folder that runs will be written to.

    Returns {"state": the worst of all, "checks": [{"name", "state", "detail", "fix"}], "took_s"}.
    """
    started = time.monotonic()
    # The probes spend their seconds importing torch, while the other checks run here.
    probes = _start_probes()
    try:
        checks = [
            *_guarded("python", _check_python),
            *_guarded("packages", _check_packages),
            *_guarded("package names", _check_shadowed),
            *_guarded("cpu", _check_cpu),
            *_guarded("runs folder", lambda: _check_disk(runs)),
            *_guarded("loopback", _check_loopback),
            *_guarded("shared memory", _check_shared_memory),
            *_guarded("open files", _check_open_files),
            *_guarded("git", _check_git),
            *_guarded("clusters", _check_clusters),
            *_guarded("torch", lambda: _check_probes(probes)),
        ]
    finally:
        for probe in probes:
            if probe.poll() is None:
                probe.kill()
                probe.communicate()
    states = {check.state for check in checks}
    worst = next((state for state in ("failed", "warning") if state in states), "ok")
    return {
        "state": worst,
        "checks": [asdict(check) for check in checks],
        "took_s": round(time.monotonic() - started, 2),
    }


def _guarded(name: str, check: Callable[[], Iterator[Check]]) -> list[Check]:
    """All that `check` finds; a check that breaks is itself a finding, and the others still run."""
    found: list[Check] = []
    try:
        found.extend(check())
    except Exception as error:
        found.append(Check(name, "failed", f"{type(error).__name__}: {error}", "look into this error"))
    return found


def _release(version: str) -> tuple[int, ...]:
    """(2, 13, 0) of "2.13.0+cpu" or "2.13.0rc1"."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match.group().split("."))) if match else ()


def _check_python() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    floor = "3.11"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        floor = importlib.metadata.metadata("seedbed")["Requires-Python"].removeprefix(">=")
    if _release(version) < _release(floor):
        yield Check(
            "python", "failed", f"{version}, and at least {floor} is needed", f"install Python {floor}"
        )
    else:
        yield Check("python", "ok", f"{version} at {sys.executable}")


def _check_packages() -> Iterator[Check]:
    """Compare what is installed with the floors that the distribution itself declares."""
    try:
        requirements = importlib.metadata.requires("seedbed") or []
    except importlib.metadata.PackageNotFoundError:
        yield Check("packages", "failed", "seedbed is not installed", "pip install -e .")
        return
    pattern = re.compile(
        r"(?P<name>[\w.-]+)(\[.*?\])?\s*>=\s*(?P<floor>[\d.]+)(.*extra\s*==\s*['\"](?P<extra>\w+))?"
    )
    for requirement in requirements:
        match = pattern.match(requirement)
        if match is None or match["extra"] == "dev":
            continue
        name, floor, extra = match["name"], match["floor"], match["extra"]
        install = f"pip install 'seedbed[{extra}]'" if extra else f"pip install '{name}>={floor}'"
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            state = "warning" if extra else "failed"
            yield Check(name, state, "not installed" + (" (optional)" if extra else ""), install)
            continue
        if _release(version) < _release(floor):
            yield Check(name, "failed", f"{version}, and at least {floor} is needed", install)
        else:
            yield Check(name, "ok", version)


def _check_shadowed() -> Iterator[Check]:
    """Our rooms have everyday names: another `data` or `models` earlier on the path would be imported."""
    for name in PACKAGES:
        spec = PathFinder.find_spec(name, sys.path)
        places = [spec.origin or "", *(spec.submodule_search_locations or [])] if spec else []
        if not any(Path(place).resolve().is_relative_to(OURS / name) for place in places if place):
            found = places[0] if places else "nowhere"
            fix = "take its folder out of PYTHONPATH, or uninstall the package that brings it"
            yield Check("package names", "failed", f"`{name}` is found at {found}, not in Seedbed", fix)
            return
    here = [name for name in PACKAGES if (Path.cwd() / name).exists() or (Path.cwd() / f"{name}.py").exists()]
    note = f"; {', '.join(here)} of this folder stay out of the way" if here and Path.cwd() != OURS else ""
    yield Check("package names", "ok", f"all six are Seedbed's{note}")


def _check_cpu() -> Iterator[Check]:
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    found = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("cpu", "ok", f"{count} usable, {' '.join(found) or 'no known vector extensions'}")


def _check_disk(runs: Path) -> Iterator[Check]:
    """Room, speed to durable storage, and a rename that replaces: what a checkpoint stands on."""
    folder = runs.resolve()
    while not folder.is_dir():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        yield Check(
            "runs folder", "failed", f"{folder} cannot be written to", "choose another folder for runs"
        )
        return
    free = shutil.disk_usage(folder).free
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as scratch:
        sample, target = Path(scratch) / "sample", Path(scratch) / "target"
        started = time.monotonic()
        with open(sample, "wb") as file:
            file.write(os.urandom(1024**2) * (DISK_SAMPLE_BYTES // 1024**2))
            file.flush()
            os.fsync(file.fileno())
        rate = DISK_SAMPLE_BYTES / (time.monotonic() - started)
        target.write_bytes(b"old")
        os.replace(sample, target)
        fsync_dir(Path(scratch))
        renamed = target.stat().st_size == DISK_SAMPLE_BYTES and not sample.exists()
    detail = f"{folder}: {human_bytes(free)} free, {human_bytes(rate)}/s to disk"
    if not renamed:
        fix = "use a file system with atomic renames"
        yield Check("runs folder", "failed", f"{folder}: a rename did not replace its target", fix)
    elif free < 1024**3:
        yield Check("runs folder", "failed", detail, "make room: a run needs at least 1 GiB")
    elif free < 10 * 1024**3 or rate < 20 * 1024**2:
        yield Check("runs folder", "warning", detail, "checkpoints need room and speed: use another disk")
    else:
        yield Check("runs folder", "ok", detail)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _check_loopback() -> Iterator[Check]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            yield Check("loopback", "ok", f"a port is free ({port}) and answers")


def _check_shared_memory() -> Iterator[Check]:
    shm = Path("/dev/shm")
    if not shm.is_dir():
        yield Check("shared memory", "ok", "this system has no /dev/shm")
        return
    total = shutil.disk_usage(shm).total
    if total < 1024**3:
        fix = "give the container more: docker run --shm-size=8g, or an emptyDir volume with medium: Memory"
        yield Check(
            "shared memory", "warning", f"/dev/shm has {human_bytes(total)}; NCCL and Ray need more", fix
        )
    else:
        yield Check("shared memory", "ok", f"/dev/shm has {human_bytes(total)}")


def _check_open_files() -> Iterator[Check]:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    if not unlimited and soft < 1024:
        yield Check("open files", "warning", f"at most {soft}", "ulimit -n 65536")
    else:
        yield Check("open files", "ok", "unlimited" if unlimited else f"at most {soft}")


def _check_git() -> Iterator[Check]:
    if shutil.which("git"):
        yield Check("git", "ok", "found")
    else:
        yield Check("git", "warning", "not found: runs will not record a commit", "install git")


def _check_clusters() -> Iterator[Check]:
    """An open cluster runs whatever anybody who reaches it asks it to."""
    from cluster.doctor_clusters import findings

    for state, detail, fix in findings():
        yield Check("clusters", state, detail, fix)


def _start_probes() -> list[subprocess.Popen[str]]:
    port = str(_free_port())
    return [
        subprocess.Popen(
            [sys.executable, "-P", "-m", "cluster.probe", str(rank), port],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]


def _check_probes(probes: list[subprocess.Popen[str]]) -> Iterator[Check]:
    """What the probes of `cluster.probe` found; the first finding that is missing carries the error."""
    deadline = time.monotonic() + PROBE_TIMEOUT_S
    outputs = []
    for probe in probes:
        try:
            outputs.append(probe.communicate(timeout=max(0.1, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            probe.kill()
            outputs.append(probe.communicate())
    lines = outputs[0][0].splitlines()
    findings = {row.pop("finding"): row for row in map(json.loads, lines)}
    errors = [line for _, stderr in outputs for line in stderr.strip().splitlines()[-1:]]
    codes = [probe.returncode for probe in probes]
    why = errors[0] if errors else f"the probes ended with {codes}"

    facts = findings.get("torch")
    if facts is None:
        yield Check("torch devices", "failed", why, "reinstall torch: `make setup`, or pip install torch")
        return
    yield _devices(facts)
    yield _found("gloo", findings, "2 processes, one all-reduce on loopback", why, _GLOO_FIX)
    if "gloo" not in findings:
        return
    yield _found("fsdp2", findings, "one step of a sharded layer", why, "pip install --upgrade torch")
    if facts["devices"]:
        ranks = findings.get("nccl", {}).get("ranks")
        yield _found("nccl", findings, f"an all-reduce over {ranks} device(s)", why, _NCCL_FIX)
    if any(codes) and {"gloo", "fsdp2"} <= set(findings):
        yield Check("probes", "failed", why, "run python -P -m cluster.probe by hand to see all of the error")


_GLOO_FIX = (
    "let processes connect on loopback: try GLOO_SOCKET_IFNAME=lo, and look at /etc/hosts and the firewall"
)
_NCCL_FIX = "run again with NCCL_DEBUG=INFO; the driver and the CUDA that torch was built for must match"


def _found(name: str, findings: dict[str, Any], detail: str, why: str, fix: str) -> Check:
    return Check(name, "ok", detail) if name in findings else Check(name, "failed", why, fix)


def _devices(facts: dict[str, Any]) -> Check:
    build = f"built for CUDA {facts['built_for_cuda']}" if facts["built_for_cuda"] else "built for CPU only"
    if not facts["devices"]:
        detail = f"CPU ({facts['cpu_capability']}); {build}; precision: {facts['precision']}"
        if facts["built_for_cuda"] and shutil.which("nvidia-smi"):
            return Check("torch devices", "warning", detail, "torch sees no GPU: does `nvidia-smi` list one?")
        return Check("torch devices", "ok", detail)
    names = ", ".join(f"{d['name']} ({human_bytes(d['memory_bytes'])})" for d in facts["devices"])
    return Check("torch devices", "ok", f"{names}; {build}; precision: {facts['precision']}")
