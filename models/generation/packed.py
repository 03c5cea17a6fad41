"""A model's matrices once more, in the layout that a CPU's kernels read fastest.

oneDNN stores a matrix in the blocks that its product goes through. That halves the time of a product with one
row and takes a quarter off one with many; and a row's result has the same bits whatever rows lie beside it,
which the usual kernels do not promise. The price is a second copy of the matrices. For float32 on a CPU.

Shapes: B batch, T time, H heads, K head size, C latent size, V value size, M rows, F hidden width.
"""

from functools import partial

import torch
from torch import Tensor, nn

from models.attention import Attention
from models.experts import Experts, MixtureOfExperts, Network
from models.latent_attention import LatentAttention
from models.lora import merged
from models.mlp import GeluMLP, SwiGLU
from models.quantized import quantized_matrices
from models.transformer import Transformer

_ops = torch.ops.mkldnn


def can_pack(model: Transformer) -> bool:
    """Whether the model is of 32-bit floats on a CPU, and this torch has oneDNN."""
    weight = model.embedding.weight
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(_ops, "_linear_pointwise")
    )


class Packed:
    """One matrix [out, in] and its product with rows [..., in], which may pass through a function."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.bias = None if bias is None else bias.detach()
        self.weight = _ops._reorder_linear_weight(weight.detach().contiguous(), None)

    def __call__(self, x: Tensor, function: str = "none") -> Tensor:
        """[..., out]; `function` is one of oneDNN's: none, sigmoid, swish, gelu (its tanh form)."""
        return _ops._linear_pointwise(x, self.weight, self.bias, function, [], "tanh")


class PackedLinear(nn.Module):
    """nn.Linear."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.product = Packed(linear.weight, linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x)


class PackedGeluMLP(nn.Module):
    """GeluMLP, its non-linearity done while a block of the first product is at hand."""

    def __init__(self, mlp: GeluMLP) -> None:
        super().__init__()
        self.up, self.down = (Packed(one.weight, one.bias) for one in (mlp.up, mlp.down))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(self.up(x_BTD, "gelu"))


class PackedSwiGLU(nn.Module):
    """SwiGLU, likewise."""

    def __init__(self, mlp: SwiGLU) -> None:
        super().__init__()
        gate, up, down = (Packed(one.weight, one.bias) for one in (mlp.gate, mlp.up, mlp.down))
        self.matrices = gate, up, down

    def forward(self, x_BTD: Tensor) -> Tensor:
        return _swiglu(self.matrices, x_BTD)


class PackedExperts(Experts):
    """Experts, each packed."""

    def __init__(self, experts: Experts) -> None:
        nn.Module.__init__(self)
        matrices = zip(experts.gate, experts.up, experts.down, strict=True)
        self.packed = [(Packed(gate), Packed(up), Packed(down)) for gate, up, down in matrices]

    def networks(self) -> list[Network]:
        return [partial(_swiglu, expert) for expert in self.packed]


class PackedMixtureOfExperts(MixtureOfExperts):
    """MixtureOfExperts; torch's own sigmoid rounds a number by where in memory it lies."""

    def __init__(self, mixture: MixtureOfExperts) -> None:
        _take_over(self, mixture)

    def share_of_shared(self, x_BTD: Tensor) -> Tensor:
        assert isinstance(self.shared_gate, PackedLinear)
        return self.shared_gate.product(x_BTD, "sigmoid")


class PackedAttention(Attention):
    """Attention, its first three products made in one."""

    def __init__(self, attention: Attention) -> None:
        parts = (attention.query, attention.key, attention.value)
        bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
        product = Packed(torch.cat([part.weight for part in parts]), bias)
        del attention.query, attention.key, attention.value
        _take_over(self, attention)
        self.product, self.sizes = product, [part.out_features for part in parts]

    def projected(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self.product(x_BTD).split(self.sizes, dim=-1)
        return query, key, value


class PackedLatentAttention(LatentAttention):
    """LatentAttention, the matrices that are absorbed into queries and outputs packed for each head."""

    def __init__(self, attention: LatentAttention) -> None:
        heads = attention.config.num_heads
        key_HKC = attention.key.weight.unflatten(0, (heads, -1))
        value_HVC = attention.value.weight.unflatten(0, (heads, -1))
        _take_over(self, attention)
        self.to_latents = [Packed(key_KC.T) for key_KC in key_HKC]
        self.from_latents = [Packed(value_VC) for value_VC in value_HVC]

    def to_latent(self, query_BHTK: Tensor) -> Tensor:
        return _each_head(self.to_latents, query_BHTK)

    def from_latent(self, mixed_BHTC: Tensor) -> Tensor:
        return _each_head(self.from_latents, mixed_BHTC)


def pack(model: Transformer) -> Transformer:
    """A model that computes the same with packed matrices; its other parameters are those of `model`."""
    packed = share(model)
    for block in packed.blocks.values():
        for name, child in block.named_children():
            setattr(block, name, _packed(child))
    return packed


def share(model: Transformer) -> Transformer:
    """A model in eval mode with the parameters of `model`, which stays in the mode that it is in."""
    # The products that are packed are of whole weights.
    held = {name: matrix.values() for name, matrix in quantized_matrices(model)}
    config, tensors = merged(model.config, model.state_dict() | held)
    with torch.device("meta"):
        shared = Transformer(config)
    shared.load_state_dict(tensors, assign=True)
    return shared.eval()


def _packed(module: nn.Module) -> nn.Module:
    if type(module) in _REPLACEMENTS:
        return _REPLACEMENTS[type(module)](module)
    for name, child in module.named_children():
        setattr(module, name, _packed(child))
    return module


_REPLACEMENTS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: PackedLinear,
    Attention: PackedAttention,
    GeluMLP: PackedGeluMLP,
    SwiGLU: PackedSwiGLU,
    Experts: PackedExperts,
    MixtureOfExperts: PackedMixtureOfExperts,
    LatentAttention: PackedLatentAttention,
}


def _take_over(packed: nn.Module, module: nn.Module) -> None:
    """Give `packed` all that `module` has, its children packed; `module` is not used again."""
    packed.__dict__.update(module.__dict__)
    for name, child in packed.named_children():
        setattr(packed, name, _packed(child))


def _swiglu(matrices: tuple[Packed, Packed, Packed], x: Tensor) -> Tensor:
    gate, up, down = matrices
    return down(gate(x, "swish") * up(x))


def _each_head(matrices: list[Packed], x_BHTK: Tensor) -> Tensor:
    heads = zip(matrices, x_BHTK.unbind(1), strict=True)
    return torch.stack([matrix(x_BTK.contiguous()) for matrix, x_BTK in heads], dim=1)
