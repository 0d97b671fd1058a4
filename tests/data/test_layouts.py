"""ImageNet, CSV, COCO, VOC and datasets: tiny data of each layout, whole and broken."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from camlucida.common.errors import CamlucidaError, ImageError, TargetError
from camlucida.data import imagenet as imagenet_module
from camlucida.data.annotation_xml import read_annotation
from camlucida.data.coco import run_lengths
from camlucida.data.csv_list import CsvList
from camlucida.data.open import kind_of, open_data

THOUSAND = [f"name {i}" for i in range(1000)]
NAMES = ("cat", "dog", "aeroplane, airplane")
BOMB = '<!DOCTYPE a [<!ENTITY b "xx"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'


def photo(path, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path, format="PNG")
    return path


def xml(path, *objects, size=(8, 6)):
    rows = "".join(
        f"<object><name>{name}</name><part><name>head</name><bndbox><xmin>0</xmin></bndbox></part><bndbox>"
        + "".join(
            f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        + "</bndbox></object>"
        for name, box in objects
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"<annotation><filename>../../x</filename><size><width>{size[0]}</width><height>{size[1]}</height>"
        f"<depth>3</depth></size>{rows}</annotation>"
    )


# ---- ImageNet -----------------------------------------------------------------------------------

SYNSETS = {1: "n02123045", 2: "n01440764", 3: "n02123045"}


@pytest.fixture(autouse=True)
def _synsets(request, monkeypatch):
    if "imagenet" in request.node.name:
        known = {"n01440764": 0, "n02123045": 281}
        monkeypatch.setattr("camlucida.data.class_names.imagenet_synsets", lambda: known)
        monkeypatch.setattr(imagenet_module, "imagenet_synsets", lambda: known)


def name(number):
    return f"ILSVRC2012_val_{number:08d}"


def annotate(folder):
    xml(folder / f"{name(1)}.xml", ("n02123045", (5, 1, 7, 3)), ("n02123045", (0, 0, 99, 4)))
    xml(folder / f"{name(2)}.xml", ("n01440764", (1, 1, 2, 2)), ("n02123045", (3, 3, 5, 5)))
    (folder / f"{name(3)}.xml").write_text(BOMB)


def check(data, key=lambda n: f"{name(n)}.JPEG"):
    assert [(s.key, s.label, s.label_name) for s in data] == [
        (key(1), 281, "n02123045"), (key(2), 0, "n01440764"), (key(3), 281, "n02123045"),
    ]  # fmt: skip
    assert data[0].boxes == (
        (5, 1, 7, 3),
        (0, 0, 8, 4),
    )  # in the order of the file, cut at the edge
    assert data[1].boxes == ((1, 1, 2, 2),)  # of the label's class only
    assert data[2].boxes == ()
    assert ["document type" in reason for _, reason in data.skipped] == [True]


def test_imagenet_in_synset_folders(tmp_path):
    for number, synset in SYNSETS.items():
        photo(tmp_path / "val" / synset / f"{name(number)}.JPEG")
    annotate(tmp_path / "Annotations" / "CLS-LOC" / "val")
    assert kind_of(tmp_path) == "imagenet"
    for names in (THOUSAND, None):
        data = open_data(str(tmp_path), class_names=names)
        check(data, lambda n: f"val/{SYNSETS[n]}/{name(n)}.JPEG")
    assert data[0].picture().size == (8, 6)


@pytest.mark.parametrize("labels", ["solution", "synsets", "indices", "devkit"])
def test_imagenet_flat_with_a_list_of_labels(tmp_path, labels):
    root = tmp_path / "Data" / "CLS-LOC" / "val"
    for number in SYNSETS:
        photo(root / f"{name(number)}.JPEG")
    annotate(tmp_path / "Annotations" / "CLS-LOC" / "val")
    if labels == "solution":
        rows = "".join(f"{name(n)},{s} 1 2 3 4 \n" for n, s in SYNSETS.items())
        (tmp_path / "LOC_val_solution.csv").write_text(f"ImageId,PredictionString\n{rows}")
    elif labels == "synsets":
        file = tmp_path / "imagenet_2012_validation_synset_labels.txt"
        file.write_text("\n".join(SYNSETS.values()) + "\n")
    elif labels == "indices":
        (tmp_path / "val.txt").write_text(
            "".join(f"{name(n)}.JPEG {281 * (n != 2)}\n" for n in SYNSETS)
        )
    else:
        io = pytest.importorskip("scipy.io")
        rows = np.array(
            [(7, "n02123045"), (3, "n01440764")], dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")]
        )
        io.savemat(tmp_path / "meta.mat", {"synsets": rows})
        (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("7\n3\n7\n")
    data = open_data(f"imagenet:{tmp_path}", class_names=THOUSAND)
    assert [s.label for s in data] == [281, 0, 281]
    assert data[1].boxes == (((1, 1, 2, 2),) if labels != "indices" else ())


def test_imagenet_flat_with_labels_from_the_annotations(tmp_path):
    for number in SYNSETS:
        photo(tmp_path / f"{name(number)}.JPEG")
    annotate(tmp_path / "xml")
    data = open_data(f"imagenet:{tmp_path},annotations=xml", class_names=THOUSAND)
    assert [s.label for s in data] == [281, 0]
    assert len(data.skipped) == 2  # the broken annotation, and the photo that has no label for it


def test_imagenet_from_the_folder_of_images_alone(tmp_path):
    """The annotations lie where the challenge's archive puts them: four folders up and down again."""
    root = tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "val"
    for number, synset in SYNSETS.items():
        photo(root / synset / f"{name(number)}.JPEG")
    annotate(tmp_path / "ILSVRC" / "Annotations" / "CLS-LOC" / "val")
    data = open_data(f"imagenet:{root}", class_names=THOUSAND)
    check(data, lambda n: f"{SYNSETS[n]}/{name(n)}.JPEG")


