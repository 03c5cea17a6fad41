"""What one Hugging Face model type is: the meaning of its config.json, and its table of tensors."""

from collections.abc import Callable
from typing import Any, NamedTuple

from models.config import Family, ModelConfig
from models.hf.rules import Rule
from models.hf.settings import Settings


class Format(NamedTuple):
    """One model type, read both ways."""

    model_type: str
    family: Family
    architecture: str
    """The class that predicts tokens; the class without a head is named the same less its ending."""
    prefix: str
    """What the names of all tensors but the head's begin with; files of the class without a head lack it."""
    rules: Callable[[ModelConfig], tuple[Rule, ...]]
    """The table of tensors, which may depend on the parts that a configuration chooses."""
    fields: Callable[[Settings], dict[str, Any]]
    """config.json -> fields of ModelConfig."""
    settings: Callable[[ModelConfig], dict[str, Any]]
    """ModelConfig -> config.json."""
    leftovers: str = r"(?!)"
    """Pattern of tensors that old files carry and nothing reads."""
