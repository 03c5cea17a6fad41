"""A law that was fitted before, read back from what `scale fit --json` or `scale forecast --json` printed."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from evals.scaling.forecast import advice
from evals.scaling.laws import Law
from seedbed.errors import DataError

NAMES = ("E", "A", "alpha", "B", "beta")


def read_law(path: Path) -> Law:
    """Raises DataError for a file that holds no law."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no JSON: {error}", _FIX) from None
    if isinstance(value, dict) and isinstance(value.get("law"), dict):
        value = value["law"]
    numbers: list[Any] = [value.get(name) for name in NAMES] if isinstance(value, dict) else []
    if not numbers or not all(_is_positive(number) for number in numbers):
        raise DataError(f"{path} holds no law: {', '.join(NAMES)}, all above 0", _FIX)
    e, a, alpha, b, beta = map(float, numbers)
    return Law(("N", "D"), np.array([math.log(e), math.log(a), alpha, math.log(b), beta]))


def advice_for_plan(path: Path, plan: dict[str, Any]) -> dict[str, float]:
    """What the law of `path` makes of the FLOPs of a plan, beside what it expects of the plan itself."""
    law = read_law(path)
    planned = np.array([plan["parameters"]["total"], plan["tokens"]], dtype=np.float64)
    return {**advice(law, plan["total_flops"]), "planned_loss": float(law.loss(planned))}


_FIX = "give what `seedbed scale fit runs.csv --json` printed"


def _is_positive(number: Any) -> bool:
    return isinstance(number, int | float) and 0 < number < math.inf
