"""Losses and gradients of TRL's trainers on given weights and tokens; runs in the peers' environment.

Takes a folder with `policy/` and `reference/` (Hugging Face), `score.safetensors` and `batch.json`; writes
`NAME.safetensors` with the gradients of each loss, and prints the losses as JSON.
"""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.reward_trainer import DataCollatorForPreference as RewardCollator

folder = Path(sys.argv[1])
batch = json.loads((folder / "batch.json").read_text())
settings = batch["settings"]
rows = [
    {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
    for prompt, chosen, rejected in zip(batch["prompt"], batch["chosen"], batch["rejected"], strict=True)
]
common = {
    "output_dir": str(folder / "out"), "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
    "report_to": "none", "max_steps": 1,
}  # fmt: skip
words = {f"w{i}": i for i in range(batch["vocabulary"])}
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(WordLevel(words, unk_token="w1")), eos_token="w0", pad_token="w0"
)
# The trainers want data of their own at the start; their losses are then given ours.
pairs = Dataset.from_list([{"prompt": "w2", "chosen": "w3", "rejected": "w4"}] * 2)
texts = Dataset.from_list([{"prompt": "w2", "completion": "w3"}] * 2)


def language_model(name: str = "policy") -> Any:
    return AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32)


def padded(sequences: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, sequences))
    return torch.tensor([one + [value] * (longest - len(one)) for one in sequences])


def supervised() -> tuple[Any, torch.Tensor]:
    trainer = SFTTrainer(
        language_model(), SFTConfig(**common), train_dataset=texts, processing_class=tokenizer
    )
    whole = [row["prompt_ids"] + row["chosen_ids"] for row in rows]
    labels = [[-100] * len(row["prompt_ids"]) + row["chosen_ids"] for row in rows]
    inputs = {
        "input_ids": padded(whole, 0),
        "labels": padded(labels, -100),
        "attention_mask": padded([[1] * len(one) for one in whole], 0),
    }
    return trainer.model, trainer.compute_loss(trainer.model, inputs)


def reward() -> tuple[Any, torch.Tensor]:
    model = AutoModelForSequenceClassification.from_pretrained(
        folder / "policy", num_labels=1, dtype=torch.float32, pad_token_id=batch["vocabulary"] - 1
    )
    model.score.load_state_dict(load_file(folder / "score.safetensors"))
    config = RewardConfig(**common, center_rewards_coefficient=settings["centering"])
    trainer = RewardTrainer(model, config, train_dataset=pairs, processing_class=tokenizer)
    whole = [
        {
            "chosen_ids": row["prompt_ids"] + row["chosen_ids"],
            "rejected_ids": row["prompt_ids"] + row["rejected_ids"],
            "margin": margin,
        }
        for row, margin in zip(rows, batch["margin"], strict=True)
    ]
    # The score is read at the last token that is no padding.
    model.config.pad_token_id = batch["vocabulary"] - 1
    return trainer.model, trainer.compute_loss(trainer.model, RewardCollator(batch["vocabulary"] - 1)(whole))


def dpo() -> tuple[Any, torch.Tensor]:
    config = DPOConfig(**common, beta=settings["beta"])
    trainer = DPOTrainer(
        language_model(), language_model("reference"), config, train_dataset=pairs, processing_class=tokenizer
    )
    return trainer.model, trainer.compute_loss(trainer.model, DataCollatorForPreference(0)(rows))


def simpo() -> tuple[Any, torch.Tensor]:
    config = CPOConfig(
        **common, beta=settings["beta"], loss_type="simpo", simpo_gamma=settings["margin"], cpo_alpha=0.0
    )
    trainer = CPOTrainer(language_model(), config, train_dataset=pairs, processing_class=tokenizer)
    inputs = {}
    for side in ("chosen", "rejected"):
        whole = [row["prompt_ids"] + row[f"{side}_ids"] for row in rows]
        inputs[f"{side}_input_ids"] = padded(whole, 0)
        inputs[f"{side}_attention_mask"] = padded([[1] * len(one) for one in whole], 0)
        inputs[f"{side}_labels"] = padded(
            [[-100] * len(row["prompt_ids"]) + row[f"{side}_ids"] for row in rows], -100
        )
    return trainer.model, trainer.compute_loss(trainer.model, inputs)


found = {}
for name, computed in (("sft", supervised), ("reward", reward), ("dpo", dpo), ("simpo", simpo)):
    model, loss = computed()
    model.zero_grad()
    loss.backward()
    gradients = {
        key: p.grad.contiguous().clone() for key, p in model.named_parameters() if p.grad is not None
    }
    save_file(gradients, folder / f"{name}.safetensors")
    found[name] = loss.item()
print(
    json.dumps(
        {"losses": found, "versions": {"trl": version("trl"), "transformers": version("transformers")}}
    )
)
