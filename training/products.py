"""Products of float32 matrices on a CPU, by the faster of the two libraries that torch brings.

torch has them made by MKL, which uses AVX-512 on Intel's processors alone: on others oneDNN is twice as fast.
It adds in another order, so the bits are others; what they depend on is the same: shapes and threads.

Shapes: M rows, K what is summed over, N columns.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from training.devices import cpu_field, cpu_flags

LEAST = 1 << 22
"""Multiplications of a product from which on it is worth a call from Python."""
_ops = torch.ops.mkldnn


@functools.cache
def is_faster() -> bool:
    """Whether oneDNN is, on this processor."""
    return (
        "avx512f" in cpu_flags()
        and cpu_field("vendor_id") != "GenuineIntel"
        and torch.backends.mkldnn.is_available()
        and hasattr(_ops, "_linear_pointwise")
    )


def named(device: torch.device) -> str:
    """What a run's record of its kernels ends with, where their library is not torch's own choice."""
    return ", products by oneDNN" if device.type == "cpu" and is_faster() else ""


def product(left_MK: Tensor, right_KN: Tensor) -> Tensor:
    """[M, N], by the library that a run takes."""
    return _product(left_MK, right_KN) if is_faster() and _fits(left_MK, right_KN) else left_MK @ right_KN


@functools.cache
def use_faster() -> None:
    """From now on, in all of this process."""
    if not is_faster():
        return
    mm, addmm = (torch.library.get_kernel(name, "CPU") for name in ("aten::mm", "aten::addmm"))

    def multiplied(keys: Any, left: Tensor, right: Tensor) -> Tensor:
        return _product(left, right) if _fits(left, right) else mm.call_boxed(keys, left, right)

    def added(
        keys: Any, bias: Tensor, left: Tensor, right: Tensor, *, beta: Any = 1, alpha: Any = 1
    ) -> Tensor:
        if bias.ndim == 1 and bias.numel() == right.shape[1] and beta == alpha == 1 and _fits(left, right):
            return _product(left, right, bias)
        return addmm.call_boxed(keys, bias, left, right, beta=beta, alpha=alpha)

    _put("mm", multiplied)
    _put("addmm", added)


_library: list[torch.library.Library] = []
"""What takes another kernel gives it back when it is deleted."""


def _put(name: str, kernel: Callable[..., Tensor]) -> None:
    _library.append(torch.library.Library("aten", "IMPL"))
    with warnings.catch_warnings():
        # That there was one before.
        warnings.simplefilter("ignore")
        _library[-1].impl(name, kernel, "CPU", with_keyset=True, allow_override=True)


def _fits(left_MK: Tensor, right_KN: Tensor) -> bool:
    return (
        left_MK.dtype == right_KN.dtype == torch.float32
        and left_MK.numel() * right_KN.shape[1] >= LEAST
        and left_MK.device.type == right_KN.device.type == "cpu"
    )


def _product(left_MK: Tensor, right_KN: Tensor, bias_N: Tensor | None = None) -> Tensor:
    if bias_N is None and not left_MK.is_contiguous() and right_KN.shape[1] < left_MK.shape[0]:
        # Rows are copied that do not lie side by side: better the smaller matrix's.
        return _linear(right_KN.t(), left_MK, None).t().contiguous()
    return _linear(left_MK, right_KN.t(), bias_N)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = _ops._linear_pointwise(x, weight, bias, "none", [], "")
    return found
