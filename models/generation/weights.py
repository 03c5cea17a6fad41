"""New weights for a model that is generating, in place, and a hash that proves which ones it has."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from seedbed.errors import UsageError
from seedbed.files import canonical_json

# The names that safetensors gives to the types of numbers.
_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@torch.no_grad()
def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors`, by canonical name, into the memory that the model's parameters have.

    Raises UsageError, before anything is changed, for a name that is missing or unknown or a wrong shape.
    """
    parameters = dict(model.named_parameters())
    missing, extra = sorted(parameters.keys() - tensors.keys()), sorted(tensors.keys() - parameters.keys())
    wrong = [
        f"{name} has shape {list(tensors[name].shape)}, not {list(parameter.shape)}"
        for name, parameter in parameters.items()
        if name in tensors and tensors[name].shape != parameter.shape
    ]
    problems = [f"missing: {', '.join(missing)}"] * bool(missing)
    problems += [f"unknown: {', '.join(extra)}"] * bool(extra) + wrong
    if problems:
        raise UsageError(
            f"the weights are not those of this model: {'; '.join(problems)}",
            "send every parameter of the model that the generator was made from, by its canonical name",
        )
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])


def weights_hash(model: nn.Module) -> str:
    """`tensors_hash` of its parameters."""
    return tensors_hash(dict(model.named_parameters()))


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes: `seedbed checkpoint hash` of the same weights."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(canonical_json([f"model/{name}", _NAMES[tensor.dtype], list(tensor.shape)]))
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
