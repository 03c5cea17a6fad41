"""How large a T5 is and what it costs, by arithmetic alone: nothing is built."""

import math

from models.sizes import Flops, ParameterCount
from models.t5.config import T5Config


def parameter_shapes(config: T5Config) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of every parameter."""
    D = config.width
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (config.vocab_size, D)}
    for stack, num_layers in (("encoder", config.num_layers), ("decoder", config.decoder_layers)):
        shapes[f"{stack}.relative_bias.table.weight"] = (config.num_buckets, config.num_heads)
        for i in range(num_layers):
            for name, shape in _block_shapes(config, is_decoder=stack == "decoder").items():
                shapes[f"{stack}.blocks.{i}.{name}.weight"] = shape
        shapes[f"{stack}.norm.weight"] = (D,)
    if not config.tie_embeddings:
        shapes["head.weight"] = (config.vocab_size, D)
    return shapes


def _block_shapes(config: T5Config, *, is_decoder: bool) -> dict[str, tuple[int, ...]]:
    D, F, A = config.width, config.hidden_width, config.attention_width
    shapes: dict[str, tuple[int, ...]] = {}
    for attention in ("attention", "cross") if is_decoder else ("attention",):
        shapes[f"{attention}_norm"] = (D,)
        shapes |= {f"{attention}.{part}": (A, D) for part in ("query", "key", "value")}
        shapes[f"{attention}.output"] = (D, A)
    shapes["mlp_norm"] = (D,)
    if config.mlp == "gated_gelu":
        shapes["mlp.gate"] = (F, D)
    return shapes | {"mlp.up": (F, D), "mlp.down": (D, F)}


def count_parameters(config: T5Config) -> ParameterCount:
    """Exact counts, equal to what the built model holds."""
    sizes = {name: math.prod(shape) for name, shape in parameter_shapes(config).items()}
    outside = sizes["embedding.weight"] + sizes.get("head.weight", 0)
    return ParameterCount(sum(sizes.values()), sum(sizes.values()) - outside)


def flops_per_token(config: T5Config, context: int | None = None) -> Flops:
    """Operations per source token with one target token beside it, forward and backward.

    6 per matrix parameter and token (2 forward, 4 backward), plus 12 A T for each attention's scores and
    values, with A = H K; `causal` halves that of the decoder's self-attention.
    """
    context = context or config.context
    matrices = sum(
        math.prod(shape)
        for name, shape in parameter_shapes(config).items()
        if len(shape) == 2 and "relative_bias" not in name and name not in ("embedding.weight", "head.weight")
    )
    matrices += config.vocab_size * config.width
    per_attention = 12.0 * config.attention_width * context
    full = 6.0 * matrices + per_attention * (config.num_layers + 2 * config.decoder_layers)
    return Flops(full, full - per_attention / 2 * config.decoder_layers)
