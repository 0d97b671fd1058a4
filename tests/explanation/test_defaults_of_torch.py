"""Whatever torch was told to do by default, the maps are the same: nothing is made on its default device or dtype."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from camlucida import CosineSimilarity, default_layer, explain
from camlucida.methods import list_methods
from reference import networks, transformers

QUICK = {
    "opticam": {"iterations": 2},
    "rise": {"masks": 8},
    "corrrise": {"masks": 8},
    "integrated-gradients": {"n_steps": 2},
    "smoothgrad": {"n_samples": 2},
    "fame": {"iterations": 2},
    "icam": {"n_perturb": 2},
    "sscam": {"samples": 2},
    "iscam": {"samples": 2},
    "occlusion": {"cells": 2},
}


@contextmanager
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic():
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(mode=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=before)


DEFAULTS = {
    # Stands for a GPU: what is made there by mistake holds no values.
    "device": lambda: torch.device("meta"),
    "dtype": double,
    "deterministic": deterministic,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "anomalies": lambda: torch.autograd.set_detect_anomaly(mode=True),
}


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip


def case(row):
    """A model, its images and a target that go with a method."""
    generator = torch.Generator().manual_seed(3)
    if "attention" in row.needs:
        return transformers.tiny().float(), torch.rand(2, 3, 16, 16, generator=generator), 1
    if "reference embedding" in row.needs:
        return net(), torch.rand(2, 3, 16, 16, generator=generator), CosineSimilarity(torch.ones(4))
    if row.name == "cam":
        return (
            networks.build(signed=False).float(),
            torch.rand(2, 3, 5, 6, generator=generator),
            [0, 1],
        )
    margin = row.name.startswith("diff") or row.name == "finercam"
    return net(), torch.rand(2, 3, 16, 16, generator=generator), None if margin else [0, 1]


@pytest.mark.parametrize("default", DEFAULTS)
@pytest.mark.parametrize("row", list_methods(), ids=lambda row: row.name)
def test_every_method(row, default):
    def maps(model):
        return explain(
            model, images, method=row.name, target=target, **QUICK.get(row.name, {})
        ).maps

    model, images, target = case(row)
    expected = maps(model)
    model, *_ = case(row)  # anew: nothing is remembered of it
    with DEFAULTS[default]():
        found = maps(model)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", ["gradcam", "saliency", "fame", "ablationcam"])
def test_targets_of_tensors_made_under_inference_mode(method):
    images = torch.rand(2, 3, 16, 16)
    with torch.inference_mode():
        made = CosineSimilarity(net()(images)), torch.tensor([0, 1])
    for one in made:
        options = QUICK.get(method, {})
        found = explain(net(), images, method=method, target=one, **options)
        kept = CosineSimilarity(one.reference.clone()) if one is made[0] else [0, 1]
        wanted = explain(net(), images, method=method, target=kept, **options)
        torch.testing.assert_close(found.maps, wanted.maps)


def test_the_layer_is_found_by_its_changes_on_the_default_device():
    class Filtered(nn.Sequential):
        def forward(self, x):
            return super().forward(torch.fft.ifft2(torch.fft.fft2(x)).real)

    model = Filtered(*net()).eval()
    with torch.device("meta"):
        assert default_layer(model, torch.rand(1, 3, 16, 16, device="cpu")) == "4"
