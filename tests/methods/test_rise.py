"""RISE against its slow reference; seeds, batches, early ends."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import camlucida
from camlucida import CosineSimilarity, Logit, LogitMargin, MethodError, Preprocess, Probability
from camlucida.common.seeds import ImageGenerators
from camlucida.methods.rise import RISE
from reference import networks, state
from reference import rise as slow

SIZE = (9, 11)


@pytest.fixture
def net():
    return networks.build(head="gap", seed=3, signed=False)


def images(n=3):
    return networks.images(n, 3, SIZE)


def masks_of(method, x, i, seed=0):
    generator = ImageGenerators.of(seed, x)
    drawn = [method.draw(generator, x)[i] for _ in range(-(-method.masks // 100))]
    numbers = torch.cat(drawn)[: method.masks].double().numpy()
    return [slow.mask(row, method.s, method.p1, SIZE, method.border) for row in numbers]


@pytest.mark.parametrize("debias", [False, True])
@pytest.mark.parametrize(
    ("s", "p1", "border"),
    [(7, 0.5, "clamp"), (3, 0.2, "reflect"), (4, 0.9, "clamp"), (1, 0.5, "reflect")],
)
def test_equals_the_slow_reference(net, s, p1, border, debias):
    x = images(2)
    method = RISE(masks=130, s=s, p1=p1, border=border, debias=debias, chunk=33)
    found = camlucida.explain(net, x, method=method, target=[2, 0])
    for i, c in enumerate((2, 0)):

        def score(mask, i=i, c=c):
            with torch.no_grad():
                return float(net((x[i] * torch.tensor(mask))[None]).softmax(1)[0, c])

        wanted = slow.rise(score, masks_of(method, x, i), p1, debias)
        np.testing.assert_allclose(found.raw[i].numpy(), wanted, atol=1e-6)  # offsets in float32


@pytest.mark.parametrize("s", [2, 7])
def test_a_reflected_border_is_the_authors(s):
    """They enlarge their grids with scikit-image, whose ``mode="reflect"`` mirrors without repeating the border."""
    transform = pytest.importorskip("skimage.transform")
    x = torch.zeros(1, 3, 6 * s, 5 * s)
    drawn = torch.rand(20, s * s + 2, generator=torch.Generator().manual_seed(0))
    masks = RISE(s=s, border="reflect").make(drawn, x)
    for numbers, mask in zip(drawn, masks, strict=True):
        grid = (numbers[: s * s] < 0.5).float().view(s, s).numpy()
        size = ((s + 1) * 6, (s + 1) * 5)
        large = transform.resize(grid, size, order=1, mode="reflect", anti_aliasing=False)
        top, left = (numbers[s * s :] * torch.tensor([6, 5])).long().tolist()
        np.testing.assert_allclose(
            mask.numpy(), large[top : top + 6 * s, left : left + 5 * s], atol=1e-5
        )


def test_masks_are_cells_at_random_offsets():
    x = images(1)
    method = RISE(s=4, p1=0.5)
    masks = method.make(method.draw(ImageGenerators.of(1, x), x)[0], x)
    assert masks.shape == (100, *SIZE)
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-12
    assert abs(float(masks.mean()) - 0.5) < 0.05
    assert (masks.flatten(1).std(0) > 0.2).all()


@pytest.mark.parametrize(
    "target",
    [Logit(), Logit(1), Probability(), LogitMargin(aggregator="max"),
     CosineSimilarity(torch.tensor([1.0, -1.0, 2.0])), lambda z: z[:, 0] - z[:, 1]],
    ids=lambda t: type(t).__name__,
)  # fmt: skip
def test_batch_equals_single_images_and_any_chunk(net, target):
    x = images(4)
    batch = camlucida.explain(net, x, method=RISE(masks=120), target=target)
    for i in range(4):
        one = camlucida.explain(net, x[i], method=RISE(masks=120, chunk=7), target=target)
        torch.testing.assert_close(batch.raw[i], one.raw[0], rtol=0, atol=1e-12)


def test_seeds(net):
    x = images(1)
    a, b, c = (
        camlucida.explain(net, x, method=RISE(masks=50), seed=seed).raw for seed in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)


def test_a_logit_is_scored_by_its_probability(net):
    x = images(1)
    plain = camlucida.explain(net, x, method=RISE(masks=50), target=1)
    probability = camlucida.explain(net, x, method=RISE(masks=50), target=Probability(1))
    logit = camlucida.explain(net, x, method=RISE(masks=50, score="target"), target=1)
    assert torch.equal(plain.raw, probability.raw)
    assert isinstance(plain.target, Probability)
    torch.testing.assert_close(plain.target_values, net(x).softmax(1)[:, 1].detach())
    assert not torch.allclose(plain.raw, logit.raw)
    torch.testing.assert_close(logit.target_values, net(x)[:, 1].detach())
    single = networks.build(m=1)
    camlucida.explain(single, x, method=RISE(masks=10))


def test_the_first_masks_do_not_depend_on_their_number():
    x = images(1)
    method = RISE(masks=250)
    long = masks_of(method, x, 0)[:130]
    short = masks_of(RISE(masks=130), x, 0)
    np.testing.assert_array_equal(np.stack(long), np.stack(short))


def test_debiased_map_of_a_constant_score_is_constant():
    found = camlucida.explain(
        networks.build(), images(1), method=RISE(masks=300, debias=True),
        target=lambda z: torch.ones_like(z[:, 0]),
    )  # fmt: skip
    assert torch.allclose(found.raw, torch.ones_like(found.raw))
    assert found.maps.max() <= 1


def test_budget_ends_early_with_the_map_so_far(net):
    x = images(2)
    method = RISE(masks=5000, budget_seconds=1e-6)
    found = camlucida.explain(net, x, method=method, target=1)
    assert found.details["masks"].tolist() == [100, 100]
    full = camlucida.explain(net, x, method=RISE(masks=100), target=1)
    assert torch.equal(found.raw, full.raw)
    assert "ended after 100 of 5000 masks" in found.diagnostics[0].messages
    assert not full.diagnostics[0].notes


def test_an_interrupt_keeps_the_map_so_far_where_it_shall(net):
    x = images(2)

    def interrupting(after):
        calls = iter(range(1000))

        def progress(*_):
            if next(calls) == after:
                raise KeyboardInterrupt

        return progress

    keep = RISE(masks=5000, on_interrupt="keep")
    found = camlucida.explain(net, x, method=keep, target=1, progress=interrupting(2))
    assert found.details["masks"].tolist() == [200, 100]
    assert "ended after 200 of 5000 masks" in found.diagnostics[0].messages
    for i, masks in enumerate((200, 100)):
        whole = camlucida.explain(net, x[i], method=RISE(masks=masks), target=1)
        torch.testing.assert_close(found.raw[i], whole.raw[0])
    with pytest.raises(KeyboardInterrupt):  # the second image has no map yet
        camlucida.explain(net, x, method=keep, target=1, progress=interrupting(0))
    with pytest.raises(KeyboardInterrupt):
        camlucida.explain(net, x, method=RISE(), target=1, progress=interrupting(2))


def test_out_of_memory_halves_the_chunk_and_goes_on(net):
    x = images(1)
    wanted = camlucida.explain(net, x, method=RISE(masks=130), target=1)
    sizes = []

    def fail(_, args):
        sizes.append(len(args[0]))
        if len(args[0]) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory (a test)")

    net.register_forward_pre_hook(fail)
    found = camlucida.explain(net, x, method=RISE(masks=130), target=1)
    torch.testing.assert_close(found.raw, wanted.raw)
    # Halved once, for good; the first pass is the image itself.
    assert sizes == [1, 16, *[8] * 12, 4, *[8] * 3, 6]


def test_autocast_is_for_the_model():
    """Masks times scores are added up in single precision."""

    class Quarters(nn.Module):
        """Nothing here that autocast would change."""

        def forward(self, x):
            return F.adaptive_avg_pool2d(x.mean(1, keepdim=True), 2).flatten(1)

    x = images(1).float()
    plain = camlucida.explain(Quarters(), x, method=RISE(masks=200), target=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = camlucida.explain(Quarters(), x, method=RISE(masks=200), target=1)
    torch.testing.assert_close(found.raw, plain.raw)


def test_tolerance_stops_each_image_by_itself():
    net = networks.build(head="dense", size=SIZE, seed=1)
    x = images(4)
    method = RISE(masks=4000, tolerance=0.05)
    found = camlucida.explain(net, x, method=method, target=1)
    counts = found.details["masks"].tolist()
    assert min(counts) < 4000
    assert len(set(counts)) > 1
    for i in range(4):
        one = camlucida.explain(net, x[i], method=method, target=1)
        assert one.details["masks"][0] == counts[i]
        torch.testing.assert_close(one.raw[0], found.raw[i], rtol=0, atol=1e-12)
        full = camlucida.explain(net, x[i], method=RISE(masks=counts[i]), target=1)
        torch.testing.assert_close(full.raw[0], found.raw[i], rtol=0, atol=1e-12)


def test_pixel_space(net):
    preprocess = Preprocess.imagenet(size=9, resize=9)
    x = preprocess.normalise(torch.rand(1, 3, *SIZE, dtype=torch.float64))
    method = RISE(masks=40, mask_space="pixel")
    found = camlucida.explain(net, x, method=method, target=1, preprocess=preprocess)

    def score(mask):
        pixels = preprocess.denormalise(x[0]) * torch.tensor(mask)
        return float(net(preprocess.normalise(pixels)[None]).softmax(1)[0, 1].detach())

    wanted = slow.rise(score, masks_of(method, x, 0), 0.5)
    np.testing.assert_allclose(found.raw[0].numpy(), wanted, atol=1e-6)
    with pytest.raises(MethodError, match="preprocess"):
        camlucida.explain(net, x, method=method)


def test_finds_the_only_place_that_matters():
    """A model that reads one corner."""
    x = torch.rand(1, 3, 28, 28, dtype=torch.float64) + 0.5

    class Corner(torch.nn.Module):
        def forward(self, x):
            value = x[:, :, :8, :8].mean((1, 2, 3))
            return torch.stack([value, 1 - value], 1)

    found = camlucida.explain(Corner(), x, method=RISE(masks=800), target=0)
    best = found.raw[0].argmax()
    assert int(best) // 28 < 9
    assert int(best) % 28 < 9
    middle = found.raw[0, 2:6, 2:6].mean()
    assert middle > found.raw[0, 14:, 14:].amax()


def test_progress_state_and_single_precision(net):
    x = images(2)
    net.train()
    before = state.snapshot(net)
    seen = []
    camlucida.explain(
        net, x, method=RISE(masks=210), progress=lambda done, total: seen.append((done, total))
    )
    assert not state.differences(before, state.snapshot(net))
    assert seen[-1] == (2, 2)
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    half = net.to(torch.bfloat16)
    found = camlucida.explain(half, x.to(torch.bfloat16), method=RISE(masks=20))
    assert found.raw.dtype == torch.float32


@pytest.mark.parametrize(
    "options",
    [{"masks": 0}, {"s": 0}, {"p1": 0}, {"p1": 1.0}, {"score": "logit"}, {"mask_space": "x"},
     {"chunk": 0}, {"tolerance": 0}, {"budget_seconds": -1}],
)  # fmt: skip
def test_bad_options_are_refused(options):
    with pytest.raises(MethodError, match=next(iter(options))):
        RISE(**options)


def test_layers_are_refused(net):
    with pytest.raises(MethodError, match="leave out layers"):
        camlucida.explain(net, images(1), method=RISE(masks=5), layers="features")


def test_a_constant_score_leaves_an_empty_map_and_says_so():

    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    constant = camlucida.explain(
        net, torch.randn(1, 3, 16, 16), method=RISE(masks=100), target=lambda z: z[:, 0] * 0 + 1
    )
    assert not constant.maps.any()
    assert any("every mask scored the same" in m for m in constant.diagnostics[0].messages)