def test_imagenet_refusals(tmp_path):
    with pytest.raises(ImageError, match="no such folder"):
        open_data(f"imagenet:{tmp_path / 'none'}")
    with pytest.raises(ImageError, match="no ImageNet images"):
        open_data(f"imagenet:{tmp_path}")
    photo(tmp_path / f"{name(1)}.JPEG")
    with pytest.raises(CamlucidaError, match=r"labels=LOC_val"):
        open_data(f"imagenet:{tmp_path}")
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("7\n")
    with pytest.raises(CamlucidaError, match=r"meta\.mat"):
        open_data(f"imagenet:{tmp_path}")
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("n00000000\n")
    with pytest.raises(TargetError, match="synsets"):
        open_data(f"imagenet:{tmp_path}")
    with pytest.raises(CamlucidaError, match="no such file"):
        open_data(f"imagenet:{tmp_path},labels=x.txt")


def test_imagenet_for_a_model_with_other_classes(tmp_path):
    pytest.importorskip("timm")
    for number, synset in SYNSETS.items():
        photo(tmp_path / synset / f"{name(number)}.JPEG")
    data = open_data(f"imagenet:{tmp_path}", class_names=("dog", "tench"))
    assert [s.label for s in data] == [1]
    assert "2 photos left out" in data.skipped[0][1]


