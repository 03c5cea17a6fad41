"""What utilisation is measured against: a figure of the right device, or none."""

import pytest
import torch

from seedbed.errors import ConfigError
from training import devices
from training.devices import device_rates, peak_of_gpu
from training.recipes import load_config


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA B200", 2250),
    ],
)
def test_peaks_are_dense_and_of_the_part_at_hand(name, tflops):
    """MFU would be a third too low on a PCIe card, or half of what it is with a sparse peak."""
    peak, source = peak_of_gpu(name, "bf16")
    assert peak == tflops * 1e12
    assert "dense" in source


@pytest.mark.parametrize(
    "name", ["NVIDIA GH200 480GB", "NVIDIA GB200", "NVIDIA A100-SXM4-80GB MIG 1g.10gb", "Tesla V100"]
)
def test_an_unknown_device_has_no_peak_rather_than_that_of_another(name):
    """A user would compare, and publish, a made-up figure."""
    peak, notice = peak_of_gpu(name, "bf16")
    assert peak is None
    assert name in notice


def test_a_processor_is_measured():
    """Its peak is what products reach; and the run's own random numbers are not touched."""
    before = torch.get_rng_state()
    rates = device_rates(torch.device("cpu"), "fp32")
    assert rates.peak == rates.matmul > 1e8
    assert "measured" in rates.source
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("settings", "package", "extra"),
    [
        (["engine.name=zero2"], "deepspeed", "deepspeed"),
        (
            ["engine.name=ddp", "model.lora_rank=4", "model.lora_base=nf4", "optimizer.trained=lora"],
            "bitsandbytes",
            "quantized",
        ),
    ],
)
def test_a_missing_package_is_named_before_a_run_is_made(monkeypatch, settings, package, extra):
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"needs the package {package}") as raised:
        devices.resolve_hardware(load_config("gpt-demo", settings))
    assert f"seedbed[{extra}]" in str(raised.value)
