"""Simulated sites: what policies are trained and judged on."""
