"""What an encoder is made of: the `[model]` section of a configuration for the BERT family.

A family is a named set of parts, as for decoders; each part can also be chosen by itself. The head is part
of the configuration, so that the parameters of a run follow from its configuration alone.
"""

from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from seedbed.settings import STRICT

FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"num_segments": 1, "positions": "after_padding", "pad_id": 1, "norm_eps": 1e-5},
    "albert": {
        "embedding_width": 128,
        "num_groups": 1,
        "activation": "gelu_tanh",
        "dropout": 0.0,
        "attention_dropout": 0.0,
    },
    "distilbert": {"num_layers": 6, "num_segments": 0, "pooler": "none"},
}

Head = Literal[
    "none",
    "masked_lm",
    "pretraining",
    "sequence_classification",
    "token_classification",
    "span",
    "multiple_choice",
    "reward",
]
HEADS_ON_POOLER = ("pretraining", "sequence_classification", "multiple_choice", "reward")
"""Heads that judge a whole sequence, and so read the pooled state of its first token."""


class EncoderConfig(BaseModel):
    """A bidirectional transformer with post-norm blocks (Devlin et al. 2018, BERT)."""

    model_config = STRICT

    family: Literal["bert", "roberta", "albert", "distilbert"] = "bert"
    """The named set of parts that the fields below default to."""
    num_layers: int = Field(12, ge=1, le=10_000)
    """Transformer blocks that a token goes through."""
    num_groups: int = Field(0, ge=0)
    """Groups of consecutive layers that share one block's parameters; 0 means that nothing is shared."""
    width: int = Field(768, ge=1, le=10**7)
    """Size of the residual stream, D."""
    embedding_width: int = Field(0, ge=0)
    """Size of the embeddings, E, before they are projected to D; 0 means D itself, without a projection."""
    num_heads: int = Field(12, ge=1)
    """Attention heads, H."""
    mlp_width: int = Field(0, ge=0)
    """Hidden size of the MLP, F; 0 means 4 D."""
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    """Nonlinearity of the MLP and of the masked-LM head: GELU in its erf or tanh form, or ReLU."""
    context: int = Field(512, ge=2, le=10**9)
    """Longest sequence in tokens, T."""
    vocab_size: int = Field(0, ge=0)
    """Rows of the embedding, V; 0 means the tokenizer's. More than the tokenizer's is padding."""
    num_segments: int = Field(2, ge=0)
    """Rows of the segment embedding (sentence A, sentence B); 0 means none."""
    positions: Literal["from_zero", "after_padding"] = "from_zero"
    """Positions count from row 0, or (RoBERTa) valid tokens count from row `pad_id` + 1, padding's row."""
    pad_id: int = Field(0, ge=0)
    """Token of padding."""
    norm_eps: float = Field(1e-12, gt=0)
    """Added to the variance in a LayerNorm."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Probability of zeroing, after the embedding and at the end of each sub-layer."""
    attention_dropout: float = Field(0.1, ge=0, lt=1)
    """Probability of zeroing an attention weight."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth: probability of leaving out a sub-layer of the last block, less in those before it."""
    head_dropout: float = Field(0.1, ge=0, lt=1)
    """Probability of zeroing before a fine-tuning head's last layer."""
    pooler: Literal["tanh", "relu", "none"] = "tanh"
    """Nonlinearity of the dense layer on the first token's state, or no such layer."""
    initialization: Literal["bert", "lecun", "xavier", "he", "orthogonal"] = "bert"
    """Initial matrices: normal of deviation 0.02, or by their inputs and outputs."""
    head: Head = "none"
    """What comes out: hidden states, or one of the pretraining and fine-tuning heads."""
    num_labels: int = Field(0, ge=0)
    """Classes of sequence and token classification; 0 means those of the data."""

    @model_validator(mode="before")
    @classmethod
    def _parts_of_family(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        family = FAMILIES.get(given.get("family", "bert"), {})
        if given.get("family") == "distilbert" and given.get("head") in HEADS_ON_POOLER:
            family = {**family, "pooler": "relu", "head_dropout": 0.2}
        return {**family, **given}

    @model_validator(mode="after")
    def _fits_together(self) -> "EncoderConfig":
        if self.width % self.num_heads:
            raise ValueError(
                f"model.width = {self.width} is not divisible by model.num_heads = {self.num_heads}; "
                f"the nearest width that is: {max(1, round(self.width / self.num_heads)) * self.num_heads}"
            )
        if self.num_groups and self.num_layers % self.num_groups:
            raise ValueError(
                f"model.num_layers = {self.num_layers} is not divisible by "
                f"model.num_groups = {self.num_groups}"
            )
        if self.pooler == "none" and self.head in HEADS_ON_POOLER:
            raise ValueError(f'model.head = "{self.head}" reads the pooler: set model.pooler to "tanh"')
        if self.vocab_size and self.pad_id >= self.vocab_size:
            raise ValueError(
                f"model.pad_id = {self.pad_id} lies outside model.vocab_size = {self.vocab_size}"
            )
        return self

    @property
    def head_size(self) -> int:
        """K = D / H."""
        return self.width // self.num_heads

    @property
    def hidden_width(self) -> int:
        """Hidden size of the MLP, with 0 resolved."""
        return self.mlp_width or 4 * self.width

    @property
    def embedding_size(self) -> int:
        """Size of the embeddings, with 0 resolved."""
        return self.embedding_width or self.width

    @property
    def num_blocks(self) -> int:
        """Blocks that hold parameters: as many as layers, or as groups that share them."""
        return self.num_groups or self.num_layers

    @property
    def position_offset(self) -> int:
        """Row of the position table that the first token takes."""
        return self.pad_id + 1 if self.positions == "after_padding" else 0
