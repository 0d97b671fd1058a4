"""Any number of threads explain one model at once: right maps, and nothing changed."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from camlucida import CosineSimilarity, explain
from camlucida.engine.borrow import borrowed
from camlucida.methods import list_methods
from reference import networks, transformers
from reference.state import differences, snapshot

QUICK = {
    "opticam": {"iterations": 2},
    "rise": {"masks": 20},
    "integrated-gradients": {"n_steps": 2},
    "smoothgrad": {"n_samples": 2},
    "fame": {"iterations": 2},
    "icam": {"n_perturb": 2},
}
METHODS = [row.name for row in list_methods()]
WORKERS = 4


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 4),
    )  # fmt: skip


def images(count):
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(2, 3, 16, 16, generator=generator) for _ in range(count)]


def case(method):
    """A model, images of its size, a target and layers that go with a method."""
    needs = next(row for row in list_methods() if row.name == method).needs
    if "attention" in needs:
        return transformers.tiny().float(), [torch.rand(2, 3, 16, 16) for _ in range(8)], 1, None
    if "reference embedding" in needs:
        return net(), images(8), CosineSimilarity(torch.ones(4)), None
    if method == "cam":  # the network must end in pooling and one linear layer
        model = networks.build(signed=False).float()
        return model, [torch.rand(2, 3, 5, 6) for _ in range(8)], 1, "features"
    margin = method.startswith("diff") or method == "finercam"
    return net(), images(8), None if margin else 1, None


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method(method, training):
    model, batches, target, layers = case(method)
    model.train(training)

    def one(batch):
        options = QUICK.get(method, {})
        return explain(model, batch, method=method, target=target, layers=layers, **options).maps

    expected = [one(batch) for batch in batches]
    before = snapshot(model)
    with ThreadPoolExecutor(WORKERS) as pool:
        found = list(pool.map(one, batches))
    assert differences(before, snapshot(model)) == []
    for one_map, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one_map, other)


def test_models_that_share_a_trunk():
    trunk = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
    models = [
        nn.Sequential(trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).train()
        for _ in range(3)
    ]
    batches = images(4)
    work = [(model, batch) for model in models for batch in batches]
    expected = [explain(model, batch).maps for model, batch in work]
    before = [snapshot(model) for model in models]
    with ThreadPoolExecutor(WORKERS) as pool:
        found = list(pool.map(lambda pair: explain(*pair).maps, work))
    for model, then in zip(models, before, strict=True):
        assert differences(then, snapshot(model)) == []
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_the_user_runs_the_model_meanwhile():
    model, batch = net().eval(), images(1)[0]
    wanted, expected = model(batch).detach(), explain(model, batch).maps
    stop, wrong = threading.Event(), []

    def use():
        while not stop.is_set():
            try:
                with torch.no_grad():
                    wrong.extend([] if torch.equal(model(batch), wanted) else ["another output"])
            except Exception as error:
                wrong.append(error)

    user = threading.Thread(target=use)
    user.start()
    try:
        for side in range(12, 24):
            torch.testing.assert_close(explain(model, batch).maps, expected)
            # Each new size is looked at anew.
            explain(model, torch.rand(1, 3, side, side), method="icam", n_perturb=1)
    finally:
        stop.set()
        user.join()
    assert not wrong


@pytest.mark.parametrize("method", ["scorecam", "ablationcam", "icam"])
def test_other_models_run_and_are_traced_meanwhile(method):
    """Tracing exchanges how all modules of the process are called."""
    calls, own = nn.Module.__call__, nn.Module.__getattr__
    batch = images(1)[0]
    options = QUICK.get(method, {})
    expected = explain(net().eval(), batch, method=method, **options).maps
    other = net().eval()
    wanted = other(batch).detach()
    stop, wrong = threading.Event(), []

    def use():
        while not stop.is_set():
            try:
                wrong.extend([] if torch.equal(other(batch), wanted) else ["another output"])
            except Exception as error:
                wrong.append(error)

    user = threading.Thread(target=use)
    user.start()
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            for _ in range(3):
                models = [net().eval() for _ in range(4)]
                found = pool.map(
                    lambda one: explain(one, batch, method=method, **options).maps, models
                )
                for one in found:
                    torch.testing.assert_close(one, expected)
    finally:
        stop.set()
        user.join()
    assert not wrong
    assert nn.Module.__call__ is calls
    assert nn.Module.__getattr__ is own


def test_the_random_state_after_overlapping_loans():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    models = [net() for _ in range(4)]
    torch.manual_seed(5)

    def use(model):
        with borrowed(model):
            torch.rand(7)

    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in range(5):
            list(pool.map(use, models))
    assert torch.equal(torch.rand(2), expected)


def test_weights_are_hashed_in_turn():
    """The hash is taken when no other thread has the buffers exchanged for copies."""

    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.ones(3, 1, 1))

        def forward(self, x):
            return x * self.scale

    model = nn.Sequential(Positions(), *net())
    found = explain(model, images(1)[0])
    with ThreadPoolExecutor(WORKERS) as pool:
        hashes = set(pool.map(lambda b: explain(model, b).provenance.weights, images(12)))
    assert hashes == {found.provenance.weights}
    assert len(found.provenance.weights) == 64


# ------------------------------------------------------------------------------------ gradient checkpointing


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.parts, self.reentrant = nn.ModuleList([net()[:3], net()[4:7]]), reentrant
        self.head = nn.Linear(8, 4)
        self.runs = 0

    def part(self, number, x):
        self.runs += 1
        return self.parts[number](x)

    def forward(self, x):
        for number in range(2):
            if self.reentrant is None:
                x = self.part(number, x)
            else:
                x = checkpoint(self.part, number, x, use_reentrant=self.reentrant)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize(
    "layers", [["parts.0.0"], ["parts.0"], ["parts.1.5"], ["parts.0.2", "parts.1.4"]]
)
def test_checkpointed_models_give_the_same_maps(reentrant, layers):
    plain, marked = Checkpointed(None).eval(), Checkpointed(reentrant).eval()
    marked.load_state_dict(plain.state_dict())
    x = images(1)[0]
    torch.testing.assert_close(
        explain(marked, x, layers=layers).maps, explain(plain, x, layers=layers).maps
    )
    torch.testing.assert_close(
        explain(marked, x, method="saliency").maps, explain(plain, x, method="saliency").maps
    )


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_is_back_afterwards_and_in_other_threads_all_along(reentrant):
    model, x = Checkpointed(reentrant).train(), images(1)[0].requires_grad_()

    def train():
        other = Checkpointed(reentrant).train()
        other(x).sum().backward()
        return other.runs

    with borrowed(Checkpointed(reentrant)), ThreadPoolExecutor(1) as pool:
        assert pool.submit(train).result() == 4
    model(x).sum().backward()
    assert model.runs == 4  # each part is run again in the backward pass
