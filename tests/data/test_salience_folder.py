"""Photos and their annotation maps: what is found, what is refused, and how a map becomes a target."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.data.salience import grid_map, hold_out, read_map, salient_folder


def photo(path, size=(40, 30), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def marked(path, size=(40, 30), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((size[1], size[0]), np.uint8)
    values[: size[1] // 2, : size[0] // 2] = 200
    Image.fromarray(values).convert(mode).save(path)
    return path


@pytest.fixture
def data(tmp_path):
    for name in ("real", "fake"):
        for i in range(4):
            photo(tmp_path / "photos" / name / f"{name}{i}.jpg", seed=i)
            marked(tmp_path / "maps" / name / f"{name}{i}.png")
    return tmp_path


def test_maps_are_found_at_the_same_place(data):
    found = salient_folder(data / "photos", data / "maps")
    assert found.class_names == ("fake", "real")
    assert [p.key for p in found.photos][:2] == ["fake/fake0.jpg", "fake/fake1.jpg"]
    assert [p.label for p in found.photos] == [0] * 4 + [1] * 4
    for p in found.photos:
        assert p.map_path.stem == p.path.stem
        assert p.map_path.parent.name == p.path.parent.name
    assert found.skipped == ()
    assert all(p.map_path is None for p in salient_folder(data / "photos").photos)


def test_maps_are_found_by_name_in_a_flat_folder(data):
    for file in list((data / "maps").rglob("*.png")):
        file.rename(data / "maps" / file.name)
    found = salient_folder(data / "photos", data / "maps")
    assert [p.map_path.name for p in found.photos] == [
        p.path.with_suffix(".png").name for p in found.photos
    ]


def test_a_name_that_two_photos_share_is_not_guessed(data):
    photo(data / "photos" / "real" / "fake0.jpg")
    with pytest.raises(CamlucidaError, match="1 of 9 photos have no annotation map"):
        salient_folder(data / "photos", data / "maps")


def test_missing_maps_are_named_or_left_out(data):
    (data / "maps" / "real" / "real2.png").unlink()
    with pytest.raises(
        CamlucidaError, match=r"1 of 8 photos.*real2\.jpg.*expected.*--skip-missing"
    ):
        salient_folder(data / "photos", data / "maps")
    found = salient_folder(data / "photos", data / "maps", skip_missing=True)
    assert len(found) == 7
    assert [(p.name, reason) for p, reason in found.skipped] == [("real2.jpg", "no annotation map")]


def test_maps_without_a_photo_are_told(data):
    marked(data / "maps" / "real" / "other.png")
    found = salient_folder(data / "photos", data / "maps")
    assert [(p.name, why) for p, why in found.skipped] == [
        ("other.png", "an annotation map of no photo")
    ]


def test_a_broken_photo_is_told_before_the_training(data):
    (data / "photos" / "real" / "real3.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"real3\.jpg.*cannot be opened"):
        salient_folder(data / "photos")


def test_two_maps_for_one_photo_are_refused(data):
    marked(data / "maps" / "real" / "real0.bmp")
    with pytest.raises(CamlucidaError, match="several annotation maps"):
        salient_folder(data / "photos", data / "maps")


@pytest.mark.parametrize(("size", "fits"), [((80, 60), True), ((64, 64), True), ((40, 20), False)])
def test_a_map_has_its_photos_shape_or_is_square(data, size, fits):
    marked(data / "maps" / "real" / "real1.png", size)
    if fits:
        assert len(salient_folder(data / "photos", data / "maps")) == 8
    else:
        with pytest.raises(
            CamlucidaError, match=r"40 x 20 pixels, its photo 40 x 30.*another shape"
        ):
            salient_folder(data / "photos", data / "maps")


def test_folders_that_are_not_there(data, tmp_path):
    with pytest.raises(ImageError, match="no such folder of annotation maps"):
        salient_folder(data / "photos", data / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no annotation map in"):
        salient_folder(data / "photos", tmp_path / "empty")
    with pytest.raises(CamlucidaError, match="training photos have not: real"):
        salient_folder(data / "photos", class_names=("fake", "other"))
    photo(tmp_path / "else" / "a" / "z.png")
    with pytest.raises(CamlucidaError, match="8 of 8 photos") as told:
        salient_folder(data / "photos", tmp_path / "else", skip_missing=True)
    assert "--skip-missing" not in str(told.value), "nothing would be left"


def test_a_map_is_read_in_every_form(tmp_path):
    values = (np.arange(12, dtype=np.float32).reshape(3, 4)) / 12
    np.save(tmp_path / "a.npy", values)
    assert np.array_equal(read_map(tmp_path / "a.npy"), values)
    wide = (values * 60000).astype(np.uint16)
    Image.fromarray(wide).save(tmp_path / "b.png")
    assert np.array_equal(read_map(tmp_path / "b.png"), wide.astype(np.float32))
    for mode in ("L", "RGB"):
        file = marked(tmp_path / f"{mode}.png", mode=mode)
        assert np.array_equal(np.unique(read_map(file)), [0, 200])
    Image.fromarray(values > 0.5).save(tmp_path / "c.png")
    assert np.array_equal(read_map(tmp_path / "c.png"), values > 0.5)


def test_maps_that_cannot_be_meant(tmp_path):
    photo(tmp_path / "colour.png")
    with pytest.raises(ImageError, match="is coloured"):
        read_map(tmp_path / "colour.png")
    Image.new("RGBA", (4, 4), (9, 9, 9, 100)).save(tmp_path / "clear.png")
    with pytest.raises(ImageError, match="transparent"):
        read_map(tmp_path / "clear.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="cannot be read"):
        read_map(tmp_path / "broken.png")
    np.save(tmp_path / "nan.npy", np.full((3, 3), np.nan))
    with pytest.raises(ImageError, match="not finite"):
        read_map(tmp_path / "nan.npy")
    np.save(tmp_path / "deep.npy", np.zeros((3, 3, 3)))
    with pytest.raises(ImageError, match="shape"):
        read_map(tmp_path / "deep.npy")
    np.save(tmp_path / "code.npy", np.array([[{}]]), allow_pickle=True)
    with pytest.raises(ImageError, match="cannot be read"):
        read_map(tmp_path / "code.npy")


def test_a_target_is_pillows_resize_scaled_by_hand():
    values = np.random.default_rng(1).random((30, 40)).astype(np.float32) * 9 - 2
    found = grid_map(values, (5, 7))
    # Triangle filter of the width of a cell, as Pillow's bilinear has it, axis by axis.
    expected = along(along(values.astype(np.float64), 7).T, 5).T
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    assert found.shape == (5, 7)
    assert np.allclose(found.numpy(), expected, atol=1e-5)
    assert torch.equal(grid_map(np.full((4, 4), 3, np.float32), (2, 2)), torch.zeros(2, 2))


def along(values, count):
    """Resize the last axis: each cell is a mean with weights that fall linearly from its middle."""
    n = values.shape[1]
    scale = n / count
    rows = []
    for cell in range(count):
        centre = (cell + 0.5) * scale
        weights = np.array([max(0.0, 1 - abs((i + 0.5 - centre) / scale)) for i in range(n)])
        rows.append(values @ (weights / weights.sum()))
    return np.stack(rows, axis=1)


def test_a_share_of_each_class_is_held_out(data):
    folder = salient_folder(data / "photos", data / "maps")
    kept, held = hold_out(folder, 0.25, seed=1)
    assert {p.key for p in kept.photos} | {p.key for p in held.photos} == {
        p.key for p in folder.photos
    }
    assert sorted(p.label for p in held.photos) == [0, 1]
    assert hold_out(folder, 0.25, seed=1)[1] == held
    assert any(hold_out(folder, 0.25, seed=s)[1] != held for s in range(2, 8))
    lone = salient_folder(data / "photos")
    with pytest.raises(CamlucidaError, match="between 0 and 1"):
        hold_out(lone, 1.0)
    photo(data / "photos" / "third" / "only.jpg")
    with pytest.raises(CamlucidaError, match=r"'third'.*one photo only"):
        hold_out(salient_folder(data / "photos"))


def test_the_description_changes_with_the_data(data):
    before = salient_folder(data / "photos", data / "maps").describe()
    assert before["samples"] == 8
    marked(data / "maps" / "real" / "real1.png", (400, 300))
    assert (
        salient_folder(data / "photos", data / "maps").describe()["fingerprint"]
        != before["fingerprint"]
    )
