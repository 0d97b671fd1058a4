"""Python takes models, photos, targets and preprocessing by the words of the command line."""

import pytest
import torch
from torch import nn

import camlucida
from camlucida.common.errors import CamlucidaError, ModelError, TargetError
from reference.scenes import photo_folder

WORDS = {"preprocess": {"size": 32}}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    ).eval()  # fmt: skip


@pytest.fixture
def photos(tmp_path):
    """A folder of three photos in two subfolders."""
    return photo_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("margin:aggregator=max", camlucida.LogitMargin(aggregator="max")),
        ("probability", camlucida.Probability()),
        ("two", camlucida.Logit(1)),
        ("2", camlucida.Logit(2)),
    ],
)
def test_a_target_may_be_text(net, photos, text, target):
    options = {**WORDS, "class_names": ["one", "two", "three"]}
    found = camlucida.explain(net, photos / "a/1.png", target=text, **options)
    wanted = camlucida.explain(net, photos / "a/1.png", target=target, **options)
    assert torch.equal(found.maps, wanted.maps)
    assert torch.equal(found.target_values, wanted.target_values)


def test_a_text_that_is_a_class_and_a_target_is_refused(net, photos):
    with pytest.raises(TargetError, match="a target and a class"):
        camlucida.explain(net, photos, target="rest", class_names=["rest", "b", "c"], **WORDS)
    with pytest.raises(TargetError, match="did you mean 'margin'"):
        camlucida.explain(net, photos, target="margn", class_names=["a", "b", "c"], **WORDS)
    with pytest.raises(TargetError, match="; there are 'a', 'b', 'c'"):
        camlucida.explain(net, photos, target="dog", class_names=["a", "b", "c"], **WORDS)


def test_photos_may_be_a_folder_a_list_of_both_or_a_data_set(net, photos):
    def count(images):
        return len(camlucida.explain(net, images, **WORDS).maps)

    assert count(photos) == count(str(photos)) == 3
    assert count([photos / "a", photos / "b/3.png"]) == 3
    assert count(camlucida.data.open_data(photos, class_names=["a", "b"])) == 3


def test_a_model_may_be_a_file_with_its_architecture(net, photos):
    torch.save(net.state_dict(), photos / "w.pth")
    named = camlucida.explain(photos / "w.pth", photos, architecture=lambda: net, **WORDS)
    assert torch.equal(named.maps, camlucida.explain(net, photos, **WORDS).maps)
    with pytest.raises(ModelError, match="architecture is only for a checkpoint file"):
        camlucida.explain(net, photos, architecture="timm:resnet18", **WORDS)
    with pytest.raises(CamlucidaError, match="unknown model"):
        camlucida.explain("nothing", photos)


def test_unknown_keywords_are_refused_with_the_nearest(net, photos):
    for word, near in (("clas", "class_names"), ("layer", "layers"), ("atol", "no argument")):
        with pytest.raises(CamlucidaError, match=near):
            camlucida.explain(net, photos, **{word: 1}, **WORDS)
    with pytest.raises(CamlucidaError, match="no argument 'form'"):
        camlucida.explain(net, photos, form="true", **WORDS)
    camlucida.explain(net, photos, method="gradcam++", form="exp", **WORDS)


def test_evaluate_takes_the_same_words(net, photos):
    def run(**words):
        given = {"metrics": "sparseness", "class_names": ["a", "b", "c"], **WORDS, **words}
        out = photos / "runs" / str(sorted(map(str, words.items())))
        return camlucida.benchmark.evaluate(net, photos / "a", out=out, **given)

    assert run(target="margin", methods="gradcam", layers="0").images == 2
    for word, near in (("layer", "layers"), ("method", "methods"), ("clas", "class_names")):
        with pytest.raises(CamlucidaError, match=f"did you mean '{near}'"):
            run(**{word: "0"})
