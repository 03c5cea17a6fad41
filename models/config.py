"""What a model is made of: the `[model]` section of a configuration.

A family is a named set of parts (norm, positions, MLP, biases, tied head); every part can
also be chosen by itself, so a new combination is a line of configuration, not a new class.
"""

import math
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from seedbed.settings import STRICT

GPT: dict[str, Any] = {
    "norm": "layer",
    "positions": "learned",
    "mlp": "gelu",
    "bias": True,
    "tie_embeddings": True,
}
LLAMA: dict[str, Any] = {
    "norm": "rms",
    "positions": "rope",
    "mlp": "swiglu",
    "bias": False,
    "tie_embeddings": False,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt1": {**GPT, "norm_placement": "post"},
    "gpt2": GPT,
    "llama": LLAMA,
    "mistral": {**LLAMA, "window": 4096},
    "mixtral": {**LLAMA, "rope_base": 1e6, "num_experts": 8},
    "qwen2": {**LLAMA, "rope_base": 1e6, "norm_eps": 1e-6, "qkv_bias": True},
    "qwen3": {**LLAMA, "rope_base": 1e6, "norm_eps": 1e-6, "qk_norm": True},
    "qwen2_moe": {
        **LLAMA,
        "rope_base": 1e6,
        "norm_eps": 1e-6,
        "qkv_bias": True,
        "num_experts": 60,
        "experts_per_token": 4,
        "expert_weights": "softmax",
        "num_shared_experts": 4,
        "shared_expert_gate": True,
    },
    "qwen3_moe": {
        **LLAMA,
        "rope_base": 1e6,
        "norm_eps": 1e-6,
        "qk_norm": True,
        "num_experts": 128,
        "experts_per_token": 8,
    },
    "deepseek_v2": {
        **LLAMA,
        "norm_eps": 1e-6,
        "latent_width": 512,
        "query_latent_width": 1536,
        "head_width": 128,
        "rope_width": 64,
        "num_experts": 64,
        "experts_per_token": 6,
        "expert_weights": "softmax",
        "num_shared_experts": 2,
        "num_dense_layers": 1,
    },
}
Family = Literal[
    "gpt1",
    "gpt2",
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "qwen2_moe",
    "qwen3_moe",
    "deepseek_v2",
]


