"""``camlucida evaluate --estimate``: how long would a larger run take?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from camlucida.cli.shared.console import complain, console, print_json
from camlucida.cli.shared.listing import grid

if TYPE_CHECKING:
    from camlucida.benchmark.capacity import Forecast, Rate
    from camlucida.benchmark.plan import Bench


def estimate(
    bench: Bench,
    images: int,
    batch_size: int,
    threads: int,
    workers: int,
    price: float | None,
    as_json: bool,
) -> None:
    """Time a few photos, write nothing, and print what larger runs would take.

    Args:
        bench: What to do.
        images: Photos that are timed.
        batch_size: Photos explained at a time.
        threads: How many threads read photos.
        workers: How many do the larger runs.
        price: The price of one worker for an hour; ``None`` where no cost is asked for.
        as_json: Print one JSON document instead of a table.
    """
    from camlucida.benchmark import capacity
    from camlucida.benchmark.work import check, fitting

    bench = fitting(bench)
    for label, why in bench.skipped.items():
        complain(f"note: left out: {label}: {why}")
    check(bench)
    rate = capacity.estimate(bench, images, batch_size=batch_size, threads=threads)
    scales = {f"{bench.data.name}, all photos": bench.images, **capacity.SCALES}
    plans = capacity.work_out(rate, workers=workers, price=price, scales=scales)
    if as_json:
        print_json(capacity.to_dict(rate, plans))
    else:
        _show_plans(rate, plans)


def _show_plans(rate: Rate, plans: list[Forecast]) -> None:
    from camlucida.cli.summary import photos

    terminal = console()
    terminal.print(
        f"{photos(rate.images)} took one worker {rate.seconds:.3g} s on {rate.device}: "
        f"{rate.per_second:.3g} a second ({rate.explaining / rate.seconds:.0%} explaining, "
        f"{rate.measuring / rate.seconds:.0%} measuring, "
        f"{rate.waiting / rate.seconds:.0%} waiting for photos)\n"
    )
    columns = ["data", "photos", "workers", "hours", "worker hours"]
    columns += ["results, GB"]
    columns += ["cost"] * (plans[0].cost is not None)
    rows = [
        (p.name, f"{p.images:,}", f"{p.workers:,}", _hours(p.hours), _hours(p.worker_hours),
         f"{p.storage / 1e9:.3g}", *([] if p.cost is None else [f"{p.cost:,.2f}"]))
        for p in plans
    ]  # fmt: skip
    terminal.print(grid(columns, ((cells, False) for cells in rows), left=["data"]))
    terminal.print("\nThe rate is taken to grow with the workers: each its own GPU or processors.")


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
