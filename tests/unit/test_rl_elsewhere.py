"""What is sent to workers that only score, and comes back: the same bits, in pieces or whole."""

import math
import threading

import pytest
import torch
import torch.distributed as dist

from seedbed.errors import SeedbedError
from training.rl import elsewhere
from training.rl.elsewhere import Elsewhere, Line, answer, questions
from training.rl.outcomes import Reward
from training.rl.rollouts import Rollout
from training.rl.sources import Judged

ROLLOUT = Rollout(3, (1, 2), (5, 6), (-0.1, -1e-320), "abc", True)
ITEMS = [
    ROLLOUT,
    ROLLOUT.with_reward(Reward({"accuracy": 1 / 3}, deviation=0.1)),
    Judged(ROLLOUT, "an answer \U0001f600 \u2028", "prompt", " response\n"),
    Reward(failure="timeout", detail="ten seconds"),
]


def still():
    pass


def served(store, rank, method):
    """A worker that answers with what `method` makes of the items."""

    def serve():
        for number, asked in questions(store, rank, still):
            seen.append((rank, asked.role, asked.method, len(asked.items)))
            answer(store, rank, number, method(asked.items))

    seen = []
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread, seen


@pytest.mark.parametrize("part_bytes", [1 << 22, 7])
def test_what_is_sent_keeps_its_bits(monkeypatch, part_bytes):
    monkeypatch.setattr(elsewhere, "PART_BYTES", part_bytes)
    store = dist.HashStore()
    values = torch.tensor([1 / 3, -0.0, math.nan, -math.inf, 1e-45, 3.4e38])
    # The second worker sends back what it was given, the first numbers.
    first, _ = served(store, 2, lambda items: [values for _ in items])
    second, seen = served(store, 3, lambda items: items)
    line = Line(store, (2, 3), 20.0, still)
    found = Elsewhere("judge", line).ask("of_block", [ITEMS[:1], ITEMS, ITEMS[:2]])
    assert found[1] == ITEMS
    for row in (*found[0], *found[2]):
        assert row.dtype == torch.float32
        assert torch.equal(row.view(torch.int32), values.view(torch.int32))
    assert sorted(found) == [0, 1, 2]
    line.close()
    first.join()
    second.join()
    assert seen == [(3, "judge", "of_block", 4)]
    assert not store.check(["scoring/2/0"])
    assert store.num_keys() == 0


def test_a_worker_that_does_not_answer_is_named():
    line = Line(dist.HashStore(), (5,), 0.1, still)
    with pytest.raises(SeedbedError, match="worker 5, beside the ranks, has not answered") as raised:
        line.ask("reference", "log_probs", [ITEMS[:1]])
    assert "rank-5.log" in raised.value.fix


def test_a_store_that_is_gone_is_no_end():
    """A worker that ended as if all were well would be missed for minutes."""
    server = dist.TCPStore("127.0.0.1", 0, 1, is_master=True, wait_for_workers=False)
    client = dist.TCPStore("127.0.0.1", server.port, 1, is_master=False, wait_for_workers=False)
    found: list[BaseException] = []

    def wait():
        try:
            next(questions(client, 1, still))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    del server
    thread.join(20)
    assert isinstance(found[0], SeedbedError)
