"""Attention rollout and LeGrad against their slow references, on every kind of vision transformer."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import camlucida
from camlucida import Cell, LayerError, Logit, LogitMargin, MethodError, Probability
from camlucida.methods.attention import AttentionRollout, LeGrad
from camlucida.methods.attention_blocks import attention_blocks
from reference import networks, state
from reference import relatives as slow
from reference.transformers import tiny


def images(n=2, size=(12, 16)):
    return networks.images(n, 3, size)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("pool", ["class", "mean"])
@pytest.mark.parametrize("heads", ["mean", "max", "min"])
def test_rollout_equals_the_slow_reference(fused, pool, heads):
    model, x = tiny(fused=fused, pool=pool), images()
    method = AttentionRollout(heads=heads, residual=0.3)
    found = camlucida.explain(model, x, method=method)
    for i in range(2):
        z, weights = model.embed(x[i : i + 1]), []
        for block in model.blocks:
            weights.append(block.weights(z)[0].detach().numpy())
            z = block(z)
        flow = slow.rollout(weights, 0.3, heads)
        row = flow[0, 1:] if pool == "class" else flow.mean(0)
        np.testing.assert_allclose(found.raw[i].numpy(), row.reshape(3, 4), atol=1e-12)
    assert found.details["attention"].shape == (2, 3, 3, 4)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_legrad_equals_the_slow_reference(fused, pool):
    model, x = tiny(fused=fused, pool=pool), images()
    found = camlucida.explain(model, x, method=LeGrad(), target=[2, 0])
    prefix = pool == "class"
    for i, c in enumerate((2, 0)):
        rows = slow.legrad(model, x[i], c)
        for name, row in zip(found.layer_maps, rows, strict=True):
            np.testing.assert_allclose(
                found.layer_maps[name][i].numpy(), row[prefix:].reshape(3, 4), atol=1e-12
            )
        np.testing.assert_allclose(
            found.raw[i].numpy(), sum(rows)[prefix:].reshape(3, 4), atol=1e-12
        )
    torch.testing.assert_close(
        found.target_values, model(x).gather(1, torch.tensor([[2], [0]]))[:, 0].detach()
    )
    torch.testing.assert_close(found.details["scores"][:, -1], found.target_values)


@pytest.mark.parametrize("method", [AttentionRollout(), LeGrad()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize(
    "target",
    [Logit(), Probability(1), LogitMargin(aggregator="lse"), lambda z: z[:, 0] * z[:, 1]],
    ids=lambda t: type(t).__name__,
)
def test_batch_equals_single_images(method, target):
    model, x = tiny(seed=2), images(4)
    batch = camlucida.explain(model, x, method=method, target=target)
    for i in range(4):
        one = camlucida.explain(model, x[i], method=method, target=target)
        torch.testing.assert_close(batch.raw[i], one.raw[0], rtol=0, atol=1e-12)


def test_chosen_blocks():
    model, x = tiny(), images()
    whole = camlucida.explain(model, x, method=LeGrad(), target=1)
    two = camlucida.explain(
        model, x, method=LeGrad(), target=1, layers=["blocks.2", "blocks.0.qkv"]
    )
    assert list(two.layer_maps) == ["blocks.0", "blocks.2"]
    torch.testing.assert_close(two.raw, whole.layer_maps["blocks.0"] + whole.layer_maps["blocks.2"])
    # Without the last block the target's value is still that of the image.
    first = camlucida.explain(model, x, method=LeGrad(), target=1, layers="blocks.0")
    torch.testing.assert_close(first.target_values, whole.target_values)
    last = camlucida.explain(model, x, method=AttentionRollout(), layers=["blocks.1", "blocks.2"])
    assert not torch.allclose(last.raw, camlucida.explain(model, x, method=AttentionRollout()).raw)
    with pytest.raises(LayerError, match=r"no attention block.*'blocks\.0'"):
        camlucida.explain(model, x, method=LeGrad(), layers="patch")


def test_query():
    model, x = tiny(), images(1)
    auto, first, mean = (
        camlucida.explain(model, x, method=AttentionRollout(query=q)).raw
        for q in ("auto", "class", "mean")
    )
    torch.testing.assert_close(auto, first)
    assert not torch.allclose(auto, mean)


def test_dead_head():
    model, x = tiny(), images()
    nn.init.zeros_(model.head.weight)
    found = camlucida.explain(model, x, method=LeGrad(), target=1)
    assert not found.maps.any()
    assert found.diagnostics[0].messages
    dead = camlucida.explain(model, x, method=AttentionRollout(), target=1)
    nn.init.ones_(model.head.weight)
    torch.testing.assert_close(
        dead.raw, camlucida.explain(model, x, method=AttentionRollout(), target=1).raw
    )


def test_uniform_attention_gives_an_empty_map():
    model, x = tiny(), images()
    for block in model.blocks:
        nn.init.zeros_(block.qkv.weight)
    found = camlucida.explain(model, x, method=AttentionRollout())
    assert not found.maps.any()
    assert any("constant" in m for m in found.diagnostics[0].messages)


@pytest.mark.parametrize("method", [AttentionRollout(), LeGrad()], ids=lambda m: type(m).__name__)
def test_the_model_is_given_back_as_it_was(method):
    model, x = tiny(), images()
    model.train()
    before = state.snapshot(model)
    plain = camlucida.explain(model, x, method=method)
    with torch.inference_mode():
        inside = camlucida.explain(model, x + 0, method=method)
    assert torch.equal(plain.maps, inside.maps)
    assert not state.differences(before, state.snapshot(model))


def test_targets_inside_the_model():
    model, x = tiny(), images()
    with pytest.raises(MethodError, match="target inside"):
        camlucida.explain(model, x, method=LeGrad(), target=Cell("patch", 0, 0))
    with pytest.raises(MethodError, match="not every chosen block"):
        camlucida.explain(model, x, method=AttentionRollout(), target=Cell("blocks.0", 0, 0))


# ------------------------------------------------------------------------------------ models of the libraries


def timm_model(name="vit_tiny_patch16_224", **options):
    timm = pytest.importorskip("timm")
    return timm.create_model(name, img_size=32, patch_size=8, num_classes=5, **options)


def unfused(**options):
    model = timm_model(depth=2, **options)
    for block in model.blocks:
        block.attn.fused_attn = False
    return model


def hugging_face(kind):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8, num_labels=5,
    )  # fmt: skip
    config._attn_implementation = kind
    return transformers.ViTForImageClassification(config)


def torch_vision():
    torchvision = pytest.importorskip("torchvision")
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 24, 48, num_classes=5)


MODELS = {
    "timm": (lambda: timm_model(depth=2), 1),
    "timm, not fused": (unfused, 1),
    "timm, registers": (lambda: timm_model(depth=2, reg_tokens=4), 5),
    "timm, mean": (lambda: timm_model(depth=2, global_pool="avg", class_token=False), 0),
    "distilled": (lambda: timm_model("deit_tiny_distilled_patch16_224", depth=2), 2),
    "torchvision": (torch_vision, 1),
    "transformers sdpa": (lambda: hugging_face("sdpa"), 1),
    "transformers eager": (lambda: hugging_face("eager"), 1),
}


@pytest.fixture(params=MODELS, ids=str)
def library_model(request):
    make, prefix = MODELS[request.param]
    torch.manual_seed(0)
    model = make()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model.double().eval(), prefix


def test_library_models(library_model):
    model, prefix = library_model
    x = images(2, (32, 32))
    blocks = attention_blocks(model, x)
    assert len(blocks) == 2
    assert {(b.grid.prefix, b.grid.size) for b in blocks} == {(prefix, (4, 4))}
    assert all(b.returns_tokens for b in blocks)
    plain = model(x)
    plain = getattr(plain, "logits", plain)
    for method in (LeGrad(), AttentionRollout()):
        found = camlucida.explain(model, x, method=method, target=1)
        assert found.raw.shape == (2, 4, 4)
        assert found.maps.amax((1, 2)).tolist() == pytest.approx([1, 1])
        torch.testing.assert_close(found.target_values, plain[:, 1].detach(), rtol=0, atol=1e-9)


class OfTorch(nn.Module):
    """``nn.TransformerEncoder``, tokens first or images first."""

    def __init__(self, *, batch_first):
        super().__init__()
        self.batch_first = batch_first
        self.patch = nn.Conv2d(3, 16, 8, 8)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        z = self.patch(x).flatten(2).transpose(1, 2)
        z = self.encoder(z if self.batch_first else z.transpose(0, 1))
        return self.head(z.mean(1 if self.batch_first else 0))


def test_transformer_encoder_of_torch():
    """Its fast path, which no hook sees into, is not taken."""
    torch.manual_seed(0)
    first = OfTorch(batch_first=True).double().eval()
    tokens_first = OfTorch(batch_first=False).double().eval()
    tokens_first.load_state_dict(first.state_dict())
    x = images(16, (32, 32))  # as many images as tokens
    a, b = (camlucida.explain(m, x, method="rollout", target=1) for m in (first, tokens_first))
    torch.testing.assert_close(a.raw, b.raw)
    torch.testing.assert_close(a.target_values, first(x)[:, 1].detach())
    found = camlucida.explain(first, x, method="legrad", target=1)
    assert found.maps.amax((1, 2)).tolist() == pytest.approx([1] * 16)
    with pytest.raises(MethodError, match="tokens"):
        camlucida.explain(tokens_first, x, method="legrad", target=1)


@pytest.mark.parametrize("method", [AttentionRollout(), LeGrad()], ids=lambda m: type(m).__name__)
def test_reduced_precision(method):
    torch.manual_seed(0)
    model, x = timm_model(depth=2).eval(), images(1, (32, 32)).float()
    plain = camlucida.explain(model, x, method=method, target=1).raw
    with torch.autocast("cpu", torch.bfloat16):
        auto = camlucida.explain(model, x, method=method, target=1).raw
    half = camlucida.explain(model.bfloat16(), x.bfloat16(), method=method, target=1).raw
    for found in (auto, half):
        assert found.dtype == torch.float32
        scale = float(plain.max())
        torch.testing.assert_close(found, plain, rtol=0, atol=0.1 * scale)


def test_fused_and_open_attention_agree():
    torch.manual_seed(0)
    open_ = unfused()
    fused = timm_model(depth=2)
    fused.load_state_dict(open_.state_dict())
    assert all(block.attn.fused_attn for block in fused.blocks)
    x = images(1, (32, 32))
    for method in (LeGrad(), AttentionRollout()):
        a, b = (
            camlucida.explain(m.double().eval(), x, method=method, target=1) for m in (fused, open_)
        )
        torch.testing.assert_close(a.raw, b.raw, rtol=1e-9, atol=1e-12)


def test_not_square():
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=(32, 48), patch_size=8, depth=2)
    found = camlucida.explain(model.eval(), torch.randn(1, 3, 32, 48), method=LeGrad(), target=3)
    assert found.raw.shape == (1, 4, 6)
    assert found.maps.shape == (1, 32, 48)


def test_a_pyramid_is_read_at_its_last_resolution():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 4, 4)
            self.fine, self.coarse = tiny(depth=2).blocks, tiny(depth=2).blocks
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            a = self.patch(x)
            z = self.fine(a.flatten(2).transpose(1, 2)).transpose(1, 2).reshape_as(a)
            z = F.avg_pool2d(z, 2).flatten(2).transpose(1, 2)
            return self.head(self.coarse(z).mean(1))

    model = networks.randomise(Pyramid().double().eval(), 0)
    x = images(2, (16, 16))
    assert [b.grid.size for b in attention_blocks(model, x)] == [(4, 4)] * 2 + [(2, 2)] * 2
    for method in (AttentionRollout(), LeGrad()):
        found = camlucida.explain(model, x, method=method, target=1)
        coarse = ["coarse.0", "coarse.1"]
        wanted = camlucida.explain(model, x, method=method, target=1, layers=coarse)
        assert torch.equal(found.raw, wanted.raw)
        assert found.raw.shape == (2, 2, 2)
    with pytest.raises(LayerError, match="one resolution"):
        camlucida.explain(model, x, method="rollout", layers=["fine.1", "coarse.1"])


def test_a_head_that_knows_the_number_of_images_is_refused_by_legrad():
    class Counts(type(tiny())):
        def forward(self, x):
            z = self.blocks(self.embed(x))
            return self.tail(z.view(len(x), *z.shape[1:]))

    model = networks.randomise(Counts().double().eval(), 0)
    with pytest.raises(MethodError, match="cannot be scored block by block"):
        camlucida.explain(model, images(), method=LeGrad(), target=1)
    assert camlucida.explain(model, images(), method=AttentionRollout(), target=1).maps.any()


@pytest.mark.parametrize("options", [{"heads": "sum"}, {"query": "last"}, {"residual": 1.0}])
def test_bad_options_are_refused(options):
    with pytest.raises(MethodError, match=next(iter(options))):
        AttentionRollout(**options)
