"""Which methods fit a model, and what they cost."""

import pytest
import torch
from torch import nn

import camlucida
from camlucida.engine.memory import peak_memory
from camlucida.methods import GradCAM


def conv(outputs=4):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, outputs),
    ).eval()


X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_what_fits_is_measured_and_what_does_not_says_why():
    found = camlucida.methods_for(conv(), X, methods=["gradcam", "legrad", "fame:iterations=3"])
    by_name = {one.name: one for one in found}
    assert [one.fits for one in found] == [True, True, False]
    assert "attention" in by_name["legrad"].reason
    assert by_name["gradcam"].how == by_name["fame:iterations=3"].how == "measured"
    assert by_name["gradcam"].memory >= 8 * 16 * 16 * 4
    assert found.recommended == "gradcam"
    assert "pooling and one linear layer" in found.why
    assert len(found.to_frame()) == 3
    assert "does not fit" in repr(found)


def test_many_passes_are_estimated_from_a_part():
    (rise,) = camlucida.methods_for(conv(), X, methods="rise:masks=100000", seconds=0.01)
    assert 0 < rise.done < 1
    assert "estimated" in rise.how
    assert rise.seconds > 0.01


@pytest.mark.parametrize(
    ("model", "recommended", "words"),
    [
        (
            nn.Sequential(*conv()[:2], nn.Flatten(), nn.Linear(8 * 256, 4)),
            "hirescam",
            "cell by cell",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 4)), "fullgrad", "explains the input"),
    ],
)
def test_the_recommended_one_follows_from_what_is_behind_the_layer(model, recommended, words):
    methods = ["gradcam", "hirescam", "fullgrad", "saliency", "eigencam"]
    found = camlucida.methods_for(model.eval(), X, methods=methods)
    assert (found.recommended, words in found.why) == (recommended, True)


def test_a_method_of_ones_own_and_a_model_that_knows_no_size():
    class Own(GradCAM):
        pass

    found = camlucida.methods_for(conv(), methods=[Own()])
    assert (found[0].name, found[0].fits, found[0].row) == ("Own", True, None)


def test_the_peak_is_what_is_alive_together():
    with peak_memory(torch.device("cpu")) as peak:
        for _ in range(5):
            a = torch.ones(1000)
            b = a * 2
            del a, b
        view = torch.ones(500).view(5, 100)[1:]
    assert peak.bytes == 8000
    del view


def test_the_page_of_a_method():
    page = camlucida.describe_method("Integrated Gradients")
    assert page.row.name == "integrated-gradients"
    steps = next(o for o in page.options if o.name == "n_steps")
    assert (steps.default, steps.allowed) == (50, "a whole number in [1, 1000]")
    assert steps.text
    for row in camlucida.list_methods():
        for one in camlucida.describe_method(row.name).options:
            assert one.allowed, (row.name, one.name)
            assert one.text, (row.name, one.name)
