"""Any Python function as a reward, in a process of its own: one that hangs or dies takes nothing with it.

A function `rewards(prompts, answers, rows)` is named `package.module:function` or `file.py:function`. It is
given texts and the rows of the prompts' dataset, and returns a number for each answer. The process reads
requests as lines of JSON and is started anew when it had to be killed; one answer at a time is asked for
then, so that the one that hangs is told from its neighbours.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seedbed.errors import UsageError
from training.rl.outcomes import Reward, reward_of

START_S = 60.0
"""For the process, which imports what the function's module imports."""


class FunctionReward:
    """A function that is asked in batches; a context, which ends the process.

    `timeout_s` is for one answer; a batch has that and `more_s` for each of its others.
    """

    def __init__(self, function: str, timeout_s: float = 10.0, more_s: float = 0.1) -> None:
        """UsageError when the name is none; whether there is such a function shows when it is asked."""
        where, colon, name = function.rpartition(":")
        if not (where and colon and name.isidentifier()):
            raise UsageError(f"{function!r} names no function", "such as my_rewards.py:rewards")
        if where.endswith(".py"):
            where = str(Path(where).absolute())
        self.name, self.timeout_s, self.more_s = name, timeout_s, more_s
        self._command = [sys.executable, "-P", "-m", "training.rl.function_worker", where, name]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "FunctionReward":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def rewards(
        self, prompts: Sequence[str], answers: Sequence[str], rows: Sequence[dict[str, Any]]
    ) -> list[Reward]:
        """One for each answer. UsageError when the function cannot be had at all."""
        given = list(zip(prompts, answers, rows, strict=True))
        if not given:
            return []
        found = self._ask(given, self.timeout_s + self.more_s * (len(given) - 1))
        # One that takes no account of how many it is asked about would be right about one.
        if isinstance(found, Reward) and found.failure != "malformed" and len(given) > 1:
            return [self._alone(one) for one in given]
        return [found] * len(given) if isinstance(found, Reward) else found

    def _alone(self, one: tuple[str, str, dict[str, Any]]) -> Reward:
        found = self._ask([one], self.timeout_s)
        return found if isinstance(found, Reward) else found[0]

    def _ask(self, given: list[tuple[str, str, dict[str, Any]]], timeout_s: float) -> list[Reward] | Reward:
        """The rewards; or the failure that all of these have in common."""
        process = self._started()
        prompts, answers, rows = (list(column) for column in zip(*given, strict=True))
        # What JSON does not have, such as a date, is given as text.
        asked = {"prompts": prompts, "answers": answers, "rows": rows}
        request = json.dumps(asked, default=str).encode() + b"\n"
        try:
            assert process.stdin is not None
            process.stdin.write(request)
            process.stdin.flush()
            reply = self._line(timeout_s)
        except (TimeoutError, OSError) as error:
            self._end()
            is_late = isinstance(error, TimeoutError)
            detail = (
                f"{self.name} took more than {timeout_s:g} s" if is_late else f"{self.name} ended its process"
            )
            return Reward(failure="timeout" if is_late else "crashed", detail=detail)
        if "error" in reply:
            return Reward(failure="raised", detail=f"{self.name} raised {reply['error']}")
        values = reply["values"]
        if not isinstance(values, list) or len(values) != len(given):
            shape = f"{len(values)} values" if isinstance(values, list) else repr(values)
            return Reward(failure="malformed", detail=f"{self.name} gave {shape} for {len(given)} answer(s)")
        return [reward_of(self.name, value) for value in values]

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            hello = self._line(START_S)
        except (TimeoutError, OSError):
            hello = {"error": "its module ended the process, or did not come to an end"}
        if "error" in hello:
            self._end()
            raise UsageError(f"the reward function {self.name} cannot be had: {hello['error']}", "mend it")
        return self._process

    def _line(self, timeout_s: float) -> dict[str, Any]:
        """The next answer; TimeoutError, or OSError when there will be none."""
        assert self._process is not None
        assert self._process.stdout is not None
        file, found, deadline = self._process.stdout, b"", time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(file, selectors.EVENT_READ)
            while not found.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                piece = os.read(file.fileno(), 1 << 16)
                if not piece:
                    raise OSError("the process ended")
                found += piece
        value: dict[str, Any] = json.loads(found)
        return value

    def _end(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            self._process = None
