"""How every configuration section behaves: pydantic's `model_config`, without importing pydantic."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ConfigDict

STRICT: "ConfigDict" = {
    "frozen": True,
    "extra": "forbid",
    "strict": True,
    "validate_default": True,
    "use_attribute_docstrings": True,
    "allow_inf_nan": False,
}
