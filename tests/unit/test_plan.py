"""`seedbed plan --on`: what a run needs on devices that are not here."""

import json
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from cluster.main import app
from training.catalogue import CATALOGUE, device_named, known_gpu
from training.layout_search import Machines, every_engine_and_policy, search, shared_out
from training.memory_plan import memory_by_part
from training.plan import measure
from training.recipes import load_config
from training.save_interval import effective_share, young_daly_s


def run(*arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `seedbed plan`."""
    found = CliRunner().invoke(app, ["plan", *arguments])
    return found.exit_code, found.stdout, found.stderr


def planned(*arguments: str) -> dict:
    code, out, error = run(*arguments, "--json")
    assert code == 0, error
    return json.loads(out)


FITS = ("llama-8b", "--on", "8xH100", "--nodes", "4", "--set", "engine.checkpointing=full")


def test_a_plan_has_what_scripts_read():
    plan = planned(*FITS, "--price", "2.5")
    assert plan["parameters"]["total"] == 8_030_261_248
    memory = plan["memory_bytes_per_device"]
    assert {"weights", "gradients", "optimizer", "activations", "logits", "communication"} <= memory.keys()
    counted = sum(size for part, size in memory.items() if part != "total")
    assert memory["total"] == counted
    assert plan["fits"]
    assert (plan["machines"]["devices"], plan["machines"]["nodes"]) == (32, 4)
    assert 0 < plan["mfu_causal"] < plan["mfu_full"] < 1
    tokens_per_s = 32 * plan["tokens_per_s_per_device"]
    assert plan["hours"] == pytest.approx(38_147 * 4_194_304 / tokens_per_s / 3600)
    assert plan["device_hours"] == pytest.approx(32 * plan["hours"])
    assert plan["price"] == pytest.approx(2.5 * plan["device_hours"])
    assert plan["checkpoint_bytes"] == 12 * 8_030_261_248
    assert planned(*FITS)["price"] is None


def test_every_engine_and_policy_is_planned():
    rows = planned(*FITS)["layouts"]
    found = {(row["settings"]["engine.name"], row["settings"]["engine.checkpointing"]) for row in rows}
    engines, policies = ("ddp", "fsdp", "zero1", "zero2", "zero3"), ("none", "selective", "full")
    # DeepSpeed's stage 3 gathers within blocks, where selective checkpointing chooses operations.
    assert found == {(engine, policy) for engine in engines for policy in policies} - {("zero3", "selective")}


def test_text_says_whether_it_fits_and_what_it_costs():
    code, out, _ = run(*FITS, "--price", "2.5")
    assert code == 0
    for part in ("fits 74.5 GiB", "32 x H100 in 4 machine(s)", "price", "save every", "layouts:"):
        assert part in out


def test_a_layout_that_does_not_fit_is_refused_with_one_that_does():
    """The job would end in its first step, after the machines were taken."""
    code, out, error = run("llama-8b", "--on", "8xH100", "--set", "engine.name=ddp", "--json")
    assert code == 2
    plan = json.loads(out)
    assert plan["fits"] is False
    assert plan["memory_bytes_per_device"]["total"] > 100e9
    assert "do not fit" in error
    settings = [part for word in plan["notices"][0].split("--set ")[1:] for part in ("--set", word.strip())]
    assert planned("llama-8b", "--on", "8xH100", *settings)["fits"]


def test_nothing_that_fits_is_said_with_the_nearest():
    code, _, error = run("llama-8b", "--on", "1xA100-40GB", "--search", "--set", "batch.tokens_per_step=8192")
    assert code == 2
    assert "no layout fits 37.3 GiB of one A100-40GB" in error
    assert "more devices" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--on", "8xH10"], "did you mean 'H100'"),
        (["--on", "0xH100"], "1xH100"),
        (["--on", "-1xH100"], "not NUMBERxDEVICE"),
        (["--on", "100000xH100"], "use at most 512 ranks"),
        (["--nodes", "2"], "--on 8xH100"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_explained(arguments, said):
    code, _, error = run("llama-8b", *arguments)
    assert code == 2
    assert said in error


def test_any_shape_can_be_given():
    plan = planned(
        *("llama-8b", "--on", "1xh200"),
        *("--set", "model.num_layers=2", "--set", "model.width=512", "--set", "model.num_heads=8"),
        *("--set", "model.mlp_width=1024", "--set", "model.context=256", "--set", "batch.micro_batch_size=4"),
        *("--set", "engine.precision=fp32", "--set", "batch.tokens_per_step=4096"),
    )
    assert plan["precision"] == "fp32"
    assert plan["machines"]["peak_flops"] == 67e12
    assert plan["batch"]["turns_per_rank"] == 4


def test_sixteen_thousand_devices_are_planned_at_once_without_torch():
    """Nobody has so many to try a plan on."""
    program = """if True:
        import sys, time
        from training.catalogue import device_named
        from training.layout_search import Machines
        from training.plan import layouts, make_plan
        from training.recipes import load_config
        from pathlib import Path
        sets = ["engine.num_ranks=16000", "engine.replicas=125", "engine.device=cuda",
                "engine.precision=bf16", f"batch.tokens_per_step={16000 * 8192}"]
        started = time.perf_counter()
        config, machines = load_config("llama-8b", sets), Machines(device_named("H100"), 8)
        plan = make_plan(config, Path("runs"), machines=machines, price_per_device_hour=2)
        rows = layouts(config, machines)
        assert time.perf_counter() - started < 1, time.perf_counter() - started
        assert "torch" not in sys.modules
        assert plan["machines"]["nodes"] == 2000 and 0.1 < plan["mfu_full"] < 0.6, plan["mfu_full"]
        assert plan["saves"]["mttf_h"] < 4 and 0.5 < plan["saves"]["effective_share"] < 1
    """
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_search_proposes_the_fastest_that_fits():
    machines = Machines(device_named("H100"), 8)
    config = load_config("llama-8b", ["engine.num_ranks=64", "engine.device=cuda", "engine.precision=bf16"])
    started = time.perf_counter()
    found = search(config, machines)
    assert time.perf_counter() - started < 5
    assert all(layout.fits for layout in found)
    assert found[0].tokens_per_s == max(layout.tokens_per_s for layout in found)
    assert found[0].tokens_per_s >= max(
        layout.tokens_per_s for layout in every_engine_and_policy(config, machines) if layout.fits
    )
    # What is proposed can be run as it is said.
    settings = [f"{name}={str(value).lower()}" for name, value in found[0].settings.items()]
    asked = load_config("llama-8b", ["engine.num_ranks=64", "engine.device=cuda", *settings])
    assert memory_by_part(asked)["total"] <= machines.device.memory_bytes
    assert {layout.settings.get("engine.replicas", 1) for layout in found} > {1}


def test_a_search_shares_a_batch_out_among_more_ranks_than_it_has_micro_batches():
    """It would be refused before it could say which micro-batch is small enough."""
    config = load_config("gpt2-124m", ["engine.num_ranks=64", "engine.device=cuda", "engine.precision=bf16"])
    few = config.batch.model_copy(update={"tokens_per_step": 64 * config.model.context})
    made = shared_out(config.model_copy(update={"batch": few}))
    assert made.batch.micro_batch_size == 1
    assert all(
        layout.settings["batch.micro_batch_size"] == 1
        for layout in search(made, Machines(device_named("H100"), 8))
    )
    assert shared_out(made) is made


def test_a_search_proposes_nothing_that_is_refused():
    """Exact mode knows neither replicas nor DeepSpeed."""
    config = load_config("gpt2-124m", ["engine.exact=true", "engine.precision=bf16", "engine.device=cuda"])
    found = search(config, Machines(device_named("H100"), 4))
    assert {layout.settings["engine.name"] for layout in found} == {"ddp", "fsdp"}
    assert {layout.settings.get("engine.replicas", 1) for layout in found} == {1}


def test_every_device_says_where_its_figures_are_from():
    for device in CATALOGUE:
        assert device.source
        assert device.fp32_flops < device.bf16_flops
        assert device.network_bytes_per_s < device.memory_bytes_per_s
        assert device_named(device.name.lower()) is device
        if device.is_gpu and device.name != "H100-96GB":
            assert known_gpu(f"NVIDIA {device.name}") is device


def test_effective_time_is_what_failures_and_saves_leave():
    """Daly's own limits: nothing fails, and everything does."""
    assert effective_share(100.0, 1.0, 0.0, 1e9) == pytest.approx(100 / 101)
    assert effective_share(100.0, 1.0, 0.0, 10.0) < 0.01
    best = young_daly_s(10.0, 36_000.0)
    shares = [effective_share(best * factor, 10.0, 60.0, 36_000.0) for factor in (0.5, 1.0, 2.0)]
    assert shares[1] == max(shares)


def test_errors_of_a_plan_are_kept_after_the_run():
    plan = {
        "batch": {"tokens_per_step": 100},
        "predicted": {"tokens_per_s": 110.0, "hours": 1.0},
        "memory_bytes_per_device": {"total": 900},
        "checkpoint_bytes": 500,
    }
    rows = [{"kind": "train", "step_s": 1.0, "memory_bytes": 1100}]
    measured = measure(plan, rows, 100)["measured"]
    assert measured["relative_errors"] == pytest.approx({"tokens_per_s": 0.1, "memory_bytes": -0.1})
