"""What devices can do, by their makers' data sheets; nothing here is measured. Does not import torch.

Figures are of dense arithmetic (sheets print twice as much, for matrices of which half is zero) and of one
direction of a link (sheets print both together). Memory is the sheet's, in units of 10^9 bytes; a GPU shows
some more, which is left to its driver and to fragmentation.
"""

import re
from typing import NamedTuple

from seedbed.errors import UsageError, nearest


class Device(NamedTuple):
    """One device, the links to its neighbours in a machine, and its share of the way to other machines."""

    name: str
    """As `--on` takes it; its words stand in the name by which the device calls itself."""
    bf16_flops: float
    """Peak FLOP/s of tensor cores, dense."""
    fp32_flops: float
    """Peak FLOP/s outside tensor cores, which is what fp32 training uses by default."""
    memory_bytes: int
    memory_bytes_per_s: float
    link_bytes_per_s: float
    """Within a machine, to all others together, one direction."""
    network_bytes_per_s: float
    """Between machines, one direction, for each device: one adapter each."""
    host_bytes_per_s: float
    """Into the memory of its host, one direction."""
    devices_per_node: int
    source: str
    """Where the figures are from."""
    is_gpu: bool = True

    def peak_flops(self, precision: str) -> float:
        """FLOP/s at a precision; tensor cores multiply both kinds of 2 bytes at one rate."""
        return self.bf16_flops if precision in ("bf16", "fp16") else self.fp32_flops


GB = 10**9
# In order: the first whose words all stand in a GPU's name. SXM parts say nothing but the model.
CATALOGUE = (
    Device(
        "A100-40GB", 312e12, 19.5e12, 40 * GB, 1555e9, 300e9, 25e9, 31.5e9, 8,
        "NVIDIA A100 data sheet (SXM4, 40 GB); DGX A100: 8 x 200 Gb/s; PCIe 4.0 x16",
    ),
    Device(
        "A100", 312e12, 19.5e12, 80 * GB, 2039e9, 300e9, 25e9, 31.5e9, 8,
        "NVIDIA A100 data sheet (SXM4, 80 GB); DGX A100: 8 x 200 Gb/s; PCIe 4.0 x16",
    ),
    Device(
        "H100-PCIe", 756e12, 51e12, 80 * GB, 2000e9, 63e9, 50e9, 63e9, 8,
        "NVIDIA H100 data sheet (PCIe), without bridges; 400 Gb/s adapters; PCIe 5.0 x16",
    ),
    Device(
        "H100-NVL", 835e12, 60e12, 94 * GB, 3900e9, 63e9, 50e9, 63e9, 8,
        "NVIDIA H100 data sheet (NVL), bridges join pairs alone; 400 Gb/s adapters; PCIe 5.0 x16",
    ),
    Device(
        "H100-96GB", 912e12, 67e12, 96 * GB, 2400e9, 450e9, 50e9, 63e9, 8,
        "H100 of 500 W with HBM2e, as torchtitan's benchmarks of December 2024 describe it: its peak lies "
        "between NVL and SXM, and the mean of both is taken",
    ),
    Device(
        "H100", 989e12, 67e12, 80 * GB, 3350e9, 450e9, 50e9, 63e9, 8,
        "NVIDIA H100 data sheet (SXM5); DGX H100: 8 x 400 Gb/s; PCIe 5.0 x16",
    ),
    Device(
        "H200-NVL", 835e12, 60e12, 141 * GB, 4800e9, 450e9, 50e9, 63e9, 4,
        "NVIDIA H200 data sheet (NVL, bridges of four); 400 Gb/s adapters; PCIe 5.0 x16",
    ),
    Device(
        "H200", 989e12, 67e12, 141 * GB, 4800e9, 450e9, 50e9, 63e9, 8,
        "NVIDIA H200 data sheet (SXM); DGX H200: 8 x 400 Gb/s; PCIe 5.0 x16",
    ),
    Device(
        "B200", 2250e12, 75e12, 180 * GB, 8000e9, 900e9, 50e9, 63e9, 8,
        "NVIDIA DGX B200 data sheet, an eighth of it; 8 x 400 Gb/s; PCIe 5.0 x16",
    ),
    Device(
        "CPU", 14.7e12, 7.37e12, 384 * GB, 461e9, 64e9, 25e9, 461e9, 2,
        "AMD EPYC 9654 data sheet: 96 cores x 2.4 GHz x 32 FLOP (64 in bf16), 12 channels of DDR5-4800 with "
        "32 GB each; one xGMI link; 200 Gb/s adapters",
        is_gpu=False,
    ),
)  # fmt: skip
MINE = "mine"
"""What `--on` takes for the devices at hand, which are measured."""
# A slice of a GPU bears its name, and has a part of its rate.
_SLICE = "MIG"


def known_gpu(name: str) -> Device | None:
    """The device of the GPU that calls itself `name`; None rather than a guess."""
    words = set(re.split(r"[\s-]+", name))
    if _SLICE in words:
        return None
    return next((device for device in CATALOGUE if device.is_gpu and _words(device) <= words), None)


def _words(device: Device) -> set[str]:
    return set(device.name.split("-"))


def device_named(name: str) -> Device:
    """The device that `--on` names, in whatever case. Raises UsageError with the nearest name."""
    found = next((device for device in CATALOGUE if device.name.lower() == name.lower()), None)
    if found:
        return found
    names = [device.name for device in CATALOGUE] + [MINE]
    guess = nearest(name.upper(), names) or nearest(name, names)
    raise UsageError(
        f"--on: no device is called '{name}'",
        (f"did you mean '{guess}'? " if guess else "")
        + f"known are {', '.join(names)} ({MINE}: this machine, measured)",
    )


def parse_devices(text: str) -> tuple[int | None, str]:
    """(number of devices, name) of `8xH100`; None for a name alone, which leaves the number open.

    Raises UsageError for what is neither, and for no devices at all.
    """
    matched = re.fullmatch(r"(?:(\d+)\s*[xX*]\s*)?([A-Za-z][\w.-]*)", text.strip())
    if not matched:
        raise UsageError(f"--on {text} is not NUMBERxDEVICE", "such as --on 8xH100")
    count = None if matched[1] is None else int(matched[1])
    if count == 0:
        raise UsageError(f"--on {text}: no device at all", f"--on 1x{matched[2]}")
    return count, matched[2]
