"""Pretraining on one GPU: tokens per second, utilisation, memory, and one hash from two runs of one seed.

    PYTHONPATH=. python -P benchmarks/gpu.py [--shape NAME] [--micro-batch N] [--steps N] [--out FILE]
    PYTHONPATH=. python -P benchmarks/gpu.py --device cpu --tiny

It needs torch (2.11 or newer), numpy, safetensors, tokenizers, pydantic, typer and rich, no installation.
A step is the trainer's, through Seedbed's own engine, model and objective, on random tokens: bf16 autocast
over fp32 weights (fp32 alone on a CPU), fused AdamW, gradients clipped to norm 1. First what the device
reaches on copies and on matrix products; then, for each shape, with the largest micro-batch that fits:

    fast            kernels as torch chooses them
    deterministic   those alone that give the same bits again: run twice from the same seed, hashes compared

Model FLOPs utilisation is against the dense peak of the data sheet, with the whole attention matrix counted
(PaLM's convention, which the bars are in) and with the causal half of it (Megatron-LM's). Vocabulary rows
that only fill up to a multiple of 128 are computed, and not counted.
"""

import argparse
import contextlib
import dataclasses
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Read when the library of matrix products starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch

from models.families import count_parameters, flops_per_token
from training.devices import Rates, device_rates, memory_bytes
from training.engines import Group
from training.memory_plan import memory_by_part
from training.objectives import causal_lm, cross_entropy
from training.processes import process_group
from training.recipes import make_config

# tokens: the vocabulary that is counted; micro_batches: sequences, the first that fit are taken; bars: on one
# H200, the fast form, at whole attention.
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2-124m": {
        "model": {"family": "gpt2", "context": 1024},
        "tokens": 50257,
        "tokens_per_step": 524_288,
        "micro_batches": (64, 32, 16, 8),
        "bars": {"tokens_per_s": 520_000, "mfu_full": 0.45},
    },
    "llama-1.3b": {
        "model": {"family": "llama", "num_layers": 24, "width": 2048, "num_heads": 16, "context": 2048},
        "tokens": 32000,
        "tokens_per_step": 131_072,
        "micro_batches": (16, 8, 4, 2),
        "bars": {"mfu_full": 0.5},
    },
}
TINY: dict[str, dict[str, Any]] = {
    "gpt2-tiny": {
        "model": {"family": "gpt2", "num_layers": 2, "width": 32, "num_heads": 2, "context": 32},
        "tokens": 61,
        "tokens_per_step": 512,
        "micro_batches": (8, 4),
        "bars": {},
    },
    "llama-tiny": {
        "model": {"family": "llama", "num_layers": 2, "width": 32, "num_heads": 2, "context": 64},
        "tokens": 61,
        "tokens_per_step": 512,
        "micro_batches": (4,),
        "bars": {},
    },
}
PRECISION = {"cuda": "bf16", "cpu": "fp32"}
VOCABULARY_MULTIPLE = 128
WARM_UP_STEPS = 3


