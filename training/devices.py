"""What a device can do: its peak rate, its native precision, its memory in use.

torch is imported where it is asked, so that a command that only reads a configuration is quick.
"""

import contextlib
import os
import resource
import socket
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from seedbed.errors import ConfigError
from training.catalogue import MINE, Device, known_gpu
from training.config import Config
from training.sections import EngineConfig

if TYPE_CHECKING:
    import torch


class Rates(NamedTuple):
    """What utilisation is measured against, in FLOP/s of one device."""

    peak: float | None
    """None where it would be a guess."""
    source: str
    """Where the peak is from, or why there is none."""
    matmul: float
    """What matrix products reach on this device, measured."""


def cpu_field(name: str) -> str:
    """What Linux says of this CPU under a name, such as "vendor_id"; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for field, _, value in fields if field.strip() == name), "")


def cpu_flags() -> set[str]:
    """Instruction-set flags of this CPU, as Linux names them; empty elsewhere."""
    return set(cpu_field("flags").split())


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


def device_rates(device: "torch.device", precision: str) -> Rates:
    """The peak of this device and what it reaches, measured now, with the threads that this process has.

    A GPU's peak is its data sheet's; a CPU's is what was measured.
    """
    import torch

    matmul = measured_matmul_flops(device, precision)
    if device.type == "cuda":
        return Rates(*peak_of_gpu(torch.cuda.get_device_name(device), precision), matmul)
    return Rates(matmul, f"measured matrix products, {precision}", matmul)


def peak_of_gpu(name: str, precision: str) -> tuple[float | None, str]:
    """(FLOP/s of the GPU that calls itself `name`, where the figure is from); None rather than a guess."""
    device = known_gpu(name)
    if device is None:
        return None, f"no peak is known for '{name}': MFU is not reported"
    return device.peak_flops(precision), f"data sheet of {device.name}, {precision}, dense"


def measured_matmul_flops(device: "torch.device", precision: str, repeats: int = 5) -> float:
    """FLOP/s of the fastest of `repeats` products of two square matrices of random numbers."""
    import torch

    from training.products import product

    on_gpu = device.type == "cuda"
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    # Large enough to fill the device. Random, since a GPU is quicker with numbers that are all the same;
    # of a generator of its own, since the global one is the run's.
    size, products = (8192, 10) if on_gpu else (768, 1)
    random = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(size, size, device=device, generator=random).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats + 1):
        _wait_for(device)
        started = time.perf_counter()
        for _ in range(products):
            product(left, right)
        _wait_for(device)
        best = min(best, time.perf_counter() - started)
    if on_gpu:
        # What was needed for this is no part of the run's peak.
        torch.cuda.reset_peak_memory_stats(device)
    return 2 * size**3 * products / best


def device_at_hand(config: Config) -> Device | None:
    """What one rank of `config` computes on here: a CPU is measured, a GPU is taken from the catalogue.

    None when there is no such GPU, or its figures are not known.
    """
    import torch

    engine = config.engine
    if engine.device == "cuda":
        return known_gpu(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    threads = torch.get_num_threads()
    torch.set_num_threads(threads_per_rank(engine))
    try:
        products = measured_matmul_flops(torch.device("cpu"), engine.precision)
        memory = measured_copy_bytes()
    finally:
        torch.set_num_threads(threads)
    link = measured_socket_bytes()
    source = "measured: products of matrices, copies in memory, a local socket"
    room = available_bytes(engine)
    return Device(MINE, products, products, room, memory, link, link, memory, engine.num_ranks, source, False)


def measured_copy_bytes(size: int = 1 << 25, repeats: int = 3) -> float:
    """Bytes per second that a copy in memory reads and writes."""
    import torch

    source, target = torch.ones(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - started)
    return 2 * size / best


def measured_socket_bytes(size: int = 1 << 24) -> float:
    """Bytes per second from one process to another of this machine, over a socket, as gloo sends them."""
    left, right = socket.socketpair()
    with left, right:
        sender = threading.Thread(target=left.sendall, args=(bytes(size),))
        started = time.perf_counter()
        sender.start()
        buffer, got = memoryview(bytearray(1 << 20)), 0
        while got < size:
            got += right.recv_into(buffer)
        sender.join()
    return size / (time.perf_counter() - started)


def _wait_for(device: "torch.device") -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


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


def available_bytes(engine: EngineConfig) -> int:
    """Memory that is free for each rank on this machine, now."""
    if engine.device == "cuda":
        import torch

        return min(torch.cuda.mem_get_info(device)[0] for device in range(engine.num_ranks))
    found = _meminfo("MemAvailable") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text(encoding="utf-8"))
        found = min(found, int((group / "memory.max").read_text(encoding="utf-8")) - used)
    return found // engine.num_ranks


def _meminfo(name: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def packages_of(config: Config) -> dict[str, tuple[str, str]]:
    """Optional packages that a run computes with -> (the setting that needs it, the extra that has it)."""
    engine, optimizer = config.engine.name, config.optimizer.name
    found = {}
    if config.engine.traits.is_zero:
        found["deepspeed"] = (f'engine.name = "{engine}"', "deepspeed")
    if optimizer in ("lion", "lamb", "adabound"):
        found["pytorch_optimizer"] = (f'optimizer.name = "{optimizer}"', "optimizers")
    if getattr(config.model, "lora_base", "full") == "nf4":
        found["bitsandbytes"] = ('model.lora_base = "nf4"', "quantized")
    return found


def resolve_hardware(config: Config) -> Config:
    """The configuration with 'auto' replaced by what this machine gives, so that the choice is recorded.

    Raises ConfigError when GPUs are asked for and there are too few, or needed and there are none; or when
    the package of the engine, the optimizer or a quantised base is missing.
    """
    for package, (setting, extra) in packages_of(config).items():
        if not find_spec(package):
            raise ConfigError(
                f"{setting} needs the package {package}, which is not installed here",
                f"pip install 'seedbed[{extra}]', or choose another",
            )
    if config.engine.device == "cuda":
        import torch

        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if found < config.num_workers:
            beside = f" and {n} worker(s) beside them" if (n := config.num_beside) else ""
            raise ConfigError(
                f"engine.device = 'cuda' with engine.num_ranks = {config.engine.num_ranks}{beside}: "
                f"this machine has {found} GPU(s)",
                f"set engine.num_ranks to at most {found}" if found else "set engine.device to 'cpu'",
            )
    engine = config.engine.model_copy(
        update={"device": choose_device(config.engine), "precision": choose_precision(config.engine)}
    )
    if engine.offload != "none" and engine.device == "cpu":
        raise ConfigError(
            f'engine.offload = "{engine.offload}" on a CPU, where all of it is in the host\'s memory already',
            "--set engine.offload=none",
        )
    return config.model_copy(update={"engine": engine})
