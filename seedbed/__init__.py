"""The ground floor: what every other room stands on.

Standard library and numpy only: errors with exit codes, atomic and hashed files,
counter-based randomness, statistics, progress.
"""

__version__ = "0.1.0"
