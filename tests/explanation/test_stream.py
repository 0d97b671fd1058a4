"""``explain_each``: photos are opened as they are needed, nothing is kept, shards go on where they stopped."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import camlucida
from camlucida import CamlucidaError, Comparison, ImageError, Preprocess, explain, explain_each
from camlucida.data import open_data
from camlucida.explanation import Stored, photos, stored
from reference import networks

SIZE = (8, 8)
PREPARE = Preprocess(SIZE, 8, mean=(0, 0, 0), std=(1, 1, 1))


def model():
    return networks.build(size=SIZE, signed=False, m=4)


def folder_of(path, number):
    path.mkdir(exist_ok=True)
    for i in range(number):
        draw = np.random.default_rng(i).integers(0, 255, (10, 12, 3), np.uint8)
        Image.fromarray(draw).save(path / f"{i:02d}.png")
    return path


def each(images, **options):
    return explain_each(model(), images, preprocess=PREPARE, layers="features", **options)


def test_each_is_what_all_at_once_is(tmp_path):
    folder = folder_of(tmp_path / "in", 5)
    how = {"method": ["gradcam", "layercam"], "target": [0, 1, 2, 3, 0]}
    whole = explain(model(), folder, preprocess=PREPARE, layers="features", **how)
    many = each(folder, batch_size=2, **how)
    assert len(many) == 5
    for i, one in enumerate(many):
        assert isinstance(one, Comparison)
        for label, found in one.items():
            assert found.sources == (str(folder / f"{i:02d}.png"),)
            assert torch.equal(found.target.classes, torch.tensor([how["target"][i]]))
            torch.testing.assert_close(found.maps, whole[label].maps[[i]])
    torch.testing.assert_close(many[-1]["gradcam"].maps, whole["gradcam"].maps[[4]])


def test_a_tensor_needs_nothing_to_be_read():
    images = networks.images(5, 3, SIZE)
    found = torch.cat([one.maps for one in each(images, batch_size=2)])
    torch.testing.assert_close(found, explain(model(), images, layers="features").maps)


def test_photos_are_opened_as_they_are_needed(tmp_path, monkeypatch):
    opened = []
    real = photos.read_image
    monkeypatch.setattr(photos, "read_image", lambda p: (opened.append(p), real(p))[1])
    batches = each(folder_of(tmp_path / "in", 20), batch_size=2).batches()
    assert opened == []
    next(batches)
    assert 2 <= len(opened) <= 5
    batches.close()


def test_all_at_once_holds_the_pictures_of_one_batch_only(tmp_path):
    folder = folder_of(tmp_path / "in", 3)
    few = explain(model(), folder, preprocess=PREPARE, layers="features", batch_size=3)
    many = explain(model(), folder, preprocess=PREPARE, layers="features", batch_size=2)
    assert all(maker.picture is not None for maker in few.views.makers)
    assert all(maker.picture is None for maker in many.views.makers)
    assert many.overlay(2).tobytes() == few.overlay(2).tobytes()
    (folder / "02.png").unlink()
    with pytest.raises(ImageError, match="no such file"):
        many.overlay(2)


def test_a_data_set_is_opened_photo_by_photo_and_tells_its_names(tmp_path):
    data = open_data(folder_of(tmp_path / "in", 3))
    assert [one.sources for one in each(data)] == [(str(s.path),) for s in data]


def test_inputs_of_several_sizes_are_refused_together_and_explained_apart(tmp_path):
    folder = folder_of(tmp_path / "in", 2)
    Image.new("RGB", (20, 10)).save(folder / "wide.png")

    def own(picture):
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with pytest.raises(ImageError, match="several sizes"):
        explain(net, folder, preprocess=own, layers="0", batch_size=2)
    each_alone = explain_each(net, folder, preprocess=own, layers="0", batch_size=1)
    assert [tuple(one.maps.shape[1:]) for one in each_alone] == [(10, 12), (10, 12), (10, 20)]


def test_a_broken_photo_raises_or_is_told_and_left_out(tmp_path):
    folder = folder_of(tmp_path / "in", 4)
    (folder / "01.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="01"):
        list(each(folder, batch_size=2))
    told = []
    many = each(folder, batch_size=2, failed=lambda i, error: told.append((i, str(error))))
    assert [places for places, _ in many.batches()] == [[0], [2, 3]]
    assert [place for place, _ in told] == [1]
    assert "01.png" in told[0][1]


def test_words_are_checked_before_anything_is_computed():
    with pytest.raises(CamlucidaError, match="itrations"):
        each(networks.images(2, 3, SIZE), method="fame", itrations=3)
    with pytest.raises(CamlucidaError, match="batch_size"):
        each(networks.images(2, 3, SIZE), batch_size=0)
    with pytest.raises(CamlucidaError, match="a function"):
        each(networks.images(2, 3, SIZE), failed=[])


# ---- shards -------------------------------------------------------------------------------------


def test_shards_hold_what_was_computed(tmp_path):
    folder = folder_of(tmp_path / "in", 5)
    many = each(folder, method=["gradcam", "layercam"], batch_size=2)
    kept = many.save(tmp_path / "out")
    assert len(kept) == 5
    assert kept.explained == [0, 1, 2, 3, 4]
    for found, one in zip(Stored(tmp_path / "out"), many, strict=True):
        for label, wanted in one.items():
            np.testing.assert_allclose(found.arrays[f"{label}/maps"], wanted.maps[0], atol=1e-6)
        assert [row["method"] for row in found.rows] == ["gradcam", "layercam"]
        assert {row["source"] for row in found.rows} == set(one["gradcam"].sources)
    frame = kept.to_frame()
    assert list(frame["image"]) == [0, 1, 0, 1, 2, 3, 2, 3, 4, 4]


def test_a_stopped_run_goes_on_and_does_a_changed_photo_again(tmp_path, monkeypatch):
    folder, out = folder_of(tmp_path / "in", 6), tmp_path / "out"
    real = stored.Stored.write

    def stopping(self, number, *rest):
        if number == 2:
            raise KeyboardInterrupt
        real(self, number, *rest)

    monkeypatch.setattr(stored.Stored, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        each(folder, batch_size=2).save(out)
    assert Stored(out).explained == [0, 1, 2, 3]
    with pytest.raises(CamlucidaError, match="not there yet"):
        Stored(out)[4]
    wrote = []
    monkeypatch.setattr(
        stored.Stored, "write", lambda s, n, *rest: (wrote.append(n), real(s, n, *rest))
    )
    Image.new("RGB", (12, 10), "red").save(folder / "02.png")
    many = each(folder, batch_size=2)
    kept = many.save(out)
    assert wrote == [1, 2]
    np.testing.assert_allclose(kept[2].arrays["maps"], many[2].maps[0], atol=1e-6)
    assert not list(out.glob("*writing*"))


def test_shards_of_another_question_are_not_mixed(tmp_path):
    images = networks.images(3, 3, SIZE)
    each(images).save(tmp_path)
    with pytest.raises(CamlucidaError, match=r"method.*another plan|another plan.*method"):
        each(images, method="layercam").save(tmp_path)
    with pytest.raises(CamlucidaError, match="target"):
        each(images, target=2).save(tmp_path)


def test_a_damaged_shard_is_made_again(tmp_path):
    images = networks.images(3, 3, SIZE)
    each(images, batch_size=2).save(tmp_path)
    (tmp_path / "shard-000000.npz").write_bytes(b"PK damaged")
    with pytest.raises(CamlucidaError, match="cannot be read"):
        Stored(tmp_path)[0]
    assert each(images, batch_size=2).save(tmp_path).explained == [0, 1, 2]


def test_what_failed_is_kept_with_its_reason(tmp_path):
    folder = folder_of(tmp_path / "in", 3)
    (folder / "01.png").write_bytes(b"no picture")
    kept = each(folder, batch_size=1, failed=lambda *_: None).save(tmp_path / "out")
    assert kept.explained == [0, 2]
    assert [*kept.failed] == [1]
    with pytest.raises(ImageError, match="01"):
        kept[1]
    for path in folder.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match="none of the images"):
        each(folder, failed=lambda *_: None).all()


@pytest.mark.parametrize("kind", [">u2", bool, np.longdouble])
def test_arrays_of_any_type_are_kept(tmp_path, kind):
    array = np.zeros((10, 12, 3), kind)
    for _ in range(2):
        assert len(each([array]).save(tmp_path / "out")) == 1


def test_batches_are_whole_and_explanations_are_themselves(tmp_path):
    folder = folder_of(tmp_path / "in", 2)
    for size in (0, 1.5, "2"):
        with pytest.raises(CamlucidaError, match="at least 1 image"):
            each(folder, batch_size=size)
    one, other = each(folder)
    assert one == one and one != other  # noqa: PLR0124, PT018


def test_a_folder_without_shards(tmp_path):
    with pytest.raises(CamlucidaError, match="no explanations in shards"):
        Stored(tmp_path)


def test_weights_are_hashed_once_for_all_batches(monkeypatch):
    hashed = []
    real = camlucida.common.provenance.fingerprint
    monkeypatch.setattr(
        camlucida.common.provenance, "fingerprint", lambda *p: (hashed.append(p), real(*p))[1]
    )
    assert len([*each(networks.images(5, 3, SIZE), batch_size=2)]) == 5
    assert len(hashed) == 1
