"""FAME against its slow reference, its bounds, and the edge cases of the spec."""

import shutil
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import camlucida
from camlucida import (
    Cell,
    Cells,
    CosineSimilarity,
    HalfSquaredDistance,
    Logit,
    MethodError,
    Preprocess,
)
from camlucida.common.seeds import ImageGenerators
from camlucida.engine import compiled_step
from camlucida.engine.compiled_step import step
from camlucida.methods import FAME, fame
from camlucida.methods.fame import correlation, descend, gray, movement
from camlucida.targets import Negated
from reference import fame as slow


class Net(nn.Module):
    """Smooth, so that the comparison does not hang on kinks."""

    def __init__(self, channels=3, classes=4):
        super().__init__()
        self.conv = nn.Conv2d(channels, 5, 3, padding=1)
        self.head = nn.Linear(5, classes)

    def forward(self, x):
        return self.head(torch.tanh(self.conv(x)).mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().double().eval()


def images(n=3, size=9, channels=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, size, size + 2, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("how", ["gray_then_abs", "abs_then_gray", "abs_mean", "abs_max", "l2"])
@pytest.mark.parametrize("normalise", ["max", "minmax"])
def test_equals_the_slow_reference(net, how, normalise):
    x = images()
    method = FAME(iterations=12, sigma=1.3, kernel=7, channel_reduction=how, normalise=normalise)
    found = camlucida.explain(net, x, method=method, target=[0, 1, 2])
    for i in range(3):
        moved, _ = slow.descend_one(lambda image, c=i: net(image)[:, c], x[i], 12)
        wanted = slow.attribution(moved, x[i], 1.3, 7, how, normalise)
        np.testing.assert_allclose(found.maps[i].numpy(), wanted, atol=1e-12)


def test_one_step_moves_by_exactly_eta_and_n_by_at_most_n_eta(net):
    x = images()

    def loss(at, _):
        return net(at)[:, 0]

    one = descend(partial(step, loss), x, iterations=1).images - x
    assert one.abs().amax((1, 2, 3)).tolist() == pytest.approx([1 / 255] * 3, rel=1e-12)
    many = descend(partial(step, loss), x, iterations=20).images - x
    assert (many.abs().amax() <= 20 / 255 + 1e-12).item()


def test_batch_equals_single_images(net):
    x = images(4)
    method = FAME(iterations=20, sigma=1, kernel=5)
    batch = camlucida.explain(net, x, method=method)
    for i in range(4):
        single = camlucida.explain(net, x[i], method=method)
        torch.testing.assert_close(batch.maps[i], single.maps[0], rtol=0, atol=1e-12)


def test_the_maximum_is_taken_per_image_and_not_over_the_batch(net):
    x = images(2)

    def loss(at, index):
        return net(at)[:, 0] * torch.where(index == 0, 1.0, 1e-6)

    moved = descend(partial(step, loss), x, iterations=1).images - x
    assert moved[1].abs().max().item() == pytest.approx(1 / 255)


def test_gray_then_abs_differs_from_abs_then_gray():
    start = torch.zeros(1, 3, 1, 1)
    moved = torch.tensor([1.0, -0.5, 0.0]).view(1, 3, 1, 1)
    assert movement(moved, start).item() == pytest.approx(abs(0.2989 - 0.5 * 0.587))
    assert movement(moved, start, "abs_then_gray").item() == pytest.approx(0.2989 + 0.5 * 0.587)


def test_gray_of_one_and_of_five_channels():
    one = torch.randn(2, 1, 3, 3)
    torch.testing.assert_close(gray(one), one[:, 0])
    five = torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(gray(five), five.mean(1))


def test_first_steps_of_similar_and_dissimilar_are_opposite(net):
    x = images(2)
    reference = torch.randn(4, dtype=torch.float64)
    plus = FAME(iterations=1, sigma=0)
    minus = FAME(iterations=1, sigma=0, loss="raise")
    target = CosineSimilarity(reference)
    a = camlucida.explain(net, x, method=plus, target=target)
    b = camlucida.explain(net, x, method=minus, target=target)
    torch.testing.assert_close(a.maps, b.maps, rtol=0, atol=1e-10)
    more = camlucida.explain(net, x, method=FAME(iterations=30, sigma=0), target=target)
    fewer = camlucida.explain(
        net, x, method=FAME(iterations=30, sigma=0, loss="raise"), target=target
    )
    assert not torch.allclose(more.maps, fewer.maps, atol=1e-3)


def test_descending_lowers_the_target_and_raising_raises_it(net):
    x = images()
    down = camlucida.explain(net, x, method=FAME(iterations=20), target=1).details["loss"]
    assert (down[:, 1] < down[:, 0]).all()
    up = camlucida.explain(net, x, method=FAME(iterations=20, loss="raise"), target=1).details[
        "loss"
    ]
    assert (up[:, 1] < up[:, 0]).all()  # the loss is 1 - z


def test_absolute_turns_around_for_negative_logits(net):
    x = images()
    logits = net(x)
    worst = logits.argmin(1)
    assert (logits.gather(1, worst[:, None]) < 0).all()
    raw = camlucida.explain(net, x, method=FAME(iterations=5, loss="absolute"), target=worst)
    plain = camlucida.explain(net, x, method=FAME(iterations=5), target=worst)
    assert (raw.details["loss"][:, 1] < raw.details["loss"][:, 0]).all()
    assert (plain.details["loss"][:, 1] < plain.target_values).all()


@pytest.mark.parametrize("early_stop", ["sample", "batch_mean"])
def test_early_stop_is_checked_before_the_step(net, early_stop):
    x = images(2)
    with torch.no_grad():
        values = net(x)[:, 0]
    between = float(values.mean())
    result = descend(
        partial(step, lambda at, _: net(at)[:, 0]),
        x,
        iterations=3,
        epsilon=between,
        early_stop=early_stop,
    )
    untouched = (result.images == x).flatten(1).all(1)
    lower = int(values.argmin())
    if early_stop == "sample":
        assert untouched[lower]
        assert not untouched[1 - lower]
        assert result.passes[lower] == 1
    else:  # the mean is not below itself at first, but is after one step
        assert not untouched.any()
        assert result.passes.tolist() == [2, 2]


def test_epsilon_that_stops_at_once_says_so(net):
    found = camlucida.explain(net, images(1), method=FAME(iterations=3, epsilon=1e6))
    assert found.maps.abs().max() == 0
    assert any("epsilon" in m for m in found.diagnostics[0].messages)


def test_no_gradient_leaves_the_image_alone_and_says_so():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.constant_(model[0].weight, 0)
    nn.init.constant_(model[0].bias, -1)
    found = camlucida.explain(model, torch.randn(2, 3, 30, 30), method=FAME(iterations=4), target=0)
    assert found.maps.isfinite().all()
    assert found.maps.abs().max() == 0
    assert found.details["passes"].tolist() == [1, 1]
    assert any("no small change" in m for m in found.diagnostics[0].messages)


def test_cell_loss_is_the_l1_norm_and_stops_at_the_layer(net):
    x = images(2)
    stopped = []
    camlucida.list_layers(net, x)
    net.head.register_forward_hook(lambda *_: stopped.append(1))
    target = Cell("conv", row=[2, 4], col=[3, 0])
    found = camlucida.explain(net, x, method=FAME(iterations=8, sigma=1, kernel=5), target=target)
    assert not stopped
    for i, (r, c) in enumerate([(2, 3), (4, 0)]):
        moved, _ = slow.descend_one(
            lambda image, r=r, c=c: net.conv(image)[:, :, r, c].abs().sum(1), x[i], 8
        )
        np.testing.assert_allclose(
            found.maps[i].numpy(), slow.attribution(moved, x[i], 1, 5), atol=1e-12
        )
    # only the cell's 3x3 receptive field moves
    moved = found.details["movement"][1].nonzero()
    assert moved[:, 0].min() >= 3
    assert moved[:, 0].max() <= 5
    assert moved[:, 1].max() <= 1


def test_set_of_cells_is_the_sum_of_its_cells(net):
    x = images(1)
    mask = torch.zeros(9, 11)
    mask[2, 3] = mask[7, 7] = 1
    both = Cells("conv", mask)(net.conv(x))
    parts = sum(Cell("conv", r, c)(net.conv(x)) for r, c in ((2, 3), (7, 7)))
    torch.testing.assert_close(both, parts)


def test_lots_moves_the_output_towards_the_reference(net):
    x, wanted = images(2), torch.zeros(4, dtype=torch.float64)
    found = camlucida.explain(
        net, x, method=FAME(iterations=40), target=HalfSquaredDistance(wanted)
    )
    torch.testing.assert_close(found.target_values, net(x).square().sum(1).detach() / 2)
    assert (found.details["loss"][:, 1] < found.details["loss"][:, 0]).all()


def test_snapshots_equal_runs_of_that_length(net):
    x = images(2)
    long = camlucida.explain(
        net, x, method=FAME(iterations=15, sigma=1, kernel=5, snapshots=(4, 9))
    )
    for count in (4, 9):
        short = camlucida.explain(net, x, method=FAME(iterations=count, sigma=1, kernel=5))
        torch.testing.assert_close(long.details[f"map@{count}"], short.maps, rtol=0, atol=1e-12)


def test_reference_code_preset_is_minmax_with_eps(net):
    x = images(1, size=30)
    preset = camlucida.explain(net, x, method=FAME(iterations=6, preset="reference_code"))
    moved, _ = slow.descend_one(lambda at: net(at)[:, net(x).argmax()], x[0], 6)
    wanted = slow.movement(moved, x[0])
    wanted = slow.blur(wanted / (wanted.max() + 1e-8), 7.7, 49)
    wanted = (wanted - wanted.min()) / (wanted.max() - wanted.min() + 1e-8)
    np.testing.assert_allclose(preset.maps[0].numpy(), wanted, atol=1e-9)
    plain = camlucida.explain(net, x, method=FAME(iterations=6))
    assert plain.maps.min() > 0  # max normalisation keeps the floor


COLOURS = Preprocess((9, 11), (9, 11), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.5))


def test_several_starts_are_the_mean_of_paths_within_a_grey_level(net):
    x = images(2)
    method = FAME(iterations=5, starts=4, sigma=1.3, kernel=7)
    found = camlucida.explain(net, x, method=method, target=[0, 1], preprocess=COLOURS, seed=3)
    drawn = ImageGenerators(3, x)
    draws = [2 * drawn.rand(x.shape[1:], x) - 1 for _ in range(4)]
    std = torch.tensor(COLOURS.std, dtype=x.dtype)[:, None, None]
    for i in range(2):
        starts = [x[i] + d[i] / 255 / std for d in draws]
        halves = []
        for some in (starts, starts[::2], starts[1::2]):
            moved = slow.mean_movement(lambda image, c=i: net(image)[:, c], some, 5)
            halves.append(slow.blur(moved, 1.3, 7))
        np.testing.assert_allclose(found.maps[i].numpy(), halves[0] / halves[0].max(), atol=1e-12)
        alike = np.corrcoef(halves[1].ravel(), halves[2].ravel())[0, 1]
        assert found.details["halves"][i] == pytest.approx(alike)
        assert f"correlate at {alike:.3f}" in found.diagnostics[i].messages[0]
    assert found.details["passes"].tolist() == [20, 20]
    alone = camlucida.explain(net, x[1:], method=method, target=1, preprocess=COLOURS, seed=3)
    torch.testing.assert_close(alone.maps[0], found.maps[1], rtol=0, atol=1e-12)


def test_several_starts_take_no_more_memory_than_the_batch_or_one_image(net):
    sizes = []
    net.conv.register_forward_hook(lambda _m, args, _o: sizes.append(len(args[0])))
    options = {"iterations": 2, "sigma": 0}
    for count, starts, most in ((3, 2, 3), (2, 5, 5)):
        sizes.clear()
        method = FAME(starts=starts, **options)
        camlucida.explain(net, images(count), method=method, preprocess=COLOURS)
        assert max(sizes) == most
        assert sum(sizes[-2 * starts * count // most :]) == count * 2 * starts


def test_several_starts_need_to_know_what_a_grey_level_is(net):
    with pytest.raises(MethodError, match="grey level"):
        camlucida.explain(net, images(), method=FAME(starts=2, iterations=1))


def test_a_preset_leaves_what_is_given():
    assert (FAME(preset="reproducible").starts, FAME(preset="reproducible").iterations) == (8, 62)
    given = FAME(preset="reproducible", iterations=20)
    assert (given.starts, given.iterations) == (8, 20)
    assert (FAME().starts, FAME().iterations) == (1, 500)


def test_small_images_get_a_smaller_kernel_and_a_note(net):
    found = camlucida.explain(net, images(1, size=9), method=FAME(iterations=2))
    assert any("cut from 49 to 17" in m for m in found.diagnostics[0].messages)
    large = camlucida.explain(
        net, images(1, size=40), method=FAME(iterations=2), outputs="classes:activation=logits"
    )
    assert not large.diagnostics[0].messages


def test_scaled_sigma():
    method = FAME(sigma="scaled")
    assert method.blur((224, 224)) == (7.7, 49)
    sigma, kernel = method.blur((112, 112))
    assert sigma == pytest.approx(3.85)
    assert kernel == 25


def test_pixel_space_descends_in_pixels(net):
    preprocess = Preprocess.imagenet(size=12, resize=12)
    x = preprocess.normalise(torch.rand(2, 3, 12, 12)).double()
    found = camlucida.explain(
        net, x, method=FAME(iterations=7, input_space="pixel", sigma=1, kernel=5), target=0,
        preprocess=preprocess,
    )  # fmt: skip
    pixels = preprocess.denormalise(x)
    moved, _ = slow.descend_one(lambda at: net(preprocess.normalise(at))[:, 0], pixels[0], 7)
    np.testing.assert_allclose(
        found.maps[0].numpy(), slow.attribution(moved, pixels[0], 1, 5), atol=1e-9
    )
    with pytest.raises(MethodError, match="preprocess"):
        camlucida.explain(net, x, method=FAME(input_space="pixel"))


def test_clamp_keeps_pixels_in_range(net):
    result = descend(
        partial(step, lambda at, _: net(at)[:, 0]),
        torch.rand(1, 3, 8, 8).double(),
        iterations=400,
        clamp=(0, 1),
    )
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    assert (result.images == 0).any()


def test_half_precision_model_keeps_the_image_in_single_precision():
    model = Net().to(torch.bfloat16).eval()
    found = camlucida.explain(model, images(1, 30).to(torch.bfloat16), method=FAME(iterations=5))
    assert found.maps.dtype == torch.float32
    assert found.details["movement"].max() <= 5 / 255 + 1e-6


def test_auto_stops_each_image_at_the_first_check_where_its_map_has_settled(net):
    x = images(3, size=30)
    auto = FAME(iterations="auto", tolerance=2e-4)
    found = camlucida.explain(net, x, method=auto, target=0)
    checks = tuple(range(15, 500, 15))
    full = camlucida.explain(net, x, method=FAME(snapshots=checks), target=0)
    for i, passes in enumerate(found.details["passes"].tolist()):
        maps = [full.details[f"map@{n}"][i].flatten()[None] for n in checks]
        changes = [1 - float(correlation(a, b)) for a, b in pairwise(maps)]
        settled = [n for n, change in zip(checks[1:], changes, strict=True) if change < 2e-4]
        assert passes == (settled[0] if settled else 500)
        if settled:
            wanted = full.details[f"map@{passes}"][i]
            torch.testing.assert_close(found.maps[i], wanted, rtol=0, atol=1e-9)
    assert len(set(found.details["passes"].tolist())) > 1


def test_progress_reports_every_step_and_the_end(net):
    seen = []
    camlucida.explain(
        net,
        images(2),
        method=FAME(iterations=4),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (2, 2)
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    assert len(seen) >= 4


@pytest.mark.parametrize(
    "options",
    [
        {"iterations": 0},
        {"iterations": "many"},
        {"step_size": 0},
        {"loss": "L"},
        {"channel_reduction": "red"},
        {"clamp": True},
        {"early_stop": "never"},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(MethodError, match=next(iter(options))):
        FAME(**options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8}),
        ("swin_tiny_patch4_window7_224", {"img_size": 56}),
    ],
)
def test_transformers(name, options):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, **options).eval()
    x = torch.randn(2, 3, options["img_size"], options["img_size"])
    found = camlucida.explain(model, x, method=FAME(iterations=5), target=Logit(3))
    assert found.maps.amax((1, 2)).tolist() == [1, 1]
    assert (found.details["loss"][:, 1] < found.details["loss"][:, 0]).all()


def _small():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 3, 2), nn.BatchNorm2d(8),
        nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip
    for norm in (model[1], model[4]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return model


def test_the_fast_form_moves_the_images_as_the_model_itself(monkeypatch):
    model = _small()
    x = torch.rand(3, 3, 16, 16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    asked = []
    real = fame.fast_forward

    def watched(*args, **how):
        asked.append(how)
        return real(*args, **how)

    monkeypatch.setattr(fame, "fast_forward", watched)
    fast = camlucida.explain(model, x, method=FAME(iterations=20), target=1)
    assert asked == [{"gradients": True}]
    plain = camlucida.explain(model, x, method=FAME(iterations=20, plain=True), target=1)
    assert len(asked) == 1
    moved = plain.details["movement"]
    bound = 1e-4 * float(moved.max())
    torch.testing.assert_close(fast.details["movement"], moved, rtol=0, atol=bound)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert type(model[1]) is nn.BatchNorm2d


def _compiling(monkeypatch):
    """What was compiled."""
    made, real = [], compiled_step._compiled

    def watched(*args):
        made.append(real(*args))
        return made[-1]

    monkeypatch.setattr(compiled_step, "_compiled", watched)
    return made


COMPILED = FAME(iterations=20, compiled=True)


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs a compiler")
def test_compiled_steps_move_the_images_as_eager_ones_whatever_is_explained(monkeypatch):
    model, x = _small(), torch.rand(3, 3, 16, 16)
    method = FAME(iterations=20)
    plain = camlucida.explain(model, x, method=method, target=[0, 1, 2])
    other = camlucida.explain(model, x, method=method, target=[3, 1, 0])
    made = _compiling(monkeypatch)
    fast = camlucida.explain(model, x, method=COMPILED, target=[0, 1, 2])
    again = camlucida.explain(model, x, method=COMPILED, target=[3, 1, 0])
    assert made
    assert all(run is not None for run in made)
    for found, wanted in ((fast, plain), (again, other)):
        moved = wanted.details["movement"]
        bound = 1e-4 * float(moved.max())
        torch.testing.assert_close(found.details["movement"], moved, rtol=0, atol=bound)


def test_steps_are_compiled_only_where_that_is_asked_for(monkeypatch):
    made = _compiling(monkeypatch)
    camlucida.explain(_small(), torch.rand(1, 3, 16, 16), method=FAME(iterations=20))
    assert made == []


@pytest.mark.parametrize("target", [lambda outputs: outputs[:, 0], Negated(Logit(1))])
def test_a_function_or_a_shared_tensor_is_not_traced(monkeypatch, target):
    made = _compiling(monkeypatch)
    camlucida.explain(_small(), torch.rand(1, 3, 16, 16), method=COMPILED, target=target)
    assert made == []


def test_without_a_compiler_steps_stay_eager_and_it_is_said(monkeypatch, caplog):
    made = _compiling(monkeypatch)
    model, x = _small(), torch.rand(1, 3, 16, 16)

    def broken(*_, **__):
        raise RuntimeError("no compiler here\nand more")

    monkeypatch.setattr(torch, "compile", broken)
    found = camlucida.explain(model, x, method=COMPILED)
    assert made == [None]
    assert found.maps.amax() == 1
    assert "no compiler here" in caplog.text
