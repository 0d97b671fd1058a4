"""Audits take models, data, methods and layers by the words of the command line."""

import pytest
import torch
from torch import nn

from camlucida.audits import Request, audit_all, audit_faithfulness, audit_sanity
from camlucida.common.errors import CamlucidaError
from camlucida.data.images import find_images
from reference.scenes import photo_folder

WORDS = {"preprocess": {"size": 32}}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
    ).eval()  # fmt: skip


@pytest.fixture
def photos(tmp_path):
    return photo_folder(tmp_path)


def test_data_may_be_a_folder_a_kind_or_a_photo(net, photos):
    def opened(data, **words):
        return Request(net, data, **WORDS, **words).open()

    assert opened(str(photos), class_names=["a", "b"]).labels.tolist() == [0, 0, 1]
    assert opened(photos).labels is None  # a model without class names
    assert len(opened(str(photos / "a/1.png")).inputs) == 1
    assert len(opened("digits,count=3").inputs) == 3
    assert opened(None).images["name"] == "photos"
    assert len(opened([*find_images(photos)]).inputs) == 3


def test_model_methods_audits_and_layer_may_be_text(net, photos):
    torch.save(net.state_dict(), photos / "w.pth")
    words = {"methods": "gradcam", "layers": "0", "architecture": lambda: net, **WORDS}
    report = audit_all(photos / "w.pth", photos, audits="faithfulness", **words)
    assert [one.label for one in report.methods] == ["gradcam"]
    assert report.record["layer"] == "0"


def test_what_the_outputs_are_may_be_said(net, photos):
    shown = nn.Sequential(net, nn.Softmax(1)).eval()
    logits = Request(shown, photos, outputs="softmax", **WORDS).open().logits()
    own = Request(net, photos, **WORDS).open().logits()
    assert torch.allclose(logits.softmax(1), own.softmax(1), atol=1e-6)


def test_unknown_keywords_are_refused_with_the_nearest(net, photos):
    for word, near in (
        ("metods", "methods"),
        ("layer", "layers"),
        ("folder", "no argument 'folder'"),
    ):
        for audit in (audit_all, audit_sanity, audit_faithfulness):
            with pytest.raises(CamlucidaError, match=near):
                audit(net, photos, **{word: "gradcam"})
    with pytest.raises(CamlucidaError, match="one layer, got 2"):
        Request(net, photos, layers=["0", "1"], **WORDS).open()
