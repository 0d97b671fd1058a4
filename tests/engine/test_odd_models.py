"""No raw exception of torch, numpy or timm reaches a user; what cannot be done is said as it is."""

import warnings
from contextlib import suppress

import pytest
import torch

from camlucida import CamlucidaError, LayerError, ModelError, explain
from reference.odd_models import ODD, WORDS
from reference.state import differences, snapshot

pytest.importorskip("timm")
pytest.importorskip("transformers")
METHODS = {
    "gradcam": {},
    "layercam": {},
    "scorecam": {},
    "eigencam": {},
    "saliency": {},
    "fame": {"iterations": 2},
    "icam": {"n_perturb": 2},
    "fullgrad": {},
}


@pytest.mark.parametrize("name", ODD)
def test_odd_model(name):
    model, images = ODD[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if WORDS[name] is None:
            found = explain(model, images)
            assert found.maps.shape == (len(images), *images.shape[2:])
        elif WORDS[name]:
            with pytest.raises(CamlucidaError, match=WORDS[name]):
                explain(model, images)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ODD)
def test_no_raw_exception(name, method):
    model, images = ODD[name]()
    module = isinstance(model, torch.nn.Module) and not isinstance(model, torch.jit.ScriptModule)
    module = module and type(model).__hash__ is not None
    plain = module and all(p.layout == torch.strided and not p.is_meta for p in model.parameters())
    before = snapshot(model) if plain and "lazy, never" not in name else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(CamlucidaError):
            explain(model, images, method=method, **METHODS[method])
    if before is not None:
        assert differences(before, snapshot(model)) == []


def test_what_a_model_of_torchscript_parts_is_told():
    """Not that its images have the wrong number of channels, as its first convolution that torch shows takes six."""
    model, images = ODD["a part of TorchScript"]()
    for method in ("scorecam", "rise"):
        options = {"masks": 4} if method == "rise" else {}
        assert explain(model, images, method=method, **options).maps.isfinite().all()
    with pytest.raises(LayerError, match="TorchScript module, whose output cannot be observed"):
        explain(model, images, layers="a")


def test_wrong_channels_are_told_of_the_convolution_that_sees_the_images():
    class Focus(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = torch.nn.Conv2d(12, 4, 3), torch.nn.Linear(5, 2)

        def forward(self, x):
            z = self.conv(torch.nn.functional.pixel_unshuffle(x, 2))
            return self.head(z.mean((2, 3)))

    with pytest.raises(ModelError, match="cannot be multiplied"):
        explain(Focus(), torch.rand(1, 3, 16, 16))
    with pytest.raises(ModelError, match="to have 12 channels"):
        explain(Focus(), torch.rand(1, 1, 16, 16))


def test_a_failure_names_the_images_that_the_model_was_shown(capfd):
    """Masked images come in other numbers than the images that are explained."""

    class Pairs(torch.nn.Sequential):
        def forward(self, x):
            return super().forward(x.view(2, 3, 16, 16))

    parts = torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5), torch.nn.ReLU()
    model = Pairs(*parts, torch.nn.Flatten(), torch.nn.Linear(980, 4)).eval()
    with pytest.raises(ModelError, match=r"shape \(1, 3, 16, 16\)"):
        explain(model, torch.rand(2, 3, 16, 16), method="scorecam", chunk=1)
    assert not capfd.readouterr().err