# ---- XML ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "document type"),
        (BOMB.encode("utf-16"), "document type"),
        ("<annotation>", "proper XML"),
        ("<html/>", "no annotation"),
        ("<annotation>" + "<a>" * 100, "nested too deeply"),
        ("", "proper XML"),
        (b"<annotation>" + b" " * 5_000_000, "more than the 4,000,000"),
    ],
)
def test_no_harm_comes_from_xml(tmp_path, text, words):
    (tmp_path / "a.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CamlucidaError, match=words):
        read_annotation(tmp_path / "a.xml")


def test_objects_without_a_proper_box_are_left_out(tmp_path):
    xml(
        tmp_path / "a.xml",
        ("a", (1, 2, "x", 4)),
        ("b", (1, 2, "nan", 4)),
        ("c", (1, 2, 3, 4)),
        ("", (1, 2, 3, 4)),
    )
    assert [o.name for o in read_annotation(tmp_path / "a.xml").objects] == ["c"]


# ---- CSV ----------------------------------------------------------------------------------------


def test_a_table(tmp_path):
    photo(tmp_path / "a.png")
    mask = np.zeros((6, 8), np.uint8)
    mask[1, 2] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    (tmp_path / "list.csv").write_text(
        "label, file, xmin, ymin, xmax, ymax, mask, note\n"
        "cat,a.png,1,2,3,4,m.png,x\ncat,a.png,0,0,2,2,,\n1,gone.png,,,,,,\n,b.png\nfrog,c.png,,,,,,\nfrog,d.png\n"
        "cat,e.png,1,2,x,4\ncat,e.png,3,2,1,4\ncat,,1,2,3,4\ndog,a.png,1,2,3,4\n\n"
    )
    data = open_data(str(tmp_path / "list.csv"), class_names=NAMES)
    assert [(s.key, s.label, s.label_name) for s in data] == [
        ("a.png", 0, "cat"), ("gone.png", 1, "1"), ("b.png", None, ""),
    ]  # fmt: skip
    assert data[0].boxes == ((1, 2, 3, 4), (0, 0, 2, 2))
    assert np.array_equal(data[0].mask(), mask > 0)
    assert data[1].mask() is None
    with pytest.raises(ImageError, match="no such file"):
        data[1].picture()
    reasons = [reason for _, reason in data.skipped]
    for words in (
        "line 8: expected four",
        "line 9",
        "line 10",
        "has the label 'cat' above",
        "2 lines left out",
    ):
        assert sum(words in reason for reason in reasons) == 1
    assert pickle.loads(pickle.dumps(data))[0] == data[0]  # noqa: S301 - our own


def test_a_table_with_tabs_and_files_elsewhere(tmp_path):
    photo(tmp_path / "far" / "a.png")
    (tmp_path / "list.tsv").write_text("file\tlabel\na.png\tdog\n")
    data = open_data(f"{tmp_path / 'list.tsv'},root={tmp_path / 'far'}", class_names=NAMES)
    assert data[0].picture().size == (8, 6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column file and label"),
        ("file,name\n", "no column label"),
        ("file,label,xmin\n", "xmin only"),
        ("file,label\n", "lists no photo"),
        ("file,label\na.png,frog\n", "knows none"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_wrong_tables(tmp_path, text, words):
    (tmp_path / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CamlucidaError, match=words):
        CsvList(tmp_path / "a.csv", NAMES)


def test_many_wrong_lines_are_summed_up(tmp_path):
    rows = "".join(f"a{i}.png,cat,1,1,1,1\n" for i in range(150))
    (tmp_path / "a.csv").write_text(f"file,label,xmin,ymin,xmax,ymax\n{rows}b.png,cat\n")
    data = CsvList(tmp_path / "a.csv", NAMES)
    assert len(data) == 1
    assert len(data.skipped) == 101
    assert data.skipped[-1][1].startswith("50 more")


# ---- COCO ---------------------------------------------------------------------------------------


def coco(tmp_path, notes, images=None, folder="val2017"):
    images = images or [{"id": 5, "file_name": "a.png", "width": 8, "height": 6}]
    for image in images:
        if ".." not in image["file_name"]:
            photo(tmp_path / folder / image["file_name"], (image["width"], image["height"]))
    file = tmp_path / "annotations" / "instances_val2017.json"
    file.parent.mkdir(exist_ok=True)
    categories = [{"id": i, "name": n} for i, n in ((1, "person"), (17, "cat"), (18, "dog"))]
    file.write_text(json.dumps({"images": images, "annotations": notes, "categories": categories}))
    return file


def note(category, bbox, image=5, **more):
    return {"image_id": image, "category_id": category, "bbox": bbox, "iscrowd": 0, **more}


def test_coco(tmp_path):
    pytest.importorskip("pycocotools")
    square = [[1, 1, 4, 1, 4, 3, 1, 3]]
    runs = {"size": [6, 8], "counts": [6 * 5, 6, 12]}  # the column 5, in columns
    notes = [
        note(18, [0, 0, 2, 2], area=4, segmentation=square),
        note(1, [0, 0, 8, 6], area=48, segmentation=square),
        note(17, [1, 1, 3, 2], area=6, segmentation=square),
        note(17, [5, 0, 9, 6], area=5, segmentation=runs),
        {**note(17, [0, 0, 8, 6], area=48), "iscrowd": 1},
    ]
    images = [
        {"id": 5, "file_name": "b.png", "width": 8, "height": 6},
        {"id": 6, "file_name": "a.png", "width": 8, "height": 6},
        {"id": 7, "file_name": "../x.png", "width": 8, "height": 6},
    ]
    file = coco(tmp_path, notes, images)
    for spec in (file, tmp_path):
        data = open_data(str(spec), class_names=NAMES)
        assert [(s.key, s.label, s.label_name) for s in data] == [("b.png", 0, "cat")]
        assert data[0].boxes == ((1, 1, 4, 3), (5, 0, 8, 6))
    expected = np.zeros((6, 8), bool)
    expected[1:3, 1:4] = expected[:, 5] = True
    assert np.array_equal(data[0].mask(), expected)
    reasons = " ".join(reason for _, reason in data.skipped)
    for words in ("person", "outside", "no object"):
        assert words in reasons
    first = open_data(f"coco:{tmp_path},label=first", class_names=NAMES)
    assert (first[0].label_name, first[0].boxes) == ("dog", ((0, 0, 2, 2),))
    every = open_data(f"coco:{tmp_path},label=none", class_names=None)
    assert [(s.key, s.label, len(s.boxes)) for s in every] == [
        ("a.png", None, 0),
        ("b.png", None, 4),
    ]
    assert open_data(f"coco:{tmp_path},images={tmp_path / 'val2017'}", class_names=NAMES)[
        0
    ].picture()


def test_coco_run_lengths_are_as_pycocotools_decodes_them(tmp_path):
    tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.95):
        mask = rng.random((60, 80)) < share
        packed = tools.encode(np.asfortranarray(mask.astype(np.uint8)))
        counts = run_lengths(packed["counts"])
        flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        assert np.array_equal(flat.reshape(80, 60).T, mask)
    packed["counts"] = packed["counts"].decode()
    image = {"id": 5, "file_name": "a.png", "width": 80, "height": 60}
    coco(tmp_path, [note(17, [0, 0, 8, 6], segmentation=packed)], [image])
    assert np.array_equal(open_data(str(tmp_path), class_names=NAMES)[0].mask(), mask)


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 1, 2]],
        [[1, 1, 2, 2, float("nan"), 3]],
        [["a", 1, 2, 2, 3, 3]],
        {"size": [6, 9], "counts": [54]},
        {"size": [6, 8], "counts": [10**12]},
        {"size": [6, 8], "counts": [60, -12]},
        {"size": [6, 8], "counts": "P"},
        {"counts": [48]},
    ],
)
def test_coco_damaged_segmentations(tmp_path, segmentation):
    pytest.importorskip("pycocotools")
    coco(tmp_path, [note(17, [0, 0, 8, 6], segmentation=segmentation)])
    with pytest.raises(ImageError, match="cannot be used"):
        open_data(str(tmp_path), class_names=NAMES)[0].mask()


