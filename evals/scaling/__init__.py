"""Scaling laws: how the loss falls with size and data, fitted so that what is not determined is said.

Read laws.py, then fit.py and intervals.py; tables.py reads the points, identifiability.py says how far a fit
can be trusted, optimum.py what follows from it, report.py all of it. overoptimisation.py has laws
of rewards instead of losses.
"""
