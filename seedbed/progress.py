"""A progress bar on a terminal's stderr, and silence anywhere else."""

import sys
import time
from types import TracebackType
from typing import TextIO


def human_time(seconds: float) -> str:
    """45 s, 3 min 20 s, 5 h 12 min, 3 d 4 h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def human_count(value: float) -> str:
    """950, 1.2k, 3.4M, 5.6B, 7.8T."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def human_bytes(value: float) -> str:
    """950 B, 1.2 MiB, 3.4 GiB."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if abs(value) >= 1024**power:
            return f"{value / 1024**power:.1f} {unit}"
    return f"{value:.0f} B"


class Progress:
    """`with Progress("tokenize", total, "B") as bar: bar.advance(n)`.

    Shows share, rate and time left when `stream` is a terminal; prints nothing otherwise.
    """

    REFRESH_S = 0.1
    WIDTH = 24

    def __init__(self, label: str, total: float, unit: str = "", stream: TextIO | None = None) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0.0
        self.note = ""
        self._stream = sys.stderr if stream is None else stream
        self._shown = self._stream.isatty()
        self._started = self._last = time.monotonic()
        self._initial = 0.0

    def start_at(self, done: float) -> None:
        """Begin part of the way, without counting that part into the rate."""
        self.done = self._initial = done

    def advance(self, amount: float = 1.0) -> None:
        self.done += amount
        if self._shown and time.monotonic() - self._last >= self.REFRESH_S:
            self.draw()

    def clear(self) -> None:
        """Take the bar off the screen, so that a line can be printed."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def draw(self) -> None:
        if not self._shown:
            return
        self._last = time.monotonic()
        share = min(1.0, self.done / self.total) if self.total else 0.0
        rate = (self.done - self._initial) / max(1e-9, self._last - self._started)
        left = human_time((self.total - self.done) / rate) if rate > 0 else "?"
        filled = round(share * self.WIDTH)
        bar = "█" * filled + "░" * (self.WIDTH - filled)
        shown = f"{self.label} {bar} {share:4.0%} {human_count(rate)}{self.unit}/s, {left} left {self.note}"
        self._stream.write(f"\r\x1b[K{shown}")
        self._stream.flush()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
