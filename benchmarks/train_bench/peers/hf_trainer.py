"""GPT-2 with the Trainer of `transformers`, its own defaults: fused AdamW, gradients clipped to norm 1."""

import os
import tempfile

from random_tokens import Clock, RandomTokens, gpt2, settings

os.environ["HF_HUB_OFFLINE"] = "1"

from transformers import Trainer, TrainerCallback, TrainingArguments

asked = settings()
clock = Clock(asked)


class Timer(TrainerCallback):
    """Hears of every optimizer step."""

    def on_step_end(self, *_: object, **__: object) -> None:
        clock.step_ended()


with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        output_dir=folder, use_cpu=True, max_steps=asked["steps"] + asked["warm_up"], learning_rate=6e-4,
        per_device_train_batch_size=asked["micro_batch"], gradient_accumulation_steps=asked["accumulation"],
        weight_decay=0.1, report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    Trainer(gpt2(asked), arguments, train_dataset=RandomTokens(asked), callbacks=[Timer()]).train()
clock.report("transformers", "accelerate")
