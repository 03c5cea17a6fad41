"""Rewards by rules, by functions in processes of their own, and by tests in a sandbox: failures have
names."""

import datetime
import math
import resource
import time

import pytest

from seedbed.errors import UsageError
from training.rl import rules
from training.rl.functions import FunctionReward
from training.rl.outcomes import Reward, failures, reward_of, together
from training.rl.sandbox import Limits, run_python

QUICK = Limits(seconds=20.0)


def test_a_failure_is_no_number():
    """A zero for a judge that timed out teaches the policy to be judged slowly, or quickly."""
    late = Reward(failure="timeout", detail="took long")
    with pytest.raises(ValueError, match="no reward: timeout: took long"):
        _ = late.total
    assert together([Reward({"a": 1.0}), late]) is late
    assert together([Reward({"a": 1.0}), Reward({"b": 2.0})], {"b": 0.5}).total == 2.0
    assert failures([late, Reward({"a": 1.0}), late, reward_of("f", math.nan)]) == {
        "not_finite": 1,
        "timeout": 2,
    }
    assert reward_of("f", "0.5").failure == "malformed"
    assert reward_of("f", True).failure == "malformed"
    assert reward_of("f", 3).parts == {"f": 3.0}


@pytest.mark.parametrize(
    ("answer", "expected", "reward"),
    [
        ("42", "42", 1),
        ("so it is 1,042.0", "1042", 1),
        ("41 or 42", "42", 1),
        ("42 or 41", "42", 0),
        ("nothing", "42", 0),
        ("-3", "3", 0),
        (" Paris\n", "Paris", 1),
        ("Lyon", "Paris", 0),
        ("1e3", "1000", 1),
    ],
)
def test_accuracy_is_of_the_text_or_of_the_last_number(answer, expected, reward):
    assert rules.accuracy(answer, expected) == reward


def test_the_format_is_each_block_once_and_in_order():
    assert rules.format_of("<think>so</think>\n<answer>4</answer>") == 1
    for wrong in (
        "<answer>4</answer><think>so</think>",
        "<think>so</think>",
        "<think>a</think><think>b</think><answer>4</answer>",
        "well <think>so</think><answer>4</answer>",
        "<think>so<answer>4</answer>",
        "",
    ):
        assert rules.format_of(wrong) == 0, wrong
    assert rules.within_tags("<answer> 4 </answer>", "answer") == " 4 "
    assert rules.within_tags("<answer>4</answer><answer>5</answer>", "answer") is None
    assert (rules.parses("x = 1"), rules.parses("x = "), rules.parses("\0")) == (1, 0, 0)


def test_tests_of_code_are_passed_or_not():
    source = "def double(x):\n    return x + x"
    found = rules.unit_tests(
        source, ["assert double(2) == 4", "assert double('a') == 'aa'", "assert double(1) == 3"]
    )
    assert found.total == pytest.approx(2 / 3)
    assert rules.unit_tests("def double(x", ["assert double(2) == 4"]).total == 0


def test_tests_are_the_asserts_of_a_response_and_code_is_its_block_or_goes_on_from_the_prompt():
    response = "import math\nassert half(4) == 2\nx = math.inf\nassert half(x) == x"
    source, tests = rules.tests_of("def half(x):\n", "    return x / 2\n", response)
    assert source == "def half(x):\n    return x / 2\n"
    assert tests == [
        "import math\nassert half(4) == 2",
        "import math\nx = math.inf\nassert half(x) == x",
    ]
    assert rules.unit_tests(source, tests).total == 1.0
    block = "So:\n```python\ndef half(x):\n    return x // 2\n```\nThat is all."
    source, tests = rules.tests_of("Write half.", block, response)
    assert rules.unit_tests(source, tests).total == 0.5
    assert rules.tests_of("p", "a", "no python here")[1] == []


@pytest.mark.parametrize(
    ("source", "end"),
    [
        ("print(input())", "finished"),
        ("import math, json, collections, random, itertools, re, datetime, functools, typing", "finished"),
        ("1 / 0", "raised"),
        ("while True: pass", "timeout"),
        ("import time; time.sleep(60)", "timeout"),
        ("x = [0] * 10**9", "memory"),
        ("open('/etc/passwd').read()", "forbidden"),
        ("open('here.txt', 'w')", "forbidden"),
        ("import os; os.open('here.txt', os.O_CREAT | os.O_WRONLY)", "forbidden"),
        ("import socket; socket.create_connection(('127.0.0.1', 80))", "forbidden"),
        ("import subprocess; subprocess.run(['true'])", "forbidden"),
        ("import os; os.system('true')", "forbidden"),
        ("import os; os.fork()", "forbidden"),
        ("import ctypes; ctypes.CDLL(None)", "forbidden"),
        ("import os; os.kill(os.getppid(), 9)", "forbidden"),
        ("import os; os.listdir('/')", "forbidden"),
        ("import os; os._exit(3)", "exited"),
        ("import sys; sys.exit(0)", "exited"),
        ("import os; os.abort()", "killed"),
        ("import __main__; __main__.hook = __main__.refused = None; open('/etc/passwd')", "forbidden"),
    ],
)
def test_a_sandbox_has_what_a_function_needs_and_nothing_else(source, end):
    started = time.monotonic()
    # Python itself takes a while to start on a busy machine.
    ran = run_python(source, Limits(seconds=2.0 if end == "timeout" else 20.0), stdin="hello")
    assert ran.end == end, ran
    assert time.monotonic() - started < 30
    if "print" in source:
        assert ran.output == "hello\n"


