"""Low-rank adapters as a folder that `peft` loads onto the published model."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from models.config import ModelConfig
from models.hf.convert import FORMATS, refuse_inexpressible
from models.hf.files import new_folder
from models.hf.rules import SAME, expand
from models.lora import without
from models.sizes import LORA_A, LORA_B
from seedbed.errors import ConfigError


def export_adapter(config: ModelConfig, tensors: Mapping[str, Tensor], folder: Path, base: str) -> None:
    """Write the adapters among `tensors` (by canonical name) as a new folder; `base` says on which model.

    Raises ConfigError for a model without adapters, and for architectures whose layers are not ours one for
    one (GPT's, where queries, keys and values are one matrix).
    """
    from peft import LoraConfig, TaskType

    if not config.lora_rank:
        raise ConfigError("this model has no adapters (model.lora_rank = 0)", "leave out --adapter")
    if config.head != "lm":
        raise ConfigError(
            f'a decoder with model.head = "{config.head}" has no architecture there that fits',
            "export the language model that it was trained from",
        )
    form = next(one for one in FORMATS.values() if one.family == config.family)
    bare = without(config)
    refuse_inexpressible(form, bare)
    layers = {
        ours[0].removesuffix(".weight"): theirs[0].removesuffix(".weight")
        for theirs, ours, transform in expand(form.rules(bare), bare)
        if transform is SAME and len(theirs) == len(ours) == 1
    }
    adapted = sorted({name.rpartition(".")[0] for name in tensors if name.endswith((LORA_A, LORA_B))})
    if foreign := [name for name in adapted if name not in layers]:
        raise ConfigError(
            f"{form.architecture} has no layer of its own for {foreign[0]}: its adapter has no place there",
            "leave out --adapter: the merged model is written",
        )
    named = {
        f"base_model.model.{layers[name]}{part}.weight": tensors[name + part].contiguous()
        for name in adapted
        for part in (LORA_A, LORA_B)
    }
    new_folder(folder)
    LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        inference_mode=True,
        base_model_name_or_path=base,
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=sorted({layers[name].rpartition(".")[2] for name in adapted}),
    ).save_pretrained(str(folder))
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
