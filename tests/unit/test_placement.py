"""What fits on which hosts, what is said when it does not, and whose turn it is."""

from types import SimpleNamespace

import pytest

from cluster.placement import Host, Placement, check_feasible, decide, take
from cluster.submission import _placed_anew, check_plan
from seedbed.errors import UsageError


def host(name, cpus, used=0, gpus=0):
    total = {"CPU": float(cpus), "GPU": float(gpus)}
    return Host(name, total, {"CPU": float(cpus - used), "GPU": float(gpus)})


HOSTS = [host("a", 2), host("b", 2, used=1), host("c", 1)]


@pytest.mark.parametrize(
    ("placement", "now", "alone"),
    [
        (Placement([1, 2, 3]), 3, 3),
        (Placement([5]), 0, 5),
        (Placement([6]), 0, 0),
        (Placement([1, 2, 3], strategy="strict-spread"), 3, 3),
        (Placement([1, 2, 3], strategy="strict-pack"), 2, 2),
        (Placement([2], cpus=2.0), 0, 2),
        (Placement([1], gpus=1.0), 0, 0),
        (Placement([8], cpus=0.5), 8, 8),
    ],
)
def test_the_largest_number_of_workers_for_which_there_is_room(placement, now, alone):
    """An elastic run would wait for more than there is, or take less."""
    assert (placement.largest(HOSTS), placement.largest(HOSTS, free=False)) == (now, alone)


def test_what_is_infeasible_is_told_with_what_is_missing_and_what_would_fit():
    """A run would be pending for ever, and nobody would know why."""
    with pytest.raises(UsageError) as refused:
        check_feasible(Placement([4], strategy="strict-spread"), HOSTS)
    assert "4 hosts are needed and 3 could take one, 1 more" in refused.value.message
    assert "--workers 3 --placement strict-spread" in refused.value.fix
    with pytest.raises(UsageError) as refused:
        check_feasible(Placement([9]), HOSTS)
    assert "there is room for 5, 4 too few" in refused.value.message
    with pytest.raises(UsageError) as refused:
        check_feasible(Placement([1], gpus=1.0), HOSTS)
    assert "no host can take even one worker: the largest has 2 CPU and 0 GPU" in refused.value.fix


def test_who_is_first_is_not_overtaken_and_who_never_fits_holds_nobody_up():
    """A large run would starve behind small ones, or a cluster stand still behind one that it cannot run."""
    line = [("huge", 9, Placement([7])), ("large", 5, Placement([5])), ("small", 0, Placement([1]))]
    starting, reasons = decide(line, HOSTS)
    assert starting == []
    assert "do not fit: there is room for 5, 2 too few" in reasons["huge"]
    assert (
        "next in the queue: needs 5 workers with 1 CPU each, pack; free now: a 2 of 2 CPU" in reasons["large"]
    )
    assert reasons["small"] == "3 of 3 in the queue (priority 0), behind large"


def test_what_starts_together_does_not_take_the_same_room():
    """Two runs would each hold part of what they need."""
    line = [(name, 0, Placement([2])) for name in "xyz"]
    starting, reasons = decide(line, HOSTS)
    assert starting == ["x", "y"]
    assert "next in the queue" in reasons["z"]
    left = take(HOSTS, Placement([3], strategy="strict-spread"), 3)
    assert sum(host.free["CPU"] for host in left) == 1


@pytest.mark.parametrize(
    ("gpus", "fits"),
    [
        ({"GPU": 8.0, "accelerator_type:H100": 1.0}, False),
        ({"GPU": 8.0, "accelerator_type:H200": 1.0}, True),
        ({"GPU": 8.0, "accelerator_type:SOMETHING-NEW": 1.0}, True),
        ({"CPU": 8.0}, False),
    ],
)
def test_a_run_that_does_not_fit_its_gpus_is_refused_unless_forced(gpus, fits):
    """It would wait in the queue for hours, and run out of memory in its first step."""
    plan = {
        "device": "cuda",
        "memory_bytes_per_device": {"total": 100e9},
        "checkpoint_bytes": 1,
        "checkpoints_kept": 1,
        "disk_free_bytes": 10,
    }
    there = [Host("a", gpus, gpus)]
    check_plan(plan, there, force=True)
    if fits:
        check_plan(plan, there, force=False)
    else:
        with pytest.raises(UsageError, match=r"a worker needs 100\.0 GB of memory, the largest GPU has"):
            check_plan(plan, there, force=False)


@pytest.mark.parametrize(("beside", "sizes"), [(0, [1, 2]), (1, [2, 3]), (3, [4, 5])])
def test_a_run_that_goes_on_has_room_for_the_workers_beside_its_ranks_of_now(beside, sizes):
    """Else they would be taken from its ranks, or make ranks of their places."""
    run = SimpleNamespace(config=lambda: SimpleNamespace(num_beside=beside))
    stored = Placement([2, 3], cpus=0.5, beside=1).as_dict()
    # As it was called in what was submitted before.
    submission = {"placement": {"scoring": stored.pop("beside"), **stored}}
    assert Placement.read(_placed_anew(run, submission)) == Placement(sizes, cpus=0.5, beside=beside)