def main() -> int:
    """Measure, print a table on stderr and JSON on stdout; 1 when a bar is missed or hashes differ."""
    asked = _arguments()
    # Last, since this folder holds a file with the name of a package.
    sys.path.append(str(Path(__file__).parent))
    shapes, precision = TINY if asked.tiny else SHAPES, PRECISION[asked.device]
    torch.set_flush_denormal(True)
    if asked.tiny:
        # Threads would cost more than they take off work this small.
        torch.set_num_threads(1)
    # What little is left in fp32 may take TF32, as the rest takes bf16.
    torch.set_float32_matmul_precision("high")
    # Fresh memory is written before it is read; filling it with NaN would only prove that, at a cost.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder, _group(asked.device, Path(folder)) as group:
        rates = device_rates(group.device, precision)
        result: dict[str, Any] = {
            "benchmark": "gpu",
            "device": device_name(group.device),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "engine": asked.engine,
            "precision": precision,
            "compiled": not asked.eager,
            "ceilings": {
                "copy_gb_per_s": round(copy_rate(group.device) / 1e9, 1),
                "matmul_tflops": round(rates.matmul / 1e12, 3),
                "peak_tflops": rates.peak and round(rates.peak / 1e12, 3),
                "peak_source": rates.source,
            },
            "shapes": {},
        }
        print(json.dumps(result["ceilings"]), file=sys.stderr)
        for name in [asked.shape] if asked.shape else shapes:
            found = result["shapes"][name] = measure_shape(shapes[name], asked, group, rates)
            print(f"{name}: {json.dumps(found)}", file=sys.stderr)
    text = json.dumps(result, indent=2)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")
    return int(not all(_passed(found) for found in result["shapes"].values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="two shapes that a CPU trains in seconds")
    parser.add_argument("--shape", choices=(*SHAPES, *TINY), help="one shape alone")
    parser.add_argument("--micro-batch", type=int, help="sequences; else the most that fit")
    parser.add_argument("--chunks", type=int, default=1, help="parts in which logits are computed")
    parser.add_argument("--engine", choices=("ddp", "fsdp"), default="ddp")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each form")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    asked = parser.parse_args()
    if asked.shape and asked.shape not in (TINY if asked.tiny else SHAPES):
        parser.error(f"--shape {asked.shape} goes {'without' if asked.tiny else 'with'} --tiny")
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu --tiny shows that the benchmark works")
    return asked


def _group(device: str, folder: Path) -> contextlib.AbstractContextManager[Group]:
    return process_group(0, 1, device, folder / "rendezvous", 600)


def device_name(device: torch.device) -> str:
    """As the device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def copy_rate(device: torch.device) -> float:
    """Bytes per second, read and written, of a copy within the device's memory."""
    size = 4 << 30 if device.type == "cuda" else 64 << 20
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = [seconds_of(lambda: target.copy_(source), device) for _ in range(6)]
    return 2 * size / min(seconds)


def seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """How long the device is busy with `work`."""
    _wait_for(device)
    started = time.perf_counter()
    work()
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_shape(
    shape: dict[str, Any], asked: argparse.Namespace, group: Group, rates: Rates
) -> dict[str, Any]:
    """All figures of one shape, with the first micro-batch that fits."""
    for size in [asked.micro_batch] if asked.micro_batch else shape["micro_batches"]:
        try:
            return _measure(shape, size, asked, group, rates)
        except torch.OutOfMemoryError:
            print(f"a micro-batch of {size} does not fit", file=sys.stderr)
        # The failed run's tensors are garbage only after the exception is.
        _forget(group.device)
    return {"error": "no micro-batch fits"}


def _measure(
    shape: dict[str, Any], size: int, asked: argparse.Namespace, group: Group, rates: Rates
) -> dict[str, Any]:
    from train_bench.synthetic import SyntheticRun

    padded = -(-shape["tokens"] // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    config = make_config(
        {
            "model": {**shape["model"], "vocab_size": padded},
            "batch": {"tokens_per_step": shape["tokens_per_step"], "micro_batch_size": size},
            "objective": {"num_chunks": asked.chunks},
            "engine": {
                "name": asked.engine,
                "device": asked.device,
                "precision": PRECISION[asked.device],
                "compile": not asked.eager,
            },
        }
    )
    counted = config.model.model_copy(update={"vocab_size": shape["tokens"]})
    run = SyntheticRun(config, group, shape["tokens"])
    with contextlib.nullcontext() if asked.eager else compiled_loss():
        fast = timed(run, asked.steps, group.device)
        with deterministic():
            forms = []
            for _ in range(2):
                run.engine.initialize()
                forms.append({**timed(run, asked.steps, group.device), "hash": run.state_hash()})
    for form in (fast, *forms):
        form.update(utilisation(form["tokens_per_s"], counted, rates))
    del run
    _forget(group.device)
    hashes = {form["hash"] for form in forms}
    return {
        "parameters": count_parameters(counted).total,
        "flops_per_token": dataclasses.asdict(flops_per_token(counted)),
        "tokens_per_step": shape["tokens_per_step"],
        "micro_batch": [size, config.model.context],
        "fast": fast,
        "deterministic": forms[0],
        "predicted_bytes": memory_by_part(config)["total"],
        "two_runs_one_hash": len(hashes) == 1,
        "bars": {
            name: {"wanted": bar, "got": fast[name]}
            for name, bar in shape["bars"].items()
            if "H200" in device_name(group.device)
        },
    }


@contextlib.contextmanager
def compiled_loss() -> Iterator[None]:
    """Beside the engine's blocks, the loss is compiled: its logits in fp32 then exist nowhere."""
    eager, fused = cross_entropy.cross_entropy, torch.compile(cross_entropy.cross_entropy)
    callers: tuple[Any, ...] = (causal_lm, cross_entropy)
    for module in callers:
        module.cross_entropy = fused
    try:
        yield
    finally:
        for module in callers:
            module.cross_entropy = eager
        torch.compiler.reset()


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Only kernels that give the same bits again; one that cannot raises, instead of being let pass."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def timed(run: Any, num_steps: int, device: torch.device) -> dict[str, Any]:
    """Speed and peak memory of `num_steps` steps after some that are not counted."""
    for number in range(WARM_UP_STEPS):
        first, _ = run.step(number)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    # A collection in a step would be timed with it, and finds nothing.
    gc.collect()
    gc.disable()
    _wait_for(device)
    started = time.perf_counter()
    times = []
    for number in range(WARM_UP_STEPS, WARM_UP_STEPS + num_steps):
        begun = time.perf_counter()
        loss, norm = run.step(number)
        times.append(time.perf_counter() - begun)
    _wait_for(device)
    seconds = time.perf_counter() - started
    gc.enable()
    return {
        "steps": num_steps,
        "tokens_per_s": run.tokens_per_step * num_steps / seconds,
        "step_s": {"median": statistics.median(times), "min": min(times), "max": max(times)},
        "peak_bytes": memory_bytes(device),
        "loss": [first, loss],
        "grad_norm": norm,
    }


def utilisation(tokens_per_s: float, model: Any, rates: Rates) -> dict[str, float | None]:
    """MFU by both conventions; and the causal one's share of what matrix products reach here."""
    flops = flops_per_token(model)
    return {
        "mfu_full": rates.peak and tokens_per_s * flops.full / rates.peak,
        "mfu_causal": rates.peak and tokens_per_s * flops.causal / rates.peak,
        "share_of_matmul_ceiling_causal": tokens_per_s * flops.causal / rates.matmul,
    }


def _forget(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _passed(found: dict[str, Any]) -> bool:
    if "error" in found:
        return False
    reached = all((bar["got"] or 0) >= bar["wanted"] for bar in found["bars"].values())
    return reached and found["two_runs_one_hash"]


if __name__ == "__main__":
    raise SystemExit(main())
