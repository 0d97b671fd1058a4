"""CorrRISE against its slow reference; its masks, its edge cases, batches and seeds."""

import numpy as np
import pytest
import torch

import camlucida
from camlucida import CosineSimilarity, MethodError, Preprocess
from camlucida.common.statistics import ranks
from camlucida.methods.corrrise import CorrRISE, mask_correlation, patch_masks
from reference import faces as slow
from reference import networks, state

SIZE = (9, 11)
REFERENCE = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)


@pytest.fixture
def net():
    return networks.build(head="deep", size=SIZE, seed=3)


def images(n=2):
    return networks.images(n, 3, SIZE)


def test_masks_hide_patches_wholly_inside():
    masks = patch_masks(400, (20, 26), patches=1, patch=7, seed=5)
    assert masks.shape == (400, 20, 26)
    assert masks.dtype == torch.bool
    corners = set()
    for mask in masks:
        rows, columns = (~mask).nonzero(as_tuple=True)
        assert len(rows) == 49
        assert rows.max() - rows.min() == 6
        assert columns.max() - columns.min() == 6
        corners.add((int(rows.min()), int(columns.min())))
    assert {r for r, _ in corners} == set(range(14))
    assert {c for _, c in corners} == set(range(20))


def test_three_patches_may_overlap():
    hidden = (~patch_masks(300, (20, 20), patches=3, patch=6)).flatten(1).sum(1)
    assert hidden.max() == 3 * 36
    assert hidden.min() < 3 * 36
    assert hidden.min() >= 36


def test_the_first_masks_do_not_depend_on_their_number():
    long = patch_masks(500, SIZE, patch=4, seed=2)
    assert torch.equal(long[:70], patch_masks(70, SIZE, patch=4, seed=2))
    assert not torch.equal(long, patch_masks(500, SIZE, patch=4, seed=3))


def test_ranks():
    values = torch.tensor([[0.5, 0.1, 0.5, 0.9, 0.1, 0.1], [1.0, 1, 1, 1, 1, 1]])
    assert ranks(values).tolist() == [slow.average_ranks(row) for row in values.tolist()]
    assert ranks(values, "order")[0].tolist() == [4, 1, 5, 6, 2, 3]


@pytest.mark.parametrize("rank_based", [False, True])
def test_equals_the_slow_reference(net, rank_based):
    x = images()
    method = CorrRISE(masks=80, patches=2, patch=4, rank_based=rank_based, chunk=33)
    target = CosineSimilarity(REFERENCE)
    found = camlucida.explain(net, x, method=method, target=target)
    masks = method.draw(SIZE)
    for i in range(2):
        with torch.no_grad():
            scores = target(net(x[i] * masks[:, None])).tolist()
        wanted = slow.corrrise(masks.numpy(), scores, rank_based)
        np.testing.assert_allclose(found.signed[i].numpy(), wanted, atol=1e-10)
        np.testing.assert_allclose(found.raw[i].numpy(), wanted.clip(0), atol=1e-10)
        np.testing.assert_allclose(found.details["scores"][i].numpy(), scores, atol=1e-12)


def test_correlation_equals_numpy():
    torch.manual_seed(1)
    masks = torch.rand(150, 4, 5) < 0.7
    scores = torch.randn(3, 150)
    found = mask_correlation(masks, scores)
    for i in range(3):
        for r in range(4):
            for c in range(5):
                wanted = np.corrcoef(masks[:, r, c].numpy(), scores[i].numpy())[0, 1]
                assert found[i, r, c].item() == pytest.approx(wanted, abs=1e-6)


def test_pixels_that_never_vary_and_constant_scores_are_zero():
    masks = torch.rand(90, 3, 3) < 0.5
    masks[:, 0, 0] = True
    masks[:, 2, 2] = False
    found = mask_correlation(masks, torch.stack([torch.rand(90), torch.full((90,), 0.1)]))
    assert found[0, 0, 0] == 0
    assert found[0, 2, 2] == 0
    assert found[0].any()
    assert not found[1].any()


