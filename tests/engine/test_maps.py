"""Post-processing against loops, and its guards (specification section 1.5)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camlucida import Steps
from camlucida.common.errors import MethodError
from camlucida.engine.maps import fuse, normalise, preset, rectify, resize, smooth
from reference import steps as slow

shapes = st.tuples(st.integers(1, 7), st.integers(1, 7))
seeds = st.integers(0, 10_000)


def draw(n, size, seed, *, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(n, *size, generator=generator, dtype=torch.float64) + offset
    return torch.where(torch.rand(maps.shape, generator=generator) < 0.2, 0.0, maps)


def close(fast, reference, tolerance=1e-12):
    np.testing.assert_allclose(fast.numpy(), np.stack(reference), rtol=0, atol=tolerance)


@given(shapes, seeds)
def test_rectify(size, seed):
    maps = draw(3, size, seed)
    close(rectify(maps), [slow.rectify(m) for m in maps.numpy()], 0)


@given(shapes, seeds, st.sampled_from(["minmax", "max", "none"]), st.sampled_from([0.0, 1e-7, 0.3]))
def test_normalise(size, seed, how, eps):
    maps = draw(3, size, seed, offset=(seed % 5) - 2.0)
    close(normalise(maps, how, eps=eps), [slow.normalise(m, how, eps) for m in maps.numpy()])


@given(shapes, shapes, seeds)
def test_resize(size, target, seed):
    maps = draw(2, size, seed)
    close(resize(maps, target), [slow.resize(m, target) for m in maps.numpy()])


@given(shapes, seeds, st.sampled_from([0.4, 1.0, 2.5]), st.sampled_from([1, 3, 5, 9]))
def test_smooth(size, seed, sigma, kernel):
    maps = draw(2, size, seed)
    # The kernel is cut where reflecting would need more pixels than there are.
    reach = min(kernel, 2 * min(size) - 1)
    close(smooth(maps, sigma, kernel), [slow.smooth(m, sigma, reach) for m in maps.numpy()])


def test_smooth_reaches_three_sigmas_by_default():
    maps = draw(1, (30, 31), 3)
    close(smooth(maps, 1.5), [slow.smooth(maps[0].numpy(), 1.5, 11)])


@pytest.mark.parametrize(("sigma", "kernel"), [(0, None), (-1.0, 3), (1.0, 4), (1.0, 0)])
def test_smooth_refuses(sigma, kernel):
    with pytest.raises(MethodError):
        smooth(torch.zeros(1, 4, 4), sigma, kernel)


@given(st.lists(shapes, min_size=1, max_size=3), seeds)
def test_fuse_is_the_mean_of_the_resized_maps(sizes, seed):
    layers = {f"l{i}": draw(2, size, seed + i) for i, size in enumerate(sizes)}
    expected = [
        np.mean([slow.resize(m[n].numpy(), (6, 5)) for m in layers.values()], axis=0)
        for n in range(2)
    ]
    close(fuse(layers, (6, 5)), expected)


@given(st.lists(shapes, min_size=1, max_size=3), seeds)
def test_pytorch_grad_cam_preset_is_the_sequence_of_the_specification(sizes, seed):
    layers = {f"l{i}": draw(2, size, seed + i) for i, size in enumerate(sizes)}
    used = preset("pytorch-grad-cam", Steps())
    fast = used.finish(used.fuse(layers, (6, 9)), (6, 9))
    expected = [
        slow.pytorch_grad_cam([m[n].numpy() for m in layers.values()], (6, 9)) for n in range(2)
    ]
    close(fast, expected)


@given(shapes, seeds)
def test_default_sequence(size, seed):
    maps = draw(2, size, seed)
    used = Steps()
    close(used.finish(maps, (8, 9)), [slow.finish(m, (8, 9)) for m in maps.numpy()])


def test_several_layers_are_scaled_before_they_are_averaged():
    layers = {"a": draw(1, (3, 4), 1), "b": 1000 * draw(1, (5, 5), 2)}
    expected = np.mean(
        [slow.resize(slow.normalise(slow.rectify(m[0].numpy())), (6, 7)) for m in layers.values()],
        axis=0,
    )
    close(Steps().fuse(layers, (6, 7)), [expected])


def test_signed_preset_only_resizes():
    maps = draw(1, (3, 4), 5)
    used = preset("signed", Steps(sigma=0))
    assert maps.min() < 0
    close(used.finish(maps, (6, 8)), [slow.resize(maps[0].numpy(), (6, 8))])


def test_rectify_comes_before_resize_and_smooth():
    maps = torch.tensor([[[-4.0, 4.0]]], dtype=torch.float64)
    resized = Steps(normalise="none").finish(maps, (1, 4))
    close(resized, [slow.resize(np.array([[0.0, 4.0]]), (1, 4))])


@pytest.mark.parametrize("value", [-2.0, 0.0, 3.0])
def test_constant_map(value):
    maps = torch.full((2, 3, 4), value)
    assert torch.equal(normalise(maps, "minmax"), torch.zeros_like(maps))
    assert torch.equal(normalise(maps, "max"), torch.full_like(maps, float(value > 0)))


def test_one_by_one_map_is_zeros_under_minmax_and_ones_under_max():
    one = torch.tensor([[[5.0]]])
    assert torch.equal(Steps().finish(one, (4, 6)), torch.zeros(1, 4, 6))
    assert torch.equal(Steps(normalise="max").finish(one, (4, 6)), torch.ones(1, 4, 6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (8, 8), (3, 4)])
def test_constant_map_stays_empty_through_resizing(dtype, size):
    """Interpolating a constant rounds; scaling must not blow the rounding up to [0, 1]."""
    values = torch.rand(20, 1, 1, dtype=dtype) + 0.01
    for wanted in ((224, 224), (299, 299), (6, 9)):
        out = Steps().finish(values.expand(-1, *size), wanted)
        assert torch.equal(out, torch.zeros(20, *wanted, dtype=dtype)), wanted
        blurred = Steps(sigma=2.0).finish(values.expand(-1, *size), wanted)
        assert torch.equal(blurred, torch.zeros(20, *wanted, dtype=dtype)), wanted


def test_all_negative_map_is_zero_never_rescaled():
    maps = -torch.rand(2, 3, 4) - 0.1
    for how in ("minmax", "max"):
        assert torch.equal(Steps(normalise=how).finish(maps, (6, 8)), torch.zeros(2, 6, 8))
    # Without the ReLU it is scaled like any other map.
    assert float(Steps(rectify=False).finish(maps, (6, 8)).max()) == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1.0, 1e30])
@pytest.mark.parametrize("how", ["minmax", "max"])
def test_never_nan_or_infinite(dtype, scale, how):
    maps = (torch.arange(12.0, dtype=torch.float64).view(1, 3, 4) * scale).to(dtype)
    out = normalise(maps, how)
    assert out.isfinite().all()
    assert float(out.min()) >= 0
    assert float(out.max()) == (1.0 if maps.any() else 0.0)


def test_each_map_is_scaled_on_its_own():
    maps = draw(3, (4, 5), 7)
    maps[1] *= 1e6
    together = Steps().finish(maps, (7, 9))
    for n in range(3):
        assert torch.equal(together[n], Steps().finish(maps[n : n + 1], (7, 9))[0])


def test_unknown_names():
    with pytest.raises(MethodError, match="minmax"):
        normalise(torch.zeros(1, 2, 2), "sum")
    with pytest.raises(MethodError, match="pytorch-grad-cam"):
        preset("captum", Steps())


@given(seeds)
def test_gradients_of_the_steps(seed):
    maps = draw(1, (3, 3), seed).requires_grad_()
    used = Steps(rectify=False, normalise="none", sigma=1.0)
    assert torch.autograd.gradcheck(lambda m: used.finish(m, (4, 5)), maps)
