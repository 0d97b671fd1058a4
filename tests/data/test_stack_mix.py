"""STACK-MIX: which pixels come from where, and that a seed always draws the same."""

import numpy as np
import pytest
import torch
from PIL import Image

from camlucida import CamlucidaError
from camlucida.data.digits import Digits
from camlucida.data.regions import Region
from camlucida.data.stack_mix import (
    ANIMALS,
    DEAD_ROWS,
    StackFolder,
    StackMix,
    stack_gen_prompts,
    stack_mix,
)


@pytest.fixture
def folder(tmp_path):
    """Five classes; the photos are flat, their grey value tells class and number."""
    for label in range(5):
        for number in range(1 if label == 4 else 3):
            path = tmp_path / str(label) / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (300, 260), (40 * label + 10 * number,) * 3).save(path)
    return tmp_path


def test_the_papers_rows():
    first, second = torch.zeros(2, 3, 224, 224), torch.ones(2, 3, 224, 224)
    mixed = stack_mix(first, second)
    assert mixed[:, :, :170].max() == 0
    assert mixed[:, :, 170:].min() == 1
    assert DEAD_ROWS.mask((224, 224)).sum() == 54 * 224


def test_pictures_and_tensors_agree():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (20, 16, 3), dtype=np.uint8) for _ in range(2))
    dead = Region(4, 3, 9, 12)
    picture = np.asarray(stack_mix(Image.fromarray(a), Image.fromarray(b), dead))
    tensor = stack_mix(*(torch.from_numpy(i).permute(2, 0, 1) for i in (a, b)), dead)
    assert (torch.from_numpy(picture.copy()).permute(2, 0, 1) == tensor).all()
    for r in range(20):
        for c in range(16):
            source = b if 4 <= r < 9 and 3 <= c < 12 else a
            assert (picture[r, c] == source[r, c]).all()


def test_sizes_must_agree():
    with pytest.raises(CamlucidaError, match="one size"):
        stack_mix(torch.zeros(3, 8, 8), torch.zeros(3, 8, 9), Region.rows(4))
    with pytest.raises(CamlucidaError, match="one size"):
        stack_mix(Image.new("RGB", (8, 8)), Image.new("RGB", (8, 9)), Region.rows(4))


