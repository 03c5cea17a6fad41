"""Roles whose work is done by workers beside the ranks, asked through the store that an attempt meets at.

Rank 0 asks, block by block, and has the answers; what is sent is JSON, in which numbers keep their bits. A
worker beside the ranks answers what it was asked in turn, and ends when it is told to.
"""

import base64
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from seedbed.errors import SeedbedError
from training.checkpoint.tensors import raw_bytes
from training.rl.buffer import Learned
from training.rl.outcomes import Reward
from training.rl.rollouts import Rollout, rollout_of
from training.rl.sources import Judged

PART_BYTES = 1 << 22
"""Of one value in the store, which takes no more than 8 MiB."""
WAIT_S, LONGEST_WAIT_S = 0.001, 0.05
END, END_S = "end", 60.0
"""What a worker is asked last, and how long it may take to hear it."""
PATIENCE = 0.8
"""Of the time after which the other ranks, which wait in a collective, would be taken for those that hang."""


class Asked(NamedTuple):
    """What a worker is to do."""

    role: str
    method: str
    items: list[Any]


@dataclass(frozen=True)
class Elsewhere:
    """For a role: who does its work, and how they are asked. Workers with the same `line` share it."""

    role: str
    line: "Line"

    @property
    def ranks(self) -> Sequence[int]:
        return self.line.ranks

    def ask(self, method: str, blocks: Sequence[Sequence[Any]]) -> dict[int, list[Any]]:
        """What `method` makes of each block, by its number."""
        return self.line.ask(self.role, method, blocks)

    def begin(self, method: str, arguments: Sequence[Any]) -> list["Question"]:
        """Have all workers do the same, together."""
        return [self.line.send(index, self.role, method, arguments) for index in range(len(self.ranks))]

    def answered(self, questions: Sequence["Question"]) -> Any:
        """What they made of it, as the first of them says, once all have done it."""
        first, *_ = [self.line.answer(one) for one in questions]
        return first[0]


class Question(NamedTuple):
    """Number `number` of those that worker `rank` was asked, to be answered by `deadline`."""

    rank: int
    number: int
    deadline: float

    @property
    def key(self) -> str:
        return _question(self.rank, self.number)


class Line:
    """Rank 0's end: numbers of what each worker was asked, and the way to it."""

    def __init__(
        self, store: dist.Store, ranks: Sequence[int], timeout_s: float, still: Callable[[], None]
    ) -> None:
        """`timeout_s` is that of collectives; `still` is called while answers are waited for."""
        self.store, self.ranks, self._still = store, ranks, still
        self.patience_s = PATIENCE * timeout_s
        self._asked = dict.fromkeys(ranks, 0)

    def ask(self, role: str, method: str, blocks: Sequence[Sequence[Any]]) -> dict[int, list[Any]]:
        """SeedbedError when not all answers are there in time."""
        asked = [self.send(index, role, method, block) for index, block in enumerate(blocks)]
        return {index: self.answer(one) for index, one in enumerate(asked)}

    def close(self) -> None:
        """Have all workers end, and wait until they have heard it: the store ends with this process."""
        deadline = time.monotonic() + END_S
        for asked in [self.send(index, END, "", ()) for index in range(len(self.ranks))]:
            _taken(self.store, f"{asked.key}/answer", self._still, deadline)

    def send(self, index: int, role: str, method: str, items: Sequence[Any]) -> Question:
        """Ask worker `index` of them, counted round and round."""
        rank = self.ranks[index % len(self.ranks)]
        number = self._asked[rank]
        self._asked[rank] += 1
        question = Question(rank, number, time.monotonic() + self.patience_s)
        items = [_plain(item) for item in items]
        _put(self.store, question.key, {"role": role, "method": method, "items": items})
        return question

    def answer(self, question: Question) -> list[Any]:
        """To it. SeedbedError when it is not there in time."""
        found = _taken(self.store, f"{question.key}/answer", self._still, question.deadline)
        if found is None:
            raise SeedbedError(
                f"worker {question.rank}, beside the ranks, has not answered within {self.patience_s:g} s",
                f"read logs/rank-{question.rank}.log of the run; work that takes longer needs another "
                "timeouts.collective_s, or more rl.scoring_workers or rl.critic_workers",
            )
        return [_made(row) for row in found]


def questions(store: dist.Store, rank: int, still: Callable[[], None]) -> Any:
    """What worker `rank` is asked, in turn; the answer to each is sent back by `answer`.

    Ends when there will be no more. `still` is called while nothing is asked. SeedbedError when the store is
    gone.
    """
    number = 0
    while True:
        try:
            asked = _taken(store, _question(rank, number), still)
        except RuntimeError as error:
            raise SeedbedError("rank 0, which asks, cannot be reached any more", "read its log") from error
        assert asked is not None
        if asked["role"] == END:
            answer(store, rank, number, ())
            return
        yield number, Asked(asked["role"], asked["method"], [_made(row) for row in asked["items"]])
        number += 1


def answer(store: dist.Store, rank: int, number: int, values: Sequence[Any]) -> None:
    """To question `number`."""
    _put(store, f"{_question(rank, number)}/answer", [_plain(value) for value in values])


def _question(rank: int, number: int) -> str:
    return f"asked/{rank}/{number}"


def _put(store: dist.Store, key: str, value: Any) -> None:
    data = json.dumps(value)
    parts = range(0, len(data), PART_BYTES)
    for number, first in enumerate(parts):
        store.set(f"{key}/{number}", data[first : first + PART_BYTES])
    # Last: who finds it finds them all.
    store.set(key, str(len(parts)))


def _taken(store: dist.Store, key: str, still: Callable[[], None], deadline: float = math.inf) -> Any:
    """What was put there, once it is; None when it was not in time."""
    wait_s = WAIT_S
    # To wait in the store would keep the other threads of this process from it.
    while not store.check([key]):
        if time.monotonic() > deadline:
            return None
        still()
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)
    names = [f"{key}/{number}" for number in range(int(store.get(key)))]
    value = json.loads(b"".join(store.get(name) for name in names))
    for name in (key, *names):
        store.delete_key(name)
    return value


def _plain(value: Any) -> Any:
    """A value that JSON can say, of which `_made` makes it again."""
    if isinstance(value, Tensor):
        data = base64.b64encode(raw_bytes(value)).decode()
        return {"Tensor": [str(value.dtype).removeprefix("torch."), list(value.shape), data]}
    if isinstance(value, list | Learned):
        return {type(value).__name__: [_plain(item) for item in value]}
    if isinstance(value, Judged):
        return {"Judged": {**value._asdict(), "rollout": asdict(value.rollout)}}
    if isinstance(value, Rollout | Reward):
        return {type(value).__name__: asdict(value)}
    return {"": value}


def _made(row: dict[str, Any]) -> Any:
    ((kind, value),) = row.items()
    return _MAKERS[kind](value)


def _tensor(parts: list[Any]) -> Tensor:
    dtype, shape, data = parts
    values = torch.frombuffer(bytearray(base64.b64decode(data)) or bytearray(1), dtype=torch.uint8)
    return values[: len(values) * bool(data)].view(getattr(torch, dtype)).reshape(shape)


_MAKERS: dict[str, Callable[[Any], Any]] = {
    "": lambda value: value,
    "list": lambda value: [_made(item) for item in value],
    "Learned": lambda value: Learned(*map(_made, value)),
    "Tensor": _tensor,
    "Rollout": rollout_of,
    "Reward": lambda value: Reward(**value),
    "Judged": lambda value: Judged(**{**value, "rollout": rollout_of(value["rollout"])}),
}
