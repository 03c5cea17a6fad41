"""PPO with the PPOTrainer of TRL, as its documentation has it: one process, on a CPU.

`fp32` has denormals flushed; `defaults` leaves precision to TRL, whose PPOConfig asks for bf16 unless told
otherwise (its gradient checkpointing, on by default, is read by no part of this trainer). A step learns from
a mini-batch in one piece. The reward is a model here and cannot be a rule: the cheapest that the trainer
takes, which computes nothing. Runs in an environment of its own, which has no Seedbed.
"""

import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
)
from trl import PPOConfig, PPOTrainer

asked: dict[str, Any] = json.loads(sys.argv[1])
torch.set_num_threads(asked["threads"])
torch.manual_seed(0)
if asked["form"] == "fp32":
    torch.set_flush_denormal(True)


class Worthless(nn.Module):
    """A reward model by the only names that the trainer calls: every answer is worth 0."""

    base_model_prefix = "backbone"

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Identity()

    def backbone(self, input_ids: Tensor, **_: object) -> SimpleNamespace:
        return SimpleNamespace(hidden_states=[torch.zeros(*input_ids.shape, 1)])


class Timer(TrainerCallback):
    """Hears of the end of every iteration."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: object, **__: object) -> None:
        self.ends.append(time.perf_counter())


config = GPT2Config(
    vocab_size=asked["vocabulary"], n_positions=asked["context"], n_embd=asked["width"],
    n_layer=asked["layers"], n_head=asked["heads"], bos_token_id=0, eos_token_id=0, num_labels=1,
)  # fmt: skip
policy, reference = GPT2LMHeadModel(config), GPT2LMHeadModel(config)
reference.load_state_dict(policy.state_dict())
tokenizer = PreTrainedTokenizerFast(
    tokenizer_file=asked["tokenizer"], eos_token=asked["end_of_text"], padding_side="left"
)
# A token of its own, as the documentation recommends. Prompts are of one length: it is never drawn or read.
tokenizer.add_special_tokens({"pad_token": "[PAD]"})
prompts = Dataset.from_dict({"input_ids": asked["prompts"]})
precision = {"bf16": False} if asked["form"] == "fp32" else {}
timer, num_prompts = Timer(), len(asked["prompts"])
with tempfile.TemporaryDirectory() as folder:
    settings = PPOConfig(
        output_dir=folder, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
        # Mini-batches are parts of this batch, and each is a step.
        per_device_train_batch_size=num_prompts, num_mini_batches=asked["mini_batches"],
        num_ppo_epochs=asked["epochs"], total_episodes=num_prompts * asked["iterations"],
        response_length=asked["new_tokens"], temperature=1.0, num_sample_generations=0, **precision,
    )  # fmt: skip
    trainer = PPOTrainer(
        settings, tokenizer, policy, reference, Worthless(), prompts, GPT2ForSequenceClassification(config),
        eval_dataset=prompts, callbacks=[timer],
    )  # fmt: skip
    trainer.train()
pairs = zip(timer.ends[1:], timer.ends, strict=False)
names = ("torch", "trl", "transformers", "accelerate")
print(
    json.dumps(
        {
            "iteration_s": [end - begin for end, begin in pairs],
            "bf16": bool(settings.bf16),
            "recomputes_activations": policy.is_gradient_checkpointing,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
        }
    )
)
