"""A run on the terminal: one line every few steps, a progress bar below it."""

import contextlib
import sys
from typing import Any, TextIO

from seedbed.progress import Progress, human_bytes, human_count, human_time
from training.config import Config
from training.metrics import scores_of, scores_text


class Console:
    """Prints rows and events of a run as they come. Shows; decides nothing."""

    SHOWN_EVENTS = (
        "worker_died",
        "restarted",
        "hang",
        "step_skipped",
        "spike",
        "rolled_back",
        "copy_failed",
        "silent_corruption",
        "slow_rank",
        "checkpoint_quarantined",
        "checkpoint_failed",
        "tracking_off",
        "not_compiled",
        "profiled",
        "not_profiled",
        "stopped_early",
        "best_restored",
        "over_optimised",
        "reward_in_doubt",
    )

    def __init__(self, config: Config, stream: TextIO | None = None) -> None:
        self.config = config
        self.stream = sys.stderr if stream is None else stream
        self.bar = Progress("train", config.run.steps, " steps", self.stream)
        self._recent: list[float] = []
        self._goodput = 0.0

    def line(self, text: str) -> None:
        """Print one line above the bar."""
        # A closed terminal or a full log must not stop the run that is being shown.
        with contextlib.suppress(OSError, ValueError):
            self.bar.clear()
            print(text, file=self.stream, flush=True)
            self.bar.draw()

    def row(self, row: dict[str, Any]) -> None:
        """Show one row of metrics."""
        kind, step = row["kind"], row["step"]
        if kind == "train":
            self._train_row(row)
        elif kind == "eval":
            scores = scores_text(scores_of(row))
            self.line(
                f"step {step:>6}  validation loss {row['val_loss']:.4f}  "
                f"{scores + '  ' if scores else ''}({row['eval_s']:.1f} s)"
            )
        elif kind == "checkpoint":
            self.line(
                f"step {step:>6}  checkpoint saved: {human_bytes(row['bytes'])}, training blocked "
                f"{row['blocked_s'] * 1000:.0f} ms, written in {row['written_s']:.2f} s, state {row['state']}"
            )

    def _train_row(self, row: dict[str, Any]) -> None:
        step = row["step"]
        if self.bar.done == 0 or step <= self.bar.done:
            self.bar.start_at(step - 1)
        self.bar.done = step - 1
        loss = "not a number" if row["loss"] is None else f"{row['loss']:.4f}"
        self.bar.note = f"loss {loss}"
        with contextlib.suppress(OSError, ValueError):
            self.bar.advance()
        self._recent = [*self._recent[-19:], row["step_s"]]
        if step % self.config.tracking.log_every and step not in (1, self.config.run.steps):
            return
        step_s = sum(self._recent) / len(self._recent)
        left = human_time((self.config.run.steps - step) * step_s)
        self.line(
            f"step {step:>6}/{self.config.run.steps}  loss {loss}  lr {row['lr']:.2e}  "
            f"{human_count(self.config.batch.tokens_per_step / step_s)} tokens/s  {_mfu(row)}  "
            f"{human_bytes(row['memory_bytes'])}  {left} left  goodput {row['goodput']:.0%}"
        )

    def event(self, event: dict[str, Any]) -> None:
        """Show one event, if a user would want to know."""
        if event.get("kind") in self.SHOWN_EVENTS:
            self.line(f"! {event.get('message', '')}")
        elif event.get("kind") == "attempt_started":
            self.line(
                f"attempt {event['attempt']}: {event['message']} on {event['num_ranks']} rank(s); "
                f"MFU: {event.get('peak_source', '')}; matrix products reach "
                f"{event.get('matmul_flops', 0) / 1e12:.3g} TFLOP/s"
            )

    def close(self) -> None:
        """Take the bar off the screen."""
        with contextlib.suppress(OSError, ValueError):
            self.bar.clear()


def _mfu(row: dict[str, Any]) -> str:
    if row.get("mfu_full") is None:
        return "MFU unknown"
    return f"MFU {row['mfu_full']:.0%} full {row['mfu_causal']:.0%} causal"
