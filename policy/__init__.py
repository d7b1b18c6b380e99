"""Decides which plan each device follows: cost model, baselines, and the decision service."""
