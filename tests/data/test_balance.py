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


def test_a_copy_never_takes_the_name_of_another_photo_nor_writes_into_it(tmp_path):
    for part in ("train", "val", "test"):
        (tmp_path / "iris" / part / "a").mkdir(parents=True)
        for name, grey in {"0.png": 0, "0~2.png": 99, "0.PNG": 200, "0.bmp": 9}.items():
            Image.new("L", (4, 4), grey).save(tmp_path / "iris" / part / "a" / name)
    files = sorted((tmp_path / "iris").rglob("0*.*"))
    before = [file.read_bytes() for file in files]
    (tmp_path / "maps" / "a").mkdir(parents=True)
    for stem in ("0", "0~2"):
        Image.new("L", (4, 4), 50).save(tmp_path / "maps" / "a" / f"{stem}.png")
    sizes = {"train": 9, "val": 9, "test": 9}
    balance(tmp_path / "iris", tmp_path / "out", sizes, maps=tmp_path / "maps")
    assert [file.read_bytes() for file in files] == before
    drawn = list((tmp_path / "out" / "train" / "a").iterdir())
    assert len({file.stem.casefold() for file in drawn}) == 9
    assert {file.stem for file in drawn} == {f.stem for f in (tmp_path / "out/maps/a").iterdir()}


def test_a_class_without_maps_is_refused_before_anything_is_written(tmp_path):
    photos(tmp_path / "all", {"print": 3, "real": 3})
    (tmp_path / "maps" / "print").mkdir(parents=True)
    for file in (tmp_path / "all" / "print").iterdir():
        Image.new("L", (4, 4), 50).save(tmp_path / "maps" / "print" / file.name)
    sizes = {"train": 1, "val": 1, "test": 1}
    with pytest.raises(CamlucidaError, match="'real' that has a map"):
        balance(tmp_path / "all", tmp_path / "out", sizes, maps=tmp_path / "maps")
    assert not (tmp_path / "out").exists()
