"""Configurations of two ranks whose planned and measured figures are compared."""

from typing import Any

from training.config import Config
from training.recipes import make_config

NUM_RANKS = 2
# Most of it weights, activations or logits, at little computation: a figure of memory should not take long.
SHAPES: dict[str, dict[str, Any]] = {
    "weights": {"family": "gpt2", "num_layers": 4, "width": 1024, "num_heads": 16, "context": 32,
                "vocab_size": 32_768},
    "larger": {"family": "llama", "num_layers": 6, "width": 1280, "num_heads": 20, "num_kv_heads": 4,
               "mlp_width": 3584, "context": 32, "vocab_size": 32_000},
    "activations": {"family": "llama", "num_layers": 8, "width": 256, "num_heads": 4, "num_kv_heads": 2,
                    "mlp_width": 704, "context": 256, "vocab_size": 1024, "tie_embeddings": True},
    "vocabulary": {"family": "gpt2", "num_layers": 2, "width": 256, "num_heads": 4, "context": 256,
                   "vocab_size": 50_304},
    "tiny": {"family": "gpt2", "num_layers": 2, "width": 256, "num_heads": 4, "context": 128,
             "vocab_size": 4096},
}  # fmt: skip


def case(
    shape: str, engine: str, policy: str, micro_batch: int, accumulation: int = 1, **engine_settings: Any
) -> tuple[str, Config]:
    """(name, configuration)."""
    model = SHAPES[shape]
    tokens = NUM_RANKS * micro_batch * accumulation * model["context"]
    config = make_config(
        {
            "model": model,
            "batch": {"tokens_per_step": tokens, "micro_batch_size": micro_batch},
            "engine": {
                "name": engine,
                "num_ranks": NUM_RANKS,
                "threads_per_rank": 1,
                "device": "cpu",
                "precision": "fp32",
                "checkpointing": policy,
                **engine_settings,
            },
        }
    )
    extras = "".join(f", {name}={value}" for name, value in engine_settings.items())
    turns = f" x {accumulation}" if accumulation > 1 else ""
    return f"{shape}, {engine}, {policy}, micro-batch {micro_batch}{turns}{extras}", config


MEMORY = [
    case("weights", "ddp", "none", 2),
    case("weights", "ddp", "full", 8),
    case("weights", "ddp", "selective", 2, accumulation=2),
    case("weights", "fsdp", "none", 8),
    case("weights", "fsdp", "none", 4, accumulation=2, reshard_after_forward=False),
    case("weights", "zero1", "none", 2),
    case("weights", "zero2", "full", 8),
    case("weights", "zero3", "none", 8),
    case("larger", "fsdp", "full", 2),
    case("larger", "fsdp", "selective", 4, reshard_after_forward=False),
    case("larger", "zero1", "selective", 2),
    case("larger", "zero3", "full", 4),
    case("activations", "ddp", "none", 32),
    case("activations", "fsdp", "none", 32),
    case("activations", "fsdp", "selective", 64),
    case("activations", "zero2", "none", 32, accumulation=2),
    case("activations", "zero3", "none", 32),
    case("vocabulary", "ddp", "none", 8),
    case("vocabulary", "fsdp", "selective", 8),
    case("vocabulary", "zero1", "full", 8),
]
SPEED = [MEMORY[index] for index in (0, 1, 3, 8, 12, 13, 14, 17)]
QUICK = [case("tiny", "ddp", "none", 8), case("tiny", "fsdp", "full", 8)]