def test_pairs_are_of_one_class_and_never_the_same_photo(folder):
    data = StackMix(folder, None, dead=Region.rows(20, 31), size=32)
    assert [s.label for s in data] == [0, 1, 2, 3]  # class 4 has one photo only
    for sample in data:
        array = np.asarray(sample.picture())
        assert array.shape == (32, 32, 3)
        assert sample.first.label == sample.second.label == sample.label
        top, bottom = set(array[:20].ravel()), set(array[20:].ravel())
        assert len(top) == len(bottom) == 1
        assert top != bottom
        assert {v // 40 for v in top | bottom} == {sample.label}


def test_a_seed_draws_the_same_everywhere(folder):
    options = {"dead": Region.rows(20, 31), "size": 32, "count": 2}
    keys = [
        [s.key for s in StackMix(folder, None, seed=seed, **options)] for seed in (1, 1, 2, 3, 4)
    ]
    assert keys[0] == keys[1]
    assert len({tuple(k) for k in keys[1:]}) > 1
    first = StackMix(folder, None, seed=1, **options)
    assert first.fingerprint() == StackMix(folder, None, seed=1, **options).fingerprint()


def test_what_a_look_rules_out_is_replaced(folder):
    options = {"dead": Region.rows(20, 31), "size": 32}
    keys = [s.key for s in StackMix(folder, None, **options)]
    data = StackMix(folder, None, leave_out=[keys[0], "another"], **options)
    again = [s.key for s in data]
    assert again[0] != keys[0]
    assert again[1:] == keys[1:]
    assert data.left_out == {keys[0]}


def test_classes_are_restricted(folder):
    data = StackMix(folder, None, dead=Region.rows(20, 31), size=32, classes=[1, 3])
    assert [s.label for s in data] == [1, 3]
    assert len(ANIMALS) == 398
    with pytest.raises(CamlucidaError, match="two photos"):
        StackMix(folder, None, dead=Region.rows(20, 31), size=32, classes=[4])


def test_a_data_set_is_a_source_too():
    source = Digits("test", count=60, size=32)
    data = StackMix(source, dead=Region.rows(20, 31), size=32)
    assert len(data) == 10
    sample = data[3]
    array = np.asarray(sample.picture())
    assert (array[:20] == np.asarray(sample.first.picture())[:20]).all()
    assert (array[20:] == np.asarray(sample.second.picture())[20:]).all()


def test_stack_gen_resizes_and_cuts(tmp_path):
    wide = np.zeros((512, 1024, 3), dtype=np.uint8)
    wide[:, 512:] = 200
    Image.fromarray(wide).save(tmp_path / "b.png")
    Image.new("RGB", (300, 400)).save(tmp_path / "a.png")
    data = StackFolder(tmp_path)
    assert [s.key for s in data] == ["a.png", "b.png"]
    assert data[0].label is None
    picture = np.asarray(data[1].picture())
    assert picture.shape == (224, 224, 3)
    assert picture[100, 100, 0] == 0
    assert picture[100, 124, 0] == 200
    labelled = tmp_path / "all" / "1"
    labelled.mkdir(parents=True)
    Image.new("RGB", (300, 400)).save(labelled / "a.png")
    assert StackFolder(tmp_path / "all", ["zero", "one"])[0].label == 1


def test_finished_pictures_are_taken_as_they_are(tmp_path):
    """Resized to 256 and cut to 224, the seam at row 170 would be at 178 (spec 15.1)."""
    first, second = Image.new("RGB", (224, 224)), Image.new("RGB", (224, 224), (255,) * 3)
    for name in ("b.png", "a.png", "c.png"):
        stack_mix(first, second).save(tmp_path / name)
    for resize in (256, None):
        data = StackFolder(tmp_path, resize=resize, leave_out=["c.png", "d.png"])
        assert ([s.key for s in data], data.left_out) == (["a.png", "b.png"], {"c.png"})
        assert data.resize is None
        rows = np.asarray(data[0].picture())[:, 0, 0]
        assert (rows[:170].max(), rows[170:].min()) == (0, 255)
    Image.new("RGB", (300, 300)).save(tmp_path / "c.png")
    with pytest.raises(CamlucidaError, match=r"1 of the 3 .* 224 x 224 .*c\.png has 300 x 300"):
        StackFolder(tmp_path)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (300, 300)).save(tmp_path / name)
    assert StackFolder(tmp_path).resize == 256
    with pytest.raises(CamlucidaError, match="in a folder per class"):
        StackFolder(tmp_path, resize=None)


def test_prompts_are_of_the_classes_that_are_stacked(folder):
    options = {"count": 3, "seed": 5}
    names = [f"beast {i}" for i in range(398)]
    data = StackMix(folder, None, dead=Region.rows(20, 31), size=32, classes=range(4), **options)
    made = stack_gen_prompts(names, range(4), **options)
    assert [label for label, *_ in made] == [s.label for s in data]
    label, name, prompt = made[0]
    assert (name, prompt) == (f"beast {label}", f"photo of {name} stacked on top of {name}")
    assert len({label for label, *_ in stack_gen_prompts(names)}) == 100


@pytest.mark.parametrize("class_names", [None, ["cat", "dog"]])
def test_folders_that_name_no_class_of_the_model_are_paired_too(tmp_path, class_names):
    for name in ("zebras", "apples"):
        for number in range(2):
            path = tmp_path / name / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (32, 32)).save(path)
    data = StackMix(tmp_path, class_names, dead=Region.rows(20, 31), size=32)
    assert [(s.label, s.label_name) for s in data] == [(None, "apples"), (None, "zebras")]
    assert all(s.first.path.parent == s.second.path.parent for s in data)
