"""From the one batch setting to who computes what.

A global batch is M micro-batches of a fixed size; micro-batch i belongs to rank i mod W at turn
i div W. A rank without one in the last turn runs a micro-batch of weight zero, so that all ranks
take part in the same collectives. In exact mode lanes of consecutive micro-batches can take their place.
"""

from dataclasses import dataclass

from seedbed.errors import ConfigError
from training.config import Config


@dataclass(frozen=True)
class BatchLayout:
    """How one optimizer step is divided."""

    micro_batch_size: int
    """Sequences in a micro-batch."""
    num_micro_batches: int
    """M: micro-batches in a step."""
    num_ranks: int
    """W."""
    num_leaves: int
    """Runs of consecutive micro-batches that stay on one rank: M, but for `engine.exact_lanes`."""

    @property
    def micro_batches_per_leaf(self) -> int:
        """Micro-batches that are added up on one rank before ranks share anything."""
        return self.num_micro_batches // self.num_leaves

    @property
    def samples_per_step(self) -> int:
        """Sequences in a step: what one step adds to the data position."""
        return self.micro_batch_size * self.num_micro_batches

    @property
    def turns(self) -> int:
        """Micro-batches that each rank runs in a step, empty ones included."""
        return -(-self.num_leaves // self.num_ranks) * self.micro_batches_per_leaf

    def micro_batch(self, rank: int, turn: int) -> int | None:
        """The index of the micro-batch of `rank` at `turn`, or None when there is none left."""
        leaf_turn, within = divmod(turn, self.micro_batches_per_leaf)
        leaf = leaf_turn * self.num_ranks + rank
        return leaf * self.micro_batches_per_leaf + within if leaf < self.num_leaves else None


def batch_layout(config: Config) -> BatchLayout:
    """The layout for `config`; raises ConfigError when no whole number of micro-batches makes the batch."""
    micro_tokens = config.batch.micro_batch_size * config.model.context
    tokens = config.batch.tokens_per_step
    if tokens % micro_tokens:
        below, above = tokens // micro_tokens * micro_tokens, -(-tokens // micro_tokens) * micro_tokens
        choices = " or ".join(str(choice) for choice in (below, above) if choice)
        raise ConfigError(
            f"batch.tokens_per_step = {tokens} is not a multiple of batch.micro_batch_size x model.context "
            f"= {config.batch.micro_batch_size} x {config.model.context} = {micro_tokens}",
            f"set batch.tokens_per_step to {choices}, or change the micro-batch size",
        )
    num_micro_batches = tokens // micro_tokens
    num_leaves = config.engine.exact_lanes or num_micro_batches
    if num_micro_batches % num_leaves:
        raise ConfigError(
            f"engine.exact_lanes = {num_leaves} does not divide the {num_micro_batches} micro-batches "
            "of a step",
            "set it to a divisor, or leave it out",
        )
    if config.engine.num_ranks > num_leaves:
        lanes = " in engine.exact_lanes" if config.engine.exact_lanes else ""
        raise ConfigError(
            f"engine.num_ranks = {config.engine.num_ranks} is more than the {num_leaves} "
            f"micro-batch(es) of a step{lanes} (batch.tokens_per_step = {tokens}, batch.micro_batch_size = "
            f"{config.batch.micro_batch_size}, model.context = {config.model.context})",
            f"use at most {num_leaves} ranks, a smaller batch.micro_batch_size, "
            "or a larger batch.tokens_per_step",
        )
    return BatchLayout(config.batch.micro_batch_size, num_micro_batches, config.engine.num_ranks, num_leaves)
