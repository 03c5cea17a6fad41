"""One head on an encoder, trained with one seed, and what it answers.

`linear` holds the encoder still, in eval mode; `tuned` trains all of it (Devlin et al. 2018, section 4), with
the head's rate for the head. AdamW, a tenth of the steps to warm up, then linearly down to nothing.

Shapes: B rows, T pieces, P places, L labels; see `encoded`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.probes.encoded import Encoded, Encoder, Rows
from evals.probes.examples import Kind
from models.bert.config import EncoderConfig
from models.families import build, initial_values
from seedbed.errors import UsageError
from seedbed.randomness import generator, seed64
from training.checkpoint.models import LoadedModel

Mode = Literal["linear", "tuned"]
HEADS = {
    "sequence": "sequence_classification",
    "pair": "sequence_classification",
    "tagging": "token_classification",
    "span": "span",
}


@dataclass(frozen=True)
class Fit:
    """How a head is trained."""

    steps: int = 200
    batch_size: int = 16
    lr: float = 2e-4
    """Of the encoder."""
    head_lr: float = 2e-3
    weight_decay: float = 0.01


def fitted(
    checkpoint: LoadedModel,
    kind: Kind,
    encoder: Encoder,
    train: Sequence[Encoded],
    mode: Mode,
    seed: int,
    how: Fit,
) -> nn.Module:
    """The checkpoint's encoder with a head for `kind` that has learned `train`."""
    model, fresh = _with_head(checkpoint, kind, len(encoder.labels), seed)
    torch.manual_seed(seed64(seed, "probe dropout"))
    heads = [p for name, p in model.named_parameters() if name in fresh]
    others = [p for name, p in model.named_parameters() if name not in fresh]
    groups = [{"params": heads, "lr": how.head_lr}, {"params": others, "lr": how.lr}]
    for parameter in others:
        parameter.requires_grad_(mode == "tuned")
    optimizer = torch.optim.AdamW(groups, weight_decay=how.weight_decay)
    warmup = max(1, how.steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (how.steps - step) / max(1, how.steps - warmup))
    )
    model.train(mode == "tuned")
    for batch in _batches(train, how, seed):
        loss = _loss(model, kind, encoder.rows(batch))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*heads, *others], 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def answers(
    model: nn.Module, kind: Kind, encoder: Encoder, examples: Sequence[Encoded], batch_size: int = 32
) -> list[list[int]]:
    """Of each example, as its targets are."""
    found = []
    for start in range(0, len(examples), batch_size):
        some = examples[start : start + batch_size]
        rows = encoder.rows(some)
        logits = _logits(model, kind, rows)
        if kind == "span":
            longest, pairs = encoder.longest_answer, zip(*logits, strict=True)
            found += [_best_span(begin_P, end_P, longest) for begin_P, end_P in pairs]
        else:
            best = logits[0].argmax(-1).tolist()
            found += [row[: len(one.targets)] for row, one in zip(best, some, strict=True)]
    return found


def check_encoder(checkpoint: LoadedModel) -> EncoderConfig:
    """Its configuration; UsageError for a model of another kind."""
    config = checkpoint.config.model
    if not isinstance(config, EncoderConfig):
        raise UsageError(
            f"{checkpoint.path} is a {config.family}, and probes are heads on encoders",
            "give the checkpoint of a BERT, or ask a decoder by seedbed eval",
        )
    return config


def _with_head(checkpoint: LoadedModel, kind: Kind, num_labels: int, seed: int) -> tuple[nn.Module, set[str]]:
    """(the encoder with a new head, the names of what is new)"""
    config = check_encoder(checkpoint)
    config = config.model_copy(
        update={"head": HEADS[kind], "num_labels": num_labels if kind != "span" else 0}
    )
    model, stored = build(config), checkpoint.model.state_dict()
    fresh = {
        name
        for name, value in model.state_dict().items()
        if name.startswith("classifier.") or name not in stored or stored[name].shape != value.shape
    }
    weights = {name: value.clone() for name, value in stored.items() if name in model.state_dict()}
    for name in fresh:
        value = model.state_dict()[name]
        drawn = initial_values(name, 0, value.numel(), config, seed)
        weights[name] = torch.from_numpy(drawn).reshape(value.shape)
    model.load_state_dict(weights)
    return model, fresh


def _batches(train: Sequence[Encoded], how: Fit, seed: int) -> Iterator[list[Encoded]]:
    """Reading after reading, each in an order of its own."""
    waiting: list[int] = []
    for reading in count():
        if reading and len(waiting) >= how.steps * how.batch_size:
            break
        waiting += generator(seed, "probe order", reading).permutation(len(train)).tolist()
    for step in range(how.steps):
        yield [train[n] for n in waiting[step * how.batch_size : (step + 1) * how.batch_size]]


def _logits(model: nn.Module, kind: Kind, rows: Rows) -> tuple[Tensor, ...]:
    """[B, 1, L] of a whole; [B, P, L] of words; or [B, P] twice, of where an answer begins and ends."""
    found = model(rows.tokens_BT, rows.segments_BT, rows.valid_BT)
    if kind in ("sequence", "pair"):
        return (found[:, None],)
    if kind == "tagging":
        index = rows.places_BP[..., None].expand(-1, -1, found.shape[-1])
        return (found.gather(1, index),)
    return tuple(
        logits_BT.gather(1, rows.places_BP).masked_fill(~rows.is_place_BP, -torch.inf) for logits_BT in found
    )


def _loss(model: nn.Module, kind: Kind, rows: Rows) -> Tensor:
    logits = _logits(model, kind, rows)
    if kind == "span":
        ends = [F.cross_entropy(logits_BP, rows.targets_BP[:, end]) for end, logits_BP in enumerate(logits)]
        return (ends[0] + ends[1]) / 2
    return F.cross_entropy(logits[0].flatten(0, 1), rows.targets_BP.flatten(), ignore_index=-100)


def _best_span(begin_P: Tensor, end_P: Tensor, longest: int) -> list[int]:
    """The likeliest that ends where it begins or later, after `longest` words at most."""
    sums_PP = begin_P[:, None] + end_P[None]
    size = len(begin_P)
    allowed = torch.ones(size, size).triu().tril(longest - 1).bool()
    place = int(sums_PP.masked_fill(~allowed, -torch.inf).argmax())
    return list(divmod(place, size))
