"""`python -m seedbed`: the same as the console script.

Python puts the working directory first on the import path for `-m`; it is taken off again, so
that a user's own `data.py` or `models/` cannot stand in for ours.
"""

import sys
from importlib.metadata import entry_points

if not sys.flags.safe_path:
    sys.path.pop(0)

next(iter(entry_points(group="console_scripts", name="seedbed"))).load()()
