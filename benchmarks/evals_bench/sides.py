"""One set of requests, scored by both sides in turn."""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from data_bench.peer import Peers, run_peer
from data_bench.spread import spread

from data.config import DataConfig
from data.sources import Drop, open_source
from data.tokenizers import train_tokenizer
from evals.lm_eval_model import scorer_of_checkpoint
from evals.requests import LogLikelihood, Rolling, Scored
from evals.scoring import Scorer
from evals.tasks.local import Text, built
from models.config import ModelConfig
from models.hf import export_model
from models.initialization import initialize
from models.transformer import Transformer
from training.checkpoint.exchange import import_checkpoint

EVALS = Peers("SEEDBED_EVALS_PEERS", ".venv-evals-peers")
HERE = Path(__file__).parent
SHAPE = {"family": "gpt2", "num_layers": 8, "width": 512, "num_heads": 8, "context": 1024}
SMALLER = {**SHAPE, "num_layers": 2, "width": 256, "context": 512}
CONTEXT_CHARACTERS = 1600
# Small initial weights find all choices alike.
WEIGHT_SCALE = 3.0


def compare(kind: str, quick: bool) -> dict[str, Any]:
    """Interleaved rounds: seconds of each side, ratios of neighbours, and the agreement of the numbers."""
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        texts = _texts()
        model = _model(Path(folder), texts, SMALLER if quick else SHAPE)
        asked = _requests(kind, texts, 4 if quick else 32)
        file = Path(folder) / "requests.json"
        file.write_text(json.dumps({"kind": kind, "requests": asked, "model": str(model)}))
        checkpoint, _ = import_checkpoint(model, Path(folder) / "run")
        scorer = scorer_of_checkpoint(checkpoint)

        def theirs(batch_size: int, count: int = 0) -> dict[str, Any]:
            arguments = (str(file), str(batch_size), str(count))
            return run_peer(HERE / "peers" / "hf.py", *arguments, threads=threads, peers=EVALS)

        sizes = (4,) if quick else (1, 4, 16)
        fastest = min(sizes, key=lambda size: theirs(size, len(asked) // 4)["seconds"] if sizes[1:] else size)
        _score(scorer, kind, asked[:8])
        seconds: dict[str, list[float]] = {"seedbed": [], "lm_eval": []}
        for number in range(1 if quick else 5):
            for name in ("seedbed", "lm_eval")[:: 1 if number % 2 else -1]:
                started = time.perf_counter()
                if name == "seedbed":
                    ours = _score(scorer, kind, asked)
                    seconds[name].append(time.perf_counter() - started)
                else:
                    peer = theirs(fastest)
                    seconds[name].append(peer["seconds"])
                print(f"{kind}: {name} {seconds[name][-1]:.2f} s", file=sys.stderr)
        others = [_score(scorer_of_checkpoint(checkpoint, size), kind, asked) for size in (1, 7)]
        adapter = run_peer(
            HERE / "peers" / "adapter.py", str(file), str(checkpoint), threads=threads, peers=EVALS
        )
    ratios = [peer_s / own_s for own_s, peer_s in zip(seconds["seedbed"], seconds["lm_eval"], strict=True)]
    return {
        "model": SMALLER if quick else SHAPE,
        "requests": len(asked),
        "tokens_scored": sum(one.tokens for one in ours),
        "merged": sum(one.is_merged for one in ours),
        "threads": threads,
        "batch_size of lm_eval": fastest,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "speedup": spread(ratios),
        "agreement": _agreement(kind, ours, peer["nats"], adapter["nats"]),
        "largest_difference_of_batch_sizes_1_7_64": max(
            abs(one.log_likelihood - other.log_likelihood)
            for found in others
            for one, other in zip(ours, found, strict=True)
        ),
        "versions": peer["versions"],
    }


def _agreement(kind: str, ours: list[Scored], theirs: list[float], adapter: list[float]) -> dict[str, Any]:
    own = [one.log_likelihood for one in ours]
    differences = [abs(a - b) for a, b in zip(own, theirs, strict=True)]
    per_token = [difference / one.tokens for difference, one in zip(differences, ours, strict=True)]
    found = {
        "largest_difference": max(differences),
        "largest_difference_per_token": max(per_token),
        "adapter_is_identical": own == adapter,
    }
    if kind == "choices":
        found["same_predictions"] = _predictions(own) == _predictions(theirs)
    return found


def _predictions(nats: list[float]) -> list[int]:
    groups = [nats[start : start + 4] for start in range(0, len(nats), 4)]
    return [group.index(max(group)) for group in groups]


def _score(scorer: Scorer, kind: str, asked: list[Any]) -> list[Scored]:
    if kind == "choices":
        return scorer.log_likelihoods([LogLikelihood(str(n), *one) for n, one in enumerate(asked)])
    return scorer.rolling(
        [Rolling(str(n), one[0]) for n, one in enumerate(asked)], stride=scorer.backend.context
    )


def _texts() -> list[Text]:
    found = [
        Text(one.id, one.source, one.text)
        for one in open_source(DataConfig(source="stdlib")).documents(lambda num_bytes: None)
        if not isinstance(one, Drop)
    ]
    return sorted(found, key=lambda text: text.id)


def _requests(kind: str, texts: list[Text], count: int) -> list[list[str]]:
    """Those of `choices` have contexts several times as long as a choice."""
    if kind == "rolling":
        step = len(texts) // (2 * count)
        return [[text.text[:12_000]] for text in texts[:: max(1, step)] if len(text.text) > 1000][:count]
    asked = []
    by_id = {text.id: text.text for text in texts}
    for item in built("next-passage", texts, 0, 4 * count):
        at = by_id[item.document].find(item.fields["context"])
        before = by_id[item.document][: at + len(item.fields["context"])][-CONTEXT_CHARACTERS:]
        if len(before) == CONTEXT_CHARACTERS:
            asked += [[before, choice[:200]] for choice in item.choices]
    return asked[: 4 * count]


def _model(folder: Path, texts: list[Text], shape: dict[str, Any]) -> Path:
    """A Hugging Face folder with random weights and a tokenizer of the texts."""
    tokenizer = train_tokenizer(
        (text.text for text in texts[:: 8 if shape is SMALLER else 4]), 1024 if shape is SMALLER else 8192
    )
    config = ModelConfig.model_validate({**shape, "vocab_size": tokenizer.vocab_size})
    model = Transformer(config).eval()
    initialize(model, config, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(WEIGHT_SCALE if parameter.ndim > 1 else 1)
    end = tokenizer.end_of_text_id
    settings = {"bos_token_id": end, "eos_token_id": end}
    export_model(config, dict(model.named_parameters()), folder / "hf", settings=settings)
    (folder / "hf" / "tokenizer.json").write_bytes(tokenizer.to_bytes())
    named = dict.fromkeys(("bos_token", "eos_token"), tokenizer.end_of_text)
    about = {"tokenizer_class": "PreTrainedTokenizerFast", **named}
    (folder / "hf" / "tokenizer_config.json").write_text(json.dumps(about))
    return folder / "hf"
