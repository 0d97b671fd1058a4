"""Nearest training images by I-CAM-weighted features."""

import io
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from camlucida.common.errors import CamlucidaError, ImageError, MethodError, TargetError
from camlucida.data.preprocess import Preprocess
from camlucida.engine.maps import normalise
from camlucida.engine.tap import tap
from camlucida.methods.icam import ICAM
from camlucida.models import LoadedModel
from camlucida.studies.icam import examples
from camlucida.studies.icam.neighbours.features import (
    FeatureStore,
    describe,
    feature_key,
    weighted_features,
)
from reference import networks

FAST = ICAM(n_perturb=1)


@pytest.fixture
def model():
    net = networks.small()
    preprocess = Preprocess(size=(12, 12), resize=None)
    return LoadedModel(net, "tiny", preprocess, ("red, ruby", "green", "blue"))


def picture(seed):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    )


@pytest.fixture
def train(tmp_path):
    for label, seeds in (("red", range(4)), ("green", range(4, 8)), ("blue", range(8, 12))):
        (tmp_path / "train" / label).mkdir(parents=True)
        for seed in seeds:
            picture(seed).save(tmp_path / "train" / label / f"{seed}.png")
    return tmp_path / "train"


def test_the_feature_is_what_its_definition_says(model):
    pictures = [picture(20), picture(21)]
    explanation, features = describe(model, pictures, [1, 2], method=FAST)
    inputs = torch.stack([model.preprocess(p) for p in pictures])
    seen = tap(model.module, inputs, list(explanation.layers), gradients=False)
    for i in range(2):
        parts = []
        for position, name in enumerate(explanation.layers):
            mask = normalise(explanation.layer_maps[name][i : i + 1].double())[0]
            a = seen.activations[name][i].double()
            v = torch.stack([(mask * channel).sum() / mask.sum() for channel in a])
            weight = explanation.details["layer_weight"][i, position]
            parts.append(weight**0.5 * v / v.norm())
        np.testing.assert_allclose(features[i], torch.cat(parts).numpy(), atol=1e-6)
    np.testing.assert_allclose((features**2).sum(1), 1, atol=1e-6)


def test_flat_maps_and_dead_layers_give_no_nan():
    features = weighted_features(
        {"a": torch.zeros(1, 2, 3, 3), "b": torch.ones(1, 2, 3, 3)},
        {"a": torch.rand(1, 3, 3), "b": torch.ones(1, 3, 3)},
        torch.tensor([[0.5, 0.5]]),
    )
    np.testing.assert_allclose(features, [[0, 0, 0.5**0.5, 0.5**0.5]], atol=1e-6)


def test_an_image_is_its_own_nearest_neighbour(model, train):
    copy = Image.open(train / "green" / "5.png")
    found = examples(model, copy, train, true="green", k=2, method=FAST)
    side = found.sides[-1]
    assert "true" in side.role
    assert side.class_name == "green"
    assert [n.photo.label_name for n in side.neighbours] == ["green", "green"]
    assert side.neighbours[0].photo.path.name == "5.png"
    assert side.neighbours[0].distance == pytest.approx(0, abs=1e-6)
    assert side.neighbours[0].distance <= side.neighbours[1].distance
    assert side.candidates == 4


def test_a_photo_of_the_folder_is_no_neighbour_of_its_own(model, train):
    found = examples(model, train / "green" / "5.png", train, true=1, k=9, method=FAST)
    side = next(s for s in found.sides if "true" in s.role)
    assert sorted(n.photo.path.name for n in side.neighbours) == ["4.png", "6.png", "7.png"]


def test_predicted_and_true_class_side_by_side(model, train):
    predicted = examples(model, picture(30), train, k=1, method=FAST).sides[0].class_index
    other = (predicted + 1) % 3
    found = examples(model, picture(30), train, true=other, k=2, method=FAST)
    assert [s.role for s in found.sides] == ["predicted", "true"]
    assert [s.class_index for s in found.sides] == [predicted, other]
    for side in found.sides:
        assert side.explanation.target.classes.tolist() == [side.class_index]
        for n in side.neighbours:
            assert n.explanation.target.classes.tolist() == [n.photo.label]
    same = examples(model, picture(30), train, true=predicted, k=1, method=FAST)
    assert [s.role for s in same.sides] == ["predicted and true"]
    figure = found.figure()
    assert len([a for a in figure.axes if a.images]) == 4 * 3
    document = found.to_dict()
    assert len(document["sides"][1]["neighbours"]) == 2
    assert found.__rich__().row_count == 4


def test_the_cache_saves_the_work_and_notices_changes(model, train, tmp_path):
    options = {"true": "green", "k": 2, "method": FAST, "cache": tmp_path / "out", "batch_size": 3}
    first = examples(model, picture(30), train, **options)
    again = examples(model, picture(31), train, **options)
    assert first.computed >= 4
    assert again.computed in {0, 4}  # another predicted class may be new
    third = examples(model, picture(30), train, **options)
    assert third.computed == 0
    assert third.to_dict()["sides"] == first.to_dict()["sides"]
    file = train / "green" / "5.png"
    picture(99).save(file)
    os.utime(file, ns=(1, 1))
    assert examples(model, picture(30), train, **options).computed == 1
    changed = examples(model, picture(30), train, **{**options, "method": ICAM(n_perturb=2)})
    assert changed.computed >= 4
    with torch.no_grad():
        model.module[0].weight.mul_(1.01)
    assert examples(model, picture(30), train, **options).computed >= 4


def test_a_damaged_cache_is_made_again(model, train, tmp_path):
    options = {"true": "green", "k": 1, "method": FAST, "cache": tmp_path / "out"}
    examples(model, picture(30), train, **options)
    (file,) = (tmp_path / "out").glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert examples(model, picture(30), train, **options).computed >= 4


