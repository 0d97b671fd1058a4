"""Lists of pairs: every layout on a small folder made here, and what is said about broken ones."""

import numpy as np
import pytest
from PIL import Image

from camlucida import CamlucidaError
from camlucida.faces.pairs_file import impostors, read_pairs


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    return path


# ------------------------------------------------------------------------------------------------ a table


def test_table(tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text(
        "\ufeffGallery, Probe,same,person\na.png,b/c.png,1,x\nd.png,e.png,Different,\n\nf,g,,\n"
    )
    found = read_pairs(table)
    assert found.layout == "csv"
    assert [p.same for p in found.pairs] == [True, False, None]
    assert found.pairs[0].probe == tmp_path / "b/c.png"
    assert found.pairs[0].gallery == tmp_path / "a.png"
    assert [p.person for p in found.pairs] == ["x", "", ""]
    assert (len(found), found.genuine, found.impostor) == (3, 1, 1)
    assert read_pairs(table, root="/else").pairs[0].gallery.as_posix() == "/else/a.png"


@pytest.mark.parametrize(
    ("text", "match"),
    [("a,b\n1,2\n", "columns probe, gallery"), ("probe,gallery,same\na,b,perhaps\n", "line 2.*perhaps"),
     ("probe,gallery\na\n", "line 2: expected a probe"), ("probe,gallery\n", "no usable pair"),
     ("", "names nothing")],
)  # fmt: skip
def test_broken_tables(tmp_path, text, match):
    table = tmp_path / "mine.csv"
    table.write_text(text)
    with pytest.raises(CamlucidaError, match=match):
        read_pairs(table)


# ---------------------------------------------------------------------------------------------------- LFW


def lfw(tmp_path, folder="lfw", head="2\t1"):
    for name, count in (("Ann_Lee", 3), ("Bo", 2)):
        for n in range(1, count + 1):
            picture(tmp_path / folder / name / f"{name}_{n:04d}.jpg")
    rows = ["Ann_Lee\t1\t3", "Ann_Lee\t2\tBo\t1", "Bo\t1\t2", "Bo\t2\tAnn_Lee\t1"]
    file = tmp_path / "pairs.txt"
    file.write_text("\n".join([head, *rows]) + "\n")
    return file


@pytest.mark.parametrize("folder", ["lfw", "lfw-deepfunneled", "."])
def test_lfw(tmp_path, folder):
    found = read_pairs(lfw(tmp_path, folder))
    assert found.layout == "lfw"
    assert [p.same for p in found.pairs] == [True, False, True, False]
    assert [p.fold for p in found.pairs] == [1, 1, 2, 2]
    first = found.pairs[0]
    assert (first.probe.name, first.gallery.name) == ("Ann_Lee_0001.jpg", "Ann_Lee_0003.jpg")
    assert first.probe.is_file()
    assert found.pairs[1].gallery.name == "Bo_0001.jpg"
    assert found.pairs[1].person == "Ann_Lee"


def test_lfw_one_split_and_the_developers_list(tmp_path):
    file = lfw(tmp_path)
    assert len(read_pairs(file, split=2)) == 2
    with pytest.raises(CamlucidaError, match="no split 7"):
        read_pairs(file, split=7)
    found = read_pairs(lfw(tmp_path, head="2"))
    assert {p.fold for p in found.pairs} == {0}


def test_lfw_says_which_photos_are_missing(tmp_path):
    file = lfw(tmp_path)
    (tmp_path / "lfw/Bo/Bo_0002.jpg").unlink()
    found = read_pairs(file)
    assert len(found) == 2
    assert len(found.skipped) == 2
    assert "line 4" in found.skipped[0]
    assert "Bo_0002" in found.skipped[0]
    with pytest.raises(CamlucidaError, match=r"no usable pair.*Ann_Lee_0001"):
        read_pairs(file, root=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "match"),
    [("Ann 1 2\n", "first line"), ("1 2\nAnn 1\n", "line 2: expected 'NAME n m'"),
     ("1 2\nAnn x 2\n", "numbers of two photos"), ("", "first line")],
)  # fmt: skip
def test_broken_lfw(tmp_path, text, match):
    file = tmp_path / "pairs.txt"
    file.write_text(text)
    with pytest.raises(CamlucidaError, match=match):
        read_pairs(file)


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(CamlucidaError, match="is a folder"):
        read_pairs(tmp_path, "csv")


@pytest.mark.parametrize("head", ["1 0", "1 \N{SUPERSCRIPT TWO}"])
def test_a_list_of_no_pairs(tmp_path, head):
    path = tmp_path / "pairs.txt"
    for number in (1, 2):
        picture(tmp_path / "A" / f"A_000{number}.jpg")
    path.write_text(f"{head}\nA\t1\t2\n", encoding="utf-8")
    with pytest.raises(CamlucidaError, match="first line must be the numbers"):
        read_pairs(path)


def test_a_picture_is_no_list(tmp_path):
    file = picture(tmp_path / "a.png")
    with pytest.raises(CamlucidaError, match="no text file"):
        read_pairs(file)


# ---------------------------------------------------------------------------------------------------- CFP


def cfp(tmp_path):
    root = tmp_path / "cfp-dataset"
    frontal, profile = [], []
    for person in ("001", "002"):
        folder = root / f"Data/Images/{person}"
        frontal += [picture(folder / f"frontal/{n}.jpg") for n in ("01", "02")]
        profile.append(picture(root / f"Data/Images/{person}/profile/01.jpg"))
    protocol = root / "Protocol"
    for split in ("01", "02"):
        for kind, same, diff in (("FP", "1,1\n3,2\n", "1,2\n"), ("FF", "1,2\n", "1,3\n")):
            folder = protocol / "Split" / kind / split
            folder.mkdir(parents=True)
            (folder / "same.txt").write_text(same)
            (folder / "diff.txt").write_text(diff)
    for name, photos in (("F", frontal), ("P", profile)):
        lines = [f"{i} ../{p.relative_to(root)}" for i, p in enumerate(photos, 1)]
        (protocol / f"Pair_list_{name}.txt").write_text("\n".join(lines))
    return root


