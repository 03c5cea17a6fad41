"""What a T5 is made of: the `[model]` section of a configuration for encoder-decoders."""

from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from seedbed.settings import STRICT

FAMILIES: dict[str, dict[str, Any]] = {
    "t5": {},
    "t5_v1_1": {"mlp": "gated_gelu", "tie_embeddings": False, "scale_logits": False},
}


class T5Config(BaseModel):
    """An encoder-decoder with relative positions (Raffel et al. 2020, "Exploring the limits ...", T5)."""

    model_config = STRICT

    family: Literal["t5", "t5_v1_1"] = "t5"
    """The named set of parts that the fields below default to; the defaults are t5-small's."""
    num_layers: int = Field(6, ge=1, le=10_000)
    """Blocks of the encoder."""
    num_decoder_layers: int = Field(0, ge=0, le=10_000)
    """Blocks of the decoder; 0 means as many as `num_layers`."""
    width: int = Field(512, ge=1, le=10**7)
    """Size of the residual stream, D."""
    num_heads: int = Field(8, ge=1)
    """Attention heads, H."""
    head_size: int = Field(64, ge=1)
    """Size of a head, K; H K need not be D."""
    mlp_width: int = Field(0, ge=0)
    """Hidden size of the MLP, F; 0 means 4 D."""
    mlp: Literal["relu", "gated_gelu"] = "relu"
    """ReLU with two matrices, or a GELU-gated unit with three."""
    context: int = Field(512, ge=2, le=10**9)
    """Tokens of a training sequence; relative positions put no limit on how long one may be."""
    vocab_size: int = Field(0, ge=0)
    """Rows of the embedding, V; 0 means the tokenizer's. More than the tokenizer's is padding."""
    num_buckets: int = Field(32, ge=4)
    """Distances that are told apart."""
    max_distance: int = Field(128, ge=2)
    """Distances from here on share a bucket."""
    tie_embeddings: bool = True
    """The output head is the embedding's transpose."""
    scale_logits: bool = True
    """The last hidden state is divided by sqrt(D) before the head."""
    norm_eps: float = Field(1e-6, gt=0)
    """Added to the mean square in an RMSNorm."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Probability of zeroing: embeddings, attention weights, hidden MLP units, sub-layers and stacks."""
    start_id: int = Field(0, ge=0)
    """Token that the decoder begins with; T5 takes that of padding."""

    @model_validator(mode="before")
    @classmethod
    def _parts_of_family(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {**FAMILIES.get(given.get("family", "t5"), {}), **given}

    @model_validator(mode="after")
    def _fits_together(self) -> "T5Config":
        if self.num_buckets % 4:
            raise ValueError(f"model.num_buckets = {self.num_buckets} is not divisible by 4")
        if self.max_distance <= self.num_buckets // 2:
            raise ValueError(
                f"model.max_distance = {self.max_distance} must be more than model.num_buckets / 2 = "
                f"{self.num_buckets // 2}"
            )
        if self.vocab_size and self.start_id >= self.vocab_size:
            raise ValueError(
                f"model.start_id = {self.start_id} lies outside model.vocab_size = {self.vocab_size}"
            )
        return self

    @property
    def hidden_width(self) -> int:
        """Hidden size of the MLP, with 0 resolved."""
        return self.mlp_width or 4 * self.width

    @property
    def decoder_layers(self) -> int:
        """Blocks of the decoder, with 0 resolved."""
        return self.num_decoder_layers or self.num_layers

    @property
    def attention_width(self) -> int:
        """H K, all heads side by side."""
        return self.num_heads * self.head_size
