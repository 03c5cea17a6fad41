"""Products of float32 matrices by the library that is faster here."""

import subprocess
import sys

import pytest
import torch

from training import products

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"),
    reason="this torch has no oneDNN",
)


@needs_onednn
@pytest.mark.parametrize("shape", [(40, 30, 50), (50, 30, 40)])
@pytest.mark.parametrize("is_turned", [(False, False), (False, True), (True, False), (True, True)])
def test_a_product_is_that_of_the_matrices_however_they_lie_in_memory(shape, is_turned):
    """Forward, and the two of a backward, of which one has rows that do not lie side by side."""
    M, K, N = shape
    random = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn((b, a) if turned else (a, b), generator=random).t()
        if turned
        else torch.randn(a, b, generator=random)
        for (a, b), turned in zip(((M, K), (K, N)), is_turned, strict=True)
    )
    found = products._product(left, right)
    torch.testing.assert_close(found.double(), left.double() @ right.double(), atol=1e-4, rtol=1e-5)
    assert found.is_contiguous()


PROCESS = """
import torch
from training import products
products.is_faster = lambda: True
x, bias = torch.randn(300, 128, requires_grad=True), torch.randn(256, requires_grad=True)
weight = torch.randn(256, 128, requires_grad=True)
def results(dtype):
    own = [value.detach().to(dtype).requires_grad_() for value in (x, weight, bias)]
    output = torch.nn.functional.linear(*own)
    output.square().sum().backward()
    return [output, *(value.grad for value in own)]
plain, exact = results(torch.float32), results(torch.float64)
small = x[:3] @ weight[:5].t()
products.use_faster()
faster = results(torch.float32)
assert torch.equal(x[:3] @ weight[:5].t(), small)
assert results(torch.bfloat16)[0].dtype == torch.bfloat16
for one, true in zip(faster, exact):
    torch.testing.assert_close(one.double(), true, atol=1e-2, rtol=1e-4)
assert all(torch.equal(*pair) for pair in zip(results(torch.float32), faster))
"""


@needs_onednn
def test_a_process_that_takes_them_computes_the_same_forward_and_backward():
    """In a process of its own: what takes a kernel takes it from all tests."""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", PROCESS], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    assert not done.stderr
