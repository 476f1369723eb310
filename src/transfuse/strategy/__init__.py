"""Strategies: the five families, the baselines, and the parts that they share."""
