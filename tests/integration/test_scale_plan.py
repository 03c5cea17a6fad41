"""`seedbed scale plan` and `report` as a user types them."""

import json

import numpy as np
import pytest

BUDGETS = ("--budget", "1e13", "--budget", "1e14")


def test_a_design_is_priced_before_it_is_run(seedbed_cli, tmp_path):
    """A sweep would be paid for first, and counted after."""
    arguments = ("--on", "1xH100", "--price", "2", "--out", "design.json", "--json")
    outcome = seedbed_cli("scale", "plan", "gpt-demo", *BUDGETS, *arguments)
    assert outcome.code == 0, outcome.stderr
    made = json.loads(outcome.stdout)
    assert json.loads((tmp_path / "design.json").read_text()) == made
    assert made["cost"]["price"] == pytest.approx(2 * made["cost"]["device_hours"])
    assert made["cost"]["device_hours"] == pytest.approx(
        sum(trunk["cost"]["device_hours"] for trunk in made["trunks"])
    )
    trunk = made["trunks"][0]
    cell = trunk["cells"][0]
    settings = [
        part
        for name, value in (trunk["settings"] | cell["settings"]).items()
        for part in ("--set", f"{name}={value}")
    ]
    plan = json.loads(seedbed_cli("plan", "gpt-demo", "--on", "1xH100", *settings, "--json").stdout)
    assert plan["total_flops"] == pytest.approx(cell["flops"])
    assert plan["parameters"]["total"] == cell["parameters"]


def test_devices_do_not_change_what_is_trained(seedbed_cli):
    """A law would change with the machine that its runs were made on."""
    shown = seedbed_cli("scale", "plan", "gpt-demo", *BUDGETS, "--mup")
    elsewhere = seedbed_cli("scale", "plan", "gpt-demo", *BUDGETS, "--mup", "--on", "1xA100")
    assert "cells on" in shown.stdout
    assert "lr 0.0025" in shown.stdout
    # Only the price is another.
    cells = [
        [line for line in one.stdout.splitlines() if line.startswith("  ")] for one in (shown, elsewhere)
    ]
    assert cells[0] == cells[1] != []


def test_runs_that_were_made_centre_the_next_and_say_where_to_add(seedbed_cli, tmp_path):
    """A second sweep would repeat the first one's guess."""
    draw = np.random.default_rng(0)
    rows = ["N,D,loss"]
    for size in (1e5, 3e5, 1e6, 3e6):
        for tokens in (1e6, 1e7, 1e8):
            loss = 1.5 + 20 / size**0.2 + 300 / tokens**0.3
            rows.append(f"{size},{tokens},{loss * np.exp(0.003 * draw.standard_normal())}")
    (tmp_path / "runs.csv").write_text("\n".join(rows) + "\n")
    outcome = seedbed_cli(
        "scale", "plan", "gpt-demo", *BUDGETS, "--law", "runs.csv", "--extra", "2", "--json"
    )
    assert outcome.code == 0, outcome.stderr
    made = json.loads(outcome.stdout)
    assert made["centred_on"] == "runs.csv"
    assert len(made["added"]) == 2
    cells = {(cell["budget"], cell["parameters"]) for trunk in made["trunks"] for cell in trunk["cells"]}
    assert {(one["budget"], one["parameters"]) for one in made["added"]} <= cells
    page = seedbed_cli("scale", "report", "runs.csv", "--bootstraps", "100", "--out", "page.html")
    assert page.code == 0, page.stderr
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "a design needs budgets"),
        ((*BUDGETS, "--extra", "2"), "--extra needs --law"),
        ((*BUDGETS, "--count", "all"), "--count all is unknown"),
        ((*BUDGETS, "--nodes", "2"), "--nodes counts machines"),
        ((*BUDGETS, "--span", "1"), "show no lowest point"),
    ],
)
def test_what_makes_no_design_is_refused(seedbed_cli, arguments, words):
    """A typing error would cost a sweep."""
    outcome = seedbed_cli("scale", "plan", "gpt-demo", *arguments)
    assert (outcome.code, words in outcome.stderr) == (2, True), outcome.stderr


def test_plan_and_forecast_give_one_advice(seedbed_cli, tmp_path):
    """Two commands of one house would send a user to two sizes."""
    sizes = np.array([(n, d) for n in (1e6, 1e7, 1e8) for d in (1e8, 1e9, 1e10)])
    losses = 1.7 + 400 / sizes[:, 0] ** 0.34 + 1500 / sizes[:, 1] ** 0.37
    rows = [f"{n},{d},{loss}" for (n, d), loss in zip(sizes, losses, strict=True)]
    (tmp_path / "runs.csv").write_text("\n".join(["N,D,loss", *rows]) + "\n")
    fitted = seedbed_cli("scale", "fit", "runs.csv", "--bootstraps", "100", "--json")
    (tmp_path / "law.json").write_text(fitted.stdout)
    plan = seedbed_cli("plan", "gpt2-124m", "--on", "8xH100", "--law", "law.json", "--json")
    assert plan.code == 0, plan.stderr
    advised = json.loads(plan.stdout)["compute_optimal"]
    compute = json.loads(plan.stdout)["total_flops"]
    arguments = ("--compute", repr(compute), "--bootstraps", "100", "--json")
    (forecast,) = json.loads(seedbed_cli("scale", "forecast", "runs.csv", *arguments).stdout)["forecasts"]
    for name in ("compute", "parameters", "tokens", "tokens_per_parameter", "loss"):
        assert advised[name] == pytest.approx(forecast[name], rel=1e-12), name
    assert advised["planned_loss"] >= advised["loss"]
    (tmp_path / "none.json").write_text('{"E": 1.7}')
    refused = seedbed_cli("plan", "gpt2-124m", "--on", "8xH100", "--law", "none.json")
    assert (refused.code, "holds no law" in refused.stderr) == (3, True)