def test_output_without_end_does_not_fill_memory_or_time():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ran = run_python("import os\nwhile True: os.write(1, b'x' * 65536)", QUICK)
    assert ran.end == "output"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize(
    "source",
    [
        "raise SystemExit",
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "import atexit, os; atexit.register(lambda: os._exit(0))",
        "import os; os.abort()",
        "import sys; sys.stderr.write('0 done')",
    ],
)
def test_who_leaves_before_a_test_has_not_passed_it(source):
    """A policy finds out at once that ending is easier than answering."""
    assert rules.unit_tests(source, ["assert f(1) == 2"], QUICK).parts == {"unit_tests": 0.0}


FUNCTIONS = """
import os, sys, time
import helper

def lengths(prompts, answers, rows):
    print("to be seen by nobody")
    return [float(len(a)) + row["more"] for a, row in zip(answers, rows)]

def odd(prompts, answers, rows):
    values = {"hang": None, "nan": float("nan"), "text": "many", "good": 1.0}
    for answer in answers:
        if answer == "hang":
            time.sleep(60)
        if answer == "die":
            os._exit(1)
        if answer == "raise":
            raise RuntimeError("out of order")
    return [values[answer] for answer in answers]

def few(prompts, answers, rows):
    return [1.0]
"""


@pytest.fixture
def module(tmp_path):
    (tmp_path / "helper.py").write_text("")
    path = tmp_path / "mine.py"
    path.write_text(FUNCTIONS)
    return str(path)


def asked(function, answers, timeout_s=2.0, **row):
    with FunctionReward(function, timeout_s) as reward:
        return reward.rewards([""] * len(answers), answers, [row] * len(answers))


def test_a_function_gives_numbers(module):
    assert [one.parts for one in asked(f"{module}:lengths", ["a", "bcd"], more=1)] == [
        {"lengths": 2.0},
        {"lengths": 4.0},
    ]


def test_one_answer_on_which_a_function_fails_fails_alone(module):
    """A batch would be lost for it, or be frozen."""
    found = asked(f"{module}:odd", ["good", "hang", "nan", "die", "text", "raise", "good"])
    assert [one.failure for one in found] == [
        None, "timeout", "not_finite", "crashed", "malformed", "raised", None,
    ]  # fmt: skip
    assert "out of order" in found[5].detail
    assert found[0].total == found[6].total == 1.0


def test_the_wrong_number_of_rewards_is_a_failure(module):
    assert [one.failure for one in asked(f"{module}:few", ["a"])] == [None]
    found = asked(f"{module}:few", ["a", "b"])
    assert [one.failure for one in found] == ["malformed", "malformed"]


def test_a_batch_that_hangs_is_given_up_as_a_batch(module):
    """Twenty times the time of one answer would be minutes for nothing."""
    with FunctionReward(f"{module}:odd", 1.0, more_s=0.0) as reward:
        started = time.monotonic()
        assert isinstance(reward._ask([("", "hang", {})] * 20, 1.0), Reward)
        assert time.monotonic() - started < 15
        assert reward.rewards([], [], []) == []


def test_a_function_is_found_beside_modules_that_are_named_as_ours(module, tmp_path, monkeypatch):
    (tmp_path / "training.py").write_text("raise ImportError('a module of the user')")
    monkeypatch.chdir(tmp_path)
    for function in (f"{module}:few", "mine:few"):
        assert asked(function, ["a"], at=datetime.date(2026, 1, 2))[0].total == 1.0


def test_a_number_that_is_too_large_is_no_reward():
    assert reward_of("f", 10**400).failure == "not_finite"


def test_a_function_that_is_not_there_is_named(module, tmp_path):
    with pytest.raises(UsageError, match="names no function"):
        FunctionReward("rewards")
    for function, reason in (
        (f"{module}:nothing", "nothing"),
        (f"{tmp_path}/no.py:f", "no.py"),
        ("no_such:f", "no_such"),
    ):
        with pytest.raises(UsageError, match=reason):
            asked(function, ["a"])
