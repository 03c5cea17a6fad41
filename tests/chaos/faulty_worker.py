"""A training worker in which faults happen: `training.worker`, but for what $SEEDBED_TEST_FAULTS says.

It is a JSON list of {kind, rank, step} and what `HAPPENS` needs; `attempt` limits a fault to one attempt.
"""

import contextlib
import errno
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from training import worker
from training.engines.torch_engine import TorchEngine
from training.objectives import LossSum
from training.trainer import Trainer

FAULTS: list[dict[str, Any]] = json.loads(os.environ["SEEDBED_TEST_FAULTS"])


class Altered:
    """An objective whose loss is multiplied."""

    def __init__(self, objective: Any, factor: float) -> None:
        self._objective, self._factor = objective, factor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objective, name)

    def loss(self, model: Any, batch: Any) -> LossSum:
        total, weight = self._objective.loss(model, batch)
        return LossSum(total * self._factor, weight)


def signalled(number: signal.Signals) -> Callable[..., Any]:
    @contextlib.contextmanager
    def happens(_: Trainer, **__: Any) -> Iterator[None]:
        os.kill(os.getpid(), number)
        yield

    return happens


@contextlib.contextmanager
def raises(_: Trainer, **__: Any) -> Iterator[None]:
    raise RuntimeError("an injected error")
    yield


@contextlib.contextmanager
def multiplied(trainer: Trainer, factor: float, **_: Any) -> Iterator[None]:
    before = trainer.objective
    trainer.objective = Altered(before, factor)  # type: ignore[assignment]
    yield
    trainer.objective = before


@contextlib.contextmanager
def sleeps(_: Trainer, seconds: float, **__: Any) -> Iterator[None]:
    time.sleep(seconds)
    yield


@contextlib.contextmanager
def clock_jumps(_: Trainer, seconds: float, **__: Any) -> Iterator[None]:
    real = time.time
    time.time = lambda: real() + seconds  # and so it stays
    yield


@contextlib.contextmanager
def computes_wrongly(trainer: Trainer, **_: Any) -> Iterator[None]:
    recompute = trainer.engine.recompute
    trainer.engine.recompute = lambda *given: recompute(*given) * (1 + 2**-23)  # type: ignore[method-assign]
    yield
    trainer.engine.recompute = recompute  # type: ignore[method-assign]


SAVE_PATH = ("write_tensors", "write_json", "write_atomic", "hash_file", "fsync_dir")
"""What a save calls, in order, some of it several times."""


def fault_the_save_path(rank: int) -> None:
    """Have the worker killed at a named moment of a save: {kind: save, step, call, number, when}; or let it
    find the disk full then, where `when` is "full"."""
    from training.checkpoint import writer

    saving: dict[str, Any] = {"step": None, "calls": {}}
    run = writer.Saver._run

    def noted(self: Any, copies: Any, manifest: Any, blocked_s: float) -> None:
        saving.update(step=manifest["step"], calls={})
        run(self, copies, manifest, blocked_s)

    writer.Saver._run = noted  # type: ignore[method-assign]

    def deadly(name: str) -> Callable[..., Any]:
        call = getattr(writer, name)

        def called(*given: Any, **named: Any) -> Any:
            number = saving["calls"][name] = saving["calls"].get(name, 0) + 1
            here = {"kind": "save", "rank": rank, "step": saving["step"], "call": name, "number": number}
            if fires({**here, "when": "full"}):
                raise OSError(errno.ENOSPC, "No space left on device")
            kill_once({**here, "when": "before"})
            result = call(*given, **named)
            kill_once({**here, "when": "after"})
            return result

        return called

    for name in SAVE_PATH:
        setattr(writer, name, deadly(name))


def fires(fault: dict[str, Any]) -> bool:
    """If it is one of the faults, once: else every attempt would die of it."""
    if fault not in FAULTS:
        return False
    mark = Path(argument("--run-dir"), "logs", f"fired-{FAULTS.index(fault)}")
    if mark.exists():
        return False
    mark.touch()
    return True


def kill_once(fault: dict[str, Any]) -> None:
    if fires(fault):
        os.kill(os.getpid(), signal.SIGKILL)


def fault_calls(rank: int) -> None:
    """Have the worker killed at a call: {kind: call, rank, call: "module:Class.method", number, when}."""

    def deadly(call: Callable[..., Any], name: str) -> Callable[..., Any]:
        made = 0

        def called(*given: Any, **named: Any) -> Any:
            nonlocal made
            made += 1
            here = {"kind": "call", "rank": rank, "call": name, "number": made}
            kill_once({**here, "when": "before"})
            result = call(*given, **named)
            kill_once({**here, "when": "after"})
            return result

        return called

    for name in {fault["call"] for fault in FAULTS if fault["kind"] == "call"}:
        module, _, path = name.partition(":")
        owner, method = path.split(".")
        found = getattr(importlib.import_module(module), owner)
        setattr(found, method, deadly(getattr(found, method), name))


def misload(rank: int) -> None:
    """Have a rank put one wrong bit into the weights that it loads: {kind: misload, rank}."""
    load_state = TorchEngine.load_state

    def wrongly(self: TorchEngine, *given: Any, **named: Any) -> None:
        load_state(self, *given, **named)
        parameter = next(iter(self.model.parameters()))
        local = getattr(parameter, "to_local", lambda: parameter)().detach()
        local.view(torch.int32).view(-1)[0] ^= 1

    if any(fault["kind"] == "misload" and fault["rank"] == rank for fault in FAULTS):
        TorchEngine.load_state = wrongly  # type: ignore[method-assign]


HAPPENS: dict[str, Callable[..., Any]] = {
    "kill": signalled(signal.SIGKILL),
    "terminate": signalled(signal.SIGTERM),
    "stop": signalled(signal.SIGSTOP),
    "crash": signalled(signal.SIGSEGV),
    "exception": raises,
    "loss": multiplied,
    "sleep": sleeps,
    "clock": clock_jumps,
    "corruption": computes_wrongly,
}


def argument(name: str) -> str:
    """What the worker was given for it."""
    return sys.argv[sys.argv.index(name) + 1]


def main() -> int:
    """As the worker's."""
    train_step = Trainer.train_step

    def faulty_step(self: Trainer, state: Any) -> bool:
        with contextlib.ExitStack() as stack:
            for fault in FAULTS:
                if fault["kind"] in ("save", "misload", "call"):
                    continue
                here = fault["rank"] in (self.group.rank, "all") and fault["step"] == state.step + 1
                if here and fault.get("attempt", self.recorder.attempt) == self.recorder.attempt:
                    stack.enter_context(HAPPENS[fault["kind"]](self, **fault))
            return train_step(self, state)

    fault_the_save_path(int(argument("--rank")))
    fault_calls(int(argument("--rank")))
    misload(int(argument("--rank")))
    Trainer.train_step = faulty_step  # type: ignore[method-assign]
    return worker.main()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
