"""lm-evaluation-harness's `hf` model: hf.py REQUESTS BATCH_SIZE COUNT; COUNT 0 takes all."""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

job = json.loads(Path(sys.argv[1]).read_text())
batch_size, count = int(sys.argv[2]), int(sys.argv[3])
kind = {"choices": "loglikelihood", "rolling": "loglikelihood_rolling"}[job["kind"]]
asked = [
    Instance(kind, {}, tuple(one), number, ("bench", number, 1))
    for number, one in enumerate(job["requests"][: count or None])
]
model = HFLM(pretrained=job["model"], device="cpu", dtype=torch.float32, batch_size=batch_size)
getattr(model, kind)(asked[:4], disable_tqdm=True)
started = time.perf_counter()
found = getattr(model, kind)(asked, disable_tqdm=True)
seconds = time.perf_counter() - started
nats = [one[0] if isinstance(one, tuple) else one for one in found]
versions = {name: version(name) for name in ("lm_eval", "torch", "transformers")}
print()
print(json.dumps({"seconds": seconds, "nats": nats, "versions": versions}))
