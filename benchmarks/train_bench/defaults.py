"""Tokens per second beside the same peers, each as its own documentation recommends.

LitGPT compiles and computes under bf16 autocast; the Trainer and Accelerate do neither; Seedbed takes bf16
where the processor has it. On one without bf16 instructions LitGPT is told fp32: its default takes minutes a
step.
"""

from typing import Any

from train_bench.throughput import compare


def run(quick: bool) -> dict[str, Any]:
    """See `throughput.run`."""
    return compare("recommended", quick)
