"""Scaling laws: how the loss falls with size and data, fitted so that what is not determined is said.

Read laws.py, then fit.py, intervals.py and profiles.py. tables.py reads the points; study.py is one fit with
its recipe; identifiability.py says what moves it, and caveats.py says so in sentences. optimum.py and
repetition.py are what follows for a budget, forecast.py with intervals, ledger.py before the run. Other laws
and approaches: forms.py, approaches.py, variable_projection.py; of rewards
instead of losses: overoptimisation.py.
"""
