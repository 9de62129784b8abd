"""Pipelines: what is asked of whom, in which order, and who sees what."""
