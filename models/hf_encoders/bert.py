"""BERT, RoBERTa, ALBERT and DistilBERT as Hugging Face stores them."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from models.bert.config import HEADS_ON_POOLER, EncoderConfig
from models.bert.sizes import parameter_shapes
from models.hf.settings import Settings
from models.hf_encoders.format import Setting, expand, read_settings
from seedbed.errors import ConfigError, DataError

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
# What a config.json without labels means.
HF_NUM_LABELS = 2
SUFFIXES = {
    "none": "Model",
    "masked_lm": "ForMaskedLM",
    "pretraining": "ForPreTraining",
    "sequence_classification": "ForSequenceClassification",
    "token_classification": "ForTokenClassification",
    "span": "ForQuestionAnswering",
    "multiple_choice": "ForMultipleChoice",
}

BERT_SETTINGS = (
    Setting("num_layers", "num_hidden_layers"),
    Setting("width", "hidden_size"),
    Setting("num_heads", "num_attention_heads"),
    Setting("mlp_width", "intermediate_size"),
    Setting("vocab_size", "vocab_size"),
    Setting("context", "max_position_embeddings"),
    Setting("num_segments", "type_vocab_size", 2),
    Setting("activation", "hidden_act", "gelu"),
    Setting("norm_eps", "layer_norm_eps", 1e-12),
    Setting("dropout", "hidden_dropout_prob", 0.1),
    Setting("attention_dropout", "attention_probs_dropout_prob", 0.1),
    Setting("head_dropout", "classifier_dropout", None),
    Setting("pad_id", "pad_token_id", 0),
)
ROBERTA_SETTINGS = (*BERT_SETTINGS[:-1], Setting("pad_id", "pad_token_id", 1))
ALBERT_SETTINGS = (
    *(setting for setting in BERT_SETTINGS if setting.field != "head_dropout"),
    Setting("head_dropout", "classifier_dropout_prob", 0.1),
    Setting("embedding_width", "embedding_size"),
    Setting("num_groups", "num_hidden_groups", 1),
)
DISTILBERT_SETTINGS = (
    Setting("num_layers", "n_layers"),
    Setting("width", "dim"),
    Setting("num_heads", "n_heads"),
    Setting("mlp_width", "hidden_dim"),
    Setting("vocab_size", "vocab_size"),
    Setting("context", "max_position_embeddings"),
    Setting("activation", "activation", "gelu"),
    Setting("dropout", "dropout", 0.1),
    Setting("attention_dropout", "attention_dropout", 0.1),
    Setting("head_dropout", "seq_classif_dropout", 0.2),
    Setting("pad_id", "pad_token_id", 0),
)

# (theirs, ours), each with .weight and .bias; {body} is "bert." under a head, and nothing without one.
EMBEDDINGS = (
    ("{body}embeddings.word_embeddings", "embedding"),
    ("{body}embeddings.position_embeddings", "positions"),
    ("{body}embeddings.token_type_embeddings", "segments"),
    ("{body}embeddings.LayerNorm", "embedding_norm"),
)
BERT_BODY = (
    *EMBEDDINGS,
    ("{body}encoder.layer.{i}.attention.self.query", "blocks.{i}.attention.query"),
    ("{body}encoder.layer.{i}.attention.self.key", "blocks.{i}.attention.key"),
    ("{body}encoder.layer.{i}.attention.self.value", "blocks.{i}.attention.value"),
    ("{body}encoder.layer.{i}.attention.output.dense", "blocks.{i}.attention.output"),
    ("{body}encoder.layer.{i}.attention.output.LayerNorm", "blocks.{i}.attention_norm"),
    ("{body}encoder.layer.{i}.intermediate.dense", "blocks.{i}.mlp.up"),
    ("{body}encoder.layer.{i}.output.dense", "blocks.{i}.mlp.down"),
    ("{body}encoder.layer.{i}.output.LayerNorm", "blocks.{i}.mlp_norm"),
    ("{body}pooler.dense", "pooler"),
)
ALBERT_LAYER = "{body}encoder.albert_layer_groups.{i}.albert_layers.0"
ALBERT_BODY = (
    *EMBEDDINGS,
    ("{body}encoder.embedding_hidden_mapping_in", "embedding_up"),
    (f"{ALBERT_LAYER}.attention.query", "blocks.{i}.attention.query"),
    (f"{ALBERT_LAYER}.attention.key", "blocks.{i}.attention.key"),
    (f"{ALBERT_LAYER}.attention.value", "blocks.{i}.attention.value"),
    (f"{ALBERT_LAYER}.attention.dense", "blocks.{i}.attention.output"),
    (f"{ALBERT_LAYER}.attention.LayerNorm", "blocks.{i}.attention_norm"),
    (f"{ALBERT_LAYER}.ffn", "blocks.{i}.mlp.up"),
    (f"{ALBERT_LAYER}.ffn_output", "blocks.{i}.mlp.down"),
    (f"{ALBERT_LAYER}.full_layer_layer_norm", "blocks.{i}.mlp_norm"),
    ("{body}pooler", "pooler"),
)
DISTILBERT_BODY = (
    *EMBEDDINGS,
    ("{body}transformer.layer.{i}.attention.q_lin", "blocks.{i}.attention.query"),
    ("{body}transformer.layer.{i}.attention.k_lin", "blocks.{i}.attention.key"),
    ("{body}transformer.layer.{i}.attention.v_lin", "blocks.{i}.attention.value"),
    ("{body}transformer.layer.{i}.attention.out_lin", "blocks.{i}.attention.output"),
    ("{body}transformer.layer.{i}.sa_layer_norm", "blocks.{i}.attention_norm"),
    ("{body}transformer.layer.{i}.ffn.lin1", "blocks.{i}.mlp.up"),
    ("{body}transformer.layer.{i}.ffn.lin2", "blocks.{i}.mlp.down"),
    ("{body}transformer.layer.{i}.output_layer_norm", "blocks.{i}.mlp_norm"),
    ("pre_classifier", "pooler"),
)
# The second entry of a name replaces the first: RoBERTa's classifier holds its own pooler.
ROBERTA_CLASSIFIER = (("classifier.dense", "pooler"), ("classifier.out_proj", "classifier"))
TASK_HEADS = (("classifier", "classifier"), ("qa_outputs", "span"))
BERT_HEADS = (
    *TASK_HEADS,
    ("cls.predictions.transform.dense", "masked_lm.dense"),
    ("cls.predictions.transform.LayerNorm", "masked_lm.norm"),
    ("cls.predictions", "masked_lm"),
    ("cls.seq_relationship", "pair"),
)
ROBERTA_HEADS = (
    *TASK_HEADS,
    ("lm_head.dense", "masked_lm.dense"),
    ("lm_head.layer_norm", "masked_lm.norm"),
    ("lm_head", "masked_lm"),
)
ALBERT_HEADS = (
    *TASK_HEADS,
    ("predictions.dense", "masked_lm.dense"),
    ("predictions.LayerNorm", "masked_lm.norm"),
    ("predictions", "masked_lm"),
    ("sop_classifier.classifier", "pair"),
)
DISTILBERT_HEADS = (
    *TASK_HEADS,
    ("vocab_transform", "masked_lm.dense"),
    ("vocab_layer_norm", "masked_lm.norm"),
    ("vocab_projector", "masked_lm"),
)
# With another value the model would compute something else.
ONLY: dict[str, tuple[Any, ...]] = {
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "position_embedding_type": ("absolute",),
    "tie_word_embeddings": (True,),
    "pruned_heads": ({}, None),
    "inner_group_num": (1,),
    "sinusoidal_pos_embds": (False,),
}
# Of training, or of another head.
UNUSED = ("gradient_checkpointing", "qa_dropout", "seq_classif_dropout", "classifier_dropout")


@dataclass(frozen=True)
class BertFormat:
    """One of the four families; see `models.hf_encoders.format.Format`."""

    family: str
    class_prefix: str
    settings: tuple[Setting, ...]
    body: tuple[tuple[str, str], ...]
    heads: tuple[tuple[str, str], ...]
    decoder: str
    """Stem under which old files repeat the tied output matrix and its bias."""
    leftovers: tuple[str, ...] = (r"(\w+\.)?embeddings\.position_ids",)

    @property
    def _suffixes(self) -> dict[str, str]:
        """Head -> ending of the class's name, for the heads that this family has."""
        has_pair = any(ours == "pair" for _, ours in self.heads)
        return {head: end for head, end in SUFFIXES.items() if head != "pretraining" or has_pair}

    @property
    def architectures(self) -> tuple[str, ...]:
        """Classes that config.json may name."""
        return tuple(self.class_prefix + end for end in self._suffixes.values())

    def read(self, settings: Settings, names: Collection[str]) -> EncoderConfig:
        """The head comes from the class's name; a pooler and a second pretraining head, from the tensors."""
        for key, allowed in ONLY.items():
            settings.only(key, *allowed)
        for key in UNUSED:
            settings.get(key, None)
        by_class = {self.class_prefix + end: head for head, end in self._suffixes.items()}
        head = by_class[settings.get("architectures")[0]]
        pair = next((theirs for theirs, ours in self.heads if ours == "pair"), None)
        if head == "masked_lm" and f"{pair}.weight" in names:
            head = "pretraining"
        fields = read_settings(self.settings, settings)
        if fields["activation"] not in ACTIVATIONS:
            raise DataError(
                f"config.json has the activation {fields['activation']!r}",
                f"supported: {', '.join(ACTIVATIONS)}",
            )
        fields |= {"family": self.family, "head": head, "activation": ACTIVATIONS[fields["activation"]]}
        fields["num_labels"] = len(settings.get("id2label", None) or ("0", "1"))
        if fields["head_dropout"] is None:
            fields["head_dropout"] = fields["dropout"]
        if fields["pad_id"] is None:
            fields["pad_id"] = 0
        fields |= {key: float(fields[key]) for key in ("dropout", "attention_dropout", "head_dropout")}
        if self.family == "roberta":
            fields["context"] -= fields["pad_id"] + 1
        fields["pooler"] = self._pooler(head, names)
        return EncoderConfig(**fields)

    def _pooler(self, head: str, names: Collection[str]) -> str:
        if self.family == "distilbert":
            return "relu" if head in HEADS_ON_POOLER else "none"
        stem = next(theirs for theirs, ours in self.body if ours == "pooler")
        there = stem.format(body="" if head == "none" else f"{self.family}.") + ".weight" in names
        return "tanh" if there or head in HEADS_ON_POOLER else "none"

    def write(self, config: EncoderConfig) -> dict[str, Any]:
        """ConfigError for parts that this family's classes do not have."""
        head = "sequence_classification" if config.head == "reward" else config.head
        if head not in self._suffixes:
            raise ConfigError(
                f"{self.family} has no class with the head {head}", f"one of {list(self._suffixes)}"
            )
        theirs = {ours: name for name, ours in reversed(ACTIVATIONS.items())}
        fields = self.resolved(config) | {
            "activation": theirs[config.activation],
            "context": config.context + config.position_offset,
        }
        settings = {key: fields[field] for field, key, _ in self.settings}
        settings |= {"model_type": self.family, "architectures": [self.class_prefix + self._suffixes[head]]}
        settings["tie_word_embeddings"] = True
        num_labels = fields["num_labels"]
        if num_labels != HF_NUM_LABELS:
            settings["id2label"] = {str(i): f"LABEL_{i}" for i in range(num_labels)}
            settings["label2id"] = {f"LABEL_{i}": i for i in range(num_labels)}
        return settings

    def shapes(self, config: EncoderConfig) -> dict[str, tuple[int, ...]]:
        return parameter_shapes(config)

    def names(self, config: EncoderConfig) -> dict[str, str]:
        pairs = self.body + self.heads
        if self.family == "roberta" and config.head in ("sequence_classification", "reward"):
            pairs += ROBERTA_CLASSIFIER
        body = "" if config.head == "none" else f"{self.family}."
        return expand(pairs, parameter_shapes(config), config.num_blocks, body=body)

    def resolved(self, config: EncoderConfig) -> dict[str, Any]:
        head = "sequence_classification" if config.head == "reward" else config.head
        albert = self.family == "albert"
        return config.model_dump() | {
            "mlp_width": config.hidden_width,
            # ALBERT's classes always project, and always group.
            "embedding_width": config.embedding_size if albert else config.embedding_width,
            "num_groups": config.num_blocks if albert else config.num_groups,
            "head": head,
            "num_labels": 1 if config.head == "reward" else config.num_labels or HF_NUM_LABELS,
        }

    def copies(self, config: EncoderConfig) -> dict[str, str]:
        if config.head not in ("masked_lm", "pretraining"):
            return {}
        return {
            f"{self.decoder}.weight": "embedding.weight",
            f"{self.decoder}.bias": "masked_lm.bias",
        }


FORMATS = {
    "bert": BertFormat("bert", "Bert", BERT_SETTINGS, BERT_BODY, BERT_HEADS, "cls.predictions.decoder"),
    "roberta": BertFormat(
        "roberta", "Roberta", ROBERTA_SETTINGS, BERT_BODY, ROBERTA_HEADS, "lm_head.decoder"
    ),
    "albert": BertFormat(
        "albert", "Albert", ALBERT_SETTINGS, ALBERT_BODY, ALBERT_HEADS, "predictions.decoder"
    ),
    "distilbert": BertFormat(
        "distilbert", "DistilBert", DISTILBERT_SETTINGS, DISTILBERT_BODY, DISTILBERT_HEADS, "vocab_projector"
    ),
}
