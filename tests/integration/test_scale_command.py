"""`seedbed scale fit` as a user types it: points of a law that is known, and files that are wrong."""

import json

import numpy as np
import pytest

LAW = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.37}


def write(path, rows, header="N,D,loss"):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def runs(noise=0.002, sizes=(1e7, 3e7, 1e8, 3e8, 1e9), seed=0):
    random = np.random.default_rng(seed)
    for size in sizes:
        for tokens in (2e8, 1e9, 5e9, 2e10, 1e11):
            loss = LAW["E"] + LAW["A"] / size ** LAW["alpha"] + LAW["B"] / tokens ** LAW["beta"]
            yield size, tokens, loss * np.exp(noise * random.standard_normal())


def test_a_known_law_is_found_within_its_intervals(seedbed_cli, tmp_path):
    write(tmp_path / "runs.csv", runs())
    outcome = seedbed_cli("scale", "fit", "runs.csv", "--compute", "1e22", "--bootstraps", "200", "--json")
    assert outcome.code == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    for name, true in LAW.items():
        low, high = found["intervals"][name]
        assert low < high
        # A little beyond, since one of five 95 % intervals may miss.
        assert low - (high - low) / 2 < true < high + (high - low) / 2, name
    (best,) = found["optima"]
    assert best["compute"] == 1e22
    assert best["parameters"] * best["tokens"] * 6 == pytest.approx(1e22, rel=1e-9)
    assert best["loss_interval"][0] < best["loss"] < best["loss_interval"][1]
    ways = found["alternatives"]["size_exponent"]
    low, high = ways["law"]["interval"]
    assert low < LAW["beta"] / (LAW["alpha"] + LAW["beta"]) < high
    # These runs lie on a grid of sizes and tokens: no budget has three sizes about its lowest.
    assert "value" in ways["envelope"]
    assert "reason" in ways["parabolas"] or ways["parabolas"]["interval"]
    # Hoffmann's law is the one that these runs follow.
    assert found["alternatives"]["kaplan"]["objective"] > 2 * found["objective"]
    assert found["alternatives"]["over_training"]["eta"] == pytest.approx(0.17, abs=0.02)
    shown = seedbed_cli("scale", "fit", "runs.csv", "--bootstraps", "100")
    assert "25 points" in shown.stdout
    assert "best size ~ compute^a: by envelope" in shown.stdout
    assert "tokens per parameter" in shown.stdout


def test_compute_may_stand_for_tokens_and_columns_may_have_any_name(seedbed_cli, tmp_path):
    write(tmp_path / "usual.csv", runs())
    rows = [(size, 6 * size * tokens, loss, "x") for size, tokens, loss in runs()]
    write(tmp_path / "other.csv", rows, header="wide,budget,end,note")
    arguments = ("--bootstraps", "100", "--json")
    usual = json.loads(seedbed_cli("scale", "fit", "usual.csv", *arguments).stdout)
    names = [part for one in ("N=wide", "C=budget", "loss=end") for part in ("--column", one)]
    other = json.loads(seedbed_cli("scale", "fit", "other.csv", *names, *arguments).stdout)
    assert other["alpha"] == pytest.approx(usual["alpha"], rel=1e-6)
    assert other["columns"] == {"N": "wide", "C": "budget", "loss": "end"}
    refused = seedbed_cli("scale", "fit", "other.csv")
    assert (refused.code, "no column for N, loss, D (or C)" in refused.stderr) == (2, True)
    write(tmp_path / "alike.csv", rows, header="model_params,train_flops_total,heldout_loss,note")
    offered = seedbed_cli("scale", "fit", "alike.csv")
    for name in ("N=model_params", "loss=heldout_loss"):
        assert f"--column {name}" in offered.stderr


def test_what_points_do_not_determine_is_said(seedbed_cli, tmp_path):
    """Five numbers come out of any table."""
    rows = list(runs(noise=0.03, sizes=(1.0e8, 1.5e8, 2.0e8)))
    write(tmp_path / "narrow.csv", [*rows, rows[0]])
    found = json.loads(seedbed_cli("scale", "fit", "narrow.csv", "--bootstraps", "100", "--json").stdout)
    said = " ".join(found["warnings"])
    assert "all N lie within a factor of 2" in said
    assert "A is not determined by these points" in said
    assert "the fit ends at E = 0" in said
    assert found["intervals"]["E"][1] > 0.5
    assert "1 point(s) occur more than once" in said


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("", 3, "has no rows"),
        ("N,D,loss\n", 3, "has no rows"),
        ("N,D,loss\n1e6,1e8,-2\n", 3, "line 2: loss is -2, not above 0"),
        ("N,D,loss\n1e6,0,2\n", 3, "line 2: D is 0, not above 0"),
        ("N,D,loss\n" + "1e6,1e8,3\n" * 3, 3, "3 points cannot determine the 5 parameters"),
        (
            "N,D,loss\n" + "".join(f"1e6,{d}e8,{3 - d / 10}\n" for d in range(1, 9)),
            3,
            "all points have the same N",
        ),
        ("a,b\n1,2\n", 2, "no column for N, loss, D (or C) among a, b"),
        (
            "N,D,loss\n"
            + "70,1e9,3\n160,2e9,2.9\n"
            + "".join(f"{n}e7,3e9,{3 - n / 99}\n" for n in range(5, 20)),
            3,
            "N is in several units: 70 to 160 in 2 rows (lines 2, 3), 5e+07 to 1.9e+08 in the others",
        ),
    ],
)
def test_files_that_are_wrong_say_what_is_wrong(seedbed_cli, tmp_path, content, code, words):
    (tmp_path / "runs.csv").write_text(content)
    outcome = seedbed_cli("scale", "fit", "runs.csv")
    assert (outcome.code, words in outcome.stderr) == (code, True), outcome.stderr


