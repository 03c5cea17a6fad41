"""How every configuration section behaves, as keyword arguments for pydantic's ConfigDict."""

from typing import Any

STRICT: dict[str, Any] = {
    "frozen": True,
    "extra": "forbid",
    "strict": False,
    "validate_default": True,
    "use_attribute_docstrings": True,
    "allow_inf_nan": False,
}
