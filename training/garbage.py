"""Python's garbage collector at agreed moments: ranks wait for the slowest, so all of them pause at once."""

import gc


class Garbage:
    """Within the `with`, young cycles are collected after every `every_steps` steps; 0 leaves it to Python.

    What lives after the first step (modules, compiled code) lives as long as the run: it is set aside, never
    to be looked through again.
    """

    def __init__(self, every_steps: int) -> None:
        self.every_steps = every_steps
        self._begun = False

    def __enter__(self) -> "Garbage":
        return self

    def after(self, step: int) -> None:
        """To be called at the end of a step."""
        if not self.every_steps:
            return
        if not self._begun:
            self._begun = True
            gc.collect()
            gc.freeze()
            gc.disable()
        elif step % self.every_steps == 0:
            # What a few steps left behind is young; looking through everything takes far longer.
            gc.collect(1)

    def __exit__(self, *_: object) -> None:
        if self._begun:
            gc.enable()
            gc.unfreeze()
