"""Errors that a user can act on, and the exit code that each one means.

Exit codes: 0 done, 2 usage or configuration, 3 bad data, 4 training failed,
5 preempted with a checkpoint saved, 1 anything else.
"""

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_OTHER = 1
EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_TRAINING = 4
EXIT_PREEMPTED = 5
# Between a worker and its supervisor alone.
EXIT_ROLLED_BACK = 6
EXIT_CORRUPTED = 7


class SeedbedError(Exception):
    """A mistake or a fault that is explained to the user without a traceback.

    `fix` is one sentence that says what to do about it.
    """

    exit_code = EXIT_OTHER

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message


class UsageError(SeedbedError):
    """A wrong flag, path or combination of settings."""

    exit_code = EXIT_USAGE


class ConfigError(UsageError):
    """A configuration that cannot be honoured."""


class DataError(SeedbedError):
    """Input that is missing, damaged or not what it claims to be."""

    exit_code = EXIT_DATA


class Unreadable(DataError):
    """A file that may well be sound and cannot be read: its permissions, or its disk."""

    @classmethod
    def because(cls, path: object, error: OSError) -> "Unreadable":
        """What the operating system said of `path`."""
        return cls(
            f"{path} cannot be read: {error.strerror or error}",
            "check its owner and permissions, and that its disk is mounted and sound",
        )


class TooLittleData(DataError):
    """A split that does not hold a single sample."""


class CheckpointError(DataError):
    """A checkpoint that fails its hashes, is incomplete, or fits another model."""


class DamagedError(CheckpointError):
    """A checkpoint whose bytes are not those that were written: missing, cut short or altered."""


class TrainingError(SeedbedError):
    """Training itself went wrong: non-finite numbers, no progress."""

    exit_code = EXIT_TRAINING


class Preempted(SeedbedError):
    """The run was asked to stop; a checkpoint holds everything that it did."""

    exit_code = EXIT_PREEMPTED


class StoppedUnsaved(SeedbedError):
    """The run was asked to stop before there was a checkpoint: no failure, and nothing to go on from."""


class Corrupted(SeedbedError):
    """A processor gave two results for the same work."""

    exit_code = EXIT_CORRUPTED


class RolledBack(SeedbedError):
    """The run goes on from an earlier step; workers end, to be started again."""

    exit_code = EXIT_ROLLED_BACK


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The entry of `known` that `word` most likely meant, or None."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def did_you_mean(word: str, known: Iterable[str], otherwise: str, quoted: str = "{}") -> str:
    """How to mend `word`: the nearest of `known`, as `quoted` sets it, or else what there is."""
    found = nearest(word, known)
    return f"did you mean {quoted.format(found)}?" if found else otherwise
