"""Ladders: models of growing size and data, trained from shared trunks, for a scaling law.

The files beside this one are ladders that ship, found by their names.
"""
