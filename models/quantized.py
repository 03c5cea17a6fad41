"""Matrices that do not learn, in four bits (Dettmers et al. 2023, "QLoRA": NF4 in blocks of 64).

The numbers that come back out are a matrix like any other, and give the same four bits when they are put in
again: a checkpoint holds them, and a run that goes on from it has the base that it had.
"""

import importlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.sizes import NF4_BLOCK
from seedbed.errors import UsageError


class QuantizedMatrix:
    """A matrix [out, in] in `NF4_BLOCK`s; it has no values before `put`."""

    def __init__(self, num_out: int, num_in: int) -> None:
        self.shape = (num_out, num_in)
        self._ops = _operations()
        self.codes: Tensor | None = None
        """uint8, two numbers a byte."""
        self.largest: Tensor | None = None
        """float32, the largest magnitude of each block."""

    def put(self, values: Tensor) -> None:
        """Take the numbers nearest to float32 `values`, on their device."""
        self.codes, self.largest = self._ops.quantize_4bit(values.contiguous(), NF4_BLOCK, "nf4", torch.uint8)

    def values(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """[out, in]"""
        assert self.codes is not None
        values: Tensor = self._ops.dequantize_4bit(
            self.codes, self.largest, NF4_BLOCK, "nf4", list(self.shape), dtype
        )
        return values

    def linear(self, x: Tensor) -> Tensor:
        """x W^T; what the backward keeps of W are its four bits."""
        product: Tensor = _Linear.apply(x, self)
        return product


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: QuantizedMatrix) -> Tensor:
        ctx.matrix = matrix
        return F.linear(x, matrix.values())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.matrix.values(gradient.dtype), None


def quantized_matrices(model: nn.Module) -> Iterator[tuple[str, QuantizedMatrix]]:
    """(canonical name, matrix) of those that stand in the place of a parameter."""
    for path, module in model.named_modules():
        base = getattr(module, "base", None)
        if isinstance(base, QuantizedMatrix):
            yield f"{path}.weight", base


def _operations() -> Any:
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    # It tells everybody of kernels that it could be faster with.
    logger.setLevel(logging.ERROR)
    try:
        importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise UsageError(
            f'model.lora_base = "nf4" needs the package bitsandbytes ({error})',
            "pip install 'seedbed[quantized]', or leave model.lora_base out",
        ) from error
    finally:
        logger.setLevel(level)
    return torch.ops.bitsandbytes