class ModelConfig(BaseModel):
    """A decoder-only transformer."""

    model_config = STRICT

    family: Family = "gpt2"
    """The named set of parts that the fields below default to."""
    num_layers: int = Field(12, ge=1, le=10_000)
    """Transformer blocks."""
    width: int = Field(768, ge=1, le=10**7)
    """Size of the residual stream, D."""
    num_heads: int = Field(12, ge=1)
    """Attention heads, H."""
    num_kv_heads: int = Field(0, ge=0)
    """Heads of keys and values; 0 means as many as `num_heads`, fewer is grouped-query attention."""
    head_width: int = Field(0, ge=0)
    """Size of one head, K; 0 means `width` / `num_heads`."""
    mlp_width: int = Field(0, ge=0)
    """Hidden size of the MLP; 0 means 4 D, or 8/3 D rounded up to a multiple of 64 for SwiGLU."""
    context: int = Field(1024, ge=2, le=10**9)
    """Longest sequence in tokens, T."""
    vocab_size: int = Field(0, ge=0)
    """Rows of the embedding, V; 0 means the tokenizer's. More than the tokenizer's is padding."""
    norm: Literal["layer", "rms"] = "layer"
    """LayerNorm or RMSNorm, once for each sub-layer."""
    norm_placement: Literal["pre", "post"] = "pre"
    """pre: before each sub-layer, and once at the end (GPT-2); post: after each sum (GPT-1)."""
    norm_eps: float = Field(1e-5, gt=0)
    """Added to the variance (or mean square) in a norm."""
    positions: Literal["learned", "sinusoidal", "rope", "alibi"] = "learned"
    """A learned or a sinusoidal table added to the embedding, rotary queries and keys, or ALiBi's biases."""
    rope_base: float = Field(10_000.0, gt=1)
    """Base of the rotary frequencies."""
    rope_scaling: Literal["none", "linear", "llama3", "yarn"] = "none"
    """How rotary frequencies are lowered for contexts longer than `rope_original_context`."""
    rope_factor: float = Field(1.0, ge=1)
    """For a scaled rotary embedding: what low frequencies (linear: all) are divided by."""
    rope_slow_turns: float = Field(1.0, gt=0)
    """For llama3 and yarn: frequencies that turn less often in the original context are divided."""
    rope_fast_turns: float = Field(4.0, gt=0)
    """For llama3 and yarn: frequencies that turn more often in the original context stay (yarn's own: 32)."""
    rope_original_context: int = Field(8192, ge=1)
    """For llama3 and yarn: the context before it was lengthened, in tokens."""
    rope_stretch: float = Field(0.0, ge=0)
    """For yarn: what rotated queries and keys are multiplied by; 0 means 0.1 ln(`rope_factor`) + 1."""
    window: int = Field(0, ge=0)
    """Tokens that a position sees, itself included (sliding-window attention); 0 means all."""
    attention_temperature: float = Field(1.0, gt=0)
    """Attention scores are divided by it, beside the root of the head size."""
    qk_norm: bool = False
    """RMSNorm of every query and key head, before the rotary embedding."""
    latent_width: int = Field(0, ge=0)
    """Size of the latent of keys and values (multi-head latent attention); 0 is attention without one."""
    query_latent_width: int = Field(0, ge=0)
    """With latent attention: size of the latent of queries; 0 projects queries directly."""
    rope_width: int = Field(0, ge=0)
    """With latent attention: size of the part of a head that carries the rotary position."""
    value_width: int = Field(0, ge=0)
    """With latent attention: size of one head's values; 0 means the head size."""
    mlp: Literal["gelu", "swiglu"] = "gelu"
    """GELU (tanh form) with two matrices, or SwiGLU with three."""
    num_experts: int = Field(0, ge=0)
    """SwiGLU experts, E, of which each token takes a few; 0 is one dense MLP."""
    experts_per_token: int = Field(2, ge=1)
    """Experts that a token takes."""
    expert_width: int = Field(0, ge=0)
    """Hidden size of one expert; 0 means the MLP's."""
    expert_weights: Literal["softmax_of_chosen", "softmax"] = "softmax_of_chosen"
    """How chosen experts are weighted: by a softmax over the chosen (Mixtral), or over all (DeepSeek-V2)."""
    expert_scale: float = Field(1.0, gt=0)
    """The weights of chosen experts are multiplied by it."""
    num_expert_groups: int = Field(1, ge=1)
    """Groups that the experts are divided into, in order."""
    groups_per_token: int = Field(1, ge=1)
    """Groups that a token may take its experts from: those with the most probable expert."""
    num_shared_experts: int = Field(0, ge=0)
    """Experts that every token takes."""
    shared_expert_gate: bool = False
    """Shared experts are weighted by a sigmoid of the token's state (Qwen2-MoE), not by 1."""
    num_dense_layers: int = Field(0, ge=0)
    """First blocks that keep a dense MLP where the others have experts."""
    head: Literal["lm", "reward"] = "lm"
    """What comes out: logits of the next token, or one number for a whole sequence (a reward model)."""
    bias: bool = True
    """Biases on linear layers and LayerNorm."""
    qkv_bias: bool = False
    """Biases on queries, keys and values even where `bias` is false."""
    tie_embeddings: bool = True
    """The output head is the embedding's transpose."""
    initialization: Literal["gpt2", "lecun", "xavier", "he", "orthogonal"] = "gpt2"
    """Initial matrices: normal of deviation 0.02 and less at residual outputs, or by inputs and outputs."""
    lora_rank: int = Field(0, ge=0)
    """Rank of low-rank adapters on the linear layers of blocks, to be trained in their place; 0 is none."""
    lora_alpha: int = Field(16, ge=1)
    """What an adapter computes is multiplied by `lora_alpha` / `lora_rank`."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Probability of zeroing, before an adapter."""
    lora_layers: Literal["attention", "all"] = "all"
    """The layers that have adapters: those of attention, or those of MLPs too (experts and routers never)."""
    lora_base: Literal["full", "nf4"] = "full"
    """What adapted matrices are held as, which do not learn: as they are, or in four bits (QLoRA's NF4)."""
    mup_base_width: int = Field(0, ge=0)
    """Width of the model that the learning rate was found for, to keep it (muP); 0 is no such scaling."""
    mup_base_head_width: int = Field(0, ge=0)
    """With `mup_base_width`: size of one head of that model."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability of zeroing, after the embedding and at the end of each sub-layer."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth: probability of leaving out a sub-layer of the last block, less in those before it."""

    @model_validator(mode="before")
    @classmethod
    def _parts_of_family(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {**FAMILIES.get(given.get("family", "gpt2"), {}), **given}

    @model_validator(mode="after")
    def _shapes_divide(self) -> "ModelConfig":
        if not self.head_width and self.width % self.num_heads:
            raise ValueError(
                f"model.width = {self.width} is not divisible by model.num_heads = {self.num_heads}; "
                f"the nearest width that is: {max(1, round(self.width / self.num_heads)) * self.num_heads}"
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"model.num_heads = {self.num_heads} is not divisible by model.num_kv_heads = {self.kv_heads}"
            )
        if self.positions == "rope" and self.rotary_size % 2:
            which = "model.rope_width" if self.latent_width else "model.width / model.num_heads"
            raise ValueError(f"rotary positions need an even head size, {which} = {self.rotary_size}")
        if self.positions == "sinusoidal" and self.width % 2:
            raise ValueError(f"sinusoidal positions need an even model.width, not {self.width}")
        if self.rope_slow_turns >= self.rope_fast_turns:
            raise ValueError("model.rope_slow_turns must be less than model.rope_fast_turns")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> "ModelConfig":
        if self.latent_width:
            if self.positions != "rope" or not self.rope_width:
                raise ValueError('latent attention needs model.positions = "rope" and a model.rope_width')
            if self.kv_heads != self.num_heads or self.qk_norm or self.bias or self.qkv_bias:
                raise ValueError(
                    "latent attention has keys and values for every head, no qk_norm and no biases: leave "
                    "out model.num_kv_heads, set model.qk_norm, model.bias and model.qkv_bias to false"
                )
        elif self.query_latent_width or self.rope_width or self.value_width:
            raise ValueError(
                "model.query_latent_width, rope_width and value_width belong to latent attention: "
                "set model.latent_width, or leave them out"
            )
        if self.num_experts:
            self._experts_fit()
        elif self.num_shared_experts:
            raise ValueError("model.num_shared_experts needs model.num_experts")
        if self.shared_expert_gate and not self.num_shared_experts:
            raise ValueError("model.shared_expert_gate needs model.num_shared_experts")
        return self

    @model_validator(mode="after")
    def _mup_fits(self) -> "ModelConfig":
        if bool(self.mup_base_width) != bool(self.mup_base_head_width):
            raise ValueError(
                "model.mup_base_width and model.mup_base_head_width go together: the width of the base model "
                "and the size of its heads"
            )
        if not self.mup_base_width:
            return self
        if self.initialization != "gpt2":
            raise ValueError(
                "muP scales the deviations of the base model: model.mup_base_width needs "
                'model.initialization = "gpt2"'
            )
        if self.latent_width or self.positions == "sinusoidal":
            part = "latent attention" if self.latent_width else "sinusoidal positions"
            raise ValueError(f"muP is not worked out for {part}: leave out model.mup_base_width")
        is_wider = self.width != self.mup_base_width
        if is_wider and self.kv_heads == 1 < self.num_heads and self.head_size == self.mup_base_head_width:
            raise ValueError(
                "muP needs keys and values that widen with the model: with multi-query attention, grow "
                "model.head_width in place of model.num_heads"
            )
        return self

    @model_validator(mode="after")
    def _adapters_fit(self) -> "ModelConfig":
        if self.lora_rank and (self.mup_base_width or self.latent_width):
            other = "muP" if self.mup_base_width else "latent attention"
            raise ValueError(f"model.lora_rank does not go with {other}: leave out model.lora_rank")
        if self.lora_base != "full" and not self.lora_rank:
            raise ValueError(
                f'model.lora_base = "{self.lora_base}" is of what adapters are on: set model.lora_rank too'
            )
        return self

    def _experts_fit(self) -> None:
        if self.mlp != "swiglu" or self.bias:
            raise ValueError(
                'experts are SwiGLU without biases: set model.mlp = "swiglu", model.bias = false'
            )
        if self.num_experts % self.num_expert_groups:
            raise ValueError(
                f"model.num_experts = {self.num_experts} is not divisible by "
                f"model.num_expert_groups = {self.num_expert_groups}"
            )
        if self.groups_per_token > self.num_expert_groups:
            raise ValueError("model.groups_per_token is more than model.num_expert_groups")
        available = self.num_experts // self.num_expert_groups * self.groups_per_token
        if self.experts_per_token > available:
            raise ValueError(
                f"model.experts_per_token = {self.experts_per_token}, but a token can choose from {available}"
            )
        if self.num_dense_layers > self.num_layers:
            raise ValueError(
                f"model.num_dense_layers = {self.num_dense_layers} is more than "
                f"model.num_layers = {self.num_layers}"
            )

    @property
    def head_size(self) -> int:
        """K = D / H, or as given; with latent attention, its part without a position."""
        return self.head_width or self.width // self.num_heads

    @property
    def rotary_size(self) -> int:
        """Numbers of a head that the rotary embedding turns."""
        return self.rope_width if self.latent_width else self.head_size

    @property
    def rotary_stretch(self) -> float:
        """What rotated queries and keys are multiplied by, with 0 resolved."""
        if self.rope_scaling != "yarn":
            return 1.0
        return self.rope_stretch or 0.1 * math.log(self.rope_factor) + 1

    @property
    def value_size(self) -> int:
        """Size of one head's values, with 0 resolved."""
        return self.value_width or self.head_size

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

    @property
    def expert_hidden_width(self) -> int:
        """Hidden size of one expert, with 0 resolved."""
        return self.expert_width or self.hidden_width

    def has_experts(self, layer: int) -> bool:
        """Whether block `layer` is sparse."""
        return self.num_experts > 0 and layer >= self.num_dense_layers

    @property
    def cached_per_token(self) -> tuple[tuple[int, int], ...]:
        """(heads, size) of each tensor that one layer keeps of one past token while decoding.

        Keys and values; with latent attention one latent and one rotary key, shared by all heads.
        """
        if self.latent_width:
            return ((1, self.latent_width + self.rope_width),)
        return ((self.kv_heads, self.head_size),) * 2