def test_rows_that_are_no_runs_are_listed(seedbed_cli, tmp_path):
    """A diverged run that vanished would be taken for one that was never made."""
    rows = [*runs(), (1e8, 1e9, "nan"), (1e8, "many", 3.0), (1e7, 1e8, 99.0)]
    write(tmp_path / "runs.csv", rows)
    arguments = ("--drop-highest", "1", "--bootstraps", "100", "--json")
    found = json.loads(seedbed_cli("scale", "fit", "runs.csv", *arguments).stdout)
    assert found["points"] == 25
    assert found["left_out"] == [
        "line 27: loss is no number",
        "line 28: could not convert string to float: 'many'",
        "line 29: among the highest losses",
    ]
    missing = seedbed_cli("scale", "fit", "runs.csv", "--objective", "hubert")
    assert (missing.code, "huber, squared_log, squared" in missing.stderr) == (2, True)
    assert seedbed_cli("scale", "fit", "none.csv").code == 3


def test_losses_below_an_asymptote_that_was_given_are_refused(seedbed_cli, tmp_path):
    """What is said to be impossible was measured: one of the two is wrong."""
    write(tmp_path / "runs.csv", runs())
    outcome = seedbed_cli("scale", "fit", "runs.csv", "--asymptote", "2.5")
    assert (outcome.code, "losses are not above the asymptote 2.5" in outcome.stderr) == (3, True)
    held = seedbed_cli("scale", "fit", "runs.csv", "--asymptote", "1.7", "--bootstraps", "100", "--json")
    found = json.loads(held.stdout)
    assert found["E"] == pytest.approx(1.7)
    assert "E" not in found["intervals"]


def test_two_counts_of_parameters_are_compared(seedbed_cli, tmp_path):
    """Embeddings are most of a small model: counted or not, they move the advice more than noise does."""
    rows = [(size, tokens, loss, size + 3e7) for size, tokens, loss in runs()]
    write(tmp_path / "runs.csv", rows, header="N,D,loss,with_embeddings")
    arguments = ("--count", "with_embeddings", "--bootstraps", "100", "--json")
    found = json.loads(seedbed_cli("scale", "fit", "runs.csv", *arguments).stdout)
    first, second = found["identifiability"]["counts"]
    assert (first["count"], second["count"]) == ("N", "with_embeddings")
    assert abs(first["size_exponent"] - second["size_exponent"]) > 0.01
    assert any("with N counted as with_embeddings" in told for told in found["warnings"])


def test_a_forecast_is_registered_scored_and_counted(seedbed_cli, tmp_path):
    """A forecast that can be chosen after the run is none."""
    write(tmp_path / "runs.csv", runs())
    arguments = ("--parameters", "3e9", "--tokens", "2e11", "--bootstraps", "100", "--register", "book.jsonl")
    made = seedbed_cli("scale", "forecast", "runs.csv", *arguments, "--name", "big", "--json")
    assert made.code == 0, made.stderr
    value = json.loads(made.stdout)
    (one,), (row,) = value["forecasts"], value["registered"]
    true = LAW["E"] + LAW["A"] / 3e9 ** LAW["alpha"] + LAW["B"] / 2e11 ** LAW["beta"]
    low, high = one["run_interval"]
    assert low < true < high
    assert high - low > one["loss_interval"][1] - one["loss_interval"][0]
    assert value["recipe"]["points"] == 25
    outcome = seedbed_cli("scale", "score", "book.jsonl", "--of", "1", "--loss", f"{true}", "--json")
    assert outcome.code == 0, outcome.stderr
    table = json.loads(outcome.stdout)
    assert (table["scored"], table["covered"]) == (1, 1)
    shown = seedbed_cli("scale", "score", "book.jsonl", "--expect", row["digest"])
    assert "1 of 1 within the 95 % interval" in shown.stdout
    (tmp_path / "book.jsonl").write_text((tmp_path / "book.jsonl").read_text().replace("big", "bit"))
    damaged = seedbed_cli("scale", "score", "book.jsonl")
    assert (damaged.code, "line 1: its digest is another" in damaged.stderr) == (3, True)


