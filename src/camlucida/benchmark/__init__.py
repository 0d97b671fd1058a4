"""Benchmarks: methods times metrics over a data set, resumable and distributable, and their summaries."""

from camlucida.benchmark.plan import Bench, Recipe, Settings
from camlucida.benchmark.shards import RunFolder

__all__ = ["Bench", "Recipe", "RunFolder", "Settings"]
