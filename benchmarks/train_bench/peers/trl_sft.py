"""Fine-tuning with the SFTTrainer of TRL: packing, loss on responses alone, its other defaults.

`equal` is fp32 without recomputing activations, as ours is; `recommended` leaves both to TRL: bf16 and
gradient checkpointing. The examples come as ids, so that both sides train on the same tokens.
"""

import json
import os
import tempfile
from pathlib import Path

from random_tokens import Clock, gpt2, settings

os.environ["HF_HUB_OFFLINE"] = "1"

from datasets import Dataset
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import SFTConfig, SFTTrainer

asked = settings()
clock = Clock(asked)
equal = {"bf16": False, "gradient_checkpointing": False} if asked["form"] == "equal" else {}


class Timer(TrainerCallback):
    """Hears of every optimizer step."""

    def on_step_end(self, *_: object, **__: object) -> None:
        clock.step_ended()


with tempfile.TemporaryDirectory() as folder:
    config = SFTConfig(
        output_dir=folder, use_cpu=True, max_steps=asked["steps"] + asked["warm_up"], learning_rate=6e-4,
        per_device_train_batch_size=asked["micro_batch"], gradient_accumulation_steps=asked["accumulation"],
        weight_decay=0.1, report_to="none", save_strategy="no", disable_tqdm=True, packing=True,
        max_length=asked["context"], completion_only_loss=True, **equal,
    )  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=asked["tokenizer"], eos_token=asked["end_of_text"], pad_token=asked["end_of_text"]
    )
    examples = Dataset.from_list(json.loads(Path(asked["examples"]).read_text()))
    trainer = SFTTrainer(
        gpt2(asked), config, train_dataset=examples, processing_class=tokenizer, callbacks=[Timer()]
    )
    rows = trainer.train_dataset["input_ids"]
    trainer.train()
filled = sum(len(row) for row in rows) / (len(rows) * asked["context"])
clock.report("trl", "transformers", "accelerate", filled=filled)