@pytest.mark.parametrize("ties", ["average", "order"])
def test_a_constant_score_leaves_an_empty_map_and_says_so(ties):
    found = camlucida.explain(
        networks.build(), images(), method=CorrRISE(masks=40, ties=ties),
        target=lambda z: z[:, 0] * 0 + 0.1,
    )  # fmt: skip
    assert not found.signed.any()
    assert not found.maps.any()
    assert any("every mask scored the same" in m for m in found.diagnostics[0].messages)


def test_similar_and_dissimilar_are_disjoint(net):
    found = camlucida.explain(net, images(), method=CorrRISE(masks=60, patch=3), target=1)
    plus, minus = found.signed.clamp_min(0), (-found.signed).clamp_min(0)
    assert plus.any()
    assert minus.any()
    assert not (plus * minus).any()
    assert found.signed.abs().max() <= 1


def test_all_images_share_the_masks_and_a_batch_equals_single_images(net):
    x = images(4)
    target = CosineSimilarity(torch.randn(4, 3, dtype=torch.float64))
    batch = camlucida.explain(net, x, method=CorrRISE(masks=50), target=target, seed=1)
    for i in range(4):
        one = camlucida.explain(
            net, x[i], method=CorrRISE(masks=50, chunk=7), seed=2,
            target=CosineSimilarity(target.reference[i]),
        )  # fmt: skip
        torch.testing.assert_close(batch.signed[i], one.signed[0], rtol=0, atol=1e-12)
    other = camlucida.explain(net, x, method=CorrRISE(masks=50, mask_seed=1), target=target)
    assert not torch.allclose(batch.signed, other.signed)


def test_finds_the_only_place_that_matters():
    class Corner(torch.nn.Module):
        def forward(self, x):
            value = x[:, :, :8, :8].mean((1, 2, 3))
            return torch.stack([value, 1 - value], 1)

    x = torch.rand(1, 3, 28, 28, dtype=torch.float64) + 0.5
    found = camlucida.explain(Corner(), x, method=CorrRISE(masks=400), target=0)
    best = int(found.raw[0].argmax())
    assert best // 28 < 9
    assert best % 28 < 9
    # What lowers the other output is the same place.
    other = camlucida.explain(Corner(), x, method=CorrRISE(masks=400), target=1)
    torch.testing.assert_close(other.signed, -found.signed, rtol=0, atol=1e-9)


def test_pixels_are_hidden_in_black_where_the_preprocessing_is_known(net):
    preprocess = Preprocess.imagenet(size=9, resize=9)
    x = preprocess.normalise(torch.rand(1, 3, *SIZE, dtype=torch.float64))
    method = CorrRISE(masks=30, patch=4)
    found = camlucida.explain(net, x, method=method, target=1, preprocess=preprocess)
    masks = method.draw(SIZE)[:, None]
    with torch.no_grad():
        scores = net(preprocess.normalise(preprocess.denormalise(x) * masks))[:, 1]
    torch.testing.assert_close(found.details["scores"][0], scores)
    blind = camlucida.explain(net, x, method=method, target=1)
    assert any("0 is not black" in m for m in blind.diagnostics[0].messages)


def test_state_progress_and_single_precision(net):
    net.train()
    before = state.snapshot(net)
    seen = []
    camlucida.explain(
        net, images(), method="corrrise", masks=40, progress=lambda done, of: seen.append(done / of)
    )
    assert not state.differences(before, state.snapshot(net))
    assert seen == sorted(seen)
    assert seen[-1] == 1
    half = net.to(torch.bfloat16)
    found = camlucida.explain(half, images().to(torch.bfloat16), method=CorrRISE(masks=20))
    assert found.raw.dtype == torch.float32


@pytest.mark.parametrize(
    "options",
    [{"masks": 1}, {"patches": 0}, {"patch": 0}, {"patch": "large"}, {"ties": "x"}, {"chunk": 0},
     {"mask_space": "x"}, {"masks": 3.5}],
)  # fmt: skip
def test_bad_options_are_refused(options):
    with pytest.raises(MethodError, match=next(iter(options))):
        CorrRISE(**options)


def test_a_patch_larger_than_the_image_is_refused(net):
    with pytest.raises(MethodError, match="does not fit"):
        camlucida.explain(net, images(), method=CorrRISE(masks=5, patch=10))
