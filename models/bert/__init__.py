"""The BERT family: encoders that see both ways, with their pretraining and fine-tuning heads.

Read config.py, then encoder.py, then tasks.py; sizes.py and initialization.py are keyed by the same names.
"""

from models.bert.config import EncoderConfig
from models.bert.encoder import Encoder
from models.bert.initialization import initial_values
from models.bert.sizes import count_parameters, flops_per_token, parameter_shapes
from models.bert.tasks import make_encoder

__all__ = [
    "Encoder",
    "EncoderConfig",
    "count_parameters",
    "flops_per_token",
    "initial_values",
    "make_encoder",
    "parameter_shapes",
]
