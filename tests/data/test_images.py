from __future__ import annotations

import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features

from camlucida.common.errors import ImageError
from camlucida.data.images import find_images, picture_notes, read_image

RNG = np.random.default_rng(7)
COLOUR = RNG.integers(0, 256, (9, 13, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (9, 13), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (9, 13), dtype=np.uint16)


def pixels(source, **options) -> np.ndarray:
    image = read_image(source, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey3(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, axis=2)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def refuse(source, *words, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError) as caught:
            read_image(source, **options)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


# ---- modes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif", "tga", "webp"])
def test_lossless_formats(tmp_path, suffix):
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(COLOUR).save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(pixels(path), COLOUR)
    assert np.array_equal(pixels(str(path)), COLOUR)


def test_grey_and_one_bit(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    assert np.array_equal(pixels(tmp_path / "grey.png"), grey3(GREY))
    bits = GREY > 127
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert np.array_equal(pixels(tmp_path / "bits.png"), grey3(bits.astype(np.uint8) * 255))


def composite(alpha: np.ndarray, colour: np.ndarray) -> np.ndarray:
    share = alpha.astype(float)[..., None] / 255
    return colour * share + 255 * (1 - share)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_alpha_is_composited_on_white(tmp_path, suffix):
    path = tmp_path / f"alpha.{suffix}"
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    Image.fromarray(np.dstack([COLOUR, GREY])).save(path, **options)
    assert np.abs(pixels(path) - composite(GREY, COLOUR)).max() <= 1


def test_grey_with_alpha(tmp_path):
    levels = GREY[::-1]
    image = Image.merge("LA", [Image.fromarray(levels), Image.fromarray(GREY)])
    image.save(tmp_path / "la.png")
    assert np.abs(pixels(tmp_path / "la.png") - composite(GREY, grey3(levels))).max() <= 1
    premultiplied = image.convert("RGBA").convert("RGBa")
    assert np.abs(pixels(premultiplied) - composite(GREY, grey3(levels))).max() <= 2


def palette(**info) -> Image.Image:
    image = Image.fromarray(np.array([[0, 1], [2, 0]], dtype=np.uint8), mode="P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.info.update(info)
    return image


def test_palette(tmp_path):
    red, green, blue, white = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
    palette().save(tmp_path / "p.png")
    assert pixels(tmp_path / "p.png").tolist() == [[[*red], [*green]], [[*blue], [*red]]]
    palette().save(tmp_path / "one.png", transparency=0)
    assert pixels(tmp_path / "one.png").tolist() == [[[*white], [*green]], [[*blue], [*white]]]
    palette().save(tmp_path / "some.png", transparency=bytes([255, 0, 128]))
    found = pixels(tmp_path / "some.png")
    assert found[0].tolist() == [[*red], [*white]]
    assert np.abs(found[1, 0].astype(int) - [127, 127, 255]).max() <= 1
    assert np.array_equal(pixels(palette().convert("PA")), pixels(palette()))


def test_transparent_colour_of_grey_and_rgb(tmp_path):
    Image.fromarray(np.array([[7, 9]], np.uint8)).save(tmp_path / "l.png", transparency=7)
    assert pixels(tmp_path / "l.png")[0, :, 0].tolist() == [255, 9]
    picture = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    picture.save(tmp_path / "rgb.png", transparency=(1, 2, 3))
    assert pixels(tmp_path / "rgb.png").tolist() == [[[255, 255, 255], [4, 5, 6]]]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(DEEP).save(path)
    assert np.array_equal(pixels(path), grey3(np.rint(DEEP / 257).astype(np.uint8)))


def test_16_bit_big_endian(tmp_path):
    path = tmp_path / "big.tif"
    Image.frombytes("I;16B", (13, 9), DEEP.astype(">u2").tobytes()).save(path)
    assert np.array_equal(pixels(path), grey3(np.rint(DEEP / 257).astype(np.uint8)))


def test_16_bit_rgb_png(tmp_path):
    deep = RNG.integers(0, 65536, (5, 4, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    (tmp_path / "deep.png").write_bytes(png(4, 5, 16, 2, rows))
    assert np.abs(pixels(tmp_path / "deep.png") - deep / 257).max() <= 1


def test_32_bit_integers():
    image = Image.fromarray(DEEP.astype(np.int32))
    assert image.mode == "I"
    assert np.array_equal(pixels(image), grey3(np.rint(DEEP / 257).astype(np.uint8)))
    refuse(Image.fromarray(np.array([[-5, 70000]], np.int32)), "-5 to 70000", "0 to 65535")


def test_32_bit_float(tmp_path):
    values = RNG.random((9, 13), dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "float.tif")
    found = pixels(tmp_path / "float.tif")
    assert np.array_equal(found, grey3(np.rint(values * 255).astype(np.uint8)))
    refuse(Image.fromarray(values * 3 - 1), "float values from -", "0 to 1")
    refuse(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "not finite")


def test_cmyk_jpeg(tmp_path):
    flat = Image.new("RGB", (16, 16), (200, 40, 90))
    cmyk = flat.convert("CMYK")
    cmyk.save(tmp_path / "cmyk.jpg", quality=100)  # with Adobe's marker, so stored inverted
    with Image.open(tmp_path / "cmyk.jpg") as stored:
        assert (stored.mode, "adobe" in stored.info) == ("CMYK", True)
    assert np.abs(pixels(tmp_path / "cmyk.jpg").astype(int) - [200, 40, 90]).max() <= 4
    cmyk.save(tmp_path / "cmyk.tif")
    assert np.abs(pixels(tmp_path / "cmyk.tif").astype(int) - [200, 40, 90]).max() <= 1


def test_other_colour_spaces():
    flat = Image.new("RGB", (4, 4), (200, 40, 90))
    for mode in ("YCbCr", "HSV"):
        assert np.abs(pixels(flat.convert(mode)).astype(int) - [200, 40, 90]).max() <= 4
    if features.check("littlecms2"):
        grey = Image.new("LAB", (4, 4), (128, 128, 128))
        assert np.ptp(pixels(grey)) <= 12


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for suffix, options in (("gif", {}), ("webp", {"lossless": True}), ("png", {}), ("tif", {})):
        path = tmp_path / f"animation.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert (pixels(path) == [255, 0, 0]).all(), suffix


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_exif_orientation(tmp_path, orientation, suffix):
    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"turned.{suffix}", exif=exif)
    operation = [
        None, None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180,
        Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270,
        Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
    ][orientation]  # fmt: skip
    expected = image if operation is None else image.transpose(operation)
    once = read_image(tmp_path / f"turned.{suffix}")
    assert np.array_equal(np.asarray(once), np.asarray(expected))
    assert np.array_equal(pixels(once), np.asarray(expected))  # not turned a second time


def test_broken_exif_does_not_matter(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "exif.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(pixels(tmp_path / "exif.png"), COLOUR)


def test_the_source_is_left_as_it_was():
    image = Image.fromarray(COLOUR)
    result = read_image(image)
    result.putpixel((0, 0), (0, 0, 0))
    assert np.array_equal(np.asarray(image), COLOUR)
    lazy = ImageOps.mirror(image)
    lazy.info["mark"] = 1
    read_image(lazy)
    assert lazy.info == {"mark": 1}


# ---- arrays -------------------------------------------------------------------------------------


def test_arrays():
    assert np.array_equal(pixels(COLOUR), COLOUR)
    assert np.array_equal(pixels(COLOUR[::2, ::-1]), COLOUR[::2, ::-1])
    assert np.array_equal(pixels(GREY), grey3(GREY))
    assert np.array_equal(pixels(GREY[..., None]), grey3(GREY))
    assert np.abs(pixels(np.dstack([COLOUR, GREY])) - composite(GREY, COLOUR)).max() <= 1
    assert np.array_equal(pixels(DEEP), grey3(np.rint(DEEP / 257).astype(np.uint8)))
    assert np.array_equal(pixels(DEEP.astype(">u2")), pixels(DEEP))
    assert np.array_equal(pixels(GREY > 100), grey3((GREY > 100).astype(np.uint8) * 255))
    for kind in (np.float32, np.float64):
        assert np.array_equal(pixels(COLOUR.astype(kind) / 255), COLOUR)
    assert np.abs(pixels(COLOUR.astype(np.float16) / 255).astype(int) - COLOUR).max() <= 1


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 8, 9), np.uint8), ("(3, 8, 9)", "transpose(1, 2, 0)")),
        (np.zeros((2, 8, 9, 3), np.uint8), ("(2, 8, 9, 3)", "(height, width, channels)")),
        (np.zeros((8, 9, 2), np.uint8), ("(8, 9, 2)", "1, 3 or 4 channels")),
        (np.zeros(8, np.uint8), ("(8,)",)),
        (np.zeros((0, 8, 3), np.uint8), ("8 x 0 pixels",)),
        (np.zeros((4, 4), np.int32), ("int32", "uint8 (0 to 255)")),
        (np.zeros((4, 4), np.complex64), ("complex64",)),
        (np.array([["a"]]), ("<U1",)),
        (np.full((4, 4), 200.0), ("from 200 to 200", "divide by 255")),
        (np.full((4, 4), -0.5), ("from -0.5 to -0.5", "expected 0 to 1")),
        (np.full((4, 4, 3), np.inf), ("not finite",)),
    ],
)
def test_arrays_that_are_no_picture(array, words):
    refuse(array, *words)


def test_other_types():
    refuse(torch.zeros(3, 4, 4), "Tensor", "numpy array")
    refuse(None, "NoneType")
    refuse(b"bytes", "bytes")


# ---- files that are no picture ------------------------------------------------------------------


def test_missing_folder_empty_and_text(tmp_path):
    refuse(tmp_path / "none.png", "no such file", "none.png")
    refuse("", "is a folder")
    refuse("nul\0byte.png", "no such file")
    refuse("x" * 5000 + ".png", "cannot be opened")
    refuse("https://example.org/cat.png", "download the image first")
    refuse(tmp_path, "is a folder")
    (tmp_path / "empty.png").touch()
    refuse(tmp_path / "empty.png", "empty file", "empty.png")
    (tmp_path / "text.png").write_text("hello\nworld\n")
    refuse(tmp_path / "text.png", "not an image", "text.png")
    (tmp_path / "two\nlines.png").write_text("hello")
    refuse(tmp_path / "two\nlines.png", "not an image")


def test_postscript_is_never_run(tmp_path):
    text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    for name in ("page.eps", "page.png"):
        (tmp_path / name).write_text(text)
        refuse(tmp_path / name, "not an image")


def test_devices_are_not_read():
    refuse("/dev/null", "not a regular file")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif", "webp", "ppm"])
def test_truncated(tmp_path, suffix, capfd):
    noisy = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"whole.{suffix}"
    Image.fromarray(noisy).save(path)
    content = path.read_bytes()
    for share in (0.05, 0.5, 0.9):
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes(content[: int(len(content) * share)])
        refuse(cut, f"cut.{suffix}")
    capfd.readouterr()  # libtiff writes to stderr


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp", "bmp"])
def test_corrupt_bytes_never_leak_another_error(tmp_path, suffix, capfd):
    path = tmp_path / f"good.{suffix}"
    Image.fromarray(COLOUR).save(path)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    for seed in range(60):
        generator = np.random.default_rng(seed)
        bad = content.copy()
        where = generator.integers(0, len(bad), 6)
        bad[where] = generator.integers(0, 256, 6)
        broken = tmp_path / f"bad.{suffix}"
        broken.write_bytes(bad.tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                assert read_image(broken, max_pixels=10_000_000).mode == "RGB"
            except ImageError as error:
                assert "\n" not in str(error)  # noqa: PT017
    capfd.readouterr()


def test_too_many_pixels_are_refused_before_decoding(tmp_path):
    path = tmp_path / "large.png"
    Image.new("L", (200, 100)).save(path)
    refuse(path, "200 x 100", "more than the 19999 allowed", "large.png", max_pixels=19_999)
    assert read_image(path, max_pixels=20_000).size == (200, 100)
    refuse(np.zeros((20, 20), np.uint8), "20 x 20", max_pixels=399)
    # the header alone claims it: nothing of the size may be allocated, no warning may leak
    for side in (10_500, 13_000, 60_000):
        (tmp_path / "bomb.png").write_bytes(png(side, side, 8, 2, b"\0"))
        refuse(tmp_path / "bomb.png", "bomb.png", "shrink it")


def test_between_the_limits_no_warning_leaks(tmp_path):
    path = tmp_path / "wide.png"
    Image.new("1", (9000, 10_000)).save(path)  # above Pillow's warning, below ours
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000_000)
            assert read_image(path).size == (9000, 10_000)


# ---- folders ------------------------------------------------------------------------------------


def test_find_images(tmp_path):
    for name in ("b.PNG", "a.jpg", "sub/c.webp", "sub/deep/d.tiff", "notes.txt", ".hidden.png",
                 ".cache/e.png"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = find_images(tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    assert names == ["a.jpg", "b.PNG", "sub/c.webp", "sub/deep/d.tiff"]
    assert find_images(tmp_path / "a.jpg") == (tmp_path / "a.jpg",)


def test_find_images_where_there_is_none(tmp_path):
    with pytest.raises(ImageError, match="no such file or folder"):
        find_images(tmp_path / "none")
    with pytest.raises(ImageError, match="no image in"):
        find_images(tmp_path)


@pytest.mark.parametrize("kind", ["array", "colours", "I;16", "integers", "tiff"])
def test_a_scan_keeps_its_own_range(tmp_path, kind):
    """Twelve bits in sixteen: black and white are the scan's own, and that is said."""
    scan = RNG.integers(100, 4000, (9, 13, 3) if kind == "colours" else (9, 13)).astype(np.uint16)
    source = {
        "array": lambda: scan,
        "colours": lambda: scan,
        "I;16": lambda: Image.fromarray(scan),
        "integers": lambda: Image.fromarray(scan.astype(np.int32)),
        "tiff": lambda: tmp_path / "scan.tif",
    }[kind]()
    if kind == "tiff":
        Image.fromarray(scan).save(source)
    made = read_image(source)
    low, high = int(scan.min()), int(scan.max())
    wanted = [[round((int(v) - low) * 255 / (high - low)) for v in np.ravel(row)] for row in scan]
    grey = np.asarray(made)[..., 0] if scan.ndim == 2 else np.asarray(made).reshape(9, -1)
    assert grey.tolist() == wanted
    assert f"from {low} to {high}" in picture_notes(made)[0]
    assert picture_notes(read_image(made)) == picture_notes(made)  # read again, it is still known


def test_a_full_range_is_not_stretched():
    wide = np.array([[0, 40000], [257, 514]], np.uint16)
    assert np.asarray(read_image(wide))[..., 0].tolist() == [[0, 156], [1, 2]]
    assert not picture_notes(read_image(wide))
    flat = np.full((2, 2), 514, np.uint16)  # one value has no range
    assert np.asarray(read_image(flat))[0, 0].tolist() == [2, 2, 2]
    assert "one colour" in picture_notes(read_image(flat))[0]
