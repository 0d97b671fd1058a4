"""The benchmark in one call, from Python."""

import pytest
from torch import nn

import camlucida
from camlucida.benchmark import RunFolder, evaluate, local
from camlucida.common.errors import CamlucidaError
from camlucida.metrics import IoU
from reference.bench import Mass, Pictures, rows_of, tiny

FAST = {"metrics": ["concentration", Mass()], "limit": 4}


def test_all_ways_to_name_things_give_the_same_rows(tmp_path):
    data = Pictures(tmp_path / "pictures", 6)
    named = ["fame:iterations=3", ("gradcam", {})]
    made = [camlucida.methods.FAME(iterations=3), camlucida.methods.GradCAM()]
    one = evaluate(tiny(), data, named, ["iou:points=5"], tmp_path / "one")
    other = evaluate(
        tiny().module, data, made, [("iou", IoU(points=5))], tmp_path / "other",
        preprocess=tiny().preprocess,
    )  # fmt: skip
    assert one.images == other.images == 6
    assert one.table["method"].tolist() == other.table["method"].tolist()
    a, b = rows_of(tmp_path / "one"), rows_of(tmp_path / "other")
    assert a["value"].tolist() == b["value"].tolist()


def test_what_a_module_returns_is_found_as_when_it_is_said(tmp_path):
    data, known = Pictures(tmp_path / "pictures", 4), tiny()
    ends = nn.Sequential(known.module, nn.Softmax(1)).eval()
    how = {"metrics": ["average_drop"], "preprocess": known.preprocess}
    said = []
    evaluate(ends, data, out=tmp_path / "found", say=said.append, **how)
    evaluate(ends, data, out=tmp_path / "said", outputs="softmax", **how)
    found, wanted = (rows_of(tmp_path / name) for name in ("found", "said"))
    values = found["metric"] != "seconds"
    assert found["value"][values].tolist() == wanted["value"][values].tolist()
    assert any("softmax" in text for text in said)


def test_a_group_leaves_out_what_the_data_do_not_allow_and_says_so(tmp_path):
    data = Pictures(tmp_path / "pictures", 4, boxes=False)
    said = []
    found = evaluate(
        tiny(), data, metrics=["localisation", "sparseness"], out=tmp_path / "run", say=said.append
    )
    assert set(found.table["metric"]) == {"sparseness", "seconds"}
    assert sum("has no boxes" in text for text in said) == 1
    with pytest.raises(CamlucidaError, match="none of these metrics can be measured: iou"):
        evaluate(tiny(), data, metrics=["localisation"], out=tmp_path / "none")


def test_it_goes_on_and_reports(tmp_path, monkeypatch):
    data = Pictures(tmp_path / "pictures", 6)
    whole = local.Worker.shards

    def stop(self, numbers, progress=None):
        yield from whole(self, numbers[:1], progress)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(local.Worker, "shards", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate(tiny(), data, out=tmp_path / "run", shard_size=2, **FAST)
    assert RunFolder(tmp_path / "run").done() == {0}
    told = []
    found = evaluate(
        tiny(), data, out=tmp_path / "run", shard_size=2, report=True, **FAST,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert (told[0], told[-1]) == ((2, 4), (4, 4))
    assert found.complete
    assert (tmp_path / "run/report.html").exists()


def test_what_is_wrong_is_said_before_anything_is_opened(tmp_path):
    with pytest.raises(CamlucidaError, match="iou has no option 'colour'"):
        evaluate("no model", "no data", metrics=["iou:colour=red"], out=tmp_path)
    with pytest.raises(CamlucidaError, match="unknown method"):
        evaluate("no model", "no data", ["gradcamm"], out=tmp_path)
    with pytest.raises(CamlucidaError, match="as text"):
        evaluate(tiny(), Pictures(tmp_path / "p", 2), engine="ray", out=tmp_path / "run", **FAST)
