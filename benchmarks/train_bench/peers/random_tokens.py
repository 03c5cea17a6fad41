"""What the peers train on and how they are timed; runs in their environment, which has no Seedbed."""

import json
import os
import platform
import sys
import time
from importlib.metadata import version
from typing import Any

ASKED: dict[str, Any] = json.loads(sys.argv[1])
# Read when the compiler is imported.
os.environ["TORCHDYNAMO_DISABLE"] = str(int(ASKED["form"] == "equal"))

import torch  # noqa: E402
from torch.utils.data import Dataset  # noqa: E402


def settings() -> dict[str, Any]:
    """The shape and the batch that were asked for; threads and denormals are set as they say."""
    torch.set_num_threads(ASKED["threads"])
    torch.manual_seed(0)
    if ASKED["form"] == "equal":
        torch.set_flush_denormal(True)
    return ASKED


class RandomTokens(Dataset):
    """Windows of random tokens, each `context + extra` long."""

    def __init__(self, asked: dict[str, Any], extra: int = 0) -> None:
        count = asked["micro_batch"] * asked["accumulation"] * (asked["steps"] + asked["warm_up"] + 2)
        random = torch.Generator().manual_seed(0)
        shape = (count, asked["context"] + extra)
        self.windows = torch.randint(0, asked["vocabulary"], shape, generator=random)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.windows[index], "labels": self.windows[index]}


class Clock:
    """Notes the ends of optimizer steps."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked, self.ends = asked, []

    def step_ended(self) -> None:
        """Called after each."""
        self.ends.append(time.perf_counter())

    def report(self, *packages: str, filled: float = 1.0) -> None:
        """Print tokens per second, warm-up left out, and the versions; `filled` is no padding."""
        asked = self.asked
        ends = self.ends[asked["warm_up"] - 1 :]
        tokens = filled * asked["micro_batch"] * asked["accumulation"] * asked["context"] * (len(ends) - 1)
        versions = {name: version(name) for name in ("torch", *packages)}
        print(
            json.dumps(
                {
                    "tokens_per_s": tokens / (ends[-1] - ends[0]),
                    "steps": len(ends) - 1,
                    "filled": filled,
                    "versions": {"python": platform.python_version(), **versions},
                }
            )
        )


def gpt2(asked: dict[str, Any]) -> Any:
    """The model of `transformers`, without dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=asked["vocabulary"], n_positions=asked["context"], n_embd=asked["width"],
        n_layer=asked["layers"], n_head=asked["heads"], resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=0, eos_token_id=0, use_cache=False,
    )  # fmt: skip
    return GPT2LMHeadModel(config)
