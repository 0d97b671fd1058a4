"""Finished parts of a computation that are kept."""

import torch

from camlucida.common.store import Store


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
