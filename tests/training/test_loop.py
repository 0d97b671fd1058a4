"""The training loop: what is learned, what a resumed run continues, what the best epoch is."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from camlucida.common.errors import CamlucidaError
from camlucida.training.loop import FitOptions, fit

pytest.importorskip("lightning_fabric")

CPU = {"accelerator": "cpu"}


def network():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2)
    )


def batches(epoch):
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(5):
        x = torch.randn(16, 4, generator=generator)
        yield x, (x[:, 0] > 0).long()


def loss(model, batch):
    logits = model(batch[0])
    return F.cross_entropy(logits, batch[1]), {
        "accuracy": (logits.argmax(1) == batch[1]).float().mean()
    }


def score(model):
    x, y = next(iter(batches(99)))
    return float(-F.cross_entropy(model(x), y))


def same(a, b):
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_sgd_steps_are_those_of_plain_torch():
    """One epoch against the loop anybody would write."""
    model, plain = (nn.Sequential(nn.Linear(4, 2)) for _ in range(2))
    plain.load_state_dict(model.state_dict())
    options = FitOptions(
        epochs=3, learning_rate=0.1, weight_decay=0.01, step_size=2, gamma=0.5, **CPU
    )
    found = fit(model, batches, loss, options=options)
    optimizer = torch.optim.SGD(plain.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    means = []
    for epoch in range(3):
        values = []
        for batch in batches(epoch):
            optimizer.zero_grad()
            value, _ = loss(plain, batch)
            value.backward()
            optimizer.step()
            values.append(value.item())
        schedule.step()
        means.append(sum(values) / len(values))
    assert same(model, plain)
    assert [row["loss"] for row in found.curves] == pytest.approx(means)
    assert [row["learning_rate"] for row in found.curves] == pytest.approx([0.1, 0.1, 0.05])
    assert found.best_epoch == 2
    assert math.isnan(found.best_score)


@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_run_is_an_uninterrupted_one(tmp_path, stop):
    """Dropout, momentum, schedule and the best epoch so far all go on where they were."""
    options = FitOptions(epochs=4, optimizer="adam", schedule="cosine", warmup=3, **CPU)
    more = {"options": options, "steps_per_epoch": 5, "validate": score}
    whole = network()
    first = fit(whole, batches, loss, **more)

    def killed(epoch):
        if epoch == stop:
            raise KeyboardInterrupt
        return batches(epoch)

    file = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(network(), killed, loss, checkpoint=file, **more)
    again = network()
    found = fit(again, batches, loss, checkpoint=file, **more)
    assert found.resumed_from == stop
    assert same(whole, again)
    assert [r["loss"] for r in found.curves] == [r["loss"] for r in first.curves]
    assert (found.best_epoch, found.best_score, found.steps) == (
        first.best_epoch,
        first.best_score,
        20,
    )
    assert fit(network(), batches, loss, checkpoint=file, **more).resumed_from == 4


def test_the_best_epoch_is_kept():
    scores = iter([0.1, 0.7, 0.7, 0.3])
    kept = {}

    def validate(model):
        value = next(scores)
        kept.setdefault(value, {k: v.clone() for k, v in model.state_dict().items()})
        assert not model.training
        return value

    model = network()
    found = fit(model, batches, loss, validate=validate, options=FitOptions(epochs=4, **CPU))
    assert (found.best_epoch, found.best_score) == (1, 0.7)
    assert [row["score"] for row in found.curves] == [0.1, 0.7, 0.7, 0.3]
    best = {k.removeprefix("_forward_module."): v for k, v in kept[0.7].items()}
    assert all(torch.equal(v, best[k]) for k, v in model.state_dict().items())
    assert not model.training


def test_of_equal_epochs_the_later_one_is_kept_if_asked_for():
    scores = iter([0.1, 0.7, 0.7, 0.3])
    kept = []

    def validate(model):
        kept.append({k: v.clone() for k, v in model.state_dict().items()})
        return next(scores)

    model = network()
    options = FitOptions(epochs=4, ties="later", **CPU)
    found = fit(model, batches, loss, validate=validate, options=options)
    assert (found.best_epoch, found.best_score) == (2, 0.7)
    later = {k.removeprefix("_forward_module."): v for k, v in kept[2].items()}
    for name, value in model.state_dict().items():
        assert torch.equal(value, later[name])
    with pytest.raises(CamlucidaError, match="ties must be one of 'first', 'later'"):
        FitOptions(ties="last")


def test_frozen_parameters_stay_as_they_are():
    model = network()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    fit(model, batches, loss, options=FitOptions(epochs=1, **CPU))
    assert torch.equal(model[0].weight, before)


def test_mixed_precision_learns_too():
    options = FitOptions(epochs=6, learning_rate=0.1, precision="bf16-mixed", **CPU)
    found = fit(network(), batches, loss, options=options)
    assert found.curves[-1]["accuracy"] > 0.8


def test_the_cosine_rises_and_falls():
    rates = []
    model = network()

    def watched(m, batch):
        return loss(m, batch)

    def progress(done, total, numbers):
        rates.append((done, total, numbers["epoch"]))

    options = FitOptions(epochs=2, schedule="cosine", learning_rate=1e-3, **CPU)
    found = fit(model, batches, watched, options=options, steps_per_epoch=5, progress=progress)
    assert rates[0] == (1, 10, 0)
    assert rates[-1] == (10, 10, 1)
    ends = [1e-3 * (1 + math.cos(math.pi * step / 10)) / 2 for step in (4, 9)]
    assert [row["learning_rate"] for row in found.curves] == pytest.approx(ends)


def test_what_goes_wrong_is_said(tmp_path):
    for options, words in (
        ({"epochs": 0}, "epochs must be"),
        ({"optimizer": "x"}, "'sgd', 'adam'"),
        ({"learning_rate": 0.0}, "learning_rate must be"),
        ({"precision": "8"}, "bf16"),
    ):
        with pytest.raises(CamlucidaError, match=words):
            FitOptions(**options)
    short = FitOptions(epochs=1, **CPU)
    with pytest.raises(CamlucidaError, match="no batches"):
        fit(network(), lambda _: [], loss, options=short)
    with pytest.raises(CamlucidaError, match="steps_per_epoch"):
        fit(network(), batches, loss, options=FitOptions(schedule="cosine"))
    with pytest.raises(CamlucidaError, match="became nan"):
        fit(network(), batches, lambda m, b: loss(m, b)[0] * math.nan, options=short)
    file = tmp_path / "run.pt"
    fit(network(), batches, loss, options=short, checkpoint=file)
    with pytest.raises(CamlucidaError, match=r"another plan.*learning_rate"):
        fit(
            network(),
            batches,
            loss,
            options=FitOptions(epochs=1, learning_rate=1, **CPU),
            checkpoint=file,
        )
    with pytest.raises(CamlucidaError, match="does not fit"):
        fit(nn.Linear(4, 2), batches, loss, options=short, checkpoint=file)
    file.write_bytes(b"no")
    with pytest.raises(CamlucidaError, match="damaged"):
        fit(network(), batches, loss, options=short, checkpoint=file)


def test_the_global_random_state_is_left_as_it_was():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5))
    torch.manual_seed(7)
    fit(model, batches, loss, options=FitOptions(epochs=1, **CPU))
    assert torch.equal(torch.rand(3), expected)


def test_an_epoch_without_a_score_is_never_the_best():
    scores = iter([0.5, math.nan, 0.4])
    found = fit(
        network(), batches, loss, validate=lambda _: next(scores), options=FitOptions(epochs=3, **CPU)
    )  # fmt: skip
    assert (found.best_epoch, found.best_score) == (0, 0.5)
    scores = iter([math.nan, 0.4])
    found = fit(
        network(), batches, loss, validate=lambda _: next(scores), options=FitOptions(epochs=2, **CPU)
    )  # fmt: skip
    assert (found.best_epoch, found.best_score) == (1, 0.4)


def test_the_scale_of_half_precision_goes_on_too(tmp_path, monkeypatch):
    """A gradient scaler lives on GPUs only; its state takes the same way as this one."""
    from lightning_fabric.plugins.precision import Precision

    given = []
    monkeypatch.setattr(Precision, "state_dict", lambda _: {"scale": 512.0})
    monkeypatch.setattr(Precision, "load_state_dict", lambda _, state: given.append(state))

    def killed(epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        return batches(epoch)

    options, file = FitOptions(epochs=2, **CPU), tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(network(), killed, loss, options=options, checkpoint=file)
    assert given == []
    fit(network(), batches, loss, options=options, checkpoint=file)
    assert given == [{"scale": 512.0}]


def test_one_of_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CamlucidaError, match=r"2 were started.*without torchrun"):
        fit(network(), batches, loss, options=FitOptions(epochs=1, **CPU))
    monkeypatch.setenv("WORLD_SIZE", "1")
    fit(network(), batches, loss, options=FitOptions(epochs=1, **CPU))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_told():
    with pytest.raises(CamlucidaError, match="cannot train on accelerator='gpu'"):
        fit(network(), batches, loss, options=FitOptions(epochs=1, accelerator="gpu"))


def test_a_score_that_is_enough_ends_the_training(tmp_path):
    scores = iter([0.4, 0.95, 0.99])
    options = FitOptions(epochs=9, enough=0.9, score_every=2, **CPU)
    more = {"validate": lambda _: next(scores), "options": options, "checkpoint": tmp_path / "c"}
    found = fit(network(), batches, loss, **more)
    assert [row.get("score") for row in found.curves] == [None, 0.4, None, 0.95]
    assert (found.best_epoch, found.best_score) == (3, 0.95)
    assert len(fit(network(), batches, loss, **more).curves) == 4


def test_several_numbers_are_logged_and_the_first_is_the_score():
    found = fit(
        network(), batches, loss, validate=lambda _: {"top1": 0.5, "top5": 0.9},
        options=FitOptions(epochs=1, **CPU),
    )  # fmt: skip
    row = found.curves[0]
    assert (row["score"], row["top1"], row["top5"]) == (0.5, 0.5, 0.9)


def test_steps_and_epochs_are_told():
    told = []
    model = network()
    fit(
        model, batches, loss, options=FitOptions(epochs=2, **CPU), after_step=lambda m: told.append(m is model),
        after_epoch=lambda fitted: told.append(len(fitted.curves)),
    )  # fmt: skip
    assert told == [*[True] * 5, 1, *[True] * 5, 2]


def test_a_longer_training_goes_on_from_a_shorter_one(tmp_path):
    file = tmp_path / "run.pt"
    for epochs, resumed in ((1, 0), (3, 1)):
        found = fit(network(), batches, loss, options=FitOptions(epochs, **CPU), checkpoint=file)
        assert (found.resumed_from, len(found.curves)) == (resumed, epochs)
    options = FitOptions(5, schedule="cosine", **CPU)
    with pytest.raises(CamlucidaError, match=r"another plan.*schedule"):
        fit(network(), batches, loss, options=options, steps_per_epoch=5, checkpoint=file)


def test_batches_may_be_a_list():
    listed = [*batches(0)]
    one, other = network(), network()
    fit(one, listed, loss, options=FitOptions(epochs=2, **CPU))
    fit(other, lambda _: listed, loss, options=FitOptions(epochs=2, **CPU))
    assert same(one, other)
    with pytest.raises(CamlucidaError, match="once only"):
        fit(one, batches(0), loss, options=FitOptions(epochs=2, **CPU))
