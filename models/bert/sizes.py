"""How large an encoder is and what it costs, by arithmetic alone: nothing is built."""

import math

from models.bert.config import EncoderConfig
from models.sizes import Flops, ParameterCount

EMBEDDINGS = ("embedding.weight", "positions.weight", "segments.weight")
NUM_SPAN_ENDS = 2
NUM_PAIR_CLASSES = 2


def parameter_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of every parameter."""
    D, E, F, V = config.width, config.embedding_size, config.hidden_width, config.vocab_size
    shapes: dict[str, tuple[int, ...]] = {
        "embedding.weight": (V, E),
        "positions.weight": (config.context + config.position_offset, E),
    }
    if config.num_segments:
        shapes["segments.weight"] = (config.num_segments, E)
    shapes |= _norm("embedding_norm", E)
    if config.embedding_width:
        shapes |= _linear("embedding_up", D, E)
    for i in range(config.num_blocks):
        for part in ("query", "key", "value", "output"):
            shapes |= _linear(f"blocks.{i}.attention.{part}", D, D)
        shapes |= _norm(f"blocks.{i}.attention_norm", D)
        shapes |= _linear(f"blocks.{i}.mlp.up", F, D) | _linear(f"blocks.{i}.mlp.down", D, F)
        shapes |= _norm(f"blocks.{i}.mlp_norm", D)
    if config.pooler != "none":
        shapes |= _linear("pooler", D, D)
    return shapes | _head_shapes(config)


def _head_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    D, E = config.width, config.embedding_size
    if config.head in ("masked_lm", "pretraining"):
        shapes = _linear("masked_lm.dense", E, D) | _norm("masked_lm.norm", E)
        shapes["masked_lm.bias"] = (config.vocab_size,)
        return shapes | (_linear("pair", NUM_PAIR_CLASSES, D) if config.head == "pretraining" else {})
    if config.head == "span":
        return _linear("span", NUM_SPAN_ENDS, D)
    if config.head in ("sequence_classification", "token_classification"):
        return _linear("classifier", config.num_labels, D)
    return _linear("classifier", 1, D) if config.head in ("multiple_choice", "reward") else {}


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def count_parameters(config: EncoderConfig) -> ParameterCount:
    """Exact counts, equal to what the built model holds."""
    sizes = {name: math.prod(shape) for name, shape in parameter_shapes(config).items()}
    total = sum(sizes.values())
    return ParameterCount(total, total - sum(sizes.get(name, 0) for name in EMBEDDINGS))


def flops_per_token(config: EncoderConfig, context: int | None = None) -> Flops:
    """Floating-point operations per token, forward and backward; `full` and `causal` are the same here.

    6 per matrix parameter as often as it is used (2 forward, 4 backward), plus 12 L D T for attention scores
    and values (Chowdhery et al. 2022, PaLM, appendix B). Layers that share a block each use it. The pooler
    and heads on it see one token of a sequence, the masked-LM head every token.
    """
    uses_of_block = config.num_layers // config.num_blocks
    context = context or config.context
    total = 0.0
    for name, shape in parameter_shapes(config).items():
        if len(shape) != 2 or name in EMBEDDINGS:
            continue
        once_per_sequence = name.startswith(("pooler.", "pair.")) or (
            name == "classifier.weight" and config.head != "token_classification"
        )
        uses = uses_of_block if name.startswith("blocks.") else 1 / context if once_per_sequence else 1
        total += math.prod(shape) * uses
    if config.head in ("masked_lm", "pretraining"):
        total += config.vocab_size * config.embedding_size
    flops = 6.0 * total + 12.0 * config.num_layers * config.width * context
    return Flops(flops, flops)
