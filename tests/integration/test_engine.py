"""The FSDP engine on real processes: the same weights and gradients on any number of ranks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.config import ModelConfig
from models.initialization import initial_values
from models.transformer import Transformer
from training.objectives import TensorBatch
from training.objectives.causal_lm import CausalLM

MODEL = {"num_layers": 2, "width": 36, "num_heads": 3, "context": 16, "vocab_size": 67}

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from models.config import ModelConfig
from models.initialization import initial_values
from models.transformer import Transformer
from training.engines import ENGINES
from training.objectives import TensorBatch
from training.objectives.causal_lm import CausalLM
from training.processes import process_group
from training.recipes import make_config

folder, rank, num_ranks = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
model = json.loads(sys.argv[4])
torch.set_num_threads(1)
config = make_config({"model": model, "engine": {"name": "fsdp", "num_ranks": num_ranks, "precision": "fp32"},
                      "optimizer": {"clip_norm": 0.5, "eps": 1e-2}})
with process_group(rank, num_ranks, "cpu", folder / f"rendezvous-{num_ranks}", 60) as group:
    engine = ENGINES["fsdp"].prepare(
        lambda: Transformer(config.model),
        lambda name, start, stop: initial_values(name, start, stop, config.model, 5), config, group)
    def whole():
        found = {}
        for shard in engine.state():
            found[shard.name] = (shard.local.clone(), shard.offsets, shard.global_shape)
        return found
    initial = whole()
    data = json.loads((folder / "batch.json").read_text())
    tokens, targets, weights = (torch.tensor(data[key]) for key in ("tokens", "targets", "weights"))
    # Four micro-batches of two rows; a rank without one runs weight zero.
    norms, losses = [], []
    for step in range(3):
        total = 0.0
        turns = -(-4 // num_ranks)
        for turn in range(turns):
            index = turn * num_ranks + rank
            rows = slice(2 * index, 2 * index + 2) if index < 4 else slice(0, 2)
            w = weights[rows] if index < 4 else torch.zeros_like(weights[rows])
            loss, weight = engine.micro_batch(
                CausalLM(), TensorBatch(tokens[rows], targets[rows], w), last=turn == turns - 1)
            total += loss.item()
        losses.append(engine.sum_over_ranks([total])[0] / weights.sum().item())
        norms.append(engine.step(1e-2, weights.sum().item()))
    evaluated = engine.evaluate(CausalLM(), TensorBatch(tokens, targets, weights))["loss"].total.item()
    logits = engine.logits(tokens[:1])
    after = whole()
torch_free = {
    "initial": {n: [t.tolist(), list(o)] for n, (t, o, s) in initial.items()},
    "after": {n: [t.tolist(), list(o)] for n, (t, o, s) in after.items()},
    "norms": norms, "losses": losses, "evaluated": evaluated, "logits": logits.tolist(),
}
(folder / f"out-{num_ranks}-{rank}.json").write_text(json.dumps(torch_free))
"""


def run_ranks(folder: Path, num_ranks: int) -> list[dict]:
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(folder / "script.py"), str(folder)]
    processes = [
        subprocess.Popen([*command, str(rank), str(num_ranks), json.dumps(MODEL)])
        for rank in range(num_ranks)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0] * num_ranks
    return [json.loads((folder / f"out-{num_ranks}-{rank}.json").read_text()) for rank in range(num_ranks)]


def assemble(outputs: list[dict], key: str) -> dict[str, torch.Tensor]:
    parts: dict[str, list[tuple[list[int], torch.Tensor]]] = {}
    for output in outputs:
        for name, (values, offsets) in output[key].items():
            if values != []:
                parts.setdefault(name, []).append((offsets, torch.tensor(values)))
    return {
        name: torch.cat([v for _, v in sorted(found, key=lambda part: part[0])])
        if found[0][1].ndim
        else found[0][1]
        for name, found in parts.items()
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """One plain process: the whole batch at once, torch's own AdamW and clipping."""
    folder = tmp_path_factory.mktemp("engine")
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 67, (8, 16), generator=random)
    targets = torch.randint(0, 67, (8, 16), generator=random)
    weights = (torch.rand(8, 16, generator=random) > 0.4).float()
    (folder / "batch.json").write_text(
        json.dumps({"tokens": tokens.tolist(), "targets": targets.tolist(), "weights": weights.tolist()})
    )
    config = ModelConfig(**MODEL)
    model = Transformer(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = initial_values(name, 0, parameter.numel(), config, 5)
            parameter.copy_(torch.from_numpy(values).view(parameter.shape))
    initial = {name: p.detach().clone() for name, p in model.named_parameters()}
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    # With a small epsilon, Adam turns the rounding of a gradient that should be zero into a whole step.
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-2)
    norms, losses = [], []
    for _ in range(3):
        total, weight = CausalLM().loss(model, TensorBatch(tokens, targets, weights))
        (total / weight).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)))
        losses.append((total / weight).item())
        optimizer.step()
        optimizer.zero_grad()
    after = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        evaluated = CausalLM().loss(model, TensorBatch(tokens, targets, weights)).total.item()
    return folder, initial, after, norms, losses, evaluated


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_any_number_of_ranks_computes_what_one_plain_process_does(reference, num_ranks):
    """Another number of GPUs would train another model."""
    folder, initial, after, norms, losses, evaluated = reference
    outputs = run_ranks(folder, num_ranks)
    for name, values in assemble(outputs, "initial").items():
        assert torch.equal(values, initial[name.removeprefix("model/")]), name
    for output in outputs:
        assert output["losses"] == pytest.approx(losses, abs=1e-6)
        assert output["norms"] == pytest.approx(norms, rel=1e-5)
        assert output["logits"] == outputs[0]["logits"]
        assert output["evaluated"] == pytest.approx(evaluated, rel=1e-6)
    state = assemble(outputs, "after")
    assert {name for name in state if name.startswith("model/")} == {f"model/{name}" for name in initial}
    moments = {name.rsplit("/", 1)[1] for name in state if name.startswith("optimizer/")}
    assert moments == {"exp_avg", "exp_avg_sq", "step"}
    for name, values in after.items():
        torch.testing.assert_close(state[f"model/{name}"], values, atol=2e-6, rtol=0)
