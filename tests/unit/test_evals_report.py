"""The report: complete, safe to open, and written for a run in whatever state it is."""

import json
import math
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import BEGIN, HOSTILE, evaluation, make_run, train_row

from evals.report import verdicts, write_report
from evals.report.curves import marks_of
from evals.report.page import render
from evals.report.record import read_run
from evals.report.tasks import histories_of
from evals.task_results import ItemScores, summarize, write_scores
from seedbed.errors import UsageError
from seedbed.files import append_line, write_json

NOW = BEGIN + 1640


class Page(HTMLParser):
    """Tags, attributes and the text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._words: list[str] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self._words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._words).split())

    def titles(self, tag: str) -> list[str]:
        return [attributes.get("class") or "" for name, attributes in self.tags if name == tag]


def page_of(run_dir: Path) -> Page:
    return Page(render(read_run(run_dir), NOW))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return make_run(tmp_path / "demo")


def test_the_report_says_what_was_asked_of_it(run_dir: Path):
    """A reader must find state, progress, score, plan, settings, data and events without another tool."""
    write_json(run_dir / "evals" / "bits-per-byte-step-240.json", evaluation())
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    text = page_of(run_dir).text
    for part in (
        "gpt-demo on the standard library running",
        "Step 240 of 400",
        "Bits per byte 1.412 1.371\N{EN DASH}1.453, evaluated at step 240",
        "Restarts 1 1 worker died",
        "Goodput 93.0%",
        "xz -9e, primed 1.834",
        "asyncio 9 87.9 KiB 1.310",
        "Tokens per second 750 683 0.91 x",
        "num_ranks 2 recipe: 1",
        "undecodable 3, empty 12",
        "worker died rank 1 was killed by SIGKILL",
        "30 steps of earlier attempts",
    ):
        assert part in text, part
    for title in (
        "Loss",
        "Learning rate",
        "Gradient norm",
        "Throughput",
        "Model FLOPs utilisation",
        "Memory",
    ):
        assert title in text


def test_settings_that_differ_from_the_recipe_are_marked_and_no_others(run_dir: Path):
    """The question of every comparison of two runs is what was changed."""
    rows = [attributes.get("class") for name, attributes in page_of(run_dir).tags if name == "tr"]
    assert rows.count("changed") == 2


def test_a_sample_with_markup_is_text(run_dir: Path):
    """A model writes what it has read, web pages too; opening a report must not run them."""
    html = render(read_run(run_dir), NOW)
    page = Page(html)
    assert HOSTILE not in html
    assert HOSTILE in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert all("stolen" not in script for script in page.scripts)


def test_markup_in_every_field_is_text(run_dir: Path, tmp_path: Path):
    """Names, messages, settings and results come from users and files, and all of them are shown."""
    hostile = json.dumps(HOSTILE)[1:-1]
    for name in ("recipe.json", "plan.json", "status.json", "events.jsonl", "samples.jsonl"):
        path = run_dir / name
        text = path.read_text()
        for word in ("gpt-demo", "running", "worker_died", "SIGKILL", "loop"):
            text = text.replace(word, hostile)
        path.write_text(text)
    result = evaluation(data={"path": HOSTILE, "split": HOSTILE}, items=HOSTILE)
    result["by_source"] = {HOSTILE: result["by_source"]["email"]}
    result["baselines"][0]["label"] = result["baselines"][1]["note"] = HOSTILE
    write_json(run_dir / "evals" / "x.json", result)
    manifest = tmp_path / "demo-dataset" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("stdlib", hostile).replace("undecodable", hostile))
    html = render(read_run(run_dir), NOW)
    assert html.count("stolen") > 10
    assert "<script>document" not in html
    assert "<img" not in html


def test_only_our_own_script_may_run(run_dir: Path):
    """Escaping has one line of defence behind it: a policy that allows nothing else."""
    tags = page_of(run_dir).tags
    policies = [a["content"] for _, a in tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]
    assert "unsafe" not in policies[0]
    # The empty icon keeps browsers from asking a server for one.
    assert [a for _, a in tags if {"src", "href", "style"} & set(a)] == [{"rel": "icon", "href": "data:,"}]


def test_marks_stand_where_things_happened(run_dir: Path):
    """A death is shown at the step that had been reached, though a restart has undone that step."""
    marks = [(mark.kind, mark.x) for mark in marks_of(read_run(run_dir))]
    assert ("death", 130.0) in marks
    assert ("attempt", 100.0) in marks
    assert [x for kind, x in marks if kind == "checkpoint"] == [50, 100, 150, 200]


def test_a_silent_run_is_said_to_be_silent(run_dir: Path):
    """A run whose machine is gone still says "running" in its last status."""
    record = read_run(run_dir)
    assert record.silence_s(NOW) == 0
    assert "silent for 2 h" in Page(render(record, NOW + 7300)).text
    status = {"state": "finished", "step": 240, "time": BEGIN + 1631, "message": ""}
    write_json(run_dir / "status.json", status)
    assert "silent for" not in Page(render(read_run(run_dir), NOW + 7300)).text


def test_a_failure_says_why(run_dir: Path):
    """The reason a run ended belongs at the top, not in a log on another machine."""
    status = {"state": "failed", "step": 240, "time": NOW, "message": "loss is not finite at step 241"}
    write_json(run_dir / "status.json", status)
    assert "loss is not finite at step 241" in page_of(run_dir).text


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_run_that_has_just_begun_has_a_report(tmp_path: Path, rows: int):
    """The first look at a run is in its first minute."""
    run_dir = tmp_path / "fresh"
    run_dir.mkdir()
    (run_dir / "config.toml").write_text("[run]\nsteps = 10\n")
    for step in range(1, rows + 1):
        append_line(run_dir / "metrics.jsonl", train_row(0, step))
    page = page_of(run_dir)
    assert f"Step {rows} of 10" in page.text
    assert ("No step has been recorded yet." in page.text) == (rows == 0)


def rollouts(run_dir: Path, far: float, gold: bool = True) -> None:
    """40 iterations whose gold is 0.5 + d (1.2 - 0.6 ln d), which is highest at d = e."""
    run_dir.mkdir()
    (run_dir / "config.toml").write_text("[run]\nsteps = 160\n")
    for number in range(40):
        d = far * number / 39
        row = {"kind": "rollouts", "attempt": 0, "step": 4 * number + 1, "time": BEGIN + number, "kl": d * d}
        row |= {"reward": d, "disagreement": 0.1 * d, "answer_tokens": 20.0}
        row["gold"] = 0.5 + d * (1.2 - 0.6 * math.log(d or 1)) + 0.01 * (-1) ** number if gold else None
        append_line(run_dir / "metrics.jsonl", row)
    event = {"kind": "over_optimised", "time": NOW, "step": 121, "message": f"gold fell {HOSTILE}"}
    append_line(run_dir / "events.jsonl", event)


def test_gold_is_drawn_with_its_law_and_where_it_was_found_to_fall(tmp_path: Path):
    """A reader would see dots, and not whether and where more of the reward is less of what is wanted."""
    rollouts(tmp_path / "run", 5.0)
    html = render(read_run(tmp_path / "run"), NOW)
    page = Page(html)
    for part in ("Disagreement", "gold falls", "gold, fitted", "reward, fitted", "gold: peak at 2.7"):
        assert part in page.text, part
    assert "another seed would go" in page.text
    # On the four charts over steps, and on the one over distance.
    assert page.titles("g").count("mark alarm") == 5
    assert HOSTILE not in html


@pytest.mark.parametrize(("far", "gold"), [(0.0, True), (0.3, True), (5.0, False)])
def test_gold_that_determines_no_law_is_no_error(tmp_path: Path, far: float, gold: bool):
    """A run of a few iterations, or one without gold, has a report too."""
    rollouts(tmp_path / "run", far, gold)
    text = page_of(tmp_path / "run").text
    assert "Rollouts" in text
    assert ("gold: alpha" in text) == (gold and far > 0)
    assert ("too near for it to show" in text) == (gold and far > 0)


RECORDS = ("plan.json", "recipe.json", "status.json", "metrics.jsonl", "events.jsonl", "samples.jsonl")


@pytest.mark.parametrize("missing", [*RECORDS, "heartbeats", "evals"])
def test_any_file_may_be_absent_or_damaged(run_dir: Path, missing: str):
    """A crash or an old run must not cost the report of everything that is still there."""
    path = run_dir / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "gpt-demo" in page_of(run_dir).text
    if path.suffix:
        path.write_text('{"torn": ')
        assert "gpt-demo" in page_of(run_dir).text


def test_values_that_are_no_numbers_are_gaps(run_dir: Path):
    """A diverged run, or rows of another version, are when the report is needed most."""
    for step, changes in enumerate(
        (
            {"loss": math.nan, "grad_norm": math.inf, "tokens_per_s": None, "memory_bytes": None, "lr": None},
            {"loss": None, "mfu_causal": None, "step_s": None, "goodput": None, "tokens": None},
            {"loss": "high"},
        ),
        start=241,
    ):
        append_line(run_dir / "metrics.jsonl", {**train_row(1, step), **changes})
    text = page_of(run_dir).text
    assert "4 values are missing or not finite" in text
    assert "Step 243 of 400" in text


def test_utilisation_is_left_out_where_no_peak_is_known(tmp_path: Path):
    """An empty chart, or one of an assumed peak, would be a claim that nobody measured."""
    run_dir = make_run(tmp_path / "demo")
    rows = [train_row(0, step, mfu_full=None, mfu_causal=None) for step in range(1, 20)]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "FLOPs utilisation" not in page_of(run_dir).text


def test_the_newest_evaluation_is_the_one_shown(run_dir: Path):
    """An old score beside a new model would be quoted."""
    write_json(run_dir / "evals" / "bits-per-byte-step-100.json", evaluation(100, value=1.9))
    write_json(run_dir / "evals" / "bits-per-byte-step-240.json", evaluation(240, value=1.4, baselines=[]))
    write_json(run_dir / "evals" / "other.json", {"task": "bits-per-byte", "value": None, "step": 999})
    text = page_of(run_dir).text
    assert "this model, step 240 1.400" in text
    assert "this model, step 100" not in text


def test_the_samples_of_undone_steps_give_way(run_dir: Path):
    """The text of weights that no longer exist must not stand for the model."""
    append_line(
        run_dir / "samples.jsonl", {"attempt": 1, "step": 100, "prompt": "def run(self):", "text": " again"}
    )
    text = page_of(run_dir).text
    assert "again" in text
    assert "self._loop" not in text


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path):
    """A mistyped path must not leave an empty report behind."""
    with pytest.raises(UsageError, match="not a run directory"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_reward_model_has_its_reliability_drawn(run_dir):
    """Whether its confidence can be believed is what a reward is used by."""
    assert "Reliability" not in page_of(run_dir).text
    bins = [
        {"confidence": 0.55, "accuracy": 0.5, "pairs": 10},
        {"confidence": 0.9, "accuracy": 0.7, "pairs": 12},
    ]
    result = {
        "task": "preferences",
        "step": 240,
        "value": 0.8,
        "low": 0.7,
        "high": 0.9,
        "pairs": 44,
        "length_baseline": {"prefers": "shorter", "value": 0.75, "low": 0.6, "high": 0.85},
        "calibration": {
            "temperature": 1.7,
            "ece": 0.177,
            "ece_after": 0.1,
            "reliability": bins,
            "reliability_after": bins,
        },
    }
    write_json(run_dir / "evals" / "preferences-step-240.json", result)
    page = page_of(run_dir)
    for told in ("Reliability", "confidence", "the shorter answer", "0.177", "fitted temperature"):
        assert told in page.text, told
    # Untrained, or of an older version: nothing to be drawn.
    write_json(run_dir / "evals" / "preferences-step-240.json", {**result, "calibration": {}})
    assert "the shorter answer" in page_of(run_dir).text


def task_rows(num_items: int = 240) -> list[dict]:
    """Questions in three sources, with the likelihoods of four choices."""
    draw = np.random.default_rng(0)
    rows = []
    for number in range(num_items):
        gold, likelihoods = int(draw.integers(4)), draw.normal(-9, 1, 4)
        likelihoods[gold] += 0.8
        rows.append(
            {
                "item": f"q{number}",
                "cluster": f"d{number // 4}",
                "source": ("law", "code", HOSTILE)[number % 3],
                "gold": gold,
                "log_likelihoods": likelihoods.tolist(),
                "choice_bytes": [5, 6, 7, 8],
            }
        )
    return rows


def task_result(step: int, **changes) -> dict:
    found = summarize("quiz", ItemScores(task_rows(), "ab" * 32), ["accuracy", "ece"], "quiz.jsonl").as_json()
    return {"task": "quiz", "step": step, "time": BEGIN + step, **found, **changes}


def test_tasks_are_shown_with_intervals_sources_calibration_and_growth(run_dir: Path):
    """A score would stand there without how sure it is, where it fails and whether it grows."""
    for step in (80, 160, 240):
        write_json(run_dir / "evals" / f"quiz-step-{step}.json", task_result(step))
    other = task_result(200, items="cd" * 32)
    write_json(run_dir / "evals" / "quiz-step-200-cdcdcdcd.json", other)
    html = render(read_run(run_dir), NOW)
    page, found = Page(html), task_result(240)
    low, value, high = (found["metrics"]["accuracy"][key] for key in ("low", "value", "high"))
    assert f"quiz accuracy {value:.3f} {low:.3f}\N{EN DASH}{high:.3f} 240 60 documents 240" in page.text
    assert "choice_probability (beside accuracy)" in page.text
    assert "quiz: accuracy more is better all" in page.text
    assert "quiz: reliability share right" in page.text
    # The one of step 200 was asked other questions.
    assert [row["step"] for row in histories_of(read_run(run_dir))[0]] == [80, 160, 240]
    assert "quiz: choice_probability probability of the right choice" in page.text
    assert HOSTILE not in html


def test_task_results_of_another_version_cost_no_report(run_dir: Path):
    """One odd file would hide a whole run."""
    good = task_result(240)
    for number, changes in enumerate(
        (
            {"metrics": 3},
            {"metrics": {"accuracy": 4}},
            {"metrics": {"accuracy": {"value": None, "items": "many"}}, "metric": "other"},
            {"reliability": [{"accuracy": 1}], "by_source": {"law": {}}},
            {"by_source": {"law": {"accuracy": {"value": 0.0}}}, "metrics": {"accuracy": {"value": 0}}},
        )
    ):
        write_json(run_dir / "evals" / "quiz.json", {**good, "task": f"quiz{number}", **changes})
        assert "gpt-demo" in page_of(run_dir).text


def test_a_checkpoint_stands_beside_the_one_before_it(run_dir: Path):
    """Two intervals that overlap would be read as no progress."""
    for step, gain in ((160, 0.0), (240, 0.25)):
        rows = task_rows()
        for row in rows:
            row["log_likelihoods"][row["gold"]] += gain
        found = ItemScores(rows, "ab" * 32)
        write_scores(run_dir / "evals" / f"quiz-{step}.jsonl", found)
        result = summarize("quiz", found, ["choice_probability"], f"quiz-{step}.jsonl").as_json()
        write_json(run_dir / "evals" / f"quiz-step-{step}.json", {"task": "quiz", "step": step, **result})
    assert "quiz choice_probability 160 to 240 better +0.0" in page_of(run_dir).text
    odd = [{**row, "log_likelihoods": "many"} for row in task_rows()]
    for text in ('{"item": "q0"}', '{"item', "3\n4\n", "\n".join(map(json.dumps, odd))):
        (run_dir / "evals" / "quiz-160.jsonl").write_text(text)
        page = page_of(run_dir)
        assert "160 to 240" not in page.text
        assert "quiz choice_probability" in page.text


def test_a_result_does_not_lead_out_of_its_folder(run_dir: Path):
    """A run from somewhere else could have the report read any file."""
    (run_dir / "outside.jsonl").write_text("")
    for name in ("../outside.jsonl", str(run_dir / "outside.jsonl"), "..", ""):
        assert verdicts._scores({"scores": name, "items": "x"}, run_dir / "evals") is None
