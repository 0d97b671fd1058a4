"""Equal classes out of unequal ones."""

import numpy as np
import pytest
from PIL import Image

from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.data.balance import IRIS_PAD, balance


def photos(root, counts):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (4, 4), 10 * i).save(root / name / f"{name}-{i}.png")


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_parts_that_are_there_stay_apart(tmp_path):
    for part, count in (("train", 6), ("val", 3), ("test", 4)):
        photos(tmp_path / "iris" / part, {"real": count, "print": 2})
    found = balance(tmp_path / "iris", tmp_path / "out", {"train": 3, "val": 3, "test": 5})
    assert found["train"] == {"print": (3, 2), "real": (3, 3)}
    assert found["test"] == {"print": (5, 2), "real": (5, 4)}
    assert len(names(tmp_path / "out" / "test" / "print")) == 5
    assert sum("~2" in name for name in names(tmp_path / "out" / "test" / "print")) == 2
    again = balance(tmp_path / "iris", tmp_path / "again", {"train": 3, "val": 3, "test": 5})
    assert again == found
    assert names(tmp_path / "again" / "train" / "real") == names(
        tmp_path / "out" / "train" / "real"
    )
    with pytest.raises(CamlucidaError, match="holds something"):
        balance(tmp_path / "iris", tmp_path / "out")


def test_photos_of_one_folder_are_dealt_and_none_twice(tmp_path):
    photos(tmp_path / "all", {"real": 30, "print": 7})
    found = balance(tmp_path / "all", tmp_path / "out", {"train": 4, "val": 5, "test": 8})
    assert found == {
        "train": {"print": (4, 2), "real": (4, 4)},
        "val": {"print": (5, 2), "real": (5, 5)},
        "test": {"print": (8, 3), "real": (8, 8)},
    }
    for name in ("real", "print"):
        parts = [
            {n.replace("~2", "").replace("~3", "") for n in names(tmp_path / "out" / p / name)}
            for p in found
        ]
        assert sum(map(len, parts)) == len(set().union(*parts))
    photos(tmp_path / "few", {"real": 5, "print": 2})
    with pytest.raises(CamlucidaError, match="too few"):
        balance(tmp_path / "few", tmp_path / "o")
    with pytest.raises(ImageError, match="no folder val, test"):
        balance(_with_train(tmp_path), tmp_path / "o")


def _with_train(root):
    photos(root / "half" / "train", {"real": 2})
    return root / "half"


def test_maps_go_with_the_photos_that_are_trained_on(tmp_path):
    for part in ("train", "val", "test"):
        photos(tmp_path / "iris" / part, {"real": 4, "print": 2})
    for name, i in (("real", 0), ("real", 2), ("print", 1)):
        (tmp_path / "maps" / name).mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "maps" / name / f"{name}-{i}.npy", np.eye(4))
    found = balance(
        tmp_path / "iris",
        tmp_path / "out",
        {"train": 3, "val": 1, "test": 1},
        maps=tmp_path / "maps",
    )
    assert found["train"] == {"print": (3, 1), "real": (3, 2)}
    for name in ("real", "print"):
        trained = [n.removesuffix(".png") for n in names(tmp_path / "out" / "train" / name)]
        assert trained == [n.removesuffix(".npy") for n in names(tmp_path / "out" / "maps" / name)]


def test_the_sizes_are_the_papers():
    assert {part: 7 * size for part, size in IRIS_PAD.items()} == {
        "train": 1351,
        "val": 3500,
        "test": 81_144,
    }