def test_ctrl_c_keeps_what_is_done(model, train, tmp_path):
    options = {"true": "green", "k": 1, "method": FAST, "cache": tmp_path / "out"}

    def stop(done, _total):
        if done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examples(model, picture(30), train, batch_size=2, progress=stop, **options)
    (file,) = (tmp_path / "out").glob("*.npz")
    with np.load(file) as stored:
        assert len(stored["names"]) == 2
    assert list((tmp_path / "out").iterdir()) == [file]
    resumed = examples(model, picture(30), train, **options)
    assert resumed.computed in {2, 6}


def test_errors(model, train, tmp_path):
    (train / "green" / "broken.png").write_bytes(b"no")
    found = examples(model, picture(30), train, true="green", k=1, method=FAST)
    assert any(p.name == "broken.png" for p, _ in found.skipped)
    with pytest.raises(TargetError, match="pink"):
        examples(model, picture(30), train, true="pink", method=FAST)
    with pytest.raises(CamlucidaError, match="k and batch_size"):
        examples(model, picture(30), train, k=0, method=FAST)
    for file in train.glob("red/*"):
        file.unlink()
    found = examples(model, picture(30), train, true="ruby", k=1, method=FAST)
    assert [s.role for s in found.sides] == ["predicted"]
    assert any("no photo of the class 'red, ruby'" in reason for _, reason in found.skipped)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(CamlucidaError, match="cannot write"):
        examples(model, picture(30), train, true=1, method=FAST, cache=blocked / "x")
    only = train / "red" / "0.png"
    picture(0).save(only)
    for file in [*train.glob("green/*"), *train.glob("blue/*")]:
        file.unlink()
    with pytest.raises(ImageError, match="photo of the class"):
        examples(model, only, train, method=FAST)


def test_no_folder_keeps_nothing(tmp_path):
    store = FeatureStore(None, "key", tmp_path)
    store.save()
    assert len(store) == 0
    assert list(tmp_path.iterdir()) == []


class Whiteout(nn.Module):
    """NaN for a white photo."""

    def forward(self, x):
        white = (x > 1.5).flatten(1).all(1)
        return torch.where(white[:, None, None, None], torch.nan, x)


def test_nothing_is_near_to_nan(model, train):
    white = Image.new("RGB", (12, 12), "white")
    white.save(train / "green" / "white.png")
    broken = LoadedModel(
        nn.Sequential(Whiteout(), *model.module).eval(), "w", model.preprocess, model.class_names
    )
    found = examples(broken, picture(5), train, true="green", k=9, method=FAST)
    side = next(s for s in found.sides if "true" in s.role)
    assert side.neighbours[0].photo.path.name == "5.png"
    assert sorted(n.photo.path.name for n in side.neighbours) == [f"{i}.png" for i in range(4, 8)]
    assert [(p.name, "NaN" in reason) for p, reason in found.skipped] == [("white.png", True)]
    with pytest.raises(MethodError, match="NaN"):
        examples(broken, white, train, method=FAST)


def test_a_model_without_classes_is_told_so(model, train):
    regression = nn.Sequential(*list(model.module)[:-1], nn.Linear(5, 1)).eval()
    one = LoadedModel(regression, "r", model.preprocess, ("red",))
    with pytest.raises(CamlucidaError):
        examples(one, picture(30), train, method=FAST)


@pytest.mark.parametrize("where", [0.3, 0.5, 0.7])
def test_a_cache_that_is_damaged_inside_is_made_again(model, train, tmp_path, where):
    options = {"true": "green", "k": 1, "method": FAST, "cache": tmp_path / "out"}
    examples(model, picture(30), train, **options)
    (file,) = (tmp_path / "out").glob("*.npz")
    content = bytearray(file.read_bytes())
    at = int(len(content) * where)
    content[at : at + 40] = bytes(255 for _ in range(40))
    file.write_bytes(content)
    assert examples(model, picture(30), train, **options).sides


def test_a_photo_that_is_gone_is_left_out(model, train, tmp_path):
    options = {"true": "green", "k": 9, "method": FAST, "cache": tmp_path / "out"}
    examples(model, picture(30), train, **options)
    (train / "green" / "5.png").unlink()
    (train / "green" / "5.png").symlink_to(tmp_path / "nowhere.png")
    found = examples(model, picture(30), train, **options)
    side = next(s for s in found.sides if "true" in s.role)
    assert sorted(n.photo.path.name for n in side.neighbours) == ["4.png", "6.png", "7.png"]
    assert [p.name for p, _ in found.skipped] == ["5.png"]


def test_a_bare_module_s_preparation_is_part_of_the_key(model, monkeypatch):
    net = model.module
    monkeypatch.setattr(
        "camlucida.explanation.subject.preprocess_of", lambda _: Preprocess.imagenet(32)
    )
    one = feature_key(net, FAST, ("1",), 0)
    monkeypatch.setattr(
        "camlucida.explanation.subject.preprocess_of", lambda _: Preprocess.imagenet(64)
    )
    assert feature_key(net, FAST, ("1",), 0) != one


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes only there")
@pytest.mark.parametrize("name", [b"caf\xe9.png", b"IMG_$1_$.png"])
def test_odd_file_names_can_be_drawn_and_printed(model, train, tmp_path, name):
    for i in range(4, 8):
        (train / "green" / f"{i}.png").rename(train / "green" / os.fsdecode(b"%d" % i + name))
    found = examples(model, picture(30), train, true="green", k=2, method=FAST)
    found.figure().savefig(tmp_path / "figure.png")
    console = Console(file=io.StringIO(), width=400)
    console.print(found)
    console.file.getvalue().encode()
