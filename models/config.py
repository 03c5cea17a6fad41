"""What a model is made of: the `[model]` section of a configuration.

A family is a named set of parts (norm, positions, MLP, biases, tied head); every part can
also be chosen by itself, so a new combination is a line of configuration, not a new class.
"""

from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from seedbed.settings import STRICT

FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"norm": "layer", "positions": "learned", "mlp": "gelu", "bias": True, "tie_embeddings": True},
    "llama": {"norm": "rms", "positions": "rope", "mlp": "swiglu", "bias": False, "tie_embeddings": False},
}


class ModelConfig(BaseModel):
    """A decoder-only transformer."""

    model_config = STRICT

    family: Literal["gpt2", "llama"] = "gpt2"
    """The named set of parts that the fields below default to."""
    num_layers: int = Field(12, ge=1, le=10_000)
    """Transformer blocks."""
    width: int = Field(768, ge=1, le=10**7)
    """Size of the residual stream, D."""
    num_heads: int = Field(12, ge=1)
    """Attention heads, H."""
    num_kv_heads: int = Field(0, ge=0)
    """Heads of keys and values; 0 means as many as `num_heads`, fewer is grouped-query attention."""
    mlp_width: int = Field(0, ge=0)
    """Hidden size of the MLP; 0 means 4 D, or 8/3 D rounded up to a multiple of 64 for SwiGLU."""
    context: int = Field(1024, ge=2, le=10**9)
    """Longest sequence in tokens, T."""
    vocab_size: int = Field(0, ge=0)
    """Rows of the embedding, V; 0 means the tokenizer's. More than the tokenizer's is padding."""
    norm: Literal["layer", "rms"] = "layer"
    """LayerNorm or RMSNorm, before each sub-layer."""
    norm_eps: float = Field(1e-5, gt=0)
    """Added to the variance (or mean square) in a norm."""
    positions: Literal["learned", "rope"] = "learned"
    """A learned table added to the embedding, or rotary embedding of queries and keys."""
    rope_base: float = Field(10_000.0, gt=1)
    """Base of the rotary frequencies."""
    mlp: Literal["gelu", "swiglu"] = "gelu"
    """GELU (tanh form) with two matrices, or SwiGLU with three."""
    bias: bool = True
    """Biases on linear layers and LayerNorm."""
    tie_embeddings: bool = True
    """The output head is the embedding's transpose."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability of zeroing, after the embedding and at the end of each sub-layer."""

    @model_validator(mode="before")
    @classmethod
    def _parts_of_family(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {**FAMILIES.get(given.get("family", "gpt2"), {}), **given}

    @model_validator(mode="after")
    def _shapes_divide(self) -> "ModelConfig":
        if self.width % self.num_heads:
            raise ValueError(
                f"model.width = {self.width} is not divisible by model.num_heads = {self.num_heads}; "
                f"the nearest width that is: {max(1, round(self.width / self.num_heads)) * self.num_heads}"
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"model.num_heads = {self.num_heads} is not divisible by model.num_kv_heads = {self.kv_heads}"
            )
        if self.positions == "rope" and self.head_size % 2:
            raise ValueError(
                f"rotary positions need an even head size, model.width / model.num_heads = {self.head_size}"
            )
        return self

    @property
    def head_size(self) -> int:
        """K = D / H."""
        return self.width // self.num_heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values, with 0 resolved."""
        return self.num_kv_heads or self.num_heads

    @property
    def hidden_width(self) -> int:
        """Hidden size of the MLP, with 0 resolved."""
        if self.mlp_width:
            return self.mlp_width
        return 4 * self.width if self.mlp == "gelu" else -(-(8 * self.width) // (3 * 64)) * 64
