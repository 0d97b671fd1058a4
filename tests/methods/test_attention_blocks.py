"""Which attention is one over the tokens of the image, and which only looks like it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import camlucida
from camlucida import MethodError
from camlucida.methods.attention import AttentionRollout, LeGrad
from camlucida.methods.attention_blocks import attention_blocks
from reference import networks
from reference.transformers import tiny


def images(n=2, size=(12, 16)):
    return networks.images(n, 3, size)


class Preceded(nn.Module):
    """Something with attention weights, or their looks, runs before the blocks."""

    def __init__(self, model, before):
        super().__init__()
        self.before, self.model = before, model

    def forward(self, x):
        return self.model(x + 0.1 * self.before(x).mean())


class OverChannels(nn.Module):
    """Square maps that a softmax over the channels leaves square."""

    def forward(self, x):
        return torch.cat([x, -x], 1).softmax(1)


class OfTwo(nn.Module):
    """Attention between two tokens, which make no map."""

    def forward(self, x):
        halves = torch.stack([x[..., :6].flatten(1), x[..., 6:].flatten(1)], 1)[:, None]
        return F.scaled_dot_product_attention(halves, halves, halves)


@pytest.mark.parametrize("before", [OverChannels(), OfTwo()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("method", [AttentionRollout(), LeGrad()], ids=lambda m: type(m).__name__)
def test_other_attention_is_told_apart(before, method):
    model, x = tiny(depth=2), images(1, (12, 12))
    whole = Preceded(model, before).eval()
    blocks = attention_blocks(whole, x)
    assert [block.name for block in blocks] == ["model.blocks.0", "model.blocks.1"]
    wanted = camlucida.explain(model, x + 0.1 * before(x).mean(), method=method, target=1)
    found = camlucida.explain(whole, x, method=method, target=1)
    torch.testing.assert_close(found.raw, wanted.raw)


class Channels(nn.Module):
    """Attention between the channels of tokens (XCiT)."""

    def forward(self, z):
        z = z.transpose(1, 2)[:, None]
        return F.scaled_dot_product_attention(z, z, z)[:, 0].transpose(1, 2)


class Bare(nn.Module):
    """Attention with no module around it but the model itself."""

    def forward(self, x):
        z = F.avg_pool2d(x, 4).flatten(2).transpose(1, 2)[:, None]
        return F.scaled_dot_product_attention(z, z, z)[:, 0].mean(1)


class Twofold(nn.Module):
    """Two kinds of attention weights, which are mixed afterwards (ConViT)."""

    def forward(self, z):
        scores = (z @ z.transpose(1, 2))[:, None]
        return ((scores.softmax(-1) + scores.square().softmax(-1)) / 2)[:, 0] @ z


@pytest.mark.parametrize("method", [AttentionRollout(), LeGrad()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            networks.Split(nn.Sequential(Channels(), Channels()), nn.Linear(16, 3)),
            "no module with self-",
        ),
        (Bare(), "no module with self-"),
        (networks.Split(Twofold(), nn.Linear(16, 3)), "more than once"),
    ],
    ids=["channels", "bare", "twofold"],
)
def test_attention_that_is_none_over_tokens_is_refused(method, model, message):
    class Tokens(nn.Module):
        def forward(self, x):
            z = F.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
            return model.head(torch.cat([model.features(z)] * 6, 2)[..., :16].mean(1))

        def __init__(self):
            super().__init__()
            self.inner = model

    whole = model if isinstance(model, Bare) else Tokens()
    with pytest.raises(MethodError, match=message):
        camlucida.explain(whole.double().eval(), images(1, (12, 16)), method=method)


def test_networks_without_global_attention_are_refused():
    model, x = networks.build(), networks.images(1, 3, (5, 6))
    for method in (AttentionRollout(), LeGrad()):
        with pytest.raises(MethodError, match="no module with self-attention"):
            camlucida.explain(model, x, method=method)
    timm = pytest.importorskip("timm")
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, depths=(1, 1), num_heads=(1, 2), embed_dim=8
    ).eval()
    with pytest.raises(MethodError, match="windowed"):
        camlucida.explain(swin, torch.randn(1, 3, 56, 56), method=LeGrad())
