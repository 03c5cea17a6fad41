"""What all tests share: an environment of their own, the real command, and no silent skips."""

import fnmatch
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest

# How long an example takes is the machine's affair: on a busy one a deadline would fail what is right.
hypothesis.settings.register_profile("seedbed", deadline=None)
hypothesis.settings.load_profile("seedbed")

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests side by side, with a thread for every core each, would mostly wait for each other's threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Threads of a process that a test starts would spin for each other on cores that others are using.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent
SEEDBED = Path(sys.executable).with_name("seedbed")
ALLOWED_SKIPS = Path(__file__).with_name("allowed_skips.txt")
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
}


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


def run_command(
    command: list[str], *, timeout_s: float, cwd: Path, env: dict[str, str] | None = None
) -> Outcome:
    """Run `command` in a process group of its own, so that a time-out leaves no grandchild behind."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        try:
            stdout, stderr = process.communicate(timeout=10)
        except subprocess.TimeoutExpired as held:
            # A process that left the group has the pipes open: it would be waited for without end.
            stdout, stderr = (str(text) for text in (held.stdout, held.stderr))
        if isinstance(error, subprocess.TimeoutExpired):
            pytest.fail(f"{command} took more than {timeout_s} s\n{stdout}\n{stderr}")
        raise
    return Outcome(process.returncode, stdout, stderr)


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Home and cache of the session's own, inherited by every process that a test starts.

    The cache is shared by the session, so that the standard-library dataset is built once.
    """
    base = tmp_path_factory.mktemp("session")
    (base / "home").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(base / "home"))
        patch.setenv("SEEDBED_CACHE", str(base / "cache"))
        patch.delenv("PYTHONPATH", raising=False)
        for name, value in OFFLINE.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module", autouse=True)
def _no_files_left_open() -> Iterator[None]:
    """What a file's tests left in cycles holds datasets open: a few hundred more, and there are no more."""
    yield
    gc.collect()


@pytest.fixture
def seedbed_cli(tmp_path: Path) -> Callable[..., Outcome]:
    """`seedbed_cli("train", "gpt-demo", timeout_s=60, cwd=..., env={...})`: the installed command itself."""

    def run(
        *arguments: str | Path,
        timeout_s: float = 120,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> Outcome:
        command = [str(SEEDBED), *map(str, arguments)]
        return run_command(command, timeout_s=timeout_s, cwd=cwd or tmp_path, env=env)

    return run


def _refuse_remote_connections(event: str, arguments: tuple[object, ...]) -> None:
    """Tests talk to this machine alone; addresses of test hosts in network namespaces are 10.x."""
    if event != "socket.connect":
        return
    address = arguments[1]
    if not isinstance(address, tuple):
        return
    host = str(address[0])
    if not host.startswith(("127.", "10.")) and host not in ("localhost", "::1", "0.0.0.0", "::"):
        raise PermissionError(f"a test tried to reach {host}: tests use no network")


class SkipWatch:
    """Fails the session when a test was skipped that no line of allowed_skips.txt allows."""

    def __init__(self, allowed: list[str]) -> None:
        self._allowed = allowed
        self._unlisted: list[str] = []

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        if not any(fnmatch.fnmatchcase(report.nodeid, pattern) for pattern in self._allowed):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self._unlisted.append(f"{report.nodeid}: {reason}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._unlisted and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._unlisted:
            return
        terminalreporter.section(f"skipped, and not listed in {ALLOWED_SKIPS.name}", red=True)
        for line in self._unlisted:
            terminalreporter.write_line(line)


def allowed_skips(text: str) -> list[str]:
    """The patterns of allowed_skips.txt; a line without a reason is refused."""
    lines = [line.strip() for line in text.splitlines()]
    entries = [line.partition(" | ") for line in lines if line and not line.startswith("#")]
    for pattern, _, reason in entries:
        if not reason.strip():
            raise pytest.UsageError(f"{ALLOWED_SKIPS}: {pattern!r} has no reason: write `pattern | reason`")
    return [pattern.strip() for pattern, _, _ in entries]


def pytest_configure(config: pytest.Config) -> None:
    sys.addaudithook(_refuse_remote_connections)
    if os.environ.get("SEEDBED_CI") == "1":
        config.pluginmanager.register(SkipWatch(allowed_skips(ALLOWED_SKIPS.read_text())), "skip-watch")


@pytest.fixture
def one_thread():
    """Tiny products are not worth a second thread; a test that wants two says so."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
