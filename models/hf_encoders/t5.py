"""T5 as Hugging Face stores it."""

from collections.abc import Collection
from typing import Any

from models.hf.settings import Settings
from models.hf_encoders.format import Setting, expand, read_settings
from models.t5.config import T5Config
from models.t5.sizes import parameter_shapes

MLPS = {"relu": "relu", "gated-gelu": "gated_gelu"}
HEAD = "lm_head.weight"
# Of training, of another head, or said by `feed_forward_proj` already.
UNUSED = ("initializer_factor", "classifier_dropout", "dense_act_fn", "is_gated_act", "output_past")

SETTINGS = (
    Setting("num_layers", "num_layers"),
    Setting("num_decoder_layers", "num_decoder_layers", None),
    Setting("width", "d_model"),
    Setting("num_heads", "num_heads"),
    Setting("head_size", "d_kv"),
    Setting("mlp_width", "d_ff"),
    Setting("mlp", "feed_forward_proj", "relu"),
    Setting("context", "n_positions", 512),
    Setting("vocab_size", "vocab_size"),
    Setting("num_buckets", "relative_attention_num_buckets", 32),
    Setting("max_distance", "relative_attention_max_distance", 128),
    Setting("norm_eps", "layer_norm_epsilon", 1e-6),
    Setting("dropout", "dropout_rate", 0.1),
    Setting("start_id", "decoder_start_token_id", None),
)

# (theirs, ours), each with .weight; {up} is wi, or wi_1 beside a gate, which is wi_0.
ATTENTION = (("q", "query"), ("k", "key"), ("v", "value"), ("o", "output"))
MLP = (("wi_0", "gate"), ("{up}", "up"), ("wo", "down"))


def _stack(stack: str) -> tuple[tuple[str, str], ...]:
    """The names of the encoder or of the decoder, whose blocks have cross-attention as their second layer."""
    theirs, ours = f"{stack}.block.{{i}}.layer", f"{stack}.blocks.{{i}}"
    pairs = [
        (f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias", f"{stack}.relative_bias.table"),
        (f"{stack}.final_layer_norm", f"{stack}.norm"),
        (f"{theirs}.0.layer_norm", f"{ours}.attention_norm"),
    ]
    pairs += [(f"{theirs}.0.SelfAttention.{t}", f"{ours}.attention.{o}") for t, o in ATTENTION]
    last = 1
    if stack == "decoder":
        pairs.append((f"{theirs}.1.layer_norm", f"{ours}.cross_norm"))
        pairs += [(f"{theirs}.1.EncDecAttention.{t}", f"{ours}.cross.{o}") for t, o in ATTENTION]
        last = 2
    pairs.append((f"{theirs}.{last}.layer_norm", f"{ours}.mlp_norm"))
    pairs += [(f"{theirs}.{last}.DenseReluDense.{t}", f"{ours}.mlp.{o}") for t, o in MLP]
    return tuple(pairs)


PAIRS = (("shared", "embedding"), *_stack("encoder"), *_stack("decoder"), ("lm_head", "head"))


class T5Format:
    """See `models.hf_encoders.format.Format`."""

    architectures = ("T5ForConditionalGeneration", "T5WithLMHeadModel")
    # Old checkpoints give cross-attention a relative bias, which no version has read.
    leftovers = (r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",)

    def read(self, settings: Settings, names: Collection[str]) -> T5Config:
        """A model whose logits are scaled has the embedding as its head; else the file may hold another."""
        settings.only("feed_forward_proj", *MLPS)
        settings.only("is_encoder_decoder", True)
        for key in UNUSED:
            settings.get(key, None)
        fields = read_settings(SETTINGS, settings)
        fields["mlp"] = MLPS[fields["mlp"]]
        fields["family"] = "t5_v1_1" if fields["mlp"] == "gated_gelu" else "t5"
        fields["num_decoder_layers"] = fields["num_decoder_layers"] or 0
        if fields["start_id"] is None:
            fields["start_id"] = settings.get("pad_token_id", None) or 0
        fields["dropout"] = float(fields["dropout"])
        tied = settings.get("tie_word_embeddings", True)
        fields["scale_logits"] = settings.get("scale_decoder_outputs", tied)
        fields["tie_embeddings"] = HEAD not in names or (tied and fields["scale_logits"])
        return T5Config(**fields)

    def write(self, config: T5Config) -> dict[str, Any]:
        """Whether logits are scaled is said twice: older readers infer it from the tied head."""
        fields = self.resolved(config)
        fields["mlp"] = next(theirs for theirs, ours in MLPS.items() if ours == config.mlp)
        settings = {key: fields[field] for field, key, _ in SETTINGS}
        return settings | {
            "model_type": "t5",
            "architectures": [self.architectures[0]],
            "is_encoder_decoder": True,
            "pad_token_id": config.start_id,
            "tie_word_embeddings": config.tie_embeddings,
            "scale_decoder_outputs": config.scale_logits,
        }

    def shapes(self, config: T5Config) -> dict[str, tuple[int, ...]]:
        return parameter_shapes(config)

    def names(self, config: T5Config) -> dict[str, str]:
        up = "wi_1" if config.mlp == "gated_gelu" else "wi"
        num_blocks = max(config.num_layers, config.decoder_layers)
        return expand(PAIRS, parameter_shapes(config), num_blocks, up=up)

    def resolved(self, config: T5Config) -> dict[str, Any]:
        fields = config.model_dump(exclude={"family"})
        return fields | {"mlp_width": config.hidden_width, "num_decoder_layers": config.decoder_layers}

    def copies(self, config: T5Config) -> dict[str, str]:
        repeated = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
        return dict.fromkeys([*repeated, *([HEAD] if config.tie_embeddings else [])], "embedding.weight")
