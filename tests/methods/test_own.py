"""Any function from model, inputs and target to maps is a method, and judged like ours."""
# ruff: noqa: ARG005

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import camlucida
from camlucida import MethodError
from camlucida.benchmark import open_bench
from camlucida.cli import main
from camlucida.explanation import subject
from camlucida.methods.registry import METHODS
from reference import networks
from reference.bench import Pictures, tiny
from reference.state import differences, snapshot


def gradient(model, inputs, target, *, power: float = 1.0):
    """The gradient's size."""
    inputs = inputs.requires_grad_()
    found = torch.autograd.grad(target(model(inputs)).sum(), inputs)[0]
    return found.abs().sum(1) ** power


CODE = """
import torch

def mine(model, inputs, target, *, power: float = 1.0):
    inputs = inputs.requires_grad_()
    found = torch.autograd.grad(target(model(inputs)).sum(), inputs)[0]
    return found.abs().sum(1) ** power

thing = 3
"""


@pytest.fixture
def model():
    return networks.small()


@pytest.fixture
def images():
    return torch.randn(4, 3, 16, 16)


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    known = METHODS.names
    monkeypatch.setattr(subject, "load_model", lambda *_args, **_options: tiny())
    monkeypatch.setattr("camlucida.models.load_model", lambda *_args, **_options: tiny())
    yield
    for name in {*METHODS.names} - {*known}:
        if not METHODS[name].library:  # those of libraries are registered once
            METHODS.remove(name)


def run(model, images, function, **options):
    return camlucida.explain(model, images, method=function, **options)


def test_a_function_is_a_method(model, images):
    mine = run(model, images, gradient, power=2.0)
    ours = camlucida.explain(model, images, method="saliency:reduction=abs_sum", steps="signed")
    assert torch.allclose(mine.raw, ours.maps**2, rtol=1e-4)
    assert mine.label == "test_own:gradient (power=2.0)"
    assert mine.diagnostics[0].messages == ours.diagnostics[0].messages


def test_among_others_it_has_a_label_and_options_of_its_own(model, images):
    both = camlucida.explain(model, images, method=["gradcam", (gradient, {"power": 2.0})])
    assert list(both) == ["gradcam", "test_own:gradient (power=2.0)"]


def test_two_functions_of_one_name_are_not_mixed_up(model, images):
    pair = [lambda m, x, t: x.mean(1), lambda m, x, t: -x.mean(1)]
    with pytest.raises(MethodError, match="another name"):
        run(model, images, pair)
    first, second = (run(model, images, one, steps="signed") for one in pair)
    assert torch.equal(first.maps, -second.maps)


def test_the_target_is_the_explained_number(model, images):
    seen = []

    def mine(model, inputs, target):
        seen.append((target(model(inputs)), target.classes))
        return inputs.mean(1)

    found = run(model, images, mine, target=[2, 0, 1, 1])
    assert torch.allclose(seen[0][0], found.target_values)
    assert seen[0][1] == [2, 0, 1, 1]
    assert seen[1][1] == [2]


def test_of_one_image_there_may_be_altered_copies(model, images):
    def mine(model, inputs, target):
        values = target(model(torch.cat([inputs * share for share in (0.0, 0.5, 1.0)])))
        return inputs.mean(1) * values.mean()

    found = run(model, images, mine, target=[2, 0, 1, 1])
    alone = torch.cat(
        [run(model, images[i : i + 1], mine, target=c).raw for i, c in enumerate((2, 0, 1, 1))]
    )
    assert torch.equal(found.raw, alone)
    assert "one image at a time" in found.diagnostics[0].messages[0]


def test_a_map_that_depends_on_its_batch_is_made_alone_and_said_so(model, images):
    def mine(model, inputs, target):  # noqa: ARG001
        return inputs.mean(1) / inputs.max()

    found = run(model, images, mine)
    assert torch.equal(
        found.raw, torch.cat([run(model, images[i : i + 1], mine).raw for i in range(4)])
    )
    assert "alone" in found.diagnostics[0].messages[0]
    assert not run(model, images[:1], mine).diagnostics[0].notes


def test_what_is_drawn_follows_from_the_seed_and_the_image(model, images):
    def mine(model, inputs, target):  # noqa: ARG001
        return torch.rand(inputs[:, 0].shape) + float(np.random.rand())  # noqa: NPY002

    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    found = run(model, images, mine)
    assert torch.equal(found.raw, run(model, images, mine).raw)
    assert torch.equal(found.raw[3:], run(model, images[3:], mine).raw)
    assert not torch.equal(found.raw, run(model, images, mine, seed=1).raw)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.mark.parametrize(
    ("returned", "why"),
    [
        (lambda x: x[:, :, :4].mean((1, 2, 3)), "shape"),
        (lambda x: x[[0, 0]].mean(1), "shape"),
        (lambda x: x[:, :, :0].mean(1), "shape"),
        (lambda x: [1.0], "list"),
        (lambda x: x.mean(1) * 1j, "complex"),
    ],
)
def test_what_is_no_map_is_refused(model, images, returned, why):
    with pytest.raises(MethodError, match=why):
        run(model, images, lambda model, x, target: returned(x))


