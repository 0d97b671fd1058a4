"""MobileFaceNet and the files its weights come in."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from camlucida.common.errors import ModelError
from camlucida.faces.load import load_embedder
from camlucida.faces.networks.mobilefacenet import MobileFaceNet, load_mobilefacenet

REAL = os.environ.get("CAMLUCIDA_MOBILEFACENET", "")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    made = MobileFaceNet(64).eval()
    for module in made.modules():
        if isinstance(module, nn.PReLU):
            module.weight.data.uniform_(-0.5, 0.5)
    return made


def _write_onnx(net, path):
    """The network as an ONNX graph, its parts in the order in which they run."""
    onnx = pytest.importorskip("onnx")
    helper, to_tensor = onnx.helper, onnx.numpy_helper.from_array
    nodes, tensors, last, stack = [], [], "input", []

    def put(value):
        tensors.append(to_tensor(value.detach().numpy(), f"t{len(tensors)}"))
        return tensors[-1].name

    for name, module in net.named_modules():
        if type(module).__name__ == "_Bottleneck":
            stack.append((name, last if module.residual else None))
        out = f"n{len(nodes)}"
        if isinstance(module, nn.Conv2d):
            inputs = [last, put(module.weight), put(module.bias)]
            pads = [*module.padding, *module.padding]
            node = helper.make_node(
                "Conv", inputs, [out], group=module.groups, pads=pads, strides=list(module.stride)
            )
        elif isinstance(module, nn.PReLU):
            node = helper.make_node("PRelu", [last, put(module.weight.view(-1, 1, 1))], [out])
        elif isinstance(module, nn.Linear):
            nodes.append(helper.make_node("Flatten", [last], ["flat"]))
            node = helper.make_node(
                "Gemm", ["flat", put(module.weight), put(module.bias)], ["output"], transB=1
            )
            out = "output"
        else:
            continue
        nodes.append(node)
        last = out
        if stack and name == f"{stack[-1][0]}.project.conv":
            _, before = stack.pop()
            if before is not None:
                last = f"n{len(nodes)}"
                nodes.append(helper.make_node("Add", [before, out], [last]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value("input", 1, ["n", 3, 112, 112])],
        [value("output", 1, ["n", len(net.linear.bias)])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def test_equals_onnxruntime_on_an_onnx_file(net, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    _write_onnx(net, path)
    x = torch.randn(2, 3, 112, 112)
    expected = runtime.InferenceSession(str(path)).run(None, {"input": x.numpy()})[0]
    found = load_mobilefacenet(path)(x)
    assert found.shape == (2, 64)
    assert np.abs(found.numpy() - expected).max() < 1e-5


@pytest.mark.skipif(not Path(REAL).is_file(), reason="CAMLUCIDA_MOBILEFACENET names no .onnx file")
def test_the_real_weights_equal_onnxruntime():
    runtime = pytest.importorskip("onnxruntime")
    x = torch.randn(2, 3, 112, 112)
    session = runtime.InferenceSession(REAL)
    expected = np.concatenate([session.run(None, {"input": row[None].numpy()})[0] for row in x])
    embedder = load_embedder("mobilefacenet", file=REAL)
    assert np.abs(embedder.embed(x).numpy() - expected).max() < 1e-5


def test_a_state_dict_comes_back(net, tmp_path):
    path = tmp_path / "net.pth"
    torch.save(net.state_dict(), path)
    x = torch.randn(1, 3, 112, 112)
    assert torch.equal(load_mobilefacenet(path)(x), net(x))


def test_safetensors_come_back(net, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "net.safetensors"
    safetensors.save_file(net.state_dict(), path)
    x = torch.randn(1, 3, 112, 112)
    assert torch.equal(load_mobilefacenet(path)(x), net(x))


def test_batch_normalisation_is_folded_in(net, tmp_path):
    """The usual layout: conv without bias, batch normalisation behind it, also behind the last layer."""
    state, with_bn = {}, {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            stem = name.removesuffix("conv") if name.endswith("conv") else ""
            state[f"{name}.weight"] = module.weight
            width = len(module.weight)
            bn = nn.BatchNorm1d(width) if isinstance(module, nn.Linear) else nn.BatchNorm2d(width)
            bn.weight.data.uniform_(0.5, 1.5)
            bn.bias.data.normal_()
            bn.running_mean.normal_(std=0.1)
            bn.running_var.uniform_(0.5, 1.5)
            with_bn[name] = bn.eval()
            state |= {f"{stem}bn.{k}": v for k, v in bn.state_dict().items()}
        elif isinstance(module, nn.PReLU):
            state[f"{name}.weight"] = module.weight
    path = tmp_path / "bn.pth"
    torch.save(state, path)
    slow = MobileFaceNet(64).eval()
    slow.load_state_dict({**net.state_dict()})
    handles = []
    for name, module in slow.named_modules():
        if name in with_bn:
            module.bias.data.zero_()
            handles.append(
                module.register_forward_hook(lambda _m, _i, out, bn=with_bn[name]: bn(out))
            )
    x = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        expected = slow(x)
        found = load_mobilefacenet(path)(x)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_other_files_are_refused(net, tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(2, 3)}, path)
    with pytest.raises(ModelError, match=r"no linear\.weight"):
        load_mobilefacenet(path)
    state = net.state_dict()
    state["conv1.conv.weight"] = torch.zeros(64, 1, 3, 3)
    del state["conv1.conv.bias"]
    torch.save(state, path)
    with pytest.raises(ModelError, match=r"1 missing .*1 of another shape"):
        load_mobilefacenet(path)
    state = net.state_dict()
    state["conv1.conv.bias"] = torch.full((64,), torch.nan)
    torch.save(state, path)
    with pytest.raises(ModelError, match="not finite"):
        load_mobilefacenet(path)
    with pytest.raises(ModelError, match="no such model file"):
        load_mobilefacenet(tmp_path / "none.onnx")


def test_an_onnx_file_that_is_none(tmp_path):
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\xff\xff\xff\xff nonsense")
    with pytest.raises(ModelError, match="damaged or not an ONNX file"):
        load_mobilefacenet(path)
    graph = onnx.helper.make_graph([], "empty", [], [])
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(ModelError, match="0 tensors"):
        load_mobilefacenet(path)


def test_a_batch_equals_its_faces_one_by_one(net):
    x = torch.randn(3, 3, 112, 112)
    with torch.no_grad():
        assert (net(x) - torch.cat([net(row[None]) for row in x])).abs().max() < 1e-5
