"""Going on with another number of ranks than an attempt before had."""

from seedbed.files import write_atomic, write_json
from training.config import Config, config_hash
from training.recipes import to_toml
from training.run_directory import RunDirectory


def resized(run: RunDirectory, config: Config, num_ranks: int) -> Config:
    """`config` with `num_ranks`, written down as what the run goes on with."""
    before = config.engine.num_ranks
    engine = config.engine.model_copy(update={"num_ranks": num_ranks})
    config = config.model_copy(update={"engine": engine})
    write_json(run.path / "recipe.json", {**run.record(), "config_hash": config_hash(config)})
    write_atomic(run.config_path, to_toml(config))
    run.event("resized", f"going on with {num_ranks} rank(s) instead of {before}", ranks=num_ranks)
    return config
