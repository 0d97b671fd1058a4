"""Benchmarks: methods times metrics over a data set, resumable and distributable, and their summaries."""

from camlucida.benchmark.compare import RunComparison, compare
from camlucida.benchmark.one_call import evaluate
from camlucida.benchmark.plan import Bench, Settings, open_bench
from camlucida.benchmark.report.run_report import write_report
from camlucida.benchmark.shards import RunFolder
from camlucida.benchmark.summary import Summary, summarise

__all__ = [
    "Bench",
    "RunComparison",
    "RunFolder",
    "Settings",
    "Summary",
    "compare",
    "evaluate",
    "open_bench",
    "summarise",
    "write_report",
]
