"""Scores with intervals, baselines, reports."""
