"""What a device can do: its peak rate, its native precision, its memory in use.

torch is imported where it is asked, so that a command that only reads a configuration is quick.
"""

import os
import resource
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from seedbed.errors import ConfigError
from training.config import Config, EngineConfig

if TYPE_CHECKING:
    import torch

# Dense bf16 tensor-core peaks, FLOP/s, from the makers' data sheets (without sparsity).
PEAK_BF16 = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12}
# The same sheets' fp32 rate outside tensor cores, which is what fp32 training uses by default.
PEAK_FP32 = {"A100": 19.5e12, "H100": 67e12, "H200": 67e12, "B200": 75e12}


def cpu_flags() -> set[str]:
    """Instruction-set flags of this CPU, as Linux names them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    return next((set(line.split()[2:]) for line in text.splitlines() if line.startswith("flags")), set())


def choose_device(engine: EngineConfig) -> str:
    """'cuda' or 'cpu' for `engine.device`."""
    if engine.device != "auto":
        return engine.device
    import torch

    return "cuda" if torch.cuda.is_available() and torch.cuda.device_count() >= engine.num_ranks else "cpu"


def choose_precision(engine: EngineConfig) -> str:
    """'bf16' where the hardware multiplies it natively, else 'fp32'; as configured unless 'auto'."""
    if engine.precision != "auto":
        return engine.precision
    if choose_device(engine) == "cuda":
        import torch

        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if {"amx_bf16", "avx512_bf16"} & cpu_flags() else "fp32"


def threads_per_rank(engine: EngineConfig) -> int:
    """CPU threads for one rank. Several threads sum to other bits, so exact mode does not share cores out."""
    if engine.exact and not engine.threads_per_rank:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return engine.threads_per_rank or max(1, cores // engine.num_ranks)


def peak_flops(device: "torch.device", precision: str) -> tuple[float | None, str]:
    """(FLOP/s of this device at `precision`, where the figure is from).

    GPUs come from a table; an unknown GPU gives None rather than a guess. A CPU is measured:
    its best rate over a few square matrix products, with the threads that this process has.
    """
    import torch

    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        table = PEAK_BF16 if precision == "bf16" else PEAK_FP32
        for model, peak in table.items():
            if model in name:
                return peak, f"data sheet of {model}, {precision}, dense"
        return None, f"no peak is known for '{name}': MFU is not reported"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return measured_matmul_flops(dtype), f"measured matrix products, {precision}"


def measured_matmul_flops(dtype: "torch.dtype", size: int = 768, repeats: int = 5) -> float:
    """FLOP/s of the fastest of `repeats` products of two size x size matrices on the CPU."""
    import torch

    left, right = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    best = float("inf")
    for _ in range(repeats + 1):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def memory_bytes(device: "torch.device") -> int:
    """Peak memory so far: of the allocator on a GPU, resident memory of the process on a CPU."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        # Not getrusage: its peak is inherited from the process that started this one.
        text = Path("/proc/self/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resolve_hardware(config: Config) -> Config:
    """The configuration with 'auto' replaced by what this machine gives, so that the choice is recorded.

    Raises ConfigError when GPUs are asked for and there are too few, or the engine's package is missing.
    """
    if config.engine.name.startswith("zero") and not find_spec("deepspeed"):
        raise ConfigError(
            f"engine.name = {config.engine.name!r} is DeepSpeed's, and deepspeed is not installed here",
            "pip install 'seedbed[deepspeed]', or set engine.name to fsdp",
        )
    if config.engine.device == "cuda":
        import torch

        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if found < config.engine.num_ranks:
            raise ConfigError(
                f"engine.device = 'cuda' with engine.num_ranks = {config.engine.num_ranks}: "
                f"this machine has {found} GPU(s)",
                f"set engine.num_ranks to at most {found}" if found else "set engine.device to 'cpu'",
            )
    engine = config.engine.model_copy(
        update={"device": choose_device(config.engine), "precision": choose_precision(config.engine)}
    )
    return config.model_copy(update={"engine": engine})
