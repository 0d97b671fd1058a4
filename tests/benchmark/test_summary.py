"""Summaries and comparisons of runs, on rows that are written for the purpose."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from camlucida.benchmark import local, table
from camlucida.benchmark.compare import compare
from camlucida.benchmark.shards import ImageRow, RunFolder, Shard, ShardColumn
from camlucida.benchmark.summary import summarise
from camlucida.cli.compare import _show
from camlucida.common.errors import CamlucidaError
from camlucida.common.store import differences
from reference.bench import Drop, Mass, Pictures, bench

METHODS = ("a", "b", "c")
NUMBERS = {"up@0.5": "higher", "down": "lower", "flat": "none", "seconds": "lower"}


def written(
    root, values, *, size=8, keys=None, methods=METHODS, numbers=NUMBERS, total=None, **plan
):
    """A run folder with these values ``{number: (images, methods)}``; every seventh image is broken."""
    run = RunFolder(root)
    for name in ("images", "rows"):
        (root / name).mkdir(parents=True)
    count = len(next(iter(values.values())))
    about = {
        name: {"direction": d, "metric": name, "title": name, "unit": "", "range": [None, None]}
        for name, d in numbers.items()
    }
    (root / "plan.json").write_text(json.dumps({
        "format": 1,
        "digest": "x",
        "data": {"images": total or count, "name": "data"},
        "model": {"name": "model"},
        "methods": [{"label": m, "name": m, "options": {}} for m in methods],
        "metrics": [{"name": n, "options": {}, "numbers": [n]} for n in numbers],
        "how": {},
        "about": {"numbers": about},
        **plan,
    }))  # fmt: skip
    for number, start in enumerate(range(0, count, size)):
        which = list(range(start, min(start + size, count)))
        rows = [
            ImageRow(i, keys[i] if keys else f"k{i}", label=i % 2, predicted=1,
                     error="torn" if i % 7 == 3 else None)
            for i in which
        ]  # fmt: skip
        good = np.array([p for p, i in enumerate(which) if i % 7 != 3])
        columns = [
            ShardColumn(good, method, name, given[np.array(which)[good], j])
            for name, given in values.items()
            for j, method in enumerate(methods)
        ]
        run.write(Shard(number, rows, columns, {"images": len(which), "seconds": 0.5}))
    return root


@pytest.fixture
def values():
    random = np.random.default_rng(0)
    base = random.normal(size=(60, 1))
    found = {
        "up@0.5": base + [0, 0.3, 0.1] + 0.2 * random.normal(size=(60, 3)),
        "down": base**2 + [0.1, 0, 0] + 0.05 * random.random((60, 3)),
        "flat": random.normal(size=(60, 3)),
        "seconds": random.random((60, 3)) + 0.01,
    }
    found["down"][5:9, 1] = np.nan
    found["down"][20] = np.nan
    return found


GOOD = np.array([i for i in range(60) if i % 7 != 3])


def test_means_counts_and_ranks(tmp_path, values):
    found = summarise(written(tmp_path / "run", values))
    assert list(found.table.metric.unique()) == list(NUMBERS)
    for name, given in values.items():
        good = given[GOOD]
        whole = good[~np.isnan(good).any(1)]
        for j, method in enumerate(METHODS):
            row = found.cell(method, name)
            own = good[~np.isnan(good[:, j]), j]
            assert row.n == len(own)
            assert row["mean"] == pytest.approx(own.mean(), rel=1e-12)
            assert row["median"] == pytest.approx(np.median(own), rel=1e-12)
            if name != "seconds":  # it has neither, see below
                assert row["std"] == pytest.approx(own.std(ddof=1), rel=1e-12)
                assert row.low < row["mean"] < row.high
                theirs = scipy.stats.bootstrap((own,), np.mean, rng=1).confidence_interval
                assert row.low == pytest.approx(theirs.low, abs=0.1 * (theirs.high - theirs.low))
                assert row.high == pytest.approx(theirs.high, abs=0.1 * (theirs.high - theirs.low))
            if NUMBERS[name] == "none":
                assert np.isnan(row["rank"])
                assert row.mark == ""
            else:
                sign = -1 if NUMBERS[name] == "higher" else 1
                ranks = [1 + sum(sign * r < sign * row_[j] for r in row_) for row_ in whole]
                assert row["rank"] == pytest.approx(np.mean(ranks))
    marks = {n: "".join(found.cell(m, n).mark[:1] or "-" for m in METHODS) for n in NUMBERS}
    assert marks["up@0.5"] == "-b-"
    assert marks["down"] == "-tt"  # b and c are alike; one has the lower mean
    assert marks["seconds"] == "---"


def test_tests_between_methods(tmp_path, values):
    found = summarise(written(tmp_path / "run", values)).tests
    assert len(found) == 3 * 3  # three pairs, three numbers; the cost is not tested
    for name in ("up@0.5", "down", "flat"):
        own = found[found.metric == name]
        assert list(zip(own.a, own.b, strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]
        sums, signs = [], []
        for i, j in ((0, 1), (0, 2), (1, 2)):
            x, y = values[name][GOOD, i], values[name][GOOD, j]
            sums.append(
                scipy.stats.mannwhitneyu(
                    x[~np.isnan(x)], y[~np.isnan(y)], method="asymptotic", use_continuity=False
                ).pvalue
            )
            both = ~np.isnan(x) & ~np.isnan(y)
            d = (x - y)[both]
            signs.append(scipy.stats.wilcoxon(d, method="approx" if len(d) > 50 else "auto").pvalue)
        assert own.rank_sum.tolist() == pytest.approx(sums, rel=1e-9)
        assert own.signed_rank.tolist() == pytest.approx(signs, rel=1e-9)
        for p, column in ((sums, "rank_sum_holm"), (signs, "signed_rank_holm")):
            ordered, corrected, running = np.argsort(p), np.empty(3), 0.0
            for place, at in enumerate(ordered):
                running = max(running, min(1.0, (3 - place) * p[at]))
                corrected[at] = running
            assert own[column].tolist() == pytest.approx(corrected.tolist(), rel=1e-9)
        expected = np.nanmean(values[name][GOOD, 0] - values[name][GOOD, 1])
        assert own.difference.iloc[0] == pytest.approx(expected)
    assert summarise(tmp_path / "run", tests=False).tests.empty


def test_what_was_left_out_is_said(tmp_path, values):
    found = summarise(written(tmp_path / "run", values, total=80))
    assert (found.images, found.total, found.complete) == (60, 80, False)
    assert found.broken == tuple((f"k{i}", "torn") for i in range(60) if i % 7 == 3)
    assert found.notes == ()
    assert found.accuracy == pytest.approx(0.5)
    document = found.to_dict()
    json.dumps(document, allow_nan=False)
    assert document["table"][0]["method"] == "a"
    assert document["table"][6]["rank"] is None  # NaN has no form in JSON


def test_only_shards_that_are_done_count(tmp_path, values):
    root = written(tmp_path / "run", values)
    RunFolder(root).file("rows", 1).unlink()
    found = summarise(root)
    assert found.images == 52
    kept = [i for i in GOOD if not 8 <= i < 16]
    assert found.cell("a", "flat")["mean"] == pytest.approx(values["flat"][kept, 0].mean())


def test_numbers_are_read_block_by_block(tmp_path, values, monkeypatch):
    root = written(tmp_path / "run", values)
    whole = summarise(root)
    monkeypatch.setattr(table, "_CELLS", len(GOOD) * 3)  # one number at a time
    pd.testing.assert_frame_equal(summarise(root).table, whole.table)


def test_one_method_and_one_image(tmp_path):
    root = written(
        tmp_path / "run", {"up@0.5": np.ones((1, 1))}, methods=("a",), numbers={"up@0.5": "higher"}
    )
    found = summarise(root)
    row = found.cell("a", "up@0.5")
    assert (row["mean"], row.n) == (1.0, 1)
    assert np.isnan([row["std"], row.low, row["rank"]]).all()
    assert found.tests.empty


def test_nothing_to_sum_up(tmp_path, values):
    with pytest.raises(CamlucidaError, match="is not a run"):
        summarise(tmp_path)
    root = written(tmp_path / "run", values)
    RunFolder(root).file("rows", 2).write_bytes(b"no parquet")
    with pytest.raises(CamlucidaError, match="cannot be read"):
        summarise(root)
    for file in root.glob("rows/*"):
        file.unlink()
    with pytest.raises(CamlucidaError, match="nothing is done yet"):
        summarise(root)


def test_a_real_run(tmp_path):
    local.run(bench(tmp_path), tmp_path / "run")
    found = summarise(tmp_path / "run")
    assert found.complete
    assert len(found.broken) == 1
    gradcam, hirescam = found.cell("gradcam", "mass"), found.cell("hirescam", "mass")
    assert gradcam["mean"] == pytest.approx(hirescam["mean"], abs=1e-12)  # proved for GAP heads
    assert found.cell("gradcam", "seconds").n == 4


# ---- comparing --------------------------------------------------------------------------------------


def test_differences_between_runs(tmp_path, values):
    first = written(tmp_path / "a", values)
    changed = {name: v + (0.1 if name == "up@0.5" else 0) for name, v in values.items()}
    order = np.random.default_rng(1).permutation(60)
    shuffled = {name: v[order] for name, v in changed.items()}
    second = written(tmp_path / "b", shuffled, keys=[f"k{i}" for i in order], seed=7)
    found = compare(first, second)
    broken = {i for i in range(60) if i % 7 == 3} | {order[i] for i in range(60) if i % 7 == 3}
    assert found.images == 60 - len(broken)
    row = found.cell("b", "up@0.5")
    assert row.difference == pytest.approx(0.1)
    assert row.low == pytest.approx(0.1)
    assert row.high == pytest.approx(0.1)
    assert row.p < 1e-6
    assert row.p <= row.p_holm
    same = found.cell("a", "flat")
    assert (same.difference, same.p) == (0.0, 1.0)
    assert found.differences == ("seed: absent in the first, 7 in the second",)
    assert "seconds" in set(found.table.metric)


def test_differences_are_paired(tmp_path, values):
    random = np.random.default_rng(3)
    noise = {n: v + random.normal(0.05, 0.2, v.shape) for n, v in values.items()}
    found = compare(written(tmp_path / "a", values), written(tmp_path / "b", noise))
    for j, method in enumerate(METHODS):
        row = found.cell(method, "down")
        d = (noise["down"] - values["down"])[GOOD, j]
        d = d[~np.isnan(d)]
        assert row.n == len(d)
        assert row.difference == pytest.approx(d.mean())
        p = scipy.stats.wilcoxon(d, method="approx" if len(d) > 50 else "auto").pvalue
        assert row.p == pytest.approx(p)
        theirs = scipy.stats.bootstrap((d,), np.mean, rng=1).confidence_interval
        assert row.low == pytest.approx(theirs.low, abs=0.1 * (theirs.high - theirs.low))


def test_a_run_is_better_only_where_test_and_interval_say_so(tmp_path, values):
    few = {name: given[:6] for name, given in values.items()}
    first = written(tmp_path / "a", few)
    more = compare(first, written(tmp_path / "b", {n: v + 0.1 for n, v in few.items()}))
    assert (more.table.difference > 0).all()
    assert (more.table.better == "").all()  # five photos
    whole = written(tmp_path / "c", values)
    found = compare(whole, written(tmp_path / "d", {n: v + 0.1 for n, v in values.items()}))
    better = found.table.groupby("metric").better.unique().map(list).to_dict()
    assert better == {"up@0.5": ["second"], "down": ["first"], "flat": [""], "seconds": [""]}
    random = np.random.default_rng(3)
    noise = {n: v + random.normal(0.0, 0.2, v.shape) for n, v in values.items()}
    unclear = compare(whole, written(tmp_path / "e", noise)).table
    assert (unclear.better == "").all()


def test_what_is_in_one_run_only(tmp_path, values, capsys):
    first = written(tmp_path / "a", values)
    fewer = {name: values[name][:, :2] for name in ("up@0.5", "flat")}
    second = written(
        tmp_path / "b", fewer, methods=("b", "x"), numbers={"up@0.5": "higher", "flat": "none"}
    )
    found = compare(first, second)
    assert set(found.table.method) == {"b"}
    assert set(found.table.metric) == {"up@0.5", "flat"}
    assert found.only_first == ("method a", "method c", "number down", "number seconds")
    assert not any("]: only" in text for text in found.differences), "said once"
    _show(found)
    assert "differs: nothing" not in capsys.readouterr().out
    assert found.only_second == ("method x",)


def test_what_cannot_be_compared(tmp_path, values):
    first = written(tmp_path / "a", values)
    with pytest.raises(CamlucidaError, match="no method in common"):
        compare(first, written(tmp_path / "b", values, methods=("x", "y", "z")))
    with pytest.raises(CamlucidaError, match="no photo in common"):
        compare(first, written(tmp_path / "c", values, keys=[f"z{i}" for i in range(60)]))
    alone = {"other": values["flat"]}
    with pytest.raises(CamlucidaError, match="no number in common"):
        compare(first, written(tmp_path / "d", alone, numbers={"other": "none"}))


def test_a_number_of_other_options_is_another_number(tmp_path, values):
    def judged(scale):
        flat = {"name": "m", "options": {"scale": scale}, "numbers": ["flat"]}
        return [flat, {"name": "n", "options": {}, "numbers": ["down", "up@0.5"]}]

    first = written(tmp_path / "a", values, metrics=judged(1))
    found = compare(first, written(tmp_path / "b", values, metrics=judged(2)))
    assert found.left_out == (
        "number 'flat' was computed with other options (options.scale: 1 in the first, 2 in the second)",
    )
    assert set(found.table.metric) == {"down", "up@0.5", "seconds"}
    alone = {"flat": values["flat"]}
    with pytest.raises(CamlucidaError, match=r"no number in common: number 'flat' was computed"):
        compare(
            written(tmp_path / "c", alone, metrics=judged(1), numbers={"flat": "none"}),
            written(tmp_path / "d", alone, metrics=judged(2), numbers={"flat": "none"}),
        )


def test_comparing_real_runs(tmp_path):
    data = Pictures(tmp_path / "pictures", 6)
    local.run(bench(tmp_path, data=data), tmp_path / "a")
    local.run(bench(tmp_path, data=data, seed=1, metrics=[Mass(), Drop()]), tmp_path / "b")
    found = compare(tmp_path / "a", tmp_path / "b")
    assert found.images == 6
    assert found.differences == ("seed: 0 in the first, 1 in the second",)
    assert found.cell("gradcam", "mass").difference == 0
    assert found.cell("gradcam", "drop").difference != 0
    assert found.cell("gradcam", "seconds").difference != 0
    assert found.cell("gradcam", "seconds").better == ""


def test_rounding_makes_no_run_the_better_one(tmp_path, values):
    near = {n: v * (1 + 1e-10) for n, v in values.items()}
    found = compare(written(tmp_path / "a", values), written(tmp_path / "b", near))
    judged = found.table[found.table.metric != "seconds"]
    assert (judged.difference == 0).all()
    assert (judged.better == "").all()
    assert (judged.low == 0).all()


def test_a_method_of_one_run_only_is_one_difference():
    one = {"metrics": [{"name": "a", "options": {"x": 1, "y": 2}}, {"name": "b", "options": {}}]}
    other = {"metrics": [{"name": "b", "options": {}}, {"name": "c", "options": {}}], "seed": 1}
    assert differences(one, other) == [
        "metrics[a]: only before",
        "metrics[c]: only now",
        "seed: absent before, 1 now",
    ]


def test_what_explaining_costs_has_no_interval(tmp_path, values):
    found = summarise(written(tmp_path / "a", values))
    timed = found.table[found.table.metric == "seconds"]
    assert timed[["std", "low", "high"]].isna().all(axis=None)
    assert timed["mean"].notna().all()