def test_coco_a_photo_of_another_size_than_the_file_says(tmp_path):
    pytest.importorskip("pycocotools")
    coco(tmp_path, [note(17, [0, 0, 8, 6], segmentation=[[1, 1, 4, 1, 4, 3]])])
    photo(tmp_path / "val2017" / "a.png", (9, 6))
    with pytest.raises(ImageError, match="9 x 6"):
        open_data(str(tmp_path), class_names=NAMES)[0].mask()


def test_coco_refusals(tmp_path):
    file = coco(tmp_path, [note(17, [0, 0, 8, 6])])
    assert open_data(str(file), class_names=NAMES)[0].mask() is None
    with pytest.raises(TargetError, match="none of the categories"):
        open_data(str(file), class_names=("frog",))
    with pytest.raises(ImageError, match="images"):
        open_data(f"{file},images=nowhere", class_names=NAMES)
    with pytest.raises(CamlucidaError, match="train2017"):
        open_data(f"coco:{tmp_path},split=train2017", class_names=NAMES)
    for text in (
        "{}",
        "[",
        '{"images": [], "annotations": [{"bbox": 3}], "categories": []}',
        "[" * 100_000,
    ):
        file.write_text(text)
        with pytest.raises(CamlucidaError, match=r"COCO instances|nested"):
            open_data(str(file), class_names=NAMES)


# ---- VOC ----------------------------------------------------------------------------------------


@pytest.fixture
def voc(tmp_path):
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for stem in ("a", "b", "c", "d"):
        photo(base / "JPEGImages" / f"{stem}.jpg")
    notes = base / "Annotations"
    xml(notes / "a.xml", ("dog", (1, 1, 2, 2)), ("cat", (3, 1, 8, 6)), ("cat", (1, 6, 2, 6)))
    xml(notes / "b.xml", ("person", (1, 1, 8, 6)))
    (notes / "c.xml").write_text(BOMB)
    xml(notes / "d.xml", ("dog", (1, 1, 8, 6)))
    drawn = np.zeros((6, 8), np.uint8)
    drawn[0, 0], drawn[1:, 3:], drawn[1, 3] = 12, 8, 255
    (base / "SegmentationClass").mkdir()
    picture = Image.fromarray(drawn).convert("P")
    picture.putpalette([0, 0, 0] * 256)
    picture.putdata(drawn.flatten().tolist())
    picture.save(base / "SegmentationClass" / "a.png")
    objects = np.zeros((6, 8), np.uint8)
    objects[2, 2] = 1
    (base / "SegmentationObject").mkdir()
    Image.fromarray(objects).save(base / "SegmentationObject" / "d.png")
    for task, name_, text in (
        ("Main", "val", "a\nb\nc\n"),
        ("Main", "train", "d\n"),
        ("Segmentation", "val", "a\n"),
    ):
        (base / "ImageSets" / task).mkdir(parents=True, exist_ok=True)
        (base / "ImageSets" / task / f"{name_}.txt").write_text(text)
    (base / "ImageSets" / "Main" / "dog_val.txt").write_text("a  1\nb -1\n")
    return tmp_path


