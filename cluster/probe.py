"""What torch can do on this machine, tried in a process of its own: `python -P -m cluster.probe RANK PORT`.

The doctor starts two of these. A torch that crashes, hangs or lacks an instruction takes only the probe
with it. Each finding is one line of JSON on stdout; a line that is missing is a finding that failed.
"""

import json
import sys
from datetime import timedelta
from typing import Any

WORLD_SIZE = 2
COLLECTIVE_TIMEOUT = timedelta(seconds=30)


def _tell(finding: str, **facts: Any) -> None:
    print(json.dumps({"finding": finding, **facts}), flush=True)


def _torch_facts() -> dict[str, Any]:
    import torch

    from training.config import Config
    from training.devices import choose_precision

    has_cuda = torch.cuda.is_available()
    devices = (
        [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())] if has_cuda else []
    )
    return {
        "version": str(torch.__version__),
        "built_for_cuda": torch.version.cuda,
        "precision": choose_precision(Config().engine),
        "devices": [{"name": device.name, "memory_bytes": device.total_memory} for device in devices],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _all_reduce(group: Any, device: str, rank: int, num_ranks: int) -> None:
    """Sum rank + 1 over the group and insist on the answer."""
    import torch
    import torch.distributed as dist

    value = torch.full((1024,), float(rank + 1), device=device)
    dist.all_reduce(value, group=group)
    expected = num_ranks * (num_ranks + 1) / 2
    if not bool((value == expected).all()):
        raise RuntimeError(f"all-reduce gave {float(value[0])} in place of {expected}")


def _try_nccl(rank: int) -> None:
    """Over two devices where there are two; a group of one otherwise, since NCCL wants a device a rank."""
    import torch
    import torch.distributed as dist

    num_ranks = min(WORLD_SIZE, torch.cuda.device_count())
    group = dist.new_group(list(range(num_ranks)), timeout=COLLECTIVE_TIMEOUT, backend="nccl")
    if rank < num_ranks:
        torch.cuda.set_device(rank)
        _all_reduce(group, f"cuda:{rank}", rank, num_ranks)
        torch.cuda.synchronize()
        _tell("nccl", ranks=num_ranks, version=".".join(map(str, torch.cuda.nccl.version())))


def _sharded_step() -> float:
    """One optimizer step of a sharded layer, as training takes it."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = torch.nn.Linear(8, 4)
    fully_shard(model, mesh=init_device_mesh("cpu", (WORLD_SIZE,)))
    optimizer = torch.optim.AdamW(model.parameters())
    loss = model(torch.ones(2, 8)).square().sum()
    loss.backward()
    optimizer.step()
    return loss.item()


def main() -> None:
    rank, port = int(sys.argv[1]), int(sys.argv[2])
    import torch
    import torch.distributed as dist

    _tell("torch", **_torch_facts())
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=WORLD_SIZE,
        timeout=COLLECTIVE_TIMEOUT,
    )
    _all_reduce(None, "cpu", rank, WORLD_SIZE)
    _tell("gloo", ranks=WORLD_SIZE)
    _tell("fsdp2", loss=_sharded_step())
    if torch.cuda.is_available():
        _try_nccl(rank)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
