"""Our checkpoint as a model of lm-evaluation-harness: adapter.py REQUESTS CHECKPOINT."""

import json
import sys
from pathlib import Path

from lm_eval.api.instance import Instance

sys.path.append(str(Path(__file__).parents[3]))

from evals.lm_eval_model import harness_model_class

job = json.loads(Path(sys.argv[1]).read_text())
kind = {"choices": "loglikelihood", "rolling": "loglikelihood_rolling"}[job["kind"]]
asked = [
    Instance(kind, {}, tuple(one), number, ("bench", number, 1)) for number, one in enumerate(job["requests"])
]
model = harness_model_class()(checkpoint=sys.argv[2])
found = getattr(model, kind)(asked)
print()
print(json.dumps({"nats": [one[0] if isinstance(one, tuple) else one for one in found]}))
