"""Sweeps: one recipe at many points of its settings, each a run that is kept by its content.

The files beside this one are sweeps that ship, found by their names.
"""
