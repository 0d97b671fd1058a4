"""Strict JSON, whole and in pieces."""

import math

import pytest

from camlucida.common.jsonable import json_pieces, to_json


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"a": []},
        {
            "a": {},
            "b": [1, math.nan, "x\ny"],
            "c": None,
            "d": [{"e": [1, {"f": ()}]}, [2]],
            "g": "[]",
        },
    ],
)
def test_pieces_make_the_same_text(document):
    assert "".join(json_pieces(document)) == to_json(document)
