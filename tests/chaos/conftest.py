"""What the tests of faults share: the run that nothing happened to, and the table of what did."""

import collections
import os

import pytest
from faulty_runs import finish, start

SHARE = 5 if "SEEDBED_CI" in os.environ else 1
"""Every kind of fault happens, but with SEEDBED_CI a fifth as often."""
TABLE: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)


@pytest.fixture
def shared():
    """How many faults of a kind to inject, of so many."""
    return lambda count: max(1, count // SHARE)


@pytest.fixture
def table():
    """Kind of fault -> what became of it -> how often; printed at the end."""
    return TABLE


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The run that all are compared with, by its number of steps."""
    made = {}

    def of(num_steps):
        if num_steps not in made:
            made[num_steps] = tmp_path_factory.mktemp("undisturbed") / "run"
            finish(start(made[num_steps], [], run__steps=num_steps, timeouts__heartbeat_s=0))
        return made[num_steps]

    return of


def pytest_terminal_summary(terminalreporter):
    """The table, whether or not output is captured."""
    if not TABLE:
        return
    total = sum(sum(outcomes.values()) for outcomes in TABLE.values())
    terminalreporter.write_line(f"{total} injected faults, each followed by the hash of the undisturbed run:")
    for kind, outcomes in TABLE.items():
        told = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())
        terminalreporter.write_line(f"  {kind:<26}{told}")
