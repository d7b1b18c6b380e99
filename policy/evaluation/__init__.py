"""Plays scenarios with several policies and says how they compare."""