def test_a_budget_is_advised_for_serving_and_for_few_data(seedbed_cli, tmp_path):
    """Who serves much, or has little to train on, would be told the size that is right for neither."""
    write(tmp_path / "runs.csv", runs())
    arguments = ("--compute", "1e21", "--serve", "1e12", "--unique", "1e9", "--bootstraps", "100", "--json")
    found = json.loads(seedbed_cli("scale", "forecast", "runs.csv", *arguments).stdout)["forecasts"]
    plain, serving, few = found
    assert [one["kind"] for one in found] == ["compute-optimal", "serving-optimal", "data-constrained"]
    assert serving["parameters"] < plain["parameters"]
    assert serving["total_compute"] < serving["total_compute_of_compute_optimal"]
    assert few["epochs"] > 1
    assert few["loss"] > plain["loss"]
    assert seedbed_cli("scale", "forecast", "runs.csv", "--max-epochs", "4").code == 2
    assert seedbed_cli("scale", "forecast", "runs.csv", "--tokens", "4e9").code == 2


def test_laws_of_other_quantities_are_fitted_to_columns(seedbed_cli, tmp_path):
    """A user would fit batches, steps and rewards by hand, each time without intervals."""
    draw = np.random.default_rng(0)

    def noise(count):
        return np.exp(0.01 * draw.standard_normal(count))

    def fitted(kind, columns, *more):
        rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
        (tmp_path / "t.csv").write_text("\n".join([*rows, ",".join(["nan"] * len(columns))]) + "\n")
        outcome = seedbed_cli("scale", "law", kind, "t.csv", *more, "--json")
        assert outcome.code == 0, outcome.stderr
        value = json.loads(outcome.stdout)
        assert (value["points"], len(value["left_out"])) == (len(rows) - 1, 1)
        return value["parameters"]

    def held(parameters, truth):
        for name, value in truth.items():
            one = parameters[name]
            assert one["low"] <= one["value"] <= one["high"]
            assert one["value"] == pytest.approx(value, rel=0.1), name

    batches = np.repeat(2.0 ** np.arange(3, 11), 2)
    steps = 1500 * (1 + 90 / batches) * noise(16)
    held(fitted("critical-batch", {"B": batches, "S": steps}), {"S_min": 1500, "B_crit": 90})
    tokens = np.geomspace(1e8, 1e12, 12)
    best = {"D": tokens, "best": 3e-3 * tokens**0.38 * noise(12)}
    held(fitted("power", best, "--column", "x=D", "--column", "y=best"), {"a": 3e-3, "b": 0.38})
    axes = np.meshgrid(np.geomspace(1e6, 1e9, 5), np.geomspace(1e3, 1e6, 5))
    sizes, updates = (axis.ravel() for axis in axes)
    loss = ((6.5e13 / sizes) ** 0.077 + (2.1e3 / updates) ** 0.76) * noise(25)
    by_steps = fitted("steps", {"N": sizes, "S": updates, "loss": loss})
    held(by_steps, {"alpha_N": 0.077, "alpha_S": 0.76, "S_c": 2.1e3})
    kl = np.linspace(0.2, 60, 30)
    reward = 0.1 + np.sqrt(kl) * (1.2 - 0.3 * np.log(np.sqrt(kl))) + 0.01 * draw.standard_normal(30)
    held(fitted("kl-rl", {"KL": kl, "reward": reward}), {"alpha": 1.2, "beta": 0.3})
    loss = np.linspace(2, 4, 15)
    error = {"loss": loss, "error": 0.9 - 2.1 * np.exp(-0.7 * loss) + 1e-4 * draw.standard_normal(15)}
    held(fitted("error", error), {"epsilon": 0.9, "k": 2.1, "gamma": 0.7})


def test_laws_and_columns_that_there_are_not_are_named(seedbed_cli, tmp_path):
    """A law of the wrong columns is worse than none."""
    (tmp_path / "t.csv").write_text("B,steps,less\n1,2,-1\n2,3,-2\n")
    for arguments, code, words in (
        (("powers",), 2, "did you mean 'power'"),
        (("critical-batch",), 2, "--column S=COLUMN"),
        (("critical-batch", "--column", "Q=steps"), 2, "names no quantity of this law"),
        (("critical-batch", "--column", "S=steps"), 3, "2 points"),
        (("error", "--column", "loss=B", "--column", "error=steps"), 3, "2 points cannot determine 3"),
        (("kl-rl", "--column", "KL=less", "--column", "reward=B"), 3, "no divergence is above 0"),
    ):
        outcome = seedbed_cli("scale", "law", arguments[0], "t.csv", *arguments[1:])
        assert (outcome.code, words in outcome.stderr) == (code, True), outcome.stderr


def test_results_by_size_come_from_contests_and_reward_models_alone(seedbed_cli, tmp_path):
    """A page of the wrong files would show nothing, and not say why."""
    (tmp_path / "none.json").write_text('{"tasks": {"bits-per-byte": {}}}')
    (tmp_path / "alone.json").write_text(json.dumps({"win_rates": [{"first": "a", "second": "b"}]}))
    for name, words in (
        ("none.json", "holds neither a contest nor scores of a reward model"),
        ("alone.json", "no one met the reference"),
        ("missing.json", "is no JSON"),
    ):
        outcome = seedbed_cli("scale", "by-size", name)
        assert (outcome.code, words in outcome.stderr) == (3, True), outcome.stderr
