"""Losses and gradients of ours beside TRL's on the same weights and tokens, as JSON.

    python -P benchmarks/parity_trl.py [--out FILE]

TRL needs an environment of its own (`make peers`, or $SEEDBED_TRAIN_PEERS); without it, nothing is compared.
Compared are SFT, the Bradley-Terry loss with margins and centering, DPO, and SimPO, in float32: largest
difference of a loss, and of a gradient relative to the largest entry of its tensor; 1 when any is above
1e-5. Left out: IPO, which TRL takes of means over tokens where the paper has sums; ORPO, whose likelihood
TRL takes over the prompt too; KTO, whose divergence TRL estimates from other mismatched answers.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.config import ModelConfig
from models.families import build
from models.hf import export_model
from models.initialization import initialize
from training.objectives import TensorBatch
from training.objectives.causal_lm import CausalLM
from training.objectives.preference import GroupTensors, Preference, PreferenceSettings, answer_log_probs
from training.objectives.reward import RewardModeling

BAR = 1e-5
SIZES = {
    "family": "llama", "num_layers": 2, "width": 32, "num_heads": 4, "mlp_width": 64, "context": 32,
    "vocab_size": 48, "tie_embeddings": True,
}  # fmt: skip
SETTINGS = {"beta": 0.3, "centering": 0.01, "margin": 0.5}


def model_of(seed: int, **changes: Any) -> nn.Module:
    """With weights large enough that losses are not those of indifference."""
    config = ModelConfig(**{**SIZES, **changes})
    model = build(config)
    initialize(model, config, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 5
    return model.train()


def examples() -> dict[str, Any]:
    """Prompts and two answers each, of several lengths."""
    random = torch.Generator().manual_seed(0)

    def ids(length: int) -> list[int]:
        return torch.randint(2, SIZES["vocab_size"] - 1, (length,), generator=random).tolist()

    return {
        "prompt": [ids(3 + i) for i in range(4)],
        "chosen": [ids(7 - i) for i in range(4)],
        "rejected": [ids(4 + 2 * i) for i in range(4)],
        "margin": [0.1, 0.0, 0.4, 0.2],
        "vocabulary": SIZES["vocab_size"],
        "settings": SETTINGS,
    }


def groups(batch: dict[str, Any], reference: nn.Module | None) -> GroupTensors:
    """The pairs, padded."""
    B, T = len(batch["prompt"]), SIZES["context"]
    tokens, trained = torch.zeros(B, 2, T, dtype=torch.int64), torch.zeros(B, 2, T, dtype=torch.bool)
    lengths = torch.zeros(B, 2, dtype=torch.int64)
    for row, prompt in enumerate(batch["prompt"]):
        for side, name in enumerate(("chosen", "rejected")):
            whole = prompt + batch[name][row]
            tokens[row, side, : len(whole)] = torch.tensor(whole)
            trained[row, side, len(prompt) : len(whole)] = True
            lengths[row, side] = len(whole)
    ranks = torch.tensor([[0, 1]] * B)
    margins = torch.tensor(batch["margin"])
    made = GroupTensors(tokens, lengths, trained, ranks, margins, torch.ones(B), torch.zeros(B, 2))
    if reference is None:
        return made
    with torch.no_grad():
        return made._replace(reference=answer_log_probs(reference, made)[0])


def rows(pairs: GroupTensors) -> TensorBatch:
    """The preferred answers, for supervised fine-tuning."""
    tokens, trained = pairs.tokens[:, 0], pairs.trained[:, 0]
    weights = trained[:, 1:].float()
    positions = torch.arange(tokens.shape[1] - 1).expand(len(tokens), -1)
    return TensorBatch(tokens[:, :-1], tokens[:, 1:], weights, positions, torch.zeros_like(positions))


def compared(folder: Path, name: str, model: nn.Module, loss: Tensor, theirs: float) -> dict[str, float]:
    """The difference of a loss, and the largest of a gradient."""
    loss.backward()
    grads = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    own = {key: value for key, value in grads.items() if not key.startswith("reward.")}
    export_model(ModelConfig(**SIZES), own, folder / f"ours-{name}")
    found = load_file(folder / f"ours-{name}" / "model.safetensors")
    if "reward.weight" in grads:
        found["score.weight"] = grads["reward.weight"]
    expected = load_file(folder / f"{name}.safetensors")
    missing = expected.keys() ^ found.keys()
    if missing:
        raise RuntimeError(f"{name}: gradients of one side alone: {', '.join(sorted(missing))}")
    worst = max(float((found[k] - expected[k]).abs().max() / expected[k].abs().max()) for k in expected)
    return {
        "loss": loss.item(),
        "loss of trl": theirs,
        "difference": abs(loss.item() - theirs),
        "gradients differ by": worst,
    }


def main() -> int:
    """Compare; 0 also where there is no TRL."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    asked = parser.parse_args()
    # Last, since this folder holds files with the names of packages.
    sys.path.append(str(Path(__file__).parent))
    from data_bench.peer import TRAIN, peer_python, run_peer

    if peer_python(TRAIN) is None:
        print(json.dumps({"not compared": "no peers: `make peers`, or set $SEEDBED_TRAIN_PEERS"}))
        return 0
    batch = examples()
    policy, reference = model_of(1), model_of(2)
    scorer = model_of(1, head="reward")
    scorer.load_state_dict(policy.state_dict(), strict=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, model in (("policy", policy), ("reference", reference)):
            export_model(ModelConfig(**SIZES), model.state_dict(), folder / part)
        save_file({"weight": scorer.reward.weight.detach()}, folder / "score.safetensors")
        (folder / "batch.json").write_text(json.dumps(batch))
        script = Path(__file__).parent / "parity" / "trl_losses.py"
        theirs = run_peer(script, name, peers=TRAIN)
        numbers = PreferenceSettings(beta=SETTINGS["beta"], margin=SETTINGS["margin"])
        plain = groups(batch, None)
        computed = {
            "sft": (model_of(1), lambda model: CausalLM().loss(model, rows(plain))),
            "reward": (scorer, lambda model: RewardModeling(SETTINGS["centering"]).loss(model, plain)),
            "dpo": (
                model_of(1),
                lambda model: Preference("dpo", numbers).loss(model, groups(batch, reference)),
            ),
            "simpo": (model_of(1), lambda model: Preference("simpo", numbers).loss(model, plain)),
        }
        results: dict[str, Any] = {"bar": BAR, "versions": theirs["versions"]}
        for key, (model, objective) in computed.items():
            total, weight = objective(model)
            results[key] = compared(folder, key, model, total / weight, theirs["losses"][key])
    text = json.dumps(results, indent=2)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")
    worst = [max(found["difference"], found["gradients differ by"]) for found in map(results.get, computed)]
    return int(max(worst) > BAR)


if __name__ == "__main__":
    raise SystemExit(main())
