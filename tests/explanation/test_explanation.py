"""What a user holds: indexing, words, pictures and files that say what they show."""

import gc
import io
import json
import os
import pickle
import sys
import weakref
from dataclasses import replace
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.text
import numpy as np
import pytest
import torch
from PIL import Image, ImageShow
from torch import nn

from camlucida import CamlucidaError, CosineSimilarity, Preprocess, TargetError, explain
from camlucida.common.provenance import fingerprint
from camlucida.explanation import Comparison, Diagnostics, Style, overlays
from reference import networks

SIZE = (12, 16)
X = networks.images(3, 3, SIZE)


def model():
    return networks.build(size=SIZE, signed=False, m=4)


@pytest.fixture
def found():
    return explain(model(), X, layers="features", target=[0, 1, 2], class_names=list("abcd"))


def strict(text):
    """JSON as the standard has it: without NaN and Infinity."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


# ------------------------------------------------------------------------------------------- indexing


def test_index(found):
    assert len(found) == 3
    for n, one in enumerate(found):
        assert len(one) == 1
        assert torch.equal(one.maps[0], found.maps[n])
        assert torch.equal(one.layer_maps["features"][0], found.layer_maps["features"][n])
        assert one.target.classes.tolist() == [n]
        assert one.explained == (found.explained[n],)
        assert one.diagnostics == (found.diagnostics[n],)
        assert one.overlay().tobytes() == found.overlay(n).tobytes()
    assert torch.equal(found[-1].maps, found[2].maps)
    for outside in (3, -4):
        with pytest.raises(IndexError):
            found[outside]


def test_index_of_an_embedding():
    e = explain(
        model(), X, layers="features",
        target=CosineSimilarity(torch.arange(12.0, dtype=torch.float64).view(3, 4)),
    )  # fmt: skip
    assert e[1].target.reference.tolist() == [[4, 5, 6, 7]]


def test_explained(found):
    for n, letter in enumerate("abc"):
        assert found.explained[n] == f"{letter}, Logit {found.target_values[n].item():.3g}"
    free = explain(model(), X, layers="features", target=lambda z: z[:, 0])
    assert free.explained[0].startswith("Custom ")


# ----------------------------------------------------------------------------------------- diagnostics


def diagnostics(**changed):
    healthy = {
        "raw_min": -1.0, "raw_max": 2.0, "all_negative": False, "constant": False, "finite": True,
        "dead_channels": {"l": (0, 4)}, "disconnected": (), "saturated": False,
    }  # fmt: skip
    return Diagnostics(**{**healthy, **changed}).messages


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"all_negative": True, "raw_max": -0.5}, "every value is negative (-1 to -0.5)"),
        ({"constant": True, "raw_max": 0.0}, "constant (0)"),
        ({"finite": False}, "NaN or infinite"),
        ({"disconnected": ("l",)}, "does not depend on layer 'l'"),
        ({"dead_channels": {"l": (4, 4)}}, "all 4 channels of layer 'l'"),
        ({"notes": ("look here",)}, "look here"),
    ],
)
def test_messages(changed, words):
    assert diagnostics() == ()
    (message,) = diagnostics(**changed)
    assert words in message


def test_no_message_is_said_twice():
    messages = diagnostics(disconnected=("l",), constant=True, raw_min=0.0, raw_max=0.0)
    assert len(messages) == 1


# --------------------------------------------------------------------------------------------- pictures


def test_figure(found):
    figure = found.figure()
    pictures = [axis for axis in figure.axes if axis.images]
    assert len(pictures) >= 2 * 3
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_repr_png(found):
    picture = Image.open(io.BytesIO(found._repr_png_()))
    assert picture.format == "PNG"
    assert min(picture.size) > 100


def test_overlay_is_the_size_of_the_photo_and_bright_where_the_map_is():
    bright = torch.zeros(1, 3, *SIZE, dtype=torch.float64)
    bright[0, :, 2, 13] = 1  # a picture of one colour is marked
    e = explain(model(), bright, layers="features", target=0)
    maps = torch.zeros(1, *SIZE, dtype=torch.float64)
    maps[0, 2, 13] = 1
    from dataclasses import replace

    overlay = np.asarray(replace(e, maps=maps).overlay(), dtype=int).sum(2)
    assert overlay.shape == SIZE
    assert np.unravel_index(overlay.argmax(), SIZE) == (2, 13)


# The crop of the model is the middle of the photo; the map's bright cell must land there.


def cell_explanation(photo_size, preprocess):
    """An explanation of a photo whose map is one bright cell, top right but one."""
    from dataclasses import replace

    picture = Image.fromarray(np.full((*photo_size, 3), 90, np.uint8))
    picture.putpixel((photo_size[1] // 2, photo_size[0] // 2), (0, 0, 0))  # one colour is marked
    m = networks.build(size=preprocess.size, signed=False).float()
    e = explain(m, picture, layers="features", target=0, preprocess=preprocess)
    maps = torch.zeros(1, *preprocess.size)
    height, width = preprocess.size
    maps[0, : height // 4, 3 * width // 4 :] = 1
    return replace(e, maps=maps)


def centre_of_brightness(picture, background):
    array = np.asarray(picture, dtype=float).sum(2)
    lit = array > background
    rows, columns = np.nonzero(lit)
    return rows.mean() + 0.5, columns.mean() + 0.5, lit


@pytest.mark.parametrize(
    ("photo", "preprocess", "box"),
    [
        ((200, 300), Preprocess((16, 16), resize=20), (50 + 20, 20, 250 - 20, 180)),
        ((300, 200), Preprocess((16, 16), resize=16), (0, 50, 200, 250)),
        ((200, 300), Preprocess((16, 24), resize=(16, 24), crop=False), (0, 0, 300, 200)),
        ((160, 160), Preprocess((16, 24), resize=16), (-40, 0, 200, 160)),
    ],
)
def test_the_map_lands_where_the_model_looked(photo, preprocess, box):
    e = cell_explanation(photo, preprocess)
    left, top, right, bottom = box
    assert preprocess.crop_box(photo[1], photo[0]) == pytest.approx(box, abs=1)
    overlay = e.overlay()
    assert overlay.size == (photo[1], photo[0])
    row, column, lit = centre_of_brightness(overlay, 250)
    # The patch covers the upper quarter and the right quarter of the crop, cut at the photo's edge.
    patch_left, patch_right = left + 0.75 * (right - left), min(right, photo[1])
    assert row == pytest.approx(top + (bottom - top) / 8, abs=2)
    assert column == pytest.approx((patch_left + patch_right) / 2, abs=2)
    assert not lit[:, : int(patch_left) - 8].any()
    # Outside of the crop the photo is darkened, and nothing is painted there.
    array = np.asarray(overlay, dtype=int)
    if left > 2:
        assert (array[:, : int(left) - 1] == array[0, 0]).all()
        assert array[0, 0].max() < 60


def test_overlay_of_the_part_the_model_saw():
    e = cell_explanation((200, 300), Preprocess((16, 16), resize=20))
    part = e.overlay(whole=False)
    assert part.size == pytest.approx((160, 160), abs=1)
    row, column, _ = centre_of_brightness(part, 250)
    assert row == pytest.approx(20, abs=2)
    assert column == pytest.approx(140, abs=2)


def test_tensors_are_drawn_with_the_normalisation_undone():
    preprocess = Preprocess((12, 16), resize=None, crop=False)
    pixels = torch.rand(3, 12, 16)
    m = model().float()
    e = explain(m, preprocess.normalise(pixels), layers="features", preprocess=preprocess)
    array = np.asarray(e.views[0].picture, dtype=float) / 255
    assert np.abs(array - pixels.permute(1, 2, 0).numpy()).max() < 1 / 255
    assert e.views[0].box == (0, 0, 16, 12)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("value", [None, 0.5, -4.0])
def test_any_tensor_can_be_drawn(channels, value):
    m = networks.build(size=SIZE, channels=channels, signed=False)
    x = networks.images(1, channels, SIZE) if value is None else torch.full(
        (1, channels, *SIZE), value, dtype=torch.float64
    )  # fmt: skip
    assert explain(m, x, layers="features").overlay().size == (16, 12)


# ------------------------------------------------------------------------------------------------ files


def test_save_npz(found, tmp_path):
    path = found.save(tmp_path / "deep" / "maps.npz")
    stored = np.load(path)
    assert set(stored) == {"maps", "raw", "signed", "target_values", "layer:features"}
    assert np.array_equal(stored["maps"], found.maps.numpy())
    assert np.array_equal(stored["signed"], found.signed.numpy())
    assert np.array_equal(stored["raw"], found.raw.numpy())
    assert np.array_equal(stored["target_values"], found.target_values.numpy())


def test_save_json(found, tmp_path):
    record = strict(found.save(tmp_path / "record.json").read_text())
    assert record["label"] == "gradcam"
    assert record["layers"] == ["features"]
    assert len(record["images"]) == 3
    for n, image in enumerate(record["images"]):
        assert image["target"]["classes"] == [n]
        assert image["target_value"] == pytest.approx(found.target_values[n].item())
        assert image["explained"] == found.explained[n]
        assert len(image["predictions"]) == 4
        assert image["diagnostics"]["raw_max"] == pytest.approx(found.signed[n].max().item())
    provenance = record["provenance"]
    assert provenance["method"] == "GradCAM"
    assert provenance["steps"]["normalise"] == "minmax"
    assert provenance["seed"] == 0
    assert len(provenance["weights_sha256"]) == 64


def test_record_of_a_broken_map_is_json_too(tmp_path):
    x = X.clone()
    x[0, 0, 0, 0] = torch.nan
    m = networks.Split(nn.Identity(), model().head)
    m.head[1] = nn.Linear(3, 4).double()
    e = explain(m, x, layers="features", target=0, outputs="classes:activation=logits")
    assert not e.diagnostics[0].finite
    record = strict(e.save(tmp_path / "record.json").read_text())
    assert record["images"][0]["messages"]
    assert record["images"][1]["messages"] == []


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_save_picture(found, tmp_path, suffix):
    path = found.save(tmp_path / f"figure.{suffix}")
    assert Image.open(path).width > 200


@pytest.mark.parametrize("suffix", ["pdf", "svg"])
def test_save_vector(found, tmp_path, suffix):
    assert found.save(tmp_path / f"figure.{suffix}").stat().st_size > 1000


def test_save_folder(tmp_path):
    photos = []
    for name in ("one", "two"):
        photos.append(tmp_path / f"{name}.png")
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(photos[-1])
    e = explain(
        model().float(), photos, layers="features", preprocess=Preprocess(SIZE, SIZE, crop=False)
    )
    folder = e.save(tmp_path / "out")
    assert {p.name for p in folder.iterdir()} == {
        "one.png", "two.png", "maps.npz", "record.json", "figure.png",
    }  # fmt: skip
    assert Image.open(folder / "two.png").size == (30, 20)
    record = strict((folder / "record.json").read_text())
    assert [i["source"] for i in record["images"]] == [str(p) for p in photos]


def test_photos_of_one_name_do_not_overwrite_each_other(tmp_path):
    photos = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        photos.append(tmp_path / folder / "photo.png")
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(photos[-1])
    e = explain(
        model().float(), photos, layers="features", preprocess=Preprocess(SIZE, SIZE, crop=False)
    )
    folder = e.save(tmp_path / "out")
    pictures = [p for p in folder.iterdir() if p.suffix == ".png" and p.name != "figure.png"]
    assert len(pictures) == 2


def test_a_photo_called_figure_is_not_overwritten(tmp_path):
    path = tmp_path / "figure.png"
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(path)
    e = explain(
        model().float(), path, layers="features", preprocess=Preprocess(SIZE, SIZE, crop=False)
    )
    folder = e.save(tmp_path / "out")
    sizes = {Image.open(p).size for p in folder.iterdir() if p.suffix == ".png"}
    assert (30, 20) in sizes
    assert len(sizes) == 2


def test_save_unknown_suffix(found, tmp_path):
    with pytest.raises(CamlucidaError, match=r"\.npz"):
        found.save(tmp_path / "maps.h5")
    assert not list(tmp_path.iterdir())


def test_pickle(found):
    again = pickle.loads(pickle.dumps(found.provenance))  # noqa: S301
    assert again.to_dict() == found.provenance.to_dict()


# ------------------------------------------------------------------------------------------- comparison


def test_comparison(tmp_path):
    both = explain(model(), X, method=["gradcam", "gradcam++"], layers="features")
    figure = both.figure()
    assert len([axis for axis in figure.axes if axis.images]) >= 3 * 3
    titles = [axis.get_title() for axis in figure.axes]
    for title in ("photo", "gradcam", "gradcam++"):
        assert title in titles
    labels = [" ".join(text.get_text().split()) for axis in figure.axes for text in axis.texts]
    for words, label in zip(both["gradcam"].explained, labels, strict=True):
        assert f"explained: {words}" in label
    folder = both.save(tmp_path / "both")
    assert {p.name for p in folder.iterdir()} == {"gradcam", "gradcam++", "comparison.png"}
    assert (folder / "gradcam" / "maps.npz").exists()
    both.save(tmp_path / "grid.png")
    with pytest.raises(CamlucidaError):
        both.save(tmp_path / "grid.txt")
    assert Image.open(io.BytesIO(both._repr_png_())).format == "PNG"


def test_a_comparison_saves_all_maps_and_records(tmp_path):
    found = explain(model(), X, method=["gradcam", "saliency"], layers=None)
    with np.load(found.save(tmp_path / "all.npz")) as stored:
        np.testing.assert_array_equal(stored["gradcam/maps"], found["gradcam"].maps.numpy())
        assert "saliency/target_values" in stored
    records = json.loads(found.save(tmp_path / "all.json").read_text())
    assert set(records) == {"gradcam", "saliency"}


def test_methods_whose_labels_look_alike_do_not_overwrite_each_other(found, tmp_path):
    labels = ("m (a=1)", "m-(a-1)", "M (A=1)")
    Comparison([replace(found, label=label) for label in labels]).save(tmp_path / "all")
    folders = [p for p in (tmp_path / "all").iterdir() if p.is_dir()]
    assert len({p.name.lower() for p in folders}) == 3
    kept = {json.loads((p / "record.json").read_text())["label"] for p in folders}
    assert kept == set(labels)


def test_class_names_of_another_model_are_refused():
    for target in (3, 0, "b"):
        with pytest.raises(TargetError, match="2 class names"):
            explain(model(), X, layers="features", target=target, class_names=["a", "b"])


def test_what_was_seen_has_the_shape_of_the_input(found):
    seen = found.seen()
    assert seen.picture.size == (224, 168)
    assert seen.box == (0, 0, 224, 168)
    padded = Preprocess(size=(12, 16), resize=None)
    one = explain(
        networks.build(size=SIZE, signed=False, m=4).float(), Image.new("RGB", (8, 12), "white"),
        layers="features", preprocess=padded,
    )  # fmt: skip
    pixels = np.asarray(one.seen(0, 160).picture.convert("L"))
    assert pixels.shape == (120, 160)
    assert (pixels[:, 75:85] > 250).all()  # the photo; beside it the padding
    assert not pixels[:, :9].any()
    assert not pixels[:, 151:].any()


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes only there")
def test_a_file_name_that_is_no_text_can_be_drawn(found, tmp_path):
    file = os.fsdecode(b"caf\xe9.png")
    named = replace(found, sources=(f"in/{file}",) * 3)
    named.save(tmp_path / "figure.png")
    words = [text.get_text() for axis in named.figure().axes for text in axis.texts]
    assert any("caf\N{REPLACEMENT CHARACTER}.png" in text for text in words)


@pytest.mark.parametrize("asked", [False, True])
def test_the_explanation_of_one_image_keeps_neither_the_batch_nor_the_model(asked):
    net, images = model(), torch.rand(3, 3, *SIZE).double()
    whole = explain(net, images)
    weights, picture = fingerprint(net), np.asarray(whole.overlay(1))
    if asked:
        assert whole.provenance.weights == weights
    one = whole[1]
    gone = [weakref.ref(o) for o in (net, images, whole.maps, whole.logits)]
    gone += [weakref.ref(p) for p in net.parameters()]
    storages = {images.untyped_storage().data_ptr(), whole.maps.untyped_storage().data_ptr()}
    kept = [a for maker in one.views.makers for a in maker.args if isinstance(a, torch.Tensor)]
    kept += [one.maps, one.raw, one.signed, one.target_values, one.logits]
    assert not storages & {t.untyped_storage().data_ptr() for t in kept}
    del net, images, whole
    gc.collect()
    assert not [ref for ref in gone if ref() is not None]
    assert one.provenance.weights == weights
    assert np.array_equal(np.asarray(one.overlay(0)), picture)


# --------------------------------------------------------------------------------------- in daily use


def test_arrays(found):
    assert np.array_equal(np.asarray(found), found.maps.numpy())
    assert np.array_equal(found.numpy(), np.asarray(found))
    assert np.asarray(found, dtype=np.float32).dtype == np.float32
    assert not np.shares_memory(np.array(found), found.numpy())
    both = Comparison([found, found])
    assert np.asarray(both).shape == (2, *found.maps.shape)
    half = replace(found, maps=found.maps.bfloat16())
    assert half.numpy().dtype == np.float32


def test_frame(found):
    table = Comparison([found, replace(found, label="other")]).to_frame()
    assert table["method"].tolist() == [found.label] * 3 + ["other"] * 3
    assert table["explained"].tolist() == [*found.explained] * 2
    assert table["target_value"].tolist() == found.target_values.tolist() * 2
    assert found.to_frame()["predicted"].tolist() == [p[0].name for p in found.predictions]


def test_a_comparison_shows_itself_in_a_few_lines(found):
    text = repr(Comparison([found] * 9))
    assert len(text.splitlines()) <= 8
    assert "9 methods on 3 images" in text
    assert found.explained[0] in text
    assert "3 more" in text


@pytest.mark.parametrize("viewer", [True, False])
def test_show_opens_the_figure_or_says_how_to_save_it(found, monkeypatch, viewer):
    shown = []
    monkeypatch.setattr(ImageShow, "show", lambda picture, **_: shown.append(picture) or viewer)
    if viewer:
        found.show()
    else:
        with pytest.raises(CamlucidaError, match=r"save\("):
            found.show()
    assert shown[0].size == Image.open(io.BytesIO(overlays.png(found.figure()))).size


def test_show_in_a_notebook(found, monkeypatch):
    shown = []
    shell = SimpleNamespace(kernel=None)
    notebook = SimpleNamespace(
        get_ipython=lambda: shell, display=SimpleNamespace(display=shown.append)
    )
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    found.show()
    assert len(shown) == 1


def test_a_picture_tells_its_scale_its_sides_and_the_crop():
    def words(found):
        figure = found.figure()
        texts = [t for axis in figure.axes for t in axis.findobj(mpl.text.Text)]
        return " ".join(t.get_text().replace("\n", " ") for t in [*texts, *figure.texts])

    net = model()
    photo = Image.effect_noise((80, 40), 60).convert("RGB")
    crop = Preprocess(size=SIZE, resize=20)
    known = {"layers": "features", "class_names": list("abcd"), "target": 1}
    found = explain(net, photo, preprocess=crop, **known)
    assert "own scale" in words(found)
    assert "cropped away" in words(found)
    assert "cropped away" not in words(explain(net, X, **known))
    signed = explain(net, X, steps="signed", **known)
    assert "against b" in words(signed)
    assert "for b" in words(signed)
    fixed = replace(signed, style=Style(largest=1e6))
    assert "in all images" in words(fixed)
    assert np.ptp(np.asarray(fixed.overlay(colours="gray", alpha=1.0), dtype=int)) <= 1


def test_a_map_that_was_not_normalised_is_drawn_on_its_own_scale(found):
    weak = replace(found, maps=found.maps / 1000)
    assert weak.overlay().tobytes() == found.overlay().tobytes()
    usual = replace(found, style=Style(alpha=0.3, colours="gray"))
    assert usual.overlay().tobytes() == found.overlay(alpha=0.3, colours="gray").tobytes()
