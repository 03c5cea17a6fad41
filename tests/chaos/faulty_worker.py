"""A training worker in which faults happen: `training.worker`, but for what $SEEDBED_TEST_FAULTS says.

It is a JSON list of {kind, rank, step} and what `HAPPENS` needs; `attempt` limits a fault to one attempt.
"""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from training import worker
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
    time.time = lambda: real() + seconds
    yield


@contextlib.contextmanager
def computes_wrongly(trainer: Trainer, **_: Any) -> Iterator[None]:
    recompute = trainer.engine.recompute
    trainer.engine.recompute = lambda *given: recompute(*given) * (1 + 2**-23)  # type: ignore[method-assign]
    yield
    trainer.engine.recompute = recompute  # type: ignore[method-assign]


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


def main() -> int:
    """As the worker's."""
    train_step = Trainer.train_step

    def faulty_step(self: Trainer, state: Any) -> bool:
        with contextlib.ExitStack() as stack:
            for fault in FAULTS:
                here = fault["rank"] in (self.group.rank, "all") and fault["step"] == state.step + 1
                if here and fault.get("attempt", self.recorder.attempt) == self.recorder.attempt:
                    stack.enter_context(HAPPENS[fault["kind"]](self, **fault))
            return train_step(self, state)

    Trainer.train_step = faulty_step  # type: ignore[method-assign]
    return worker.main()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
