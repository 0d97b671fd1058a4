"""Models with something odd about them, of the kinds that people report, and what is to come of each.

``ODD[name]()`` gives a model and its images; ``WORDS[name]`` the decisive word of the refusal by Grad-CAM, or ``None``
where it has to work.
"""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

Case = tuple[Any, Any]
ODD: dict[str, Callable[[], Case]] = {}
WORDS: dict[str, str | None] = {}
X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def odd(name: str, words: str | None = None) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Register what makes an odd model, alone or with its images."""

    def register(make: Callable[[], Any]) -> Callable[[], Any]:
        def case() -> Case:
            torch.manual_seed(0)
            made = make()
            model, images = made if isinstance(made, tuple) else (made, X)
            return model, images

        ODD[name], WORDS[name] = case, words
        return make

    return register


class Net(nn.Module):
    """Two convolutions and a head; ``how`` says what is odd about running them."""

    def __init__(self, how: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)
        self.how = how

    def tail(self, z: Tensor) -> Tensor:
        return self.head(z.relu().mean((2, 3)))

    def plain(self, x: Tensor) -> Tensor:
        return self.tail(self.b(self.a(x).relu()))

    def forward(self, x: Tensor, *more: Any) -> Any:
        return self.plain(x) if self.how is None else self.how(self, x, *more)


def net(how: Callable[..., Any] | None = None) -> Net:
    return Net(how).eval()


def chain(*, last: nn.Module | None = None) -> nn.Sequential:
    parts = [
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        last or nn.Linear(6, 4),
    ]
    return nn.Sequential(*parts).eval()


# --------------------------------------------------------------------------------------------- gradients cut


@odd("trunk under no_grad")
def _() -> Any:
    def run(self: Net, x: Tensor) -> Tensor:
        with torch.no_grad():
            z = self.a(x).relu()
        return self.tail(self.b(z))

    return net(run)


@odd("trunk under inference_mode")
def _() -> Any:
    def run(self: Net, x: Tensor) -> Tensor:
        with torch.inference_mode():
            z = self.a(x).relu()
        return self.tail(self.b(z))

    return net(run)


@odd("all of it under no_grad", "switches gradients off")
def _() -> Any:
    return net(torch.no_grad()(lambda self, x: self.plain(x)))


@odd("all of it under inference_mode", "switches gradients off")
def _() -> Any:
    return net(torch.inference_mode()(lambda self, x: self.plain(x)))


@odd("detached in the middle")
def _() -> Any:
    return net(lambda self, x: self.tail(self.b(self.a(x).relu().detach())))


@odd("detached in front of the head")
def _() -> Any:
    return net(lambda self, x: self.head(self.b(self.a(x)).relu().mean((2, 3)).detach()))


@odd("output detached")
def _() -> Any:
    return net(lambda self, x: self.plain(x).detach())


@odd("head that takes the largest class")
def _() -> Any:
    return net(lambda self, x: nn.functional.one_hot(self.plain(x).argmax(1), 4).float())


@dataclass(frozen=True, slots=True)
class Slots:
    logits: Tensor


class NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(_, z):
        return z.relu()


class BrokenBackward(torch.autograd.Function):
    @staticmethod
    def forward(_, z):
        return z.relu()

    @staticmethod
    def backward(_, __):
        raise ValueError("this backward pass is broken")


@odd("an operation without a backward pass", "gradient")
def _() -> Any:
    return net(lambda self, x: self.head(NoBackward.apply(self.b(self.a(x)).mean((2, 3)))))


@odd("a broken backward pass", "gradient")
def _() -> Any:
    return net(lambda self, x: self.head(BrokenBackward.apply(self.b(self.a(x)).mean((2, 3)))))


# --------------------------------------------------------------------------------------- gradient checkpointing


for reentrant in (True, False):

    @odd(f"checkpointed, use_reentrant={reentrant}")
    def _(reentrant: bool = reentrant) -> Any:
        return net(
            lambda self, x: self.tail(
                checkpoint(
                    self.b,
                    checkpoint(lambda v: self.a(v).relu(), x, use_reentrant=reentrant),
                    use_reentrant=reentrant,
                )
            )
        )


@odd("checkpoint_sequential")
def _() -> Any:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.Sequential(
                nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3), nn.ReLU()
            )
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(
                checkpoint_sequential(self.parts, 2, x, use_reentrant=False).mean((2, 3))
            )

    return Model().train()


@odd("timm, checkpointing left on")
def _() -> Any:
    model = importlib.import_module("timm").create_model("test_vit", num_classes=4, img_size=64)
    model.set_grad_checkpointing(True)
    return model.eval(), torch.rand(1, 3, 64, 64)


def hugging_face(**options: Any) -> nn.Module:
    t = importlib.import_module("transformers")
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    return t.ViTForImageClassification(
        t.ViTConfig(**small, image_size=16, patch_size=4, num_labels=4, **options)
    )


@odd("transformers, checkpointing in training mode")
def _() -> Any:
    model = hugging_face()
    model.gradient_checkpointing_enable()
    return model.train()


@odd("transformers, returns everything")
def _() -> Any:
    model = hugging_face(
        output_hidden_states=True, output_attentions=True, attn_implementation="eager"
    ).eval()
    model(X)  # it hooks itself
    return model


# --------------------------------------------------------------------------------------------- names and parts


@odd("a submodule called embeds")
def _() -> Any:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embeds, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.embeds(x).relu().mean((2, 3)))

    return Model().eval()


@odd("submodules called input, output, layers, module and target")
def _() -> Any:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module, self.layers, self.output = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Linear(6, 4)
            self.target = nn.Identity()
            self.add_module("input", nn.Identity())

        def forward(self, x: Tensor) -> Tensor:
            return self.target(
                self.output(self.layers(self.module(self._modules["input"](x))).mean((2, 3)))
            )

    return Model().eval()


@odd("one activation in many places")
def _() -> Any:
    act = nn.ReLU()
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        act,
        nn.Conv2d(6, 6, 3),
        act,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    ).eval()


@odd("one convolution in two places")
def _() -> Any:
    return net(lambda self, x: self.tail(self.b(self.a(self.a(x)[:, :3]).relu())))


@odd("everything runs twice", "runs 2 times")
def _() -> Any:
    return net(lambda self, x: self.plain(x) + self.plain(x.flip(3)))


@odd("tied weights")
def _() -> Any:
    model = chain()
    model[4].weight = nn.Parameter(model[0].weight.detach()[:4, :2, :3, 0].reshape(4, 6).clone())
    return model


@odd("forward replaced on the object")
def _() -> Any:
    model = net()
    model.forward = model.plain
    return model


@odd("layers that return tuples, named tuples and dictionaries")
def _() -> Any:
    class Two(NamedTuple):
        map: Tensor
        extra: None

    class Pair(nn.Conv2d):
        def forward(self, x: Tensor) -> Any:
            return Two(super().forward(x), None)

    class Entry(nn.Conv2d):
        def forward(self, x: Tensor) -> Any:
            return {"map": super().forward(x), "size": x.shape}

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = Pair(3, 6, 3), Entry(6, 8, 3), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.b(self.a(x).map.relu())["map"].mean((2, 3)))

    return Model().eval()


@odd("modules called with keywords")
def _() -> Any:
    return net(lambda self, x: self.tail(self.b(input=self.a(input=x).relu())))


@odd("attention of torch")
def _() -> Any:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 4, 4)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            z = self.patch(x).flatten(2).mT
            return self.head((z + self.attention(z, z, z)[0]).mean(1))

    return Model().eval()


@odd("encoder of torch")
def _() -> Any:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 4, 4)
            self.encoder = nn.TransformerEncoder(
                nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2
            )
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.encoder(self.patch(x).flatten(2).mT).mean(1))

    return Model().eval()


@odd("weight norm and spectral norm")
def _() -> Any:
    model = net()
    nn.utils.parametrizations.weight_norm(model.a)
    nn.utils.parametrizations.spectral_norm(model.b)
    return model.train()


@odd("old weight norm")
def _() -> Any:
    model = net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(model.a)
    model(X)
    return model


@odd("a hook that changes a map")
def _() -> Any:
    model = net()
    model.b.register_forward_hook(lambda _, __, z: 2 * z)
    return model


@odd("a hook that raises", "broken hook")
def _() -> Any:
    def broken(*_: Any) -> None:
        raise KeyError("broken hook")

    model = net()
    model.b.register_forward_hook(broken)
    return model


# ----------------------------------------------------------------------------------------------- weights


@odd("a part of TorchScript")
def _() -> Any:
    model = net()
    model.a = torch.jit.script(model.a)
    return model


@odd("dynamically quantized", "quantized")
def _() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(chain(), {nn.Linear}, dtype=torch.qint8)


@odd("statically quantized", "quantized")
def _() -> Any:
    q = torch.ao.quantization
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(q.QuantStub(), *chain(), q.DeQuantStub()).eval()
        model.qconfig = q.get_default_qconfig("x86")
        prepared = q.prepare(model)
        prepared(X)
        return q.convert(prepared)


@odd("lazy, never run", "lazy")
def _() -> Any:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(4)).eval()


@odd("lazy, run once")
def _() -> Any:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(4)).eval()
    model(X)
    return model


@odd("on the meta device", "meta device")
def _() -> Any:
    return net().to("meta")


@odd("on the meta device, images too", "meta device")
def _() -> Any:
    return net().to("meta"), X.to("meta")


@odd("half of it on the meta device", "meta device")
def _() -> Any:
    model = net()
    model.head.to("meta")
    return model


for layout in ("sparse", "sparse_csr"):

    @odd(f"weights that are {layout}", "does not run" if layout == "sparse" else None)
    def _(layout: str = layout) -> Any:
        model = net()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            weight = model.head.weight.detach()
            dense = weight.to_sparse() if layout == "sparse" else weight.to_sparse_csr()
            model.head.weight = nn.Parameter(dense, requires_grad=False)
        return model


@odd("weights made under inference_mode", "inference_mode")
def _() -> Any:
    with torch.inference_mode():
        return net()


@odd("double precision")
def _() -> Any:
    return net().double(), X.double()


@odd("bfloat16")
def _() -> Any:
    return net().bfloat16(), X.bfloat16()


@odd("half precision")
def _() -> Any:
    return net().half(), X.half()


@odd("images of another precision", "float64")
def _() -> Any:
    return net(), X.double()


@odd("two precisions in one model")
def _() -> Any:
    model = net(lambda self, x: self.head(self.b(self.a(x)).relu().mean((2, 3)).double()))
    model.head.double()
    return model


@odd("all weights zero", "depends on")
def _() -> Any:
    model = net()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


@odd("frozen weights")
def _() -> Any:
    return net().requires_grad_(False)


@odd("no weights at all")
def _() -> Any:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(x * x).mean((2, 3))

    return Model()


# ------------------------------------------------------------------------------------------------ wrapped


@odd("in DataParallel")
def _() -> Any:
    return nn.DataParallel(net())


@odd("compiled")
def _() -> Any:
    return torch.compile(net(), backend="eager")


@odd("TorchScript, traced", "TorchScript")
def _() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(net(), X)


@odd("a scripted part")
def _() -> Any:
    model = net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.a = torch.jit.script(model.a)
    return model


@odd("traced by torch.fx")
def _() -> Any:
    return torch.fx.symbolic_trace(chain())


@odd("exported", "exported")
def _() -> Any:
    return torch.export.export(chain(), (X,)).module()


@odd("a deep copy in training mode")
def _() -> Any:
    return copy.deepcopy(
        nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout2d(0.5),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        )
    ).train()


@odd("a function, no module", "nn.Module")
def _() -> Any:
    return net().forward, X


# ------------------------------------------------------------------------------------------------- inputs


@odd("images too small for the network", "does not run")
def _() -> Any:
    return chain(), torch.rand(1, 3, 2, 2)


@odd("images of a size that the head does not take", "does not run")
def _() -> Any:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(99, 4)).eval()


@odd("timm, images of another size", "does not run")
def _() -> Any:
    timm = importlib.import_module("timm")
    return timm.create_model("vit_tiny_patch16_224", depth=1).eval(), torch.rand(1, 3, 64, 64)


@odd("transformers, images of another size", "does not run")
def _() -> Any:
    return hugging_face().eval(), torch.rand(1, 3, 32, 32)


@odd("images with another number of channels", "channels")
def _() -> Any:
    return net(), torch.rand(1, 1, 16, 16)


@odd("images with the channels last", "channels")
def _() -> Any:
    return net(), torch.rand(1, 16, 16, 3)


@odd("no image", "N >= 1|\\(N, C, H, W\\)")
def _() -> Any:
    return net(), torch.rand(0, 3, 16, 16)


@odd("a video", "\\(N, C, H, W\\)")
def _() -> Any:
    return nn.Sequential(nn.Conv3d(3, 4, 3), nn.Flatten(), nn.Linear(4704, 4)).eval(), torch.rand(
        1, 3, 8, 16, 16
    )


@odd("images of bytes", "floating point")
def _() -> Any:
    return net(), (X * 255).byte()


@odd("images that need gradients")
def _() -> Any:
    return net(), X.clone().requires_grad_()


@odd("images made under inference_mode")
def _() -> Any:
    model = net()
    with torch.inference_mode():
        return model, X.clone()


@odd("images in another memory order")
def _() -> Any:
    return net(), X.contiguous(memory_format=torch.channels_last)


@odd("a single pixel", "feature map")
def _() -> Any:
    return net(), torch.rand(1, 3, 1, 1)


@odd("one row of pixels")
def _() -> Any:
    return net(), torch.rand(1, 3, 1, 40)


@odd("NaN in the images")
def _() -> Any:
    images = X.clone()
    images[0, 0, 0, 0] = torch.nan
    return net(), images


@odd("a second input is missing", "more than an image")
def _() -> Any:
    class Model(Net):
        def forward(self, x: Tensor, size: Tensor) -> Tensor:
            return self.plain(x) * size

    return Model().eval()


@odd("a second input that may be left out, and may not", "does not run")
def _() -> Any:
    class Model(Net):
        def forward(self, x: Tensor, size: Tensor | None = None) -> Tensor:
            return self.plain(x) * size.sum()

    return Model().eval()


@odd("sparse images", "to_dense")
def _() -> Any:
    return net(), X.to_sparse()


@odd("images of another memory format", "to_dense")
def _() -> Any:
    return net(), X.to_mkldnn()


@odd("images on the meta device", "holds no values")
def _() -> Any:
    return net(), X.to("meta")


@odd("a view of negated images")
def _() -> Any:
    return net(), torch._neg_view(-X)


# ------------------------------------------------------------------------------------------ what it does


@odd("takes one image at a time")
def _() -> Any:
    def run(self: Net, x: Tensor) -> Tensor:
        assert len(x) == 1, "one image at a time"
        return self.plain(x)

    return net(run), X[:1]


@odd("takes two images at a time")
def _() -> Any:
    def run(self: Net, x: Tensor) -> Tensor:
        if len(x) != 2:
            raise ValueError("takes two images at a time")
        return self.plain(x)

    return net(run)


@odd("writes to its images")
def _() -> Any:
    return net(lambda self, x: self.plain(x.sub_(0.5).mul_(2)))


@odd("keeps what it saw")
def _() -> Any:
    def run(self: Net, x: Tensor) -> Tensor:
        self.__dict__.setdefault("seen", []).append(self.a(x))
        return self.tail(self.b(self.seen[-1].relu()))

    model = net(run)
    model(X)
    return model


@odd("draws random numbers")
def _() -> Any:
    return net(lambda self, x: self.plain(x + 0.01 * torch.randn_like(x)))


@odd("in-place activations")
def _() -> Any:
    return net(lambda self, x: self.head(self.b(self.a(x).relu_()).relu_().mean((2, 3))))


@odd("a Fourier transform")
def _() -> Any:
    return net(lambda self, x: self.tail(self.b(torch.fft.ifft2(torch.fft.fft2(self.a(x))).real)))


@odd("vmap over the images", "vmap")
def _() -> Any:
    return net(lambda self, x: torch.vmap(lambda one: self.plain(one[None])[0])(x))


@odd("swallows every exception")
def _() -> Any:
    def run(self: Net, x: Tensor) -> Tensor:
        try:
            return self.plain(x)
        except Exception:
            return torch.zeros(len(x), 4)

    return net(run)


@odd("raises", "out of coffee")
def _() -> Any:
    def run(*_: Any) -> Tensor:
        raise OSError("out of coffee")

    return net(run)


@odd("looks up what is not there", "does not run")
def _() -> Any:
    return net(lambda self, x: self.no_such_layer(x))


@odd("takes gradients of its own", "runs 2 times")
def _() -> Any:
    def run(self: Net, x: Tensor) -> Tensor:
        image = x.detach().requires_grad_()
        return self.plain(x + torch.autograd.grad(self.plain(image).sum(), image)[0])

    return net(run)


@odd("one image after the other", "batch_size=1")
def _() -> Any:
    return net(lambda self, x: torch.cat([self.plain(one[None]) for one in x]))


@odd("makes a weight as it first runs")
def _() -> Any:
    def run(self: Net, x: Tensor) -> Tensor:
        if not hasattr(self, "late"):
            self.late = nn.Parameter(torch.ones(1))
        return self.plain(x) * self.late

    return net(run)


@odd("exchanges a module as it runs")
def _() -> Any:
    def run(self: Net, x: Tensor) -> Tensor:
        self.b = copy.copy(self.b)
        self.add_module("late", nn.Identity())
        return self.plain(x)

    return net(run)


@odd("switches modes and gradients as it runs")
def _() -> Any:
    def run(self: Net, x: Tensor) -> Tensor:
        self.train().requires_grad_(requires_grad=True)
        return self.plain(x)

    model = net(run)
    model.a.weight.requires_grad_(requires_grad=False)
    return model


@odd("answers for every name")
def _() -> Any:
    class Wrapper(Net):
        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                return super().__getattr__("head")

    return Wrapper().eval()


@odd("a class that cannot be hashed", "__eq__")
def _() -> Any:
    class Model(Net):
        __hash__ = None

    return Model().eval()


# ------------------------------------------------------------------------------------------------ outputs


@odd("returns nothing", "output|logits")
def _() -> Any:
    return net(lambda self, x: (self.plain(x), None)[1])


@odd("returns words", "output|logits")
def _() -> Any:
    return net(lambda self, x: (self.plain(x), "a cat")[1])


@odd("returns an array", "output|logits")
def _() -> Any:
    return net(lambda self, x: self.plain(x).detach().numpy())


@odd("returns the class", "decisions")
def _() -> Any:
    return net(lambda self, x: self.plain(x).argmax(1))


@odd("returns whole numbers", "int64")
def _() -> Any:
    return net(lambda self, x: (100 * self.plain(x)).long())


@odd("returns a sparse tensor", "to_dense")
def _() -> Any:
    return net(lambda self, x: self.plain(x).to_sparse())


@odd("returns a dataclass with slots")
def _() -> Any:
    return net(lambda self, x: Slots(self.plain(x)))


@odd("returns a generator", "no logits were found")
def _() -> Any:
    return net(lambda self, x: (self.plain(one[None]) for one in x))


@odd("returns one number for all images", "")
def _() -> Any:
    return net(lambda self, x: self.plain(x).sum())


@odd("returns complex numbers", "")
def _() -> Any:
    return net(lambda self, x: torch.complex(self.plain(x), self.plain(x)))


@odd("returns no classes", "")
def _() -> Any:
    return net(lambda self, x: self.plain(x)[:, :0])


@odd("returns NaN")
def _() -> Any:
    return net(lambda self, x: self.plain(x) * torch.nan)


@odd("returns a tuple")
def _() -> Any:
    return net(lambda self, x: (self.plain(x), x))


@odd("returns heads by name", "logits")
def _() -> Any:
    return net(lambda self, x: dict(zip(("age", "sex"), self.plain(x).split(2, 1), strict=True)))


@odd("returns a list of dictionaries", "logits|output")
def _() -> Any:
    return net(lambda self, x: [{"boxes": row, "scores": row} for row in self.plain(x)])


@odd("returns a map", "")
def _() -> Any:
    return net(lambda self, x: self.b(self.a(x).relu()))


@odd("an empty network", "")
def _() -> Any:
    return nn.Sequential()


@odd("no map anywhere", "feature map")
def _() -> Any:
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 9), nn.ReLU(), nn.Linear(9, 4)).eval()
