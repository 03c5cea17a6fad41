"""A causal model of `transformers`, of any architecture, as what tasks are asked of.

It is read from a folder; code that lies there is not run.
"""

from pathlib import Path
from typing import Any

import torch

from data.packages import package_missing
from data.tokenizers import load_tokenizer
from evals.scoring import PaddedBackend, Scorer
from evals.scoring.cached import BATCH_SIZE
from seedbed.errors import DataError


def is_model_folder(path: Path) -> bool:
    """Whether `transformers` wrote it, and not a run of ours."""
    return (path / "config.json").is_file() and not (path / "checkpoints").exists()


def scorer_of_folder(folder: Path, batch_size: int | None = None, device: str = "cpu") -> Scorer:
    """In float32. DataError for a model that does not write text, or without a tokenizer.json."""
    try:
        from transformers import AutoModelForCausalLM
    except ImportError:
        raise package_missing("a model of transformers", "transformers", "transformers") from None
    tokenizer = load_tokenizer(folder)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} holds no model that writes text: {error}", "give a causal one") from None
    model.to(device).eval()
    text = model.config.get_text_config()
    context = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    if not context:
        raise DataError(f"{folder}/config.json does not say how much the model reads", "seedbed import it")
    backend = PaddedBackend(
        lambda tokens: model(tokens).logits,
        context=int(context),
        batch_size=batch_size or BATCH_SIZE,
        device=device,
        decode=tokenizer.decode,
    )
    return Scorer(backend, tokenizer)