@pytest.mark.parametrize(
    "returned",
    [
        lambda x: x.detach().numpy().sum(1),
        lambda x: x,
        lambda x: x.sum(1, keepdim=True),
        lambda x: x.sum(1).double(),
        lambda x: x.requires_grad_().sum(1),
    ],
)
def test_maps_in_many_forms_are_read(model, images, returned):
    found = run(model, images, lambda model, x, target: returned(x), steps="signed")
    assert torch.allclose(found.maps.float(), images.sum(1), atol=1e-6)


def test_values_that_are_not_finite_are_said(model, images):
    found = run(model, images, lambda model, x, target: x.mean(1) / 0)
    assert not found.diagnostics[0].finite
    assert not found.maps.any()


def test_the_model_is_as_it_was(images):
    model = networks.small().train()
    model[0].weight.grad = torch.ones_like(model[0].weight)

    def careless(model, inputs, target):
        model.zero_grad()
        model.train()
        model[0].register_forward_hook(lambda *_: None)
        inputs += 1
        torch.manual_seed(9)
        return gradient(model, inputs, target)

    before, pixels = snapshot(model), images.clone()
    run(model, images, careless)
    assert not differences(before, snapshot(model))
    assert torch.equal(images, pixels)


def test_a_function_that_changes_weights_is_refused_and_they_are_put_back(model, images):
    before = snapshot(model)

    def training(model, inputs, target):
        with torch.no_grad():
            model[2].weight.add_(1)
        return gradient(model, inputs, target)

    with pytest.raises(MethodError, match=r"2\.weight"):
        run(model, images, training)
    assert not differences(before, snapshot(model))


def test_an_error_of_the_function_is_told_with_its_name(model, images):
    with pytest.raises(MethodError, match=r"test_own:broken .*ZeroDivisionError"):
        run(model, images, _broken)


def _broken(model, inputs, target):  # noqa: ARG001
    return 1 / 0


broken = _broken
_broken.__qualname__ = "broken"


def test_one_that_asks_for_a_layer_gets_it(model, images):
    def mine(model, inputs, target, *, layer):
        kept = []
        handle = layer.register_forward_hook(lambda *given: kept.append(given[2]))
        target(model(inputs))
        handle.remove()
        return kept[0].mean(1)

    found = run(model, images, mine, layers="3")
    assert found.layers == ("3",)
    assert torch.allclose(found.raw, model[:4](images).mean(1), atol=1e-6)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda model, inputs: inputs, "2 arguments"),
        (lambda model, inputs, target, window: inputs, "window"),
        (lambda model, inputs, target, steps=3: inputs, "steps"),
    ],
)
def test_a_function_of_another_kind_is_refused(model, images, function, why):
    with pytest.raises(MethodError, match=why):
        run(model, images, function)


def test_an_option_that_there_is_not_is_refused(model, images):
    with pytest.raises(MethodError, match="did you mean 'power'"):
        run(model, images, gradient, powr=2)


def test_it_takes_part_in_a_benchmark(tmp_path):
    bench = open_bench(
        tiny(), Pictures(tmp_path / "photos", 3), ["gradcam", gradient], ["concentration"]
    )
    assert bench.labels == ("gradcam", "test_own:gradient")
    assert bench.record["methods"][1]["code"]


# ---- from the command line ------------------------------------------------------------------------


@pytest.fixture
def _place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(CODE)
    with Image.open(camlucida.data.picture("cheetah")) as photo:
        photo.save(tmp_path / "photo.png")
    yield
    sys.modules.pop("own", None)


def command(capsys, *arguments):
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


NUMBERS = torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(0)).numpy()


@pytest.mark.parametrize(
    "kind",
    [NUMBERS.astype(">f4"), NUMBERS[:, ::-1], NUMBERS.astype(np.longdouble), NUMBERS.astype(">u2")],
)
def test_arrays_of_every_real_type_are_maps(model, images, kind):
    found = run(model, images, lambda m, x, t: kind[: len(x)])
    assert torch.allclose(found.signed[0].float(), torch.tensor(kind[0].astype(np.float32)))


@pytest.mark.parametrize(
    "kind",
    [
        NUMBERS.astype(object), NUMBERS.astype(str), np.zeros((4, 16, 16), "M8[s]"),
        torch.zeros(4, 16, 16).to_sparse(), torch.zeros(4, 16, 16, device="meta"),
    ],
)  # fmt: skip
def test_what_holds_no_real_numbers_is_refused(model, images, kind):
    with pytest.raises(MethodError, match="real numbers"):
        run(model, images, lambda m, x, t: kind)


