"""The README's table: ours beside other libraries, from the files that the benchmarks write with ``--json``.

``python -m benchmarks.published FILE.json ...`` from the root prints Markdown: for each piece of work that another
library does as well, time over the plain forward pass, memory held for the backward pass, and agreement with ours.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

OURS = "camlucida"


def rows_of(results: Iterable[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """What each library measured, by the name of the work in camlucida; only work that a peer does too, in any form."""
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for result in results:
        for row in result["rows"]:
            work = row["method"] if row["library"] == OURS else row["like"]
            if work and not row["error"]:
                found[work].setdefault(row["library"], row)
    shared = {work for work, by in found.items() if OURS in by and len(by) > 1}
    return {
        work: by
        for work, by in found.items()
        if work in shared or (OURS in by and by[OURS]["like"] in shared)
    }


def markdown(work: dict[str, dict[str, dict[str, Any]]]) -> str:
    """One line for each piece of work, one column for each library."""
    libraries = list(dict.fromkeys(name for by in work.values() for name in by))
    lines = [["", *libraries], ["---"] * (len(libraries) + 1)]
    lines += [
        [name, *(_cell(by.get(library)) for library in libraries)] for name, by in work.items()
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    parts = [f"{row['ratio']:.{2 if row['ratio'] < 10 else 0}f} ×"]
    if row["held"]:
        parts.append(f"{row['held'] / 1e6:.0f} MB")
    if row["library"] != OURS and row["agreement"] is not None:
        parts.append(f"r = {row['agreement']:.3f}")
    return ", ".join(parts)


def main() -> None:
    """Read the files and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "file", type=Path, nargs="+", help="a file that a benchmark wrote with --json"
    )
    files = [json.loads(path.read_text(encoding="utf-8")) for path in parser.parse_args().file]
    print(markdown(rows_of(result for each in files for result in each["results"])))


if __name__ == "__main__":
    main()
