"""Low-rank adapters (Hu et al. 2021, "LoRA"): a linear layer W learns as W + (alpha / r) B A.

A [r, in] begins normal with the variance of the authors' code, B [out, r] at zero, so that a model begins as
the one that it adapts. They are parameters like any other, named after their layer
(`attention.query.lora_A`); whoever only computes with a model gets it `merged`.
With `lora_base = "nf4"` W is held in four bits, and is no parameter.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig
from models.quantized import QuantizedMatrix
from models.sizes import LORA_A, LORA_B, is_adapted

if TYPE_CHECKING:
    from models.transformer import Transformer


class LoraLinear(nn.Linear):
    """A linear layer whose weight an adapter is added to; a dropout of its own is before the adapter."""

    def __init__(self, linear: nn.Linear, config: ModelConfig) -> None:
        device, dtype = linear.weight.device, linear.weight.dtype
        has_bias = linear.bias is not None
        super().__init__(linear.in_features, linear.out_features, has_bias, device=device, dtype=dtype)
        rank = config.lora_rank
        self.lora_A = nn.Parameter(torch.empty(rank, linear.in_features, device=device, dtype=dtype))
        self.lora_B = nn.Parameter(torch.empty(linear.out_features, rank, device=device, dtype=dtype))
        self.lora_dropout = nn.Dropout(config.lora_dropout)
        self.lora_scale = config.lora_alpha / rank
        self.base: QuantizedMatrix | None = None
        if config.lora_base == "nf4":
            self.register_parameter("weight", None)
            self.base = QuantizedMatrix(linear.out_features, linear.in_features)

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(self.lora_dropout(x), self.lora_A)
        return self._of_base(x) + F.linear(low, self.lora_B) * self.lora_scale

    def _of_base(self, x: Tensor) -> Tensor:
        if self.base is None:
            return super().forward(x)
        product = self.base.linear(x)
        return product if self.bias is None else product + self.bias


def adapt(model: "Transformer") -> None:
    """Put adapters on the layers that `model.config` names, if it names any."""
    if not model.config.lora_rank:
        return
    for path, module in list(model.named_modules()):
        if type(module) is nn.Linear and is_adapted(f"{path}.weight", model.config):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, LoraLinear(module, model.config))


def merged(config: ModelConfig, tensors: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The model without adapters that computes the same: its configuration and tensors by canonical name.

    The sum is taken in float32 at least and rounded once to the precision of the weight.
    """
    if not config.lora_rank:
        return config, dict(tensors)
    out = {name: value for name, value in tensors.items() if not name.endswith((LORA_A, LORA_B))}
    for name in tensors:
        if name.endswith(LORA_A):
            layer = name.removesuffix(LORA_A)
            weight = out[f"{layer}.weight"]
            wide = torch.promote_types(weight.dtype, torch.float32)
            change = tensors[layer + LORA_B].to(wide) @ tensors[name].to(wide)
            whole = weight.to(wide) + config.lora_alpha / config.lora_rank * change
            out[f"{layer}.weight"] = whole.to(weight.dtype)
    return without(config), out


def without(config: ModelConfig) -> ModelConfig:
    """`config` of the merged model."""
    return config.model_copy(
        update={
            name: ModelConfig.model_fields[name].default
            for name in ModelConfig.model_fields
            if name.startswith("lora_")
        }
    )
