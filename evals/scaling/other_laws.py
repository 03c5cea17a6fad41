"""`seedbed scale law`: laws of other quantities than N and D, fitted to columns of a table, with intervals.

power           y = a x^b                                       batch sizes, learning rates, single laws
critical-batch  S = S_min (1 + B_crit / B)                      McCandlish et al. 2018
steps           L = (N_c / N)^alpha_N + (S_c / S)^alpha_S       Kaplan et al. 2020, equation 1.6
kl-rl, kl-bon   R = R_0 + d (alpha - beta ln d), or - beta d)   Gao et al. 2023, d = sqrt(KL)
error           error = epsilon - k exp(-gamma loss)            Gadre et al. 2024
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evals.scaling.fit import fit
from evals.scaling.forms import GAMMAS, NOWHERE, fit_critical_batch, fit_error, straight_line
from evals.scaling.laws import Array, Points
from evals.scaling.overoptimisation import Form as Turn
from evals.scaling.overoptimisation import measure
from evals.scaling.tables import read_columns
from seedbed.errors import DataError, UsageError, did_you_mean
from seedbed.statistics import Estimate

Columns = Mapping[str, Array]
RESAMPLES = 200


@dataclass(frozen=True)
class OtherLaw:
    """One kind of law."""

    formula: str
    columns: tuple[str, ...]
    """Quantities, as the formula names them."""
    fitted: Callable[[Columns], dict[str, Any]]
    """What they give: {"parameters": {name: {"value", "low", "high"}}, ...}. Raises DataError."""


def fit_other(name: str, path: Path, named: Mapping[str, str]) -> dict[str, Any]:
    """{"law", "formula", "points", "columns", "parameters", "warnings", "left_out"} of a CSV.

    `named` says which column a quantity is in, where it is called otherwise. Raises UsageError for a law or a
    column that there is not, DataError for points that determine nothing.
    """
    if name not in LAWS:
        remedy = did_you_mean(name, LAWS, f"one of {', '.join(LAWS)}", "'{}'")
        raise UsageError(f"there is no law '{name}'", remedy)
    law = LAWS[name]
    read, columns, left_out = read_columns(path, law.columns, named)
    try:
        with np.errstate(all="ignore"):
            found = law.fitted(read)
    except DataError as error:
        also = f" ({len(left_out)} lines left out: {'; '.join(left_out[:3])})" if left_out else ""
        raise DataError(f"{path}: {error.message}{also}", error.fix) from None
    return {
        "law": name,
        "formula": law.formula,
        "points": len(next(iter(read.values()))),
        "columns": columns,
        "warnings": [],
        **found,
        "left_out": left_out,
    }


def _power(read: Columns) -> dict[str, Any]:
    line = straight_line(read["x"], read["y"])
    return {"parameters": {"a": line.coefficient.__dict__, "b": line.exponent.__dict__}}


def _resampled(read: Columns, of: Callable[[Columns], dict[str, float]]) -> dict[str, Any]:
    """The parameters, with percentiles over `RESAMPLES` resamples of the points that determine them."""
    values, draw, drawn = of(read), np.random.default_rng(0), []
    count = len(next(iter(read.values())))
    for _ in range(RESAMPLES):
        chosen = draw.integers(count, size=count)
        try:
            drawn.append(list(of({name: column[chosen] for name, column in read.items()}).values()))
        except DataError:
            continue
    told: list[str] = []
    if len(drawn) < RESAMPLES:
        failed = RESAMPLES - len(drawn)
        told.append(f"{failed} of {RESAMPLES} resamples determine nothing: there are few points")
    if len(drawn) < RESAMPLES // 2:
        ends = np.full((2, len(values)), np.nan)
    else:
        ends = np.percentile(np.array(drawn), (2.5, 97.5), axis=0)
    estimates = {
        name: _estimate(Estimate(value, float(low), float(high)))
        for (name, value), low, high in zip(values.items(), *ends, strict=True)
    }
    return {"parameters": estimates, "warnings": told}


def _estimate(found: Estimate) -> dict[str, float | None]:
    return {name: float(value) if np.isfinite(value) else None for name, value in found.__dict__.items()}


def _critical_batch(read: Columns) -> dict[str, Any]:
    if not ((read["B"] > 0) & (read["S"] > 0)).all():
        raise DataError("batch sizes and steps are above 0", "take other points out")

    def of(rows: Columns) -> dict[str, float]:
        found = fit_critical_batch(rows["B"], rows["S"])
        return {"S_min": found.steps_min, "B_crit": found.batch_crit}

    return _resampled(read, of)


def _steps(read: Columns) -> dict[str, Any]:
    def of(rows: Columns) -> dict[str, float]:
        points = Points(np.stack([rows["N"], rows["S"]], axis=1), rows["loss"])
        law = fit(points, ("N", "S"), asymptote=float(np.exp(NOWHERE))).law
        n_c, s_c = law.amplitudes ** (1 / law.exponents)
        alpha_n, alpha_s = map(float, law.exponents)
        return {"N_c": float(n_c), "alpha_N": alpha_n, "S_c": float(s_c), "alpha_S": alpha_s}

    return _resampled(read, of)


def _turning(form: Turn) -> Callable[[Columns], dict[str, Any]]:
    def fitted(read: Columns) -> dict[str, Any]:
        if not (read["KL"] > 0).any():
            raise DataError("no divergence is above 0", "give KL in nats of an answer")
        found = measure(read["KL"], read["reward"], form=form)
        parts = {"alpha": found.alpha, "beta": found.beta, "peak": found.peak}
        parameters = {name: _estimate(part) for name, part in parts.items()}
        return {"parameters": parameters, "warnings": list(found.warnings)}

    return fitted


def _error(read: Columns) -> dict[str, Any]:
    def of(rows: Columns) -> dict[str, float]:
        return dict(fit_error(rows["loss"], rows["error"]).__dict__)

    found = _resampled(read, of)
    if not 1.01 * GAMMAS[0] < found["parameters"]["gamma"]["value"] < 0.99 * GAMMAS[1]:
        found["warnings"].append("gamma is at the end of where it was looked for: it is not determined")
    return found


LAWS = {
    "power": OtherLaw("y = a x^b", ("x", "y"), _power),
    "critical-batch": OtherLaw("S = S_min (1 + B_crit / B)", ("B", "S"), _critical_batch),
    "steps": OtherLaw("L = (N_c / N)^alpha_N + (S_c / S)^alpha_S", ("N", "S", "loss"), _steps),
    "kl-rl": OtherLaw("R = R_0 + d (alpha - beta ln d), d = sqrt(KL)", ("KL", "reward"), _turning("rl")),
    "kl-bon": OtherLaw("R = R_0 + d (alpha - beta d), d = sqrt(KL)", ("KL", "reward"), _turning("bon")),
    "error": OtherLaw("error = epsilon - k exp(-gamma loss)", ("loss", "error"), _error),
}
