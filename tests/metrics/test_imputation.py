"""Noisy linear imputation: the sparse solve, identities, any mask, any size, and a peer library."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import zoom

from camlucida import CamlucidaError
from camlucida.common.seeds import ImageGenerators
from camlucida.metrics.imputation.impute import impute
from camlucida.metrics.imputation.multigrid import solve
from reference import road as slow


def image(size, channels=3, n=1, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, channels, 6, 6, generator=generator)
    smooth = F.interpolate(coarse, size=size, mode="bicubic", align_corners=False)
    x = smooth + 0.3 * torch.randn(smooth.shape, generator=generator)
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return ((x - low) / (high - low)).to(dtype)


def cam(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, 7, 7, generator=generator)
    return F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)[0, 0]


def scattered(size, seed=0):
    return torch.rand(size, generator=torch.Generator().manual_seed(seed))


def top(values, percent):
    return values > np.percentile(values.double().numpy(), 100 - percent)


def error(x, removed, **options):
    found = impute(x, removed[None], noise=0.0, **options)[0].double().numpy()
    return np.abs(found - slow.linear(x[0].double(), removed)).max()


@pytest.mark.parametrize("make", [cam, scattered])
@pytest.mark.parametrize("percent", [5, 30, 50, 95])
@pytest.mark.parametrize("size", [(40, 40), (33, 45)])
def test_it_is_the_sparse_solve(make, percent, size):
    x, removed = image(size), top(make(size), percent)
    assert error(x, removed) < 1e-4
    assert error(x.double(), removed, tolerance=1e-9) < 1e-9


@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.floats(0, 1),
    st.integers(0, 2**31),
)
def test_it_is_the_sparse_solve_for_any_size_and_mask(height, width, share, seed):
    x = image((height, width), channels=2, seed=seed)
    removed = scattered((height, width), seed) < share
    assert error(x, removed) < 1e-4


def awkward(kind, size):
    removed = torch.ones(size, dtype=torch.bool)
    y, x = torch.meshgrid(*map(torch.arange, size), indexing="ij")
    match kind:
        case "one known":
            removed[0, 0] = False
        case "two known":
            removed[0, 0] = removed[-1, -1] = False
        case "a row known":
            removed[-1] = False
        case "spiral":
            removed = ((y // 3) % 2 == 0) | (x % 37 == 5)
        case "checkerboard":
            removed = (y + x) % 2 == 0
        case "disc":
            removed = (y - size[0] / 2) ** 2 + (x - size[1] / 2) ** 2 < (min(size) / 2.2) ** 2
        case "half":
            removed = y < size[0] // 2
    return removed


KINDS = ["one known", "two known", "a row known", "spiral", "checkerboard", "disc", "half"]


@pytest.mark.parametrize("kind", KINDS)
def test_awkward_masks(kind):
    size = (46, 40)
    assert error(image(size), awkward(kind, size)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tolerance", [1e-4, 1e-3])
def test_the_tolerance_holds_on_large_holes(kind, tolerance):
    size = (224, 224)
    assert error(image(size), awkward(kind, size), tolerance=tolerance) < tolerance


def test_the_tolerance_is_what_stops_it():
    x, removed = image((40, 40)), top(cam((40, 40)), 50)
    errors = [error(x.double(), removed, tolerance=t) for t in (1e-2, 1e-4, 1e-6)]
    assert errors[0] > errors[1] > errors[2] > 0
    assert all(e < t for e, t in zip(errors, (1e-2, 1e-4, 1e-6), strict=True))


def test_ramps_are_reproduced_inside():
    y, x = torch.meshgrid(torch.arange(40).double(), torch.arange(50).double(), indexing="ij")
    ramp = (0.1 + 0.01 * y + 0.005 * x)[None, None]
    removed = torch.zeros(1, 40, 50, dtype=torch.bool)
    removed[0, 5:30, 8:41] = True
    found = impute(ramp, removed, noise=0.0, tolerance=1e-10)
    assert (found - ramp).abs().max() < 1e-9
    removed[0, :30, 8:41] = True
    assert (impute(ramp, removed, noise=0.0) - ramp).abs().max() > 0.01


def test_values_stay_in_the_range_of_the_known_ones():
    x, removed = image((40, 40)), top(cam((40, 40)), 80)
    found, known = impute(x, removed[None], noise=0.0)[0], x[0, :, ~removed]
    assert (found.amax((1, 2)) <= known.amax(1) + 1e-4).all()
    assert (found.amin((1, 2)) >= known.amin(1) - 1e-4).all()


def test_nothing_and_everything_removed():
    x = image((20, 30), n=2)
    removed = torch.zeros(2, 2, 20, 30, dtype=torch.bool)
    removed[:, 1] = True
    found = impute(x, removed, noise=0.0)
    assert torch.equal(found[:, 0], x)
    assert torch.allclose(found[:, 1], x.mean((2, 3), keepdim=True).expand_as(x))
    noisy = impute(x, removed)
    assert torch.equal(noisy[:, 0], x)
    assert 0.005 < (noisy[:, 1] - found[:, 1]).std() < 0.02


def test_known_pixels_are_kept_and_only_the_others_get_noise():
    x, removed = image((40, 40)), top(cam((40, 40)), 60)
    plain, noisy = (impute(x, removed[None], noise=s)[0] for s in (0.0, 0.01))
    assert torch.equal(noisy[:, ~removed], x[0][:, ~removed])
    difference = (noisy - plain)[:, removed]
    assert abs(difference.std() - 0.01) < 0.001
    assert abs(difference.mean()) < 0.001
    other = impute(x, removed[None], generators=ImageGenerators.of(1, x))[0]
    assert not torch.equal(other, noisy)


def test_a_batch_equals_its_images():
    x = image((48, 40), n=3)
    maps = torch.stack([cam((48, 40), s) for s in range(3)])
    removed = torch.stack([torch.stack([top(m, p) for p in (5, 40, 90, 100)]) for m in maps])
    together = impute(x, removed)
    assert together.shape == (3, 4, 3, 48, 40)
    for i in range(3):
        alone = impute(x[i : i + 1], removed[i : i + 1])
        assert (alone[0] - together[i]).abs().max() < 1e-4
        for k in range(4):
            single = impute(x[i : i + 1], removed[i : i + 1, k], noise=0.0)
            wanted = impute(x[i : i + 1], removed[i : i + 1], noise=0.0)[:, k]
            assert (single - wanted).abs().max() < 1e-4


def test_systems_that_are_done_leave_the_batch():
    size = (40, 40)
    masks = torch.stack([awkward(kind, size) for kind in KINDS])
    x = image(size, n=len(KINDS)).double()
    removed = masks.double()
    together = solve(x * (1 - removed[:, None]), 1 - removed, removed, 1e-5)
    for i in range(len(KINDS)):
        wanted = slow.linear(x[i], masks[i])
        found = torch.where(masks[i], together[i], x[i]).numpy()
        assert np.abs(found - wanted).max() < 1e-5


def test_channels_do_not_mix():
    x, removed = image((32, 32), channels=5), top(cam((32, 32)), 50)
    together = impute(x.double(), removed[None], noise=0.0, tolerance=1e-8)
    for c in range(5):
        alone = impute(x[:, c : c + 1].double(), removed[None], noise=0.0, tolerance=1e-8)
        assert (alone[:, 0] - together[:, c]).abs().max() < 1e-8


def test_mean_and_zero():
    x, removed = image((10, 12), n=2), scattered((10, 12)) < 0.5
    masks = removed.expand(2, 10, 12)
    zero, mean = impute(x, masks, "zero"), impute(x, masks, "mean")
    for i in range(2):
        assert (zero[i][:, removed] == 0).all()
        for c in range(3):
            assert torch.allclose(mean[i, c][removed], x[i, c].mean())
        assert torch.equal(zero[i][:, ~removed], x[i][:, ~removed])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_type_is_kept(dtype):
    x, removed = image((24, 24)), top(cam((24, 24)), 50)
    found = impute(x.to(dtype), removed[None], noise=0.0)
    assert found.dtype == dtype
    assert (found.float() - impute(x, removed[None], noise=0.0)).abs().max() < 0.01


def test_a_nan_does_not_hang_and_does_not_spread_to_other_images():
    x = image((24, 24), n=2)
    x[0, 0, 0, 0] = torch.nan
    removed = top(cam((24, 24)), 50).expand(2, 24, 24)
    found = impute(x, removed, noise=0.0)
    assert found[1].isfinite().all()


def test_inputs_are_left_alone():
    x, removed = image((24, 24)), top(cam((24, 24)), 50)[None]
    x.requires_grad_()
    copies = x.detach().clone(), removed.clone()
    found = impute(x, removed)
    assert not found.requires_grad
    assert not found.is_inference()
    assert torch.equal(x.detach(), copies[0])
    assert torch.equal(removed, copies[1])


def test_errors():
    x, removed = image((8, 9)), torch.zeros(1, 8, 9, dtype=torch.bool)
    for call, text in (
        (lambda: impute(x[0], removed), "N, C, H, W"),
        (lambda: impute(x.int(), removed), "floating"),
        (lambda: impute(x, removed.int()), "boolean"),
        (lambda: impute(x, removed[:, :4]), "boolean \\(1, 8, 9\\)"),
        (lambda: impute(x, removed, "telea"), "'linear', 'mean', 'zero'"),
        (lambda: impute(x, removed, noise=-1), "noise"),
        (lambda: impute(x, removed, tolerance=0), "tolerance"),
    ):
        with pytest.raises(CamlucidaError, match=text):
            call()


def test_pytorch_grad_cam():
    peer = pytest.importorskip("pytorch_grad_cam.metrics.road").NoisyLinearImputer(noise=0)
    values = torch.from_numpy(zoom(np.random.default_rng(0).random((7, 7)), 8, order=1))
    x = image((56, 56))
    for percent in (10, 50, 90):
        removed = top(values, percent)
        wanted = peer(x[0], (~removed).float())
        assert (impute(x, removed[None], noise=0.0)[0] - wanted).abs().max() < 1e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_agrees():
    x, removed = image((224, 224), n=2), top(cam((224, 224)), 50).expand(2, 224, 224)
    found = impute(x.cuda(), removed.cuda(), noise=0.0).cpu()
    assert (found - impute(x, removed, noise=0.0)).abs().max() < 1e-4
