"""Benchmarks: methods times metrics over a data set, resumable and distributable, and their summaries."""

from camlucida.benchmark.capacity import Rate, estimate, work_out
from camlucida.benchmark.compare import RunComparison, compare
from camlucida.benchmark.one_call import evaluate
from camlucida.benchmark.plan import Bench, Settings, open_bench
from camlucida.benchmark.report.run_report import write_report
from camlucida.benchmark.shards import RunFolder
from camlucida.benchmark.summary import Summary, summarise

__all__ = [
    "Bench",
    "Rate",
    "RunComparison",
    "RunFolder",
    "Settings",
    "Summary",
    "compare",
    "estimate",
    "evaluate",
    "open_bench",
    "summarise",
    "work_out",
    "write_report",
]
