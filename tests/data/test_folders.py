"""Labelled folders: class names, boxes, and what cannot be used."""

import pytest
from PIL import Image

from camlucida.common.errors import CamlucidaError, ImageError, TargetError
from camlucida.data.folders import open_folder, read_photos
from camlucida.data.tables import read_boxes

NAMES = ("tabby, tabby cat", "tiger cat", "lemon")


def photo(path, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)
    return path


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "photos"
    for name in ("Tabby_Cat/a.png", "1/deep/b.png", "lemon/c.png", "lemon/d.png"):
        photo(root / name)
    return root


def test_folders_are_called_by_synonym_index_or_name(root):
    folder = open_folder(root, NAMES)
    assert {s.label_name: s.label for s in folder} == {"1": 1, "Tabby_Cat": 0, "lemon": 2}
    assert [(p.path.name, p.label) for p in folder] == [
        ("b.png", 1), ("a.png", 0), ("c.png", 2), ("d.png", 2),
    ]  # fmt: skip
    assert sum(p.label == 2 for p in folder) == 2
    assert folder.skipped == ()
    assert len(folder) == 4


@pytest.mark.parametrize("name", ["dog", "cat", "7", "lem"])
def test_folders_that_name_no_class_are_listed(root, name):
    photo(root / name / "x.png")
    folder = open_folder(root, NAMES)
    assert len(folder) == 4
    ((path, reason),) = folder.skipped
    assert path == root / name
    assert name in reason


def test_imagenet_folders_are_called_by_synset(tmp_path):
    pytest.importorskip("timm")
    for name in ("n02123045", "n00000000"):
        photo(tmp_path / name / "x.png")
    folder = open_folder(tmp_path, [f"name {i}" for i in range(1000)])
    assert {s.label_name: s.label for s in folder} == {"n02123045": 281}
    assert "synsets" in folder.skipped[0][1]


def test_nothing_to_use_is_an_error(tmp_path):
    with pytest.raises(ImageError, match="no such"):
        open_folder(tmp_path / "none", NAMES)
    file = photo(tmp_path / "a.png")
    with pytest.raises(ImageError, match="is a file"):
        open_folder(file, NAMES)
    with pytest.raises(ImageError, match="class folders"):
        open_folder(tmp_path, NAMES, labels=True)
    photo(tmp_path / "dog" / "a.png")
    with pytest.raises(TargetError, match="names a class"):
        open_folder(tmp_path, NAMES, labels=True)
    with pytest.raises(TargetError, match="no class names"):
        open_folder(tmp_path, None, labels=True)


def test_broken_photos_are_listed_and_left_out(root):
    (root / "lemon" / "broken.png").write_bytes(b"no")
    folder, skipped = open_folder(root, NAMES), []
    read = list(read_photos(folder, 2, skipped))
    assert [len(part) for part in read] == [2, 1, 2] or sum(map(len, read)) == 4
    assert [path.name for path, _ in skipped] == ["broken.png"]


def test_boxes_belong_to_a_path_or_a_unique_name(root, tmp_path):
    photo(root / "1" / "c.png")  # now c.png is not unique
    table = tmp_path / "boxes.csv"
    table.write_text(
        "xmin, ymin, xmax, ymax, file, note\n1,2,3,4,d.png,x\n0,0,2,2,d.png,\n"
        "0,0,1,1,lemon/c.png,\n0,0,1,1,c.png,\n0,0,1,1,none.png,\n"
    )
    folder = open_folder(root, NAMES, boxes=table)
    boxes = {p.path.relative_to(root).as_posix(): p.boxes for p in folder if p.boxes}
    assert boxes == {"lemon/c.png": ((0, 0, 1, 1),), "lemon/d.png": ((1, 2, 3, 4), (0, 0, 2, 2))}
    assert sorted(str(path) for path, _ in folder.skipped) == ["c.png", "none.png"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,xmin,ymin,xmax\n", "no column ymax"),
        ("", "no column file"),
        ("file,xmin,ymin,xmax,ymax\na.png,1,2,x,4\n", "line 2"),
        ("file,xmin,ymin,xmax,ymax\na.png,1,2,1,4\n", "is no box"),
        ("file,xmin,ymin,xmax,ymax\na.png,1,2,nan,4\n", "is no box"),
        ("file,xmin,ymin,xmax,ymax\na.png,1,2\n", "four numbers"),
        ("file,xmin,ymin,xmax,ymax\n,1,2,3,4\n", "file is missing"),
    ],
)
def test_a_wrong_table_is_one_sentence(tmp_path, text, words):
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(CamlucidaError, match=words):
        read_boxes(tmp_path / "boxes.csv")


def test_a_table_that_cannot_be_read(tmp_path):
    with pytest.raises(CamlucidaError, match="no such table"):
        read_boxes(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(CamlucidaError, match="UTF-8"):
        read_boxes(tmp_path / "binary.csv")
