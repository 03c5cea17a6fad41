"""Garbage collection while training: at agreed steps, and as before when it is over."""

import gc
import weakref

from training.garbage import Garbage


class Cycle:
    """Dies by the collector alone."""

    def __init__(self):
        self.itself = self


def test_cycles_are_collected_at_agreed_steps_and_not_between():
    """Each rank would pause at a moment of its own, and all others wait for it each time."""
    before = gc.get_freeze_count()
    with Garbage(every_steps=4) as garbage:
        garbage.after(1)
        watched = weakref.ref(Cycle())
        _young = [[] for _ in range(5000)]
        garbage.after(2)
        garbage.after(3)
        assert not gc.isenabled()
        assert watched() is not None
        garbage.after(4)
        assert watched() is None
    assert gc.isenabled()
    assert gc.get_freeze_count() == before


def test_without_a_setting_python_collects_as_it_likes():
    with Garbage(every_steps=0) as garbage:
        garbage.after(1)
        assert gc.isenabled()
