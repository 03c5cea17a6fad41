"""T5: an encoder and a decoder of text, with relative positions (Raffel et al. 2020).

Read config.py, then model.py; sizes.py and initialization.py are keyed by the same names.
"""

from models.t5.config import T5Config
from models.t5.initialization import initial_values
from models.t5.model import T5
from models.t5.sizes import count_parameters, flops_per_token, parameter_shapes

__all__ = ["T5", "T5Config", "count_parameters", "flops_per_token", "initial_values", "parameter_shapes"]