def test_cfp(tmp_path):
    root = cfp(tmp_path)
    found = read_pairs(root)
    assert found.layout == "cfp-fp"
    assert [p.same for p in found.pairs] == [True, True, False] * 2
    assert [p.fold for p in found.pairs] == [1, 1, 1, 2, 2, 2]
    first = found.pairs[0]
    assert first.gallery == root / "Data/Images/001/frontal/01.jpg"
    assert first.probe == root / "Data/Images/001/profile/01.jpg"
    assert found.pairs[1].gallery == root / "Data/Images/002/frontal/01.jpg"
    assert first.person == "001"
    assert len(read_pairs(root, split=1)) == 3
    frontal = read_pairs(root, "cfp-ff")
    assert frontal.pairs[0].probe == root / "Data/Images/001/frontal/02.jpg"


def test_broken_cfp(tmp_path):
    root = cfp(tmp_path)
    (root / "Data/Images/002/profile/01.jpg").unlink()
    assert len(read_pairs(root).skipped) == 4
    (root / "Protocol/Split/FP/01/same.txt").write_text("1;1\n")
    with pytest.raises(CamlucidaError, match=r"same.txt', line 1: expected two numbers"):
        read_pairs(root)
    (root / "Protocol/Split/FP/01/same.txt").write_text("9,1\n")
    with pytest.raises(CamlucidaError, match="not in the photo lists"):
        read_pairs(root)
    (root / "Protocol/Split/FP/01/same.txt").unlink()
    with pytest.raises(CamlucidaError, match=r"no same.txt"):
        read_pairs(root)
    (root / "Protocol/Pair_list_F.txt").unlink()
    with pytest.raises(CamlucidaError, match=r"Pair_list_F.txt' is missing"):
        read_pairs(root)


# ------------------------------------------------------------------------------------------ AR and SCface


def test_ar(tmp_path):
    for person in ("m-001", "m-002", "w-001"):
        for n in ("01", "05", "08", "11", "14", "21"):
            picture(tmp_path / f"{person}-{n}.bmp")
    picture(tmp_path / "w-009-08.bmp")  # nobody to compare with
    found = read_pairs(tmp_path)
    assert found.layout == "ar"
    assert (found.genuine, found.impostor) == (6, 6)
    assert {p.probe.stem[-2:] for p in found.pairs} == {"08", "21"}
    assert {p.gallery.stem[-2:] for p in found.pairs} == {"01"}
    for pair in found.pairs:
        assert (pair.probe.stem[:5] == pair.gallery.stem[:5]) == pair.same
        assert pair.person == pair.probe.stem[:5]
    assert {p.probe.stem[-2:] for p in read_pairs(tmp_path, wear="scarf").pairs} == {"11"}
    assert {p.probe.stem[-2:] for p in read_pairs(tmp_path, wear="neutral").pairs} == {"14"}
    with pytest.raises(CamlucidaError, match="wear"):
        read_pairs(tmp_path, wear="hat")


def test_scface(tmp_path):
    for person in ("001", "002", "003"):
        picture(tmp_path / f"mugshot_frontal_cropped_all/{person}_frontal.jpg")
        for camera in (1, 5, 7):
            for distance in (1, 2, 3):
                name = f"{person}_cam{camera}_{distance}.jpg"
                picture(tmp_path / f"surveillance_cameras_distance_{distance}/cam_{camera}/{name}")
                picture(tmp_path / f"surveillance_cameras_all/{name}")
    found = read_pairs(tmp_path)
    assert found.layout == "scface"
    assert (found.genuine, found.impostor) == (6, 6)
    assert {p.probe.stem[4:] for p in found.pairs} == {"cam1_2", "cam5_2"}
    assert {p.gallery.stem[4:] for p in found.pairs} == {"frontal"}
    assert {p.probe.stem[-1] for p in read_pairs(tmp_path, distance="far").pairs} == {"1"}
    with pytest.raises(CamlucidaError, match="distance"):
        read_pairs(tmp_path, distance="near")


def test_one_person_makes_no_impostors(tmp_path):
    picture(tmp_path / "m-001-01.bmp")
    picture(tmp_path / "m-001-08.bmp")
    with pytest.raises(CamlucidaError, match="of 1 people"):
        read_pairs(tmp_path)


def test_impostors_are_others_and_repeat():
    people = list("abcabcabc") * 20
    drawn = impostors(people, list("abc"), 3)
    assert all(a != b for a, b in zip(people, drawn, strict=True))
    assert drawn == impostors(people, list("cba"), 3)
    assert drawn != impostors(people, list("abc"), 4)
    assert {drawn.count(name) > 40 for name in "abc"} == {True}


# ------------------------------------------------------------------------------------------------ unknown


def test_unknown(tmp_path):
    with pytest.raises(CamlucidaError, match="there is no list"):
        read_pairs(tmp_path / "none")
    with pytest.raises(CamlucidaError, match="no known list of pairs"):
        read_pairs(tmp_path)
    with pytest.raises(CamlucidaError, match="unknown layout"):
        read_pairs(tmp_path, "imagenet")
    file = lfw(tmp_path)
    with pytest.raises(CamlucidaError, match="give the list itself"):
        read_pairs(file.parent)
