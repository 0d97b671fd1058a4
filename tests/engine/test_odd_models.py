"""No raw exception of torch, numpy or timm reaches a user; what cannot be done is said as it is."""

import warnings
from contextlib import suppress

import pytest
import torch

from camlucida import CamlucidaError, explain
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
    plain = module and all(p.layout == torch.strided and not p.is_meta for p in model.parameters())
    before = snapshot(model) if plain and "lazy, never" not in name else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(CamlucidaError):
            explain(model, images, method=method, **METHODS[method])
    if before is not None:
        assert differences(before, snapshot(model)) == []
