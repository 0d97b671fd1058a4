"""Layers by name or by module."""

import pytest
from torch import nn

from camlucida import LayerError
from camlucida.engine.layers import resolve, resolve_all


def model():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3)),
        nn.ModuleList([nn.ReLU()]),
    )


def test_resolve():
    m = model()
    assert resolve(m, "1.0") == ("1.0", m[1][0])
    assert resolve(m, m[1]) == ("1", m[1])
    assert resolve(m, "input") == ("input", None)
    assert resolve(m, "-2.-1") == ("1.1", m[1][1])
    assert resolve(m, "-3") == ("0", m[0])
    assert resolve(nn.DataParallel(m), "module.1.0") == ("1.0", m[1][0])
    assert list(resolve_all(m, ["1", "0", "input"])) == ["1", "0", "input"]


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("-4", "no layer '-4'"),
        ("9", "no layer '9'"),
        ("1.0.weight", "no layer"),
        ("", "no layer"),
        ("2", r"ModuleList.*'2.-1'"),
        (3, "int"),
        (nn.ReLU(), "not a module of this Sequential"),
    ],
)
def test_wrong_layers(layer, words):
    with pytest.raises(LayerError, match=words):
        resolve(model(), layer)


def test_wrong_name_suggests_the_nearest():
    models = pytest.importorskip("torchvision").models
    with pytest.raises(LayerError, match=r"no layer 'layer4\.3'; nearest: .*'layer4\.[01]'"):
        resolve(models.resnet18(weights=None), "layer4.3")
    with pytest.raises(LayerError, match=r"nearest: .*'layer4'"):
        resolve(models.resnet18(weights=None), "layr4")


def test_none_and_twice():
    with pytest.raises(LayerError, match="no layer was given"):
        resolve_all(model(), [])
    m = model()
    with pytest.raises(LayerError, match="'1' was given twice"):
        resolve_all(m, ["1", m[1]])


def test_a_model_s_own_child_called_module():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = model()

    m = Holder()
    assert resolve(m, "module.1.0") == ("module.1.0", m.module[1][0])
    assert resolve(m, "module") == ("module", m.module)
    for name in ("module.1.0", "module.module.1.0"):
        assert resolve(nn.DataParallel(m), name) == ("module.1.0", m.module[1][0])


def test_a_module_in_two_places_has_its_first_name():
    relu = nn.ReLU()
    m = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu, None)
    for layer in ("-1", "3", "1", "-3", relu):
        assert resolve(m, layer) == ("1", relu)
    assert resolve(m, "-2") == ("2", m[2])
    with pytest.raises(LayerError, match="'1' was given twice"):
        resolve_all(m, ["1", "3"])
