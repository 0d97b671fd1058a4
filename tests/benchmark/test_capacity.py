"""Plans for larger benchmarks, from measured rates."""

from __future__ import annotations

import pytest

from camlucida.benchmark import capacity
from camlucida.benchmark.capacity import Rate, work_out
from camlucida.common.errors import CamlucidaError
from reference.bench import bench

RATE = Rate(100, 50.0, 5.0, 30.0, 15.0, "cpu", 400.0)


def test_hours_and_cost_by_hand():
    assert RATE.per_second == 2.0
    small, large = work_out(RATE, workers=10, price=3.0)
    assert (small.name, small.images, small.workers) == ("ImageNet validation", 50_000, 10)
    assert small.worker_hours == pytest.approx(50_000 / 2 / 3600)
    assert small.hours == pytest.approx(50_000 / 2 / 3600 / 10)
    assert small.cost == pytest.approx(3 * 50_000 / 2 / 3600)
    assert large.worker_hours == pytest.approx(2000 * small.worker_hours)
    assert large.storage == 4e10
    assert work_out(RATE)[0].cost is None
    (own,) = work_out(RATE, scales={"mine": 7200})
    assert own.hours == pytest.approx(1.0)
    document = capacity.to_dict(RATE, [own])
    assert document["measured"]["images_per_second"] == 2.0
    assert document["plans"][0]["name"] == "mine"


def test_out_of_range():
    with pytest.raises(CamlucidaError, match="at least 1 worker"):
        work_out(RATE, workers=0)
    with pytest.raises(CamlucidaError, match="must not be negative"):
        work_out(RATE, price=float("nan"))


def test_an_estimate_writes_nothing(tmp_path):
    job = bench(tmp_path)
    before = set(tmp_path.rglob("*"))
    found = capacity.estimate(job, 7, batch_size=3)
    assert found.images == 7
    assert found.stored > 0
    assert 0 < found.explaining + found.measuring <= found.seconds
    assert capacity.estimate(job, 99).images == 10
    assert set(tmp_path.rglob("*")) == before
    with pytest.raises(CamlucidaError, match="at least 1 photo"):
        capacity.estimate(job, 0)