def test_voc(voc):
    data = open_data(str(voc), class_names=NAMES)
    assert data.name == "VOC2012:val"
    assert [(s.key, s.label, s.label_name) for s in data] == [("a.jpg", 0, "cat")]
    assert data[0].boxes == (
        (2, 0, 8, 6),
        (0, 5, 2, 6),
    )  # pixels from 0, right and lower edges exclusive
    mask = data[0].mask()
    assert mask.sum() == 5 * 5 - 1
    assert not mask[1, 3]
    reasons = " ".join(reason for _, reason in data.skipped)
    assert "document type" in reasons
    assert "person" in reasons
    assert data[0].picture().size == (8, 6)


def test_voc_options(voc):
    train = open_data(f"voc:{voc},split=train,year=2012", class_names=NAMES)
    assert [(s.key, s.label) for s in train] == [("d.jpg", 1)]
    assert np.argwhere(train[0].mask()).tolist() == [[2, 2]]
    assert len(open_data(f"voc:{voc},task=segmentation", class_names=NAMES)) == 1
    first = open_data(f"voc:{voc},label=first", class_names=NAMES)
    assert (first[0].label, first[0].boxes) == (1, ((0, 0, 2, 2),))
    every = open_data(f"voc:{voc},label=none")
    assert [(s.key, s.label, len(s.boxes)) for s in every] == [
        ("a.jpg", None, 3),
        ("b.jpg", None, 1),
    ]
    assert every[0].mask().sum() == 1 + 24


def test_voc_refusals(voc):
    with pytest.raises(TargetError, match="none of the classes"):
        open_data(str(voc), class_names=("frog",))
    for options, words in (
        ("year=2007", "VOC2007"),
        ("split=x", "x.txt"),
        ("task=x", "one of main, seg"),
    ):
        with pytest.raises(CamlucidaError, match=words):
            open_data(f"voc:{voc},{options}", class_names=NAMES)
    lists = voc / "VOCdevkit" / "VOC2012" / "ImageSets" / "Main"
    (lists / "val.txt").write_text("../../../secret\n")
    with pytest.raises(CamlucidaError, match="no name of a photo"):
        open_data(str(voc), class_names=NAMES)


# ---- datasets -----------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    datasets = pytest.importorskip("datasets")
    files = [photo(tmp_path / f"{i}.png", (8 + i, 6)) for i in range(3)]
    rows = {"picture": [str(f) for f in files], "kind": [0, 1, -1], "text": ["a", "b", "c"]}
    kinds = datasets.ClassLabel(names=["dog", "frog"])
    features = datasets.Features(
        picture=datasets.Image(), kind=kinds, text=datasets.Value("string")
    )
    return datasets.Dataset.from_dict(rows, features=features)


def test_a_saved_table(tmp_path, table):
    table.save_to_disk(str(tmp_path / "saved"))
    assert kind_of(tmp_path / "saved") == "hf"
    data = open_data(str(tmp_path / "saved"), class_names=NAMES)
    assert [(s.key, s.label, s.label_name) for s in data] == [
        ("row-00000000", 1, "dog"), ("row-00000002", None, ""),
    ]  # fmt: skip
    assert data[1].picture().size == (10, 6)
    assert "frog" in data.skipped[0][1]
    assert pickle.loads(pickle.dumps(data[0])).picture().size == (8, 6)  # noqa: S301 - our own
    by_number = open_data(str(tmp_path / "saved"))
    assert [s.label for s in by_number] == [0, 1, None]


def test_a_saved_table_with_splits(tmp_path, table):
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict(train=table, test=table.select([0])).save_to_disk(str(tmp_path / "saved"))
    assert len(open_data(f"hf:{tmp_path / 'saved'}", class_names=NAMES)) == 1
    assert len(open_data(f"hf:{tmp_path / 'saved'},split=train,label=kind", class_names=NAMES)) == 2
    for options, words in (
        ("split=x", "no split"),
        ("label=x", "no column"),
        ("image=x", "no column"),
    ):
        with pytest.raises(CamlucidaError, match=words):
            open_data(f"hf:{tmp_path / 'saved'},{options}", class_names=NAMES)
    with pytest.raises(CamlucidaError, match="cannot be loaded"):
        open_data(f"hf:{tmp_path / 'none'}")


def test_a_damaged_image_in_a_table(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(image=datasets.Image())
    rows = {"image": [{"bytes": b"no", "path": None}, None]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    data = open_data(str(tmp_path / "saved"))
    for index in range(2):
        with pytest.raises(ImageError, match=f"row {index}"):
            data[index].picture()
