"""One random stream per image."""

import pytest
import torch

from camlucida.common.seeds import ImageGenerators

X = torch.arange(24.0).view(3, 2, 2, 2)


def test_an_image_draws_the_same_in_any_batch():
    together = ImageGenerators.of(7, X)
    first, second = together.randn((2, 3), X), together.rand((4,), X)
    for n in range(3):
        alone = ImageGenerators.of(7, X[n : n + 1])
        assert torch.equal(alone.randn((2, 3), X)[0], first[n])
        assert torch.equal(alone.rand((4,), X)[0], second[n])
    turned = ImageGenerators.of(7, X.flip(0)).randn((2, 3), X)
    assert torch.equal(turned.flip(0), first)


def test_images_and_seeds_differ():
    drawn = ImageGenerators.of(7, X).randn((50,), X)
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn, ImageGenerators.of(8, X).randn((50,), X))
    assert not torch.equal(drawn, ImageGenerators.of(-7, X).randn((50,), X))
    assert len(ImageGenerators.of(7, X)) == 3


def test_shape_matters_not_only_the_bytes():
    a, b = X.view(1, 3, 8, 1), X.view(1, 3, 1, 8)
    one = ImageGenerators.of(0, a).rand((9,), a)
    assert not torch.equal(one, ImageGenerators.of(0, b).rand((9,), b))


def test_precision_and_layout_do_not_matter():
    drawn = ImageGenerators.of(7, X).randn((5,), X)
    double = ImageGenerators.of(7, X.double()).randn((5,), X.double())
    assert double.dtype == torch.float64
    assert torch.equal(double.float(), drawn)
    strided = X.to(memory_format=torch.channels_last)
    assert torch.equal(ImageGenerators.of(7, strided).randn((5,), X), drawn)


def test_a_generator_gives_the_seed():
    a = ImageGenerators.of(torch.Generator().manual_seed(3), X).rand((4,), X)
    b = ImageGenerators.of(torch.Generator().manual_seed(3), X).rand((4,), X)
    c = ImageGenerators.of(torch.Generator().manual_seed(4), X).rand((4,), X)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize("seed", [0, 2**63, -(2**63)])
def test_the_global_state_is_left_alone(seed):
    before = torch.get_rng_state()
    ImageGenerators.of(seed, X).randn((3,), X)
    assert torch.equal(before, torch.get_rng_state())
