"""A ladder as a pipeline: each leg of a trunk is a stage, and each cell one that branches off from it.

What is done is not done again, what was killed goes on, and a trunk that two ladders share is trained once.
"""

from collections.abc import Callable, Mapping
from typing import Any

from cluster.ladders.designs import Ladder
from cluster.pipelines.graph import Pipeline
from cluster.pipelines.stage import BRANCH, Stage
from training.recipes import parse_overrides

Wanted = Callable[[Mapping[str, Any]], bool]
AT_THE_END = 10**9
"""Steps between validations of which none comes before the last."""


def leg_name(trunk: Mapping[str, Any], to_step: int) -> str:
    """The stage that trains a trunk up to a step."""
    return f"{trunk['name']}-trunk{to_step}"


def cell_name(trunk: Mapping[str, Any], cell: Mapping[str, Any]) -> str:
    """The stage of a cell."""
    return f"{trunk['name']}-cell{cell['steps']}"


def ladder_pipeline(ladder: Ladder, wanted: Wanted = lambda cell: True) -> Pipeline:
    """The cells that are wanted, with the legs that they need."""
    design = ladder.design
    common = {
        f"{section}.{field}": value
        for section, fields in parse_overrides(design["sets"]).items()
        for field, value in fields.items()
    }
    common = {"eval.every_steps": AT_THE_END} | common
    words = ("train", design["recipe"], "--run-dir", "{out}")
    stages: dict[str, Stage] = {}
    for trunk in design["trunks"]:
        shared = common | trunk["settings"]
        cells = [cell for cell in trunk["cells"] if wanted(cell)]
        last = max((cell["branch_at"] for cell in cells), default=0)
        before = ""
        for leg in trunk["legs"]:
            if leg["to_step"] > last:
                break
            name = leg_name(trunk, leg["to_step"])
            branch = (BRANCH, f"{{{before}}}") if before else ()
            stages[name] = Stage(name, (*words, *branch), shared | leg["settings"])
            before = name
        for cell in cells:
            name = cell_name(trunk, cell)
            branch = (BRANCH, f"{{{leg_name(trunk, cell['branch_at'])}}}")
            stages[name] = Stage(name, (*words, *branch), shared | cell["settings"])
    return Pipeline(ladder.name, ladder.description, stages, {})
