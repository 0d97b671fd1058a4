"""Arguments and files made to break the command line: exit code 2 and words, at once, whatever they are."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from camlucida.cli import main
from camlucida.common.errors import CamlucidaError, ImageError, TargetError
from camlucida.common.files import read_bytes, read_text
from camlucida.data import open_data, resolve_class
from camlucida.data.images import open_picture, upright_size
from camlucida.faces import read_landmarks, read_pairs
from camlucida.targets import Logit

LONG = "x" * 5000


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos/0.png", "classes/1/a.png", "classes/2/b.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    for name in ("photos/loop.png", "classes/1/loop.png", "loop"):
        (tmp_path / name).symlink_to((tmp_path / name).name)
    return tmp_path


def run(capsys, *arguments):
    code = main([str(a) for a in arguments])
    found = capsys.readouterr()
    assert "unexpected Error" not in found.err
    return code, found.out, found.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["explain", LONG], "too long"),
        (["explain", "photos/0.png", "--out", LONG], "too long"),
        (["explain", "loop"], "no such file"),
        (["explain", "photos/0.png", "--out", "loop"], "loop"),
        (["explain", "photos/0.png", "--model", LONG], "too long"),
        (["explain", "a\0b.png"], "NUL"),
        (["evaluate", "classes", "--out", "a\0b"], "NUL"),
        (["evaluate", "classes", "--explain", "9" * 5000], "no model has a class"),
        (["explain", "photos/0.png", "--class", "9" * 20], "no model has a class"),
        (["cases", LONG], "too long"),
        (["summary", LONG], "too long"),
        (["verify", "--pairs", LONG], "no list of pairs"),
    ],
)  # fmt: skip
def test_arguments_that_nothing_can_be_called(place, capsys, arguments, said):  # noqa: ARG001
    code, _, errors = run(capsys, *arguments)
    assert code == 2
    assert said in errors
    assert "unexpected" not in errors


def test_a_link_to_itself_costs_that_photo_only(place, capsys):  # noqa: ARG001
    code, out, errors = run(
        capsys, "explain", "photos", "--model", "embedded", "--method", "gradcam", "--json"
    )
    assert code == 2
    assert "loop.png" in errors
    assert [one["photo"] for one in json.loads(out)["photos"]] == ["photos/0.png"]


@pytest.mark.parametrize("given", [10**30, -(10**30), "9" * 20, "9" * 5000])
def test_numbers_that_are_no_class(given):
    with pytest.raises(TargetError, match="no model has a class"):
        resolve_class(given, None)


@pytest.mark.parametrize("given", [10**30, [10**30, 1], ["a", None], {"a": 1}])
def test_classes_that_no_tensor_can_hold(given):
    import torch

    with pytest.raises(TargetError):
        Logit(given).indices(torch.zeros(2, 3))


# ---- files that are none --------------------------------------------------------------------------------

READERS = {
    "bytes": lambda path: read_bytes(path, "file"),
    "text": lambda path: read_text(path, "file"),
    "landmarks": read_landmarks,
    "pairs, a table": lambda path: read_pairs(path, "csv"),
    "pairs, LFW's list": lambda path: read_pairs(path, "lfw"),
    "boxes": lambda path: open_data("classes", class_names=["0", "1", "2"], boxes=str(path)),
    "csv": lambda path: open_data(f"csv:{path}", class_names=["0", "1", "2"]),
    "coco": lambda path: open_data(f"coco:{path}", class_names=["0", "1", "2"]),
    "the size of a photo": upright_size,
    "mask": lambda path: open_picture(path, "the mask", ("PNG",), "a PNG").__enter__(),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["device", "pipe", "link to itself", "too long", "zero byte"])
def test_what_is_no_regular_file_is_never_read(place, reader, kind):
    path = {"too long": place / LONG, "zero byte": place / "a\0b"}.get(kind, place / "special")
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to itself":
        path.symlink_to(path)
    with pytest.raises(CamlucidaError):
        READERS[reader](path)


def test_files_that_are_too_large_or_no_text(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree")
    assert read_text(tmp_path / "a", "file") == "one\ntwo\nthree"
    with pytest.raises(ImageError, match="17 bytes, more than the 10 of any list"):
        read_bytes(tmp_path / "a", "list", ImageError, most=10)
    (tmp_path / "a").write_bytes(b"\xff\xff\xff")
    with pytest.raises(CamlucidaError, match="UTF-8"):
        read_text(tmp_path / "a", "file")


# ---- COCO files -----------------------------------------------------------------------------------------


def _coco(folder, part, key, value):
    content = {
        "images": [{"id": 1, "file_name": "0.png", "width": 80, "height": 60}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 10, 10]}],
        "categories": [{"id": 1, "name": "1"}],
    }
    content[part][0][key] = value
    path = folder / "photos" / "coco.json"
    path.write_text(json.dumps(content))
    return f"coco:{path},images={folder / 'photos'}"


@pytest.mark.parametrize(
    ("part", "key"),
    [("images", "id"), ("annotations", "image_id"), ("annotations", "category_id"), ("categories", "id")],
)  # fmt: skip
@pytest.mark.parametrize("value", [[1], {}, None, True, 1.5])
def test_ids_of_the_wrong_type(place, part, key, value):
    with pytest.raises(CamlucidaError, match="no COCO instances file"):
        open_data(_coco(place, part, key, value), class_names=["0", "1"])


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("annotations", "bbox", [10**400, 1, 1, 1]),
        ("annotations", "bbox", [1e400, 1, 1, 1]),
        ("annotations", "bbox", "abcd"),
        ("annotations", "bbox", [1, 2, 3]),
        ("annotations", "area", "x"),
        ("annotations", "area", 10**400),
        ("images", "width", 10**400),
        ("images", "width", 1e400),
        ("images", "file_name", 3),
        ("images", "file_name", "a\0b.png"),
    ],
)
def test_sizes_boxes_and_names_of_the_wrong_type_or_size(place, part, key, value):
    with pytest.raises(CamlucidaError, match="no COCO instances file"):
        open_data(_coco(place, part, key, value), class_names=["0", "1"])


@pytest.mark.parametrize("value", [5, "x", [["a"] * 6], [[10**400] * 6], {"size": [60, 80]}])
def test_segmentations_of_the_wrong_type_or_size(place, value):
    (sample,) = open_data(
        _coco(place, "annotations", "segmentation", value), class_names=["0", "1"]
    )
    with pytest.raises(ImageError, match="cannot be used"):
        sample.mask()
