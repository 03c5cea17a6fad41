"""The table `[objective]`: what a model learns from its data."""

from typing import Literal

from pydantic import Field

from training.sections import PLACEMENT, Section

BY_SAMPLE = ("dpo", "ipo", "kto", "orpo", "simpo")
"""Objectives of decoders whose losses are of whole samples, not of tokens."""


class ObjectiveConfig(Section):
    """What the model learns from the data."""

    name: Literal[
        "auto",
        "causal_lm",
        "distillation",
        "sft",
        "dpo",
        "ipo",
        "kto",
        "orpo",
        "simpo",
        "reward",
        "masked_lm",
        "classification",
        "span_corruption",
        "ppo",
        "reinforce",
        "reinforce_pp",
        "rloo",
        "grpo",
        "dr_grpo",
        "dapo",
        "gspo",
        "cispo",
    ] = "auto"
    """auto: causal_lm for a decoder, reward where its head is one, span_corruption for a T5, for an encoder
    what trains its model.head. distillation learns from the distributions of a teacher too. Of datasets of
    examples (data.format): sft learns the responses; dpo, ipo, kto, orpo and simpo learn what is
    preferred; ppo and those after it learn from rewards of the model's own answers, as [rl] says."""
    num_chunks: int = Field(1, ge=1, le=10_000)
    """For decoders: parts in which logits are computed, so that only one part's are in memory at a time."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Probability that is spread over all other tokens or labels."""
    z_loss: float = Field(0.0, ge=0)
    """Coefficient of log^2 Z of the logits, which keeps them near zero; 1e-4 in PaLM."""
    balance_loss: float = Field(0.0, ge=0)
    """Coefficient of the experts' balance loss, for each sequence by itself; 0.01 in Switch."""
    router_z_loss: float = Field(0.0, ge=0)
    """Coefficient of log^2 Z of the routers' logits; 1e-3 in ST-MoE."""
    teacher: str = Field("", json_schema_extra=PLACEMENT)
    """For distillation: a run or checkpoint with the same tokenizer. It is identified by its hash."""
    temperature: float = Field(2.0, gt=0)
    """For distillation: what both models' logits are divided by."""
    soft_share: float = Field(0.5, ge=0, le=1)
    """For distillation: the share of the loss that the teacher's distributions make."""
    pairs: Literal["auto", "none", "next_sentence", "sentence_order"] = "auto"
    """For masked_lm: how the two texts of a sample are told apart; auto is as the family was published."""
    whole_word: bool = False
    """For masked_lm: all pieces of a word are hidden together."""
    noise_density: float = Field(0.15, gt=0, lt=1)
    """For span_corruption: the share of tokens that is hidden."""
    mean_span_length: float = Field(3.0, ge=1)
    """For span_corruption: tokens of a hole, on average."""
    min_documents_per_label: int = Field(1, ge=1)
    """For classification: labels on fewer training documents are left out."""
    pack: bool = True
    """For sft: several examples in a row, each attending to itself alone; else one, padded."""
    too_long: Literal["drop", "truncate", "fail"] = "drop"
    """For examples longer than the context: left out, cut at the end, or an error. All are counted and
    told."""
    per_example: bool = False
    """For sft: every example counts the same, not every token."""
    beta: float = Field(0.1, gt=0)
    """For dpo, ipo, kto and simpo: how much a difference of log-probabilities is worth as a reward. For orpo:
    the coefficient of the odds ratio (lambda)."""
    reference: str = Field("", json_schema_extra=PLACEMENT)
    """For dpo, ipo and kto: the run or checkpoint to stay near to; empty: that of --init-from. It is
    identified by its hash, and asked once: its log-probabilities are kept in the cache."""
    reward_margin: float = Field(0.0, ge=0)
    """For simpo: by how much the preferred answer is to win (gamma)."""
    desirable_weight: float = Field(1.0, ge=0)
    """For kto: what good answers count; with many bad ones, more."""
    undesirable_weight: float = Field(1.0, ge=0)
    """For kto: what bad answers count."""
    centering: float = Field(0.0, ge=0)
    """For reward: coefficient of (r_i + r_j)^2, which keeps rewards near zero; 0.01 in Eisenstein et al.
    2023."""
    use_margin: bool = True
    """For reward: better answers are to win by the margin that the data give, where they do."""
    learn_temperature: bool = False
    """For reward, with a decoder: learn by what the raters' noise divides differences of rewards."""