def test_what_a_function_puts_in_place_of_a_module_is_told(model, images):
    def swaps(model, inputs, target):
        model[0] = torch.nn.Conv2d(3, 4, 3, padding=1)
        return gradient(model, inputs, target)

    def weighs(model, inputs, target):
        model[0].weight = torch.nn.Parameter(torch.zeros_like(model[0].weight))
        return gradient(model, inputs, target)

    before = snapshot(model)
    for one in (swaps, weighs):
        with pytest.raises(MethodError, match="changed the model"):
            run(model, images, one)
    assert not differences(before, snapshot(model))


def test_what_is_set_for_the_whole_process_is_put_back(model, images):
    def sets(model, inputs, target):
        found = gradient(model, inputs, target)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return found

    assert run(model, images, sets).maps.any()
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


def test_what_ends_the_process_fails_like_anything_else(model, images):
    with pytest.raises(MethodError, match="SystemExit"):
        run(model, images, lambda m, x, t: sys.exit(7))


@dataclass
class Scaled:
    """Cannot be hashed, as dataclasses cannot that can be compared."""

    by: float = 1.0

    def __call__(self, model, inputs, target, *, start=torch.zeros(3), sizes=(1, 2)):  # noqa: ARG002, B008
        return self.by * gradient(model, inputs, target)


def test_objects_are_functions_and_tensors_are_options(model, images):
    assert run(model, images, Scaled()).label == "test_own:Scaled"
    assert run(model, images, Scaled(), start=torch.ones(3)).maps.any()


def test_results_of_a_function_that_holds_other_values_are_not_taken_for_the_same(
    model, images, tmp_path
):
    def times(by):
        return lambda model, inputs, target: by * gradient(model, inputs, target)

    pairs = [
        (times(1), times(2)), (Scaled(1.0), Scaled(2.0)), (Scaled(1.0).__call__, Scaled(2.0).__call__),
        (partial(gradient, power=1.0), partial(gradient, power=2.0)),
    ]  # fmt: skip
    for number, (one, other) in enumerate(pairs):
        folder = tmp_path / str(number)
        for _ in range(2):  # the same one goes on
            camlucida.explain_each(model, images, method=one).save(folder)
        with pytest.raises(camlucida.CamlucidaError, match="code"):
            camlucida.explain_each(model, images, method=other).save(folder)


def test_the_code_that_a_function_calls_belongs_to_it(tmp_path):
    file = tmp_path / "helped.py"
    text = "def help(x):\n    return x\n\n\ndef mine(model, inputs, target):\n    return help(inputs)\n"
    found = []
    for one in (text, text, text.replace("return x", "return -x ")):
        file.write_text(one)
        found.append(METHODS[f"{file}:mine"].origin["code"])
        METHODS.remove(f"{file}:mine")
    assert found[0] == found[1] != found[2]


@pytest.mark.usefixtures("_place")
@pytest.mark.parametrize("name", ["own:mine", "own.py:mine", "./own.py:mine"])
def test_it_is_named_on_the_command_line(capsys, name):
    code, out, err = command(
        capsys, "explain", "photo.png", "--method", f"{name}:power=2", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["photos"][0]["methods"][0]["label"] == f"{name} (power=2.0)"


@pytest.mark.usefixtures("_place")
def test_it_has_a_page(capsys):
    code, out, err = command(capsys, "methods", "own:mine")
    assert code == 0, err
    assert "power=1" in out


@pytest.mark.usefixtures("_place")
def test_it_is_audited(capsys, tmp_path):
    code, _, err = command(
        capsys, "audit", "all", "--data", "photo.png", "--method", "own:mine", "--method", "saliency", "--no-labels",
        "--audit", "faithfulness", "--out", "out",
    )  # fmt: skip
    assert code == 0, err
    methods = json.loads((tmp_path / "out/trust.json").read_text())["methods"]
    assert [one["label"] for one in methods] == ["own:mine", "saliency"]


@pytest.mark.usefixtures("_place")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere:mine", "captum:NAME"),
        ("own:nothing", "nothing"),
        ("own:thing", "int"),
        ("none.py:mine", "does not exist"),
        ("own:mine:power=much", "finite number"),
        ("own:mine:size=3", "no option 'size'"),
    ],
)
def test_what_cannot_be_used_is_one_line(capsys, name, why):
    code, _, err = command(capsys, "explain", "photo.png", "--method", name)
    assert code == 2
    assert why in err
    assert len(err.splitlines()) == 1


@pytest.mark.usefixtures("_place")
def test_a_plan_starts_no_code(capsys, tmp_path):
    code, _, err = command(
        capsys, "evaluate", ".", "--method", "own:mine", "--metric", "concentration", "--out", "run",
        "--no-report",
    )  # fmt: skip
    assert code == 0, err
    METHODS.remove("own:mine")
    sys.modules.pop("own")
    (tmp_path / "own.py").write_text("open('started', 'w')")
    code, _, err = command(capsys, "report", "run")
    assert code == 0, err
    assert not (tmp_path / "started").exists()
    assert "code of one" in next((tmp_path / "run").glob("*.html")).read_text()
