"""Finished parts of a computation that are kept."""

import pytest
import torch

from camlucida.common.errors import CamlucidaError
from camlucida.common.store import Store, check_plan, read_plan, start_plan


def test_parts_are_kept_for_their_key_alone(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"values": [1.5, float("nan")], "n": 3}

    first = Store(tmp_path, {"seed": 0})
    assert first.value("a part", compute) == {"values": [1.5, None], "n": 3}
    again = Store(tmp_path, {"seed": 0})
    assert again.value("a part", compute) == {"values": [1.5, None], "n": 3}
    assert again.found == 1
    assert len(calls) == 1
    Store(tmp_path, {"seed": 1}).value("a part", compute)
    Store(None, {"seed": 0}).value("a part", compute)
    assert len(calls) == 3


def test_a_damaged_part_is_computed_again(tmp_path):
    store = Store(tmp_path, {})
    store.tensors("w", lambda: {"a": torch.ones(2)})
    store.value("v", lambda: 1)
    for path in (tmp_path / "parts").iterdir():
        path.write_bytes(b"{")
    assert store.value("v", lambda: 2) == 2
    assert store.tensors("w", lambda: {"a": torch.zeros(2)})["a"].sum() == 0
    assert store.tensors("w", dict)["a"].shape == (2,)


def test_a_part_that_is_whole_but_another_one_is_computed_again(tmp_path):
    store = Store(tmp_path, {})
    store.value("v", lambda: {"a": 1})
    store.value("w", lambda: {"a": 2})
    store.tensors("t", lambda: {"a": torch.ones(2)})
    store.tensors("u", lambda: {"a": torch.zeros(2)})
    v, w, t, u = (next((tmp_path / "parts").glob(f"{name}-*")) for name in "vwtu")
    for content in ("[]", "null", '{"a": 3}', w.read_text(), v.read_text().replace("1", "7")):
        v.write_text(content)
        assert store.value("v", lambda: {"a": 4}) == {"a": 4}
        v.unlink()
        store.value("v", lambda: {"a": 1})
    t.write_bytes(u.read_bytes())
    assert store.tensors("t", lambda: {"a": torch.full((2,), 5.0)})["a"].sum() == 10
    torch.save([1, 2], t)
    assert store.tensors("t", lambda: {"a": torch.full((2,), 6.0)})["a"].sum() == 12


def test_a_part_that_names_files_which_are_gone_is_computed_again(tmp_path):
    store, file = Store(tmp_path, {}), tmp_path / "picture"
    file.write_text("")
    store.value("v", lambda: 1)
    assert store.value("v", lambda: 2, lambda _: file.exists()) == 1
    file.unlink()
    assert store.value("v", lambda: 2, lambda _: file.exists()) == 2


def test_results_of_another_plan_are_not_mixed(tmp_path):
    plan = {"seed": 0, "methods": [{"label": "a", "x": 1}, {"label": "b"}]}
    start_plan(tmp_path / "run", {"seed": 9}, results=False)
    start_plan(tmp_path / "run", plan, results=False)
    assert read_plan(tmp_path / "run") == plan
    start_plan(tmp_path / "run", plan, results=True)
    with pytest.raises(CamlucidaError, match=r"another plan.*methods\[b\]: only before.*\(--out\)"):
        start_plan(tmp_path / "run", {**plan, "methods": plan["methods"][:1]}, results=True)
    with pytest.raises(CamlucidaError, match=r"results without a plan.json"):
        start_plan(tmp_path / "other", plan, results=True)
    (tmp_path / "run" / "plan.json").write_text("[]")
    with pytest.raises(CamlucidaError, match="cannot be read"):
        start_plan(tmp_path / "run", plan, results=True)


def test_a_digest_decides():
    check_plan("run", {"name": "old", "digest": "1"}, {"name": "new", "digest": "1"})
    with pytest.raises(CamlucidaError, match="its digest"):
        check_plan("run", {"digest": "1"}, {"digest": "2"})
