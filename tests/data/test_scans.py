"""Pictures of other trades: windows, pages, arrays, DICOM, HEIC; and what is said of what nobody reads here."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from PIL import Image

import camlucida
from camlucida.cli import main
from camlucida.common import optional
from camlucida.common.errors import ImageError
from camlucida.data import images, open_data, scans
from camlucida.data.images import (
    find_images,
    is_image_file,
    pages_of,
    picture_notes,
    read_image,
    skipped_kinds,
)
from camlucida.data.place import Place
from camlucida.explanation import subject
from reference.bench import tiny

CT = np.linspace(-1000, 1000, 30 * 24).reshape(24, 30).round().astype(np.int16)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def grey(image):
    found = np.asarray(image)
    assert (found == found[..., :1]).all()
    return found[..., 0]


def windowed(values, low, high):
    return np.rint(((values.astype(float) - low) / (high - low)).clip(0, 1) * 255).astype(np.uint8)


# ---- where a picture stands -----------------------------------------------------------------------


def test_a_place_is_read_and_written(here):
    (here / "a.tif").touch()
    for text, page, window in [
        ("a.tif", None, None), ("a.tif[3]", 3, None), ("a.tif[window=-160:240]", None, (-160, 240)),
        ("a.tif[3,window=0.5:2]", 3, (0.5, 2)),
    ]:  # fmt: skip
        place = Place.of(text)
        assert (str(place.file), place.page, place.window, str(place)) == (
            "a.tif",
            page,
            window,
            text,
        )
    assert Place.of("b.tif[3]").file.name == "b.tif[3]"  # there is no b.tif
    (here / "a.tif[3]").touch()
    assert Place.of("a.tif[3]").file.name == "a.tif[3]"


@pytest.mark.parametrize(
    "words",
    ["0", "-1", "x", "", "window=3", "window=5:4", "window=nan:1", "window=0:inf", "1" * 40, "1,2"],
)
def test_words_that_are_no_place_are_refused(words):
    np.save("a.npy", CT)
    with pytest.raises(ImageError, match=r"page|window"):
        read_image(f"a.npy[{words}]")


@pytest.mark.parametrize(
    "given",
    [{"page": 0}, {"page": -1}, {"page": 1.5}, {"page": "x"}]
    + [{"window": w} for w in ((5, 1), (1, 1), (float("nan"), 1), (-1e308, 1e308), 5, "ab", (0,))],
)
def test_pages_and_windows_are_checked_in_python_too(given):
    np.save("a.npy", np.stack([CT, CT]))
    with pytest.raises(ImageError, match=r"page|window"):
        read_image("a.npy", **{"window": (0, 1), **given})


@pytest.mark.parametrize("window", [(16777216, 16777300), (0.1234567891, 0.2), (-1e-9, 1e20)])
def test_a_window_is_written_as_exactly_as_it_is_read(here, window):
    (here / "a.npy").touch()
    assert Place.of(str(Place(here / "a.npy", 2, window))).window == window


# ---- windows --------------------------------------------------------------------------------------


def test_a_window_is_black_to_white():
    np.save("ct.npy", CT)
    wanted = windowed(CT, -160, 240)
    assert (grey(read_image("ct.npy[window=-160:240]")) == wanted).all()
    assert (grey(read_image(CT, window=(-160, 240))) == wanted).all()
    deep = (CT + 1000).astype(np.uint16)
    Image.fromarray(deep).save("deep.png")
    assert (grey(read_image("deep.png", window=(840, 1240))) == wanted).all()
    assert not picture_notes(read_image("deep.png", window=(840, 1240)))
    with pytest.raises(ImageError, match=r"FILE\[window=LOW:HIGH\]"):
        read_image("ct.npy")


# ---- pages ----------------------------------------------------------------------------------------

PAGES = [np.full((9, 8), level, np.uint8) for level in (10, 60, 120, 180, 250)]


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".npy"])
def test_pages_are_read_one_by_one(suffix):
    name = f"several{suffix}"
    if suffix == ".npy":
        np.save(name, np.stack(PAGES))
    else:
        first, *rest = map(Image.fromarray, PAGES)
        first.save(name, save_all=True, append_images=rest)
    assert pages_of(name) == 5
    for number, page in enumerate(PAGES, 1):
        assert abs(int(grey(read_image(f"{name}[{number}]"))[0, 0]) - int(page[0, 0])) <= 1
        assert not any("pages" in said for said in picture_notes(read_image(name, page=number)))
    assert any("5 pages" in said for said in picture_notes(read_image(name)))
    with pytest.raises(ImageError, match="5 pages"):
        read_image(f"{name}[6]")


def test_three_pages_of_an_array_are_not_taken_for_channels():
    np.save("three.npy", np.stack(PAGES[:3]))
    assert pages_of("three.npy") == 3
    assert grey(read_image("three.npy[2]"))[0, 0] == 60
    with pytest.raises(ImageError, match=r"channels first.*FILE\[1\]"):
        read_image("three.npy")


def test_an_array_with_colours_is_one_page():
    np.save("colours.npy", np.zeros((9, 8, 3), np.uint8))
    assert pages_of("colours.npy") == 1
    assert read_image("colours.npy").size == (8, 9)


# ---- DICOM ----------------------------------------------------------------------------------------


def dicom(path, values, kind="MONOCHROME2", **facts):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian

    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    colour = kind == "RGB"
    data.Rows, data.Columns = values.shape[-3:-1] if colour else values.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = (3 if colour else 1), kind
    if colour:
        data.PlanarConfiguration = 0
    if values.ndim == 3 + colour:
        data.NumberOfFrames = len(values)
    bits = 8 * values.dtype.itemsize
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit, data.PixelRepresentation = bits - 1, int(values.dtype.kind == "i")
    data.PixelData = values.tobytes()
    for name, value in facts.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)


def test_dicom_is_rescaled_and_windowed():
    stored = (CT + 1000).astype(np.uint16)
    facts = {"RescaleSlope": 1, "RescaleIntercept": -1000}
    dicom("a.dcm", stored, **facts, WindowCenter=[40, 300], WindowWidth=[400, 1500])
    image = read_image("a.dcm")
    assert (grey(image) == windowed(CT, 39.5 - 199.5, 39.5 + 199.5)).all()
    assert "from -160 to 239" in picture_notes(image)[0]
    assert (grey(read_image("a.dcm[window=0:100]")) == windowed(CT, 0, 100)).all()
    dicom("b.dcm", stored, "MONOCHROME1", **facts)
    assert (grey(read_image("b.dcm")) == 255 - windowed(CT, -1000, 1000)).all()


def test_dicom_without_a_suffix_in_colours_and_in_frames():
    colours = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    dicom("IM0001", colours, "RGB")
    assert (np.asarray(read_image("IM0001")) == colours).all()
    dicom("frames.dcm", np.stack([CT, -CT]), WindowCenter=0, WindowWidth=2000)
    assert pages_of("frames.dcm") == 2
    assert (grey(read_image("frames.dcm[2]")) == windowed(-CT, -1000, 999)).all()


def test_dicom_that_promises_too_much_is_refused_before_it_is_read(here, monkeypatch):
    dicom("a.dcm", CT)
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(ImageError, match="30 x 24 pixels"):
        read_image("a.dcm", max_pixels=100)
    raw = (here / "a.dcm").read_bytes()
    (here / "short.dcm").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ImageError, match="short"):
        read_image("short.dcm")
    (here / "none.dcm").write_bytes(bytes(128) + b"DICM" + b"nonsense")
    with pytest.raises(ImageError, match="without a picture"):
        read_image("none.dcm")


def test_an_array_that_promises_too_much_is_refused_before_it_is_read(here):
    np.save("a.npy", CT)
    with pytest.raises(ImageError, match="30 x 24 pixels"):
        read_image("a.npy", max_pixels=100)
    raw = (here / "a.npy").read_bytes()
    (here / "lies.npy").write_bytes(raw.replace(b"(24, 30)", b"(24,3e9)").replace(b"3e9", b"999"))
    with pytest.raises(ImageError, match="damaged"):
        read_image("lies.npy")
    for shape in ((2**32,), (3, 2**16, 2**16 + 1), (2, 2, 2, 2, 2**29)):
        made = np.lib.format.open_memmap("huge.npy", "w+", np.uint8, shape)
        del made
        tracemalloc.start()
        with pytest.raises(ImageError, match=r"channels first|not one picture"):
            read_image("huge.npy")
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()
    np.save("objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ImageError, match="damaged"):
        read_image("objects.npy")


# ---- HEIC, and what is not read -------------------------------------------------------------------


def test_heic_is_read_w_that_is_installed():
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    Image.new("RGB", (40, 30), (200, 30, 60)).save("a.heic")
    assert is_image_file("a.heic")
    assert np.abs(np.asarray(read_image("a.heic"))[5, 5].astype(int) - [200, 30, 60]).max() < 12


def test_each_kind_that_is_left_out_is_named_with_what_reads_it(here, monkeypatch):
    monkeypatch.setattr(scans, "has", lambda package: package == "numpy")
    Image.effect_noise((24, 20), 60).convert("RGB").save("photo.png")
    for name in ("a.dcm", "b.DCM", "c.heic", "d.nii.gz", "e.mp4", "notes.txt"):
        (here / name).write_bytes(b"x")
    said = skipped_kinds(".")
    assert len(said) == 4
    assert any("2 files (.dcm)" in one and "camlucida[scans]" in one for one in said)
    assert any("SimpleITK" in one for one in said)
    assert [path.name for path in find_images(".")] == ["photo.png"]
    assert {reason for _, reason in open_data(str(here)).skipped} == set(said)
    (here / "photo.png").unlink()
    with pytest.raises(ImageError, match="DICOM"):
        find_images(".")


def test_what_reads_a_file_is_said_where_it_is_missing(here, monkeypatch):
    dicom("a.dcm", CT)
    usual = optional.importlib.import_module

    def without(name, package=None):
        if name == "pydicom":
            raise ModuleNotFoundError("no", name="pydicom")
        return usual(name, package)

    monkeypatch.setattr(optional.importlib, "import_module", without)
    with pytest.raises(ImageError, match=r"camlucida\[scans\]"):
        read_image("a.dcm")
    (here / "b.nii").write_bytes(b"x" * 400)
    with pytest.raises(ImageError, match="SimpleITK"):
        read_image("b.nii")


# ---- nothing to see -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("picture", "why"),
    [
        (Image.new("RGB", (20, 20)), "black all over"),
        (Image.new("RGB", (20, 20), (1, 2, 3)), "#010203"),
        (Image.new("RGB", (1, 1), (9, 9, 9)), "1 x 1"),
    ],
)
def test_pictures_without_anything_get_a_remark(picture, why):
    found = camlucida.explain(tiny(), picture)
    assert any(why in message for message in found.diagnostics[0].messages)


# ---- the command line -----------------------------------------------------------------------------


def test_pages_and_windows_on_the_command_line(here, capsys, monkeypatch):
    monkeypatch.setattr(subject, "load_model", lambda *_args, **_options: tiny())
    monkeypatch.setattr("camlucida.models.load_model", lambda *_args, **_options: tiny())
    np.save("ct.npy", np.stack([CT, -CT]))
    assert main(["explain", "ct.npy", "--window", "-160:240", "--page", "all", "--json"]) == 0
    photos = json.loads(capsys.readouterr().out)["photos"]
    assert [one["photo"] for one in photos] == [f"ct.npy[{n},window=-160:240]" for n in (1, 2)]
    assert sorted(path.name for path in (here / "camlucida-out").glob("*.json")) == [
        "ct-page1.json",
        "ct-page2.json",
    ]
    assert main(["explain", "ct.npy", "--window", "-160:240", "--page", "2"]) == 0
    for wrong in (["--window", "3"], ["--page", "0"]):
        assert main(["explain", "ct.npy", *wrong]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
