"""Targets against loops: values and derivatives (specification 1.2, 3.1, 10), and their errors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camlucida import (
    Cell,
    CosineSimilarity,
    DotProduct,
    ExpLogit,
    FinerMargin,
    Logit,
    LogitMargin,
    LogProbability,
    NegativeDistance,
    Probability,
    Segmentation,
    TargetError,
)
from camlucida.targets import Custom, as_target, build_target, target_values
from reference import sham as written
from reference import targets as slow

AGGREGATORS = ["mean", "max", "lse", "lae"]

CLASS_TARGETS = [
    pytest.param(Logit, slow.logit, id="logit"),
    pytest.param(ExpLogit, slow.exp_logit, id="exp-logit"),
    pytest.param(Probability, slow.probability, id="probability"),
    pytest.param(LogProbability, slow.log_probability, id="log-probability"),
    *(
        pytest.param(
            lambda classes=None, a=a: LogitMargin(classes, aggregator=a),
            lambda z, c, a=a: slow.margin(z, c, a),
            id=f"margin-{a}",
        )
        for a in AGGREGATORS
    ),
]

sizes = st.tuples(st.integers(1, 3), st.integers(2, 6))
seeds = st.integers(0, 10_000)


def logits_of(n, m, seed, *, ties=False):
    generator = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(n, m, generator=generator, dtype=torch.float64)
    return z.round() if ties else z


def check(target, outputs, expected):
    """Values and derivatives against ``[(value, slopes)]``."""
    outputs = outputs.clone().requires_grad_()
    values = target(outputs)
    (slopes,) = torch.autograd.grad(values.sum(), outputs)
    wanted = [v for v, _ in expected]
    np.testing.assert_allclose(values.detach().numpy(), wanted, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(slopes.numpy(), np.array([s for _, s in expected]), atol=1e-13)


@pytest.mark.parametrize(("target", "reference"), CLASS_TARGETS)
@given(sizes, seeds, st.booleans())
def test_class_targets(target, reference, size, seed, ties):
    z = logits_of(*size, seed, ties=ties)
    classes = torch.randint(size[1], (size[0],), generator=torch.Generator().manual_seed(seed))
    check(
        target(classes),
        z,
        [reference(row, c) for row, c in zip(z.tolist(), classes.tolist(), strict=True)],
    )


@pytest.mark.parametrize(("target", "reference"), CLASS_TARGETS)
@given(sizes, seeds, st.booleans())
def test_none_is_the_predicted_class_the_first_of_equal_ones(target, reference, size, seed, ties):
    z = logits_of(*size, seed, ties=ties)
    rows = z.tolist()
    check(target(), z, [reference(row, row.index(max(row))) for row in rows])
    assert target().pin(z).classes.tolist() == [row.index(max(row)) for row in rows]


def test_pin_keeps_the_class_where_the_arg_max_changes():
    pinned = Logit().pin(torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
    assert pinned(torch.tensor([[5.0, 0.0], [0.0, 7.0]])).tolist() == [0.0, 0.0]


def test_max_margin_with_ties_differentiates_the_first_rival_only():
    z = torch.tensor([[1.0, 4.0, 4.0, 4.0], [4.0, 4.0, 4.0, 1.0]], requires_grad=True)
    LogitMargin([0, 0], aggregator="max")(z).sum().backward()
    assert z.grad.tolist() == [[1.0, -1.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0]]


@given(sizes, seeds)
def test_margin_order_and_odds(size, seed):
    z = logits_of(*size, seed)
    n, m = size
    classes = torch.arange(n) % m
    mean, largest, lse, lae = (LogitMargin(classes, aggregator=a)(z) for a in AGGREGATORS)
    # beta: mean <= lae <= max, so the margins are ordered the other way round
    assert (mean >= lae - 1e-12).all()
    assert (lae >= largest - 1e-12).all()
    torch.testing.assert_close(lae - lse, torch.full_like(lae, float(np.log(m - 1))))
    p = Probability(classes)(z)
    torch.testing.assert_close(lse, (p / (1 - p)).log(), rtol=1e-9, atol=1e-9)


@given(st.integers(1, 3), seeds)
def test_two_classes_all_aggregators_coincide(n, seed):
    z = logits_of(n, 2, seed)
    for aggregator in AGGREGATORS:
        torch.testing.assert_close(
            LogitMargin(0, aggregator=aggregator)(z), z[:, 0] - z[:, 1], rtol=0, atol=1e-13
        )


def test_lse_margin_does_not_saturate():
    z = torch.tensor([[200.0, 0.0, 1.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(LogitMargin(0, aggregator="lse")(z).sum(), z)
    assert slope[0, 0] == 1
    (gone,) = torch.autograd.grad(Probability(0)(z).sum(), z)
    assert not gone.any()


@pytest.mark.parametrize("extreme", [1e4, -1e4])
@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_margins_of_huge_logits_are_finite(aggregator, extreme):
    z = torch.tensor([[extreme, 0.0, 1.0]], requires_grad=True)
    value = LogitMargin(0, aggregator=aggregator)(z)
    (slope,) = torch.autograd.grad(value.sum(), z)
    assert value.isfinite().all()
    assert slope.isfinite().all()


@pytest.mark.parametrize(
    "target",
    [Probability(0), LogProbability(0), *(LogitMargin(0, aggregator=a) for a in AGGREGATORS)],
)
def test_single_output_has_no_rivals(target):
    with pytest.raises(TargetError, match="single output"):
        target(torch.zeros(2, 1))
    assert Logit(0)(torch.ones(2, 1)).tolist() == [1, 1]


# ---------------------------------------------------------------------------------------- embeddings


def references(n, d, seed, each):
    generator = torch.Generator().manual_seed(seed + 1)
    ref = torch.randn(*((n, d) if each else (d,)), generator=generator, dtype=torch.float64)
    rows = ref.tolist() if each else [ref.tolist()] * n
    return ref, rows


@given(sizes, seeds, st.booleans(), st.booleans())
def test_cosine(size, seed, each, detach):
    e = logits_of(*size, seed)
    ref, rows = references(*size, seed, each)
    expected = [slow.cosine(a, b, detach) for a, b in zip(e.tolist(), rows, strict=True)]
    check(CosineSimilarity(ref, detach_norms=detach), e, expected)


def test_cosine_of_a_zero_embedding_is_finite():
    e = torch.zeros(1, 3, requires_grad=True)
    value = CosineSimilarity(torch.ones(3))(e)
    (slope,) = torch.autograd.grad(value.sum(), e)
    assert value.tolist() == [0]
    assert slope.isfinite().all()


def test_cosine_with_itself_has_no_gradient():
    e = torch.randn(2, 5, dtype=torch.float64)
    x = e.clone().requires_grad_()
    (slope,) = torch.autograd.grad(CosineSimilarity(e)(x).sum(), x)
    assert float(slope.abs().max()) < 1e-15


@given(sizes, seeds, st.booleans())
def test_dot_product(size, seed, each):
    e = logits_of(*size, seed)
    ref, rows = references(*size, seed, each)
    check(
        DotProduct(ref), e, [slow.dot_product(a, b) for a, b in zip(e.tolist(), rows, strict=True)]
    )


@given(sizes, seeds, st.booleans(), st.booleans())
def test_negative_distance(size, seed, each, squared):
    e = logits_of(*size, seed)
    ref, rows = references(*size, seed, each)
    expected = [
        slow.negative_distance(a, b, squared) for a, b in zip(e.tolist(), rows, strict=True)
    ]
    check(NegativeDistance(ref, squared=squared), e, expected)


@pytest.mark.parametrize("squared", [True, False])
def test_distance_to_itself_is_zero_without_nan(squared):
    e = torch.randn(2, 4, dtype=torch.float64)
    expected = [slow.negative_distance(a, a, squared) for a in e.tolist()]
    check(NegativeDistance(e.clone(), squared=squared), e, expected)


def test_reference_is_a_constant():
    ref = torch.randn(3, requires_grad=True)
    e = torch.randn(2, 3, requires_grad=True)
    for target in (CosineSimilarity(ref), DotProduct(ref), NegativeDistance(ref)):
        assert torch.autograd.grad(target(e).sum(), [e, ref], allow_unused=True)[1] is None


@pytest.mark.parametrize("target", [CosineSimilarity, DotProduct, NegativeDistance])
def test_reference_of_the_wrong_shape(target):
    with pytest.raises(TargetError, match=r"\(4,\)"):
        target(torch.zeros(4))(torch.zeros(2, 3))
    with pytest.raises(TargetError, match="embeddings"):
        target(torch.zeros(4))(torch.zeros(2, 3, 4, 4))
    with pytest.raises(TargetError):
        target(torch.zeros(3, 4))(torch.zeros(2, 4))


# -------------------------------------------------------------------------------- cells, dense outputs


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5)),
    seeds,
    st.booleans(),
)
def test_cell(shape, seed, absolute):
    n, k, h, w = shape
    a = logits_of(n, k * h * w, seed).view(shape)
    a[0, 0] = 0  # |.| has the derivative 0 there
    rows, cols = [(seed + i) % h for i in range(n)], [(seed - i) % w for i in range(n)]
    target = Cell("any", rows, cols, absolute=absolute)
    x = a.clone().requires_grad_()
    values = target(x)
    (slope,) = torch.autograd.grad(values.sum(), x)
    expected_slope = np.zeros(shape)
    for i in range(n):
        value, by_channel = slow.cell(a[i].tolist(), rows[i], cols[i], absolute)
        assert abs(value - float(values[i].detach())) < 1e-12
        expected_slope[i, :, rows[i], cols[i]] = by_channel
    np.testing.assert_array_equal(slope.numpy(), expected_slope)


def test_cell_counts_from_below_and_refuses_outside():
    a = torch.arange(24.0).view(1, 2, 3, 4)
    assert Cell("l", -1, -2)(a).tolist() == Cell("l", 2, 2)(a).tolist() == [10.0 + 22.0]
    for row, col in ((3, 0), (-4, 0), (0, 4), (0, -5)):
        with pytest.raises(TargetError, match="3x4"):
            Cell("l", row, col)(a)
    with pytest.raises(TargetError, match="2 rows were given for 1 image"):
        Cell("l", [0, 1], 0)(a)


@given(
    st.tuples(st.integers(1, 2), st.integers(2, 4), st.integers(1, 4), st.integers(1, 4)),
    seeds,
    st.sampled_from(["shared", "each", "own"]),
)
def test_segmentation(shape, seed, kind):
    n, m, h, w = shape
    z = logits_of(n, m * h * w, seed, ties=kind == "own").view(shape)
    classes = [(seed + i) % m for i in range(n)]
    generator = torch.Generator().manual_seed(seed)
    if kind == "own":
        masks, target = (
            [slow.segmentation_region(z[i].tolist(), c) for i, c in enumerate(classes)],
            Segmentation(classes),
        )
    else:
        mask = torch.rand(*((h, w) if kind == "shared" else (n, h, w)), generator=generator)
        target = Segmentation(classes, mask=mask)
        masks = [mask.tolist()] * n if kind == "shared" else mask.tolist()
    expected = [slow.segmentation(z[i].tolist(), c, masks[i]) for i, c in enumerate(classes)]
    np.testing.assert_allclose(target(z).numpy(), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(target.pin(z)(z).numpy(), expected, rtol=1e-12, atol=1e-12)


def test_segmentation_keeps_the_region_of_the_image_itself():
    z = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    pinned = Segmentation(0).pin(z)
    assert pinned(z.flip(1)).tolist() == [0.0]  # the first pixel alone, whatever wins it now


def test_segmentation_errors():
    with pytest.raises(TargetError, match="dense"):
        Segmentation(0)(torch.zeros(1, 3))
    with pytest.raises(TargetError, match="mask"):
        Segmentation(0, mask=torch.ones(2, 2))(torch.zeros(1, 3, 4, 4))
    with pytest.raises(TargetError, match="Segmentation"):
        Logit(0)(torch.zeros(1, 3, 4, 4))


# ------------------------------------------------------------------------------------------ selection


def test_take_gives_each_image_its_own():
    z = torch.randn(4, 5, dtype=torch.float64)
    ref = torch.randn(4, 5, dtype=torch.float64)
    index = torch.tensor([3, 1, 1])
    for target in (
        Logit([0, 1, 2, 3]).pin(z),
        LogitMargin([0, 1, 2, 3]).pin(z),
        CosineSimilarity(ref),
        DotProduct(ref),
        NegativeDistance(ref),
    ):
        torch.testing.assert_close(target.take(index)(z[index]), target(z)[index], rtol=0, atol=0)
    shared = CosineSimilarity(ref[0])
    torch.testing.assert_close(shared.take(index)(z[index]), shared(z)[index], rtol=0, atol=0)
    maps = torch.randn(4, 2, 3, 3)
    cell = Cell("l", [0, 1, 2, 0], [2, 1, 0, 0]).pin(maps)
    assert torch.equal(cell.take(index)(maps[index]), cell(maps)[index])
    dense = torch.randn(4, 2, 3, 3)
    masks = torch.rand(4, 3, 3)
    seg = Segmentation([0, 1, 0, 1], mask=masks).pin(dense)
    torch.testing.assert_close(seg.take(index)(dense[index]), seg(dense)[index])


# --------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (5, "class 5 does not exist: the model has 5 classes, 0 to 4"),
        (-1, "class -1"),
        ([0, 9], "class 9"),
        ([0], "1 classes were given for 2 images"),
        ([0, 1, 2], "3 classes were given for 2 images"),
        (torch.tensor([0.5, 1.0]), "integers"),
        (torch.tensor([True, False]), "integers"),
        ("cat", "'cat' is a name"),
        ([0, "cat"], "is a name"),
    ],
)
def test_wrong_classes(classes, words):
    with pytest.raises(TargetError, match=words):
        Logit(classes)(torch.zeros(2, 5))


def test_names_are_looked_up():
    lookup = {"cat": 3, "dog": 1}.__getitem__
    z = torch.arange(10.0).view(2, 5)
    assert Logit("cat").resolve(lookup)(z).tolist() == [3, 8]
    assert Logit(["dog", 0]).resolve(lookup)(z).tolist() == [1, 5]


def test_as_target():
    assert isinstance(as_target(None), Logit)
    assert isinstance(as_target([1, 2]), Logit)
    assert isinstance(as_target(np.array([1, 2])), Logit)
    assert isinstance(as_target(torch.tensor([1])), Logit)
    assert isinstance(as_target(lambda z: z[:, 0]), Custom)
    margin = LogitMargin()
    assert as_target(margin) is margin
    with pytest.raises(TargetError, match=r"LogitMargin\(\)"):
        as_target(LogitMargin)
    with pytest.raises(TargetError, match="dict"):
        as_target({})
    with pytest.raises(TargetError, match="lse"):
        LogitMargin(aggregator="median")


def test_a_function_must_return_one_value_per_image():
    with pytest.raises(TargetError, match=r"\(2, 3\)"):
        target_values(as_target(lambda z: z), torch.zeros(2, 3), 2)
    with pytest.raises(TargetError, match=r"\(\)"):
        target_values(as_target(lambda z: z.sum()), torch.zeros(2, 3), 2)
    with pytest.raises(TargetError, match="float"):
        target_values(as_target(lambda _: 1.0), torch.zeros(2, 3), 2)


def test_values_of_reduced_precision_are_computed_in_single():
    z = torch.randn(2, 5).bfloat16()
    assert target_values(Probability(0), z, 2).dtype == torch.float32


def test_describe_is_plain():
    import json

    for target in (
        Logit(torch.tensor([1, 2])),
        LogitMargin("cat", aggregator="lse"),
        CosineSimilarity(torch.zeros(512)),
        Cell(torch.nn.ReLU(), 1, torch.tensor([2])),
        Segmentation(0, mask=torch.ones(100, 100)),
        Custom(test_take_gives_each_image_its_own),
    ):
        described = json.loads(json.dumps(target.describe()))
        assert described["target"] == type(target).__name__
    assert Logit([1, 2]).describe()["classes"] == [1, 2]


# --------------------------------------------------------------------------------------- named rivals


@pytest.mark.parametrize("aggregator", AGGREGATORS)
@given(sizes, seeds)
def test_margin_over_named_rivals_is_the_margin_without_the_other_classes(aggregator, size, seed):
    n, m = size
    z = logits_of(n, m + 2, seed)
    generator = torch.Generator().manual_seed(seed)
    chosen = [torch.randperm(m + 2, generator=generator)[:m].tolist() for _ in range(n)]
    kept = [sorted(some) for some in chosen]
    smaller = torch.stack([z[i, some] for i, some in enumerate(kept)])
    own = [some[0] for some in chosen]
    named = LogitMargin(own, aggregator, rivals=[some[1:] for some in chosen])
    places = [some.index(one) for some, one in zip(kept, own, strict=True)]
    wanted = LogitMargin(places, aggregator)(smaller)
    torch.testing.assert_close(named.for_images(n)(z), wanted)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_the_margin_over_one_rival_is_the_difference_and_its_opposite_the_swapped_one(aggregator):
    z = torch.randn(2, 5, dtype=torch.float64)
    margin = LogitMargin([1, 4], aggregator, rivals=3).pin(z)
    torch.testing.assert_close(margin(z), z[[0, 1], [1, 4]] - z[:, 3])
    torch.testing.assert_close(margin.opposite()(z), -margin(z))
    assert margin.opposite().classes.tolist() == [3, 3]
    several = LogitMargin([1, 4], aggregator, rivals=[0, 3]).pin(z)
    torch.testing.assert_close(several.opposite()(z), -several(z))


@pytest.mark.parametrize("kind", [LogitMargin, FinerMargin])
def test_rivals_by_name(kind):
    lookup = {"cat": 3, "dog": 1, "fox": 0}.__getitem__
    z = torch.randn(2, 5)
    for names, indices in (("dog", [1]), (["dog", "fox"], [1, 0]), ([["dog"], [4]], [[1], [4]])):
        named = kind("cat", rivals=names).resolve(lookup)
        torch.testing.assert_close(named(z), kind(3, rivals=indices)(z))
    assert build_target("margin:rivals=dog/fox").rivals == ("dog", "fox")
    assert build_target("finer:rivals=none").rivals is None


@pytest.mark.parametrize("kind", [LogitMargin, FinerMargin])
@pytest.mark.parametrize(
    ("rivals", "words"),
    [
        ("dog", "names are not known"),
        ([5], "class 5 does not exist"),
        ([0.5], "integers"),
        ([[0], [1], [2]], "3 rows of rivals were given for 2 images"),
        ([0, 2], "class 2 is what is explained"),
        ([], "rivals must be"),
    ],
)
def test_wrong_rivals(kind, rivals, words):
    with pytest.raises(TargetError, match=words):
        kind(2, rivals=rivals)(torch.zeros(2, 5))


@given(size=st.integers(2, 9), seed=st.integers(0, 2**32 - 1), width=st.floats(0.01, 3))
def test_the_guideline_is_what_is_written_out(size, seed, width):
    z = width * torch.randn(
        4, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    classes = torch.arange(4) % size
    found = LogitMargin(classes, "guideline")(z)
    wanted = [
        written.margin(row, int(c), "guideline") for row, c in zip(z.numpy(), classes, strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


def test_the_guideline_says_what_it_chose_and_keeps_it():
    z = torch.tensor([[5.0, 1.0, 1.1, 0.9], [5.0, 1.0, 4.0, -3.0]], requires_grad=True)
    target = LogitMargin(0, "guideline")
    narrow, broad = target.remarks(z).values()
    assert "chose lse" in narrow
    assert "0.082" in narrow
    assert "chose the mean of the rivals" in broad
    pinned = target.pin(z)
    assert pinned.soft.tolist() == [True, False]
    assert pinned.word == "LogitMargin"
    lse, mean = (LogitMargin(0, kind) for kind in ("lse", "mean"))
    # The image changes, the choice does not; also for some of the images only.
    torch.testing.assert_close(
        pinned(z.flip(0)), torch.stack([lse(z.flip(0))[0], mean(z.flip(0))[1]])
    )
    torch.testing.assert_close(pinned.take(torch.tensor([1, 1]))(z[[1, 1]]), mean(z[[1, 1]]))
    torch.testing.assert_close(
        *(torch.autograd.grad(t.sum(), z)[0][0] for t in (target(z), lse(z)))
    )
    assert LogitMargin(0).remarks(z) == {}


def test_the_guideline_is_told_with_each_map():
    import camlucida
    from camlucida.models.small import SmallCNN, SmallConfig

    model = SmallCNN(SmallConfig(size=32)).eval()
    found = camlucida.explain(
        model, torch.rand(2, 3, 32, 32), method="diffgradcam:aggregator=guideline"
    )
    assert all("the guideline chose" in " ".join(d.messages) for d in found.diagnostics)
