"""A model of GPT-2's shape (without a table of positions) with `litgpt pretrain`.

As recommended it compiles, under bf16 autocast where the processor has bf16; in the equal form it is told
fp32, and compilation is off. It asks for the next batch when a step has ended, which is how it is timed.
"""

import contextlib
import sys
import tempfile
from pathlib import Path

from random_tokens import Clock, RandomTokens, settings  # isort: skip; it says whether anything is compiled

import litgpt.pretrain
from litgpt import Config
from litgpt.args import EvalArgs, TrainArgs
from litgpt.data import DataModule
from torch.utils.data import DataLoader

asked = settings()
clock = Clock(asked)


class Windows(RandomTokens):
    """Plain rows; tells the clock when a step's first one is asked for."""

    def __getitem__(self, index: int):  # noqa: ANN204
        return self.windows[index]


class TimedLoader(DataLoader):
    """Each batch that is asked for after a whole step ends one."""

    def __iter__(self):  # noqa: ANN204
        for number, batch in enumerate(super().__iter__()):
            if number and number % asked["accumulation"] == 0:
                clock.step_ended()
            yield batch


class Data(DataModule):
    """Random tokens for training, a batch of them for its first validation."""

    def connect(self, tokenizer=None, batch_size=1, max_seq_length=None) -> None:  # noqa: ANN001
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader:
        return TimedLoader(Windows(asked, extra=1), batch_size=self.batch_size)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Windows(asked, extra=1), batch_size=self.batch_size)


config = Config(
    name="gpt", block_size=asked["context"], n_layer=asked["layers"], n_embd=asked["width"],
    n_head=asked["heads"], vocab_size=asked["vocabulary"], padded_vocab_size=asked["vocabulary"],
    parallel_residual=False, rotary_percentage=0.0, attn_bias=True, intermediate_size=4 * asked["width"],
    gelu_approximate="tanh",
)  # fmt: skip
# One step more than is timed: the last is seen to end when the batch after it is asked for.
steps = asked["steps"] + asked["warm_up"] + 1
global_batch = asked["micro_batch"] * asked["accumulation"]
# What it prints belongs to nobody's JSON.
with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
    litgpt.pretrain.setup(
        model_name="gpt", model_config=config, out_dir=Path(folder), data=Data(), devices=1,
        precision=None if asked["form"] != "equal" and asked["native_precision"] == "bf16" else "32-true",
        logger_name="csv",
        optimizer={"class_path": "torch.optim.AdamW", "init_args": {"lr": 6e-4, "weight_decay": 0.1}},
        train=TrainArgs(
            save_interval=10**9, log_interval=1, global_batch_size=global_batch,
            micro_batch_size=asked["micro_batch"], max_tokens=steps * global_batch * asked["context"],
            max_norm=1.0, min_lr=6e-5, lr_warmup_steps=1, tie_embeddings=True,
        ),
        eval=EvalArgs(interval=10**9, max_iters=1),
    )  # fmt: skip
clock.report("litgpt", "lightning")
