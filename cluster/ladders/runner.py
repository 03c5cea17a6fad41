"""A ladder from its first trunk to its law, with forecasts of the cells that were held out.

Cells above `hold_out` FLOP are trained last. Before any of them begins, a law is fitted to the others, and
what it says of each is registered in a ledger; afterwards it is scored. A held-out cell that was trained
before it was forecast gets no forecast any more, and that is told.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.ladders.designs import Ladder
from cluster.ladders.results import FITTED, TABLE, loss_of, row_of, write_table
from cluster.ladders.stages import Wanted, cell_name, ladder_pipeline, leg_name
from cluster.pipelines.driver import Driver, total
from cluster.pipelines.making import Start, local_start
from evals.scaling import ledger as book
from evals.scaling.forecast import forecast_run
from evals.scaling.page import write_page
from evals.scaling.report import fit_record
from evals.scaling.study import Study, study
from seedbed.errors import ConfigError, Preempted, SeedbedError, StoppedUnsaved, UsageError
from seedbed.files import write_json

RECORD = "ladder.json"
LEDGER = "forecasts.jsonl"
PAGE = "scaling.html"


class LadderRunner:
    """One ladder in its folder."""

    def __init__(
        self,
        ladder: Ladder,
        folder: Path,
        store: Path,
        *,
        at_once: int = 1,
        start: Start = local_start,
        is_local: bool = True,
        price: float | None = None,
        redo: Sequence[str] = (),
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.ladder, self.folder, self.tell = ladder, folder.absolute(), tell
        self._store, self._at_once = store, at_once
        self._how: dict[str, Any] = {"at_once": at_once, "start": start, "is_local": is_local, "price": price}
        self._redo = set(redo)
        self.driver = self._driver(lambda cell: True)
        self.notes: list[str] = []
        self._made: set[str] = set()
        self._law: dict[str, Any] | None = None

    def _driver(self, wanted: Wanted) -> Driver:
        pipeline = ladder_pipeline(self.ladder, wanted)
        is_whole = len(pipeline.stages) == sum(
            len(trunk["legs"]) + len(trunk["cells"]) for trunk in self.ladder.design["trunks"]
        )
        # A stage that there is not is refused of the whole ladder.
        redo = tuple(self._redo if is_whole else self._redo & pipeline.stages.keys())
        how = {**self._how, "keeps_going": True, "redo": redo, "record": ""}
        return Driver(pipeline, self.folder, self._store, **how)

    def look(self) -> None:
        """Find what is done, and say what the rest will take. Raises ConfigError for what cannot be run."""
        lines = book.read(self.folder / LEDGER)
        if {line["forecast"].get("design") for line in lines if "forecast" in line} - {self.ladder.digest}:
            raise UsageError(
                f"{self.folder / LEDGER} holds forecasts of another ladder, or of other settings of this one",
                "choose another folder: --out",
            )
        self.driver.look()
        for progress in self.driver.stages.values():
            if progress.state == "failed" and progress.work is None:
                raise ConfigError(progress.message, "plan the ladder anew, from a recipe that can be trained")
        self.driver.estimate()

    def cost(self) -> dict[str, Any]:
        """Of what is not done, in all; `flops` are those of the whole design."""
        left = [progress for progress in self.driver.stages.values() if progress.state == "waiting"]
        value: dict[str, Any] = {"runs": len(self.driver.stages), "to_run": len(left)}
        value |= {name: total(self.driver.stages, name) for name in ("seconds", "device_hours", "price")}
        if value["seconds"] is not None:
            # Legs of a trunk follow each other, however many runs there may be at a time.
            value["seconds"] = max(value["seconds"] / self._at_once, self._longest_s())
        value["basis"] = sorted({progress.estimate["basis"] for progress in left})
        return value | {"flops": self.ladder.design["cost"]["flops"]}

    def _longest_s(self) -> float:
        """Of the trunk that takes longest, with its last cell."""

        def seconds(name: str) -> float:
            return float(self.driver.stages[name].estimate.get("seconds") or 0.0)

        return max(
            sum(seconds(leg_name(trunk, leg["to_step"])) for leg in trunk["legs"])
            + max(seconds(cell_name(trunk, cell)) for cell in trunk["cells"])
            for trunk in self.ladder.design["trunks"]
        )

    def run(self) -> dict[str, Any]:
        """Train what is not trained; the record, as `--json` shows it. Raises Preempted when stopped."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write("running")
        state = "failed"
        try:
            if self.ladder.hold_out is not None:
                self._train(lambda cell: not self.ladder.is_held_out(cell))
                self._forecast()
            self._train(lambda cell: True)
            self._score()
            state = "done"
        except (Preempted, StoppedUnsaved):
            state = "stopped"
            raise
        finally:
            value = self._write(state)
        return value

    def _train(self, wanted: Wanted) -> None:
        driver = self._driver(wanted)
        self._redo -= driver.stages.keys()
        driver.look()
        driver.on_change = lambda: self._take(driver)
        driver.run()
        self._take(driver)

    def _take(self, driver: Driver) -> None:
        self._made |= {name for name, progress in driver.stages.items() if progress.was_made}
        self.driver.stages.update(driver.stages)
        self._write("running")

    def rows(self) -> list[dict[str, Any]]:
        """What came of each cell."""
        stages = self.driver.stages
        return [
            row_of(trunk, cell, stages, is_held_out=self.ladder.is_held_out(cell))
            for trunk in self.ladder.design["trunks"]
            for cell in trunk["cells"]
        ]

    def _forecast(self) -> None:
        """Fit the cells that are not held out, and register what the law says of those that are."""
        path = self.folder / LEDGER
        held = [row for row in self.rows() if row["held_out"]]
        known = {row["name"] for row in book.read(path) if row["kind"] == "forecast"}
        open_ = [row for row in held if row["cell"] not in known]
        if late := [row["cell"] for row in open_ if row["has_begun"]]:
            self._note(f"begun before they could be forecast, so not scored: {', '.join(late)}")
        if not (asked := [row for row in open_ if not row["has_begun"]]):
            return
        done = self._fitted()
        of_all = {"law": done.law_record(), "recipe": done.recipe_record(), "design": self.ladder.digest}
        for row in asked:
            said = forecast_run(done, row["N"], row["D"])
            line = book.register(path, said | of_all, name=row["cell"])
            low, high = said["run_interval"]
            self.tell(
                f"forecast {line['number']}, {row['cell']}: loss {said['loss']:.4f} [{low:.4f}, {high:.4f}], "
                f"registered {line['time']}, digest {line['digest'][:12]}"
            )

    def _fitted(self) -> Study:
        fitted = [row for row in self.rows() if not row["held_out"]]
        write_table(self.folder / FITTED, fitted)
        return study(self.folder / FITTED)

    def _score(self) -> None:
        path = self.folder / LEDGER
        lines = book.read(path)
        scored = {line["of"] for line in lines if line["kind"] == "score"}
        of_cell = {line["name"]: line["number"] for line in lines if line["kind"] == "forecast"}
        for row in self.rows():
            number = of_cell.get(row["cell"])
            if number is not None and number not in scored and (loss := loss_of(row)) is not None:
                book.score(path, number, loss, note=row["run"])
        self._report()

    def _report(self) -> None:
        """A page of the law, where one can be fitted: the cells are there without it."""
        ledger = self.folder / LEDGER
        try:
            done = self._fitted()
            self._law = done.law_record()
            self.notes += [f"of the law: {told}" for told in fit_record(done)["warnings"]]
            table = self.folder / FITTED
            write_page(table, self.folder / PAGE, done.recipe, (), ledger if ledger.exists() else None)
        except SeedbedError as error:
            self._note(f"no law: {error.message}")
            (self.folder / PAGE).unlink(missing_ok=True)

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.tell(f"! {text}")

    def value(self, state: str) -> dict[str, Any]:
        """What `--json` shows."""
        ledger = self.folder / LEDGER
        return {
            "ladder": self.ladder.name,
            "description": self.ladder.description,
            "recipe": self.ladder.design["recipe"],
            "state": state,
            "folder": str(self.folder),
            "csv": str(self.folder / TABLE),
            "report": str(self.folder / PAGE) if (self.folder / PAGE).exists() else None,
            "cells": self.rows(),
            "law": self._law,
            "forecasts": book.table(book.read(ledger)) if ledger.exists() else None,
            "notes": self.notes,
            "made": [name for name in self.driver.stages if name in self._made],
        }

    def _write(self, state: str) -> dict[str, Any]:
        value = self.value(state)
        write_table(self.folder / TABLE, value["cells"])
        # As a sweep's record has them, for those who copy it.
        points = [{"point": cell["cell"], **cell} for cell in value["cells"]]
        stages = {name: progress.as_dict() for name, progress in self.driver.stages.items()}
        write_json(self.folder / RECORD, {**value, "points": points, "stages": stages})
        return value
