"""Architectures of timm, torchvision and transformers, with random weights, and what camlucida makes of each.

``python -m reference.architectures`` in the folder ``tests`` writes ``docs/architectures.md`` anew.
"""

from __future__ import annotations

import argparse
import importlib
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import camlucida
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers import reading, single_tensor
from camlucida.engine.layers.blocks import candidate_layers
from camlucida.engine.layers.probe import agreement, find, probe_images, response
from reference.state import differences, snapshot

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"

# ------------------------------------------------------------------------------------------------- which

# Names, and the side of the image in pixels where it is not the model's own.
TIMM = {
    **dict.fromkeys(
        (
            "resnet10t", "resnet18", "resnet26d", "ecaresnet26t", "seresnext26d_32x4d", "legacy_seresnet18",
            "skresnet18", "resnest14d", "res2net50_14w_8s", "resnetv2_18", "nf_resnet26", "nf_regnet_b0",
            "regnetx_002", "regnety_002", "regnetz_b16", "dpn48b", "densenet121", "densenetblur121d", "rdnet_tiny",
            "dla46x_c", "dla34", "vovnet39a", "ese_vovnet19b_slim_dw", "hrnet_w18_small", "cs3darknet_focus_s",
            "cs3darknet_s", "cspnext_tiny", "hgnetv2_b0", "efficientnet_b0", "efficientnet_lite0",
            "efficientnetv2_rw_t", "tf_efficientnet_lite0", "mobilenetv1_100", "mobilenetv2_050",
            "mobilenetv3_small_050", "mobilenetv3_large_075", "mobilenetv4_conv_small", "lcnet_035",
            "lcnetv2_small", "mnasnet_small", "fbnetc_100", "tinynet_e", "mixnet_s", "hardcorenas_a", "rexnet_100",
            "ghostnet_050", "ghostnetv2_100", "repghostnet_050", "convnext_atto", "convnextv2_atto",
            "inception_next_atto", "convmixer_768_32", "fasternet_t0", "starnet_s050", "mobileone_s1", "gernet_s",
            "repvgg_a0", "repvit_m0_9", "xception41", "selecsls42", "mambaout_femto", "poolformer_s12", "iformer_t",
            "lowformer_b0", "cpubone_nano", "efficientvit_b0", "legacy_xception",
        ),
        192,
    ),
    **dict.fromkeys(("vgg11_bn", "tresnet_m"), 128),
    **dict.fromkeys(
        (
            "inception_v3", "inception_v4", "inception_resnet_v2", "focalnet_tiny_srf", "fastvit_t8",
            "edgenext_xx_small", "mobilevit_xxs", "mobilevitv2_050", "efficientformer_l1", "efficientformerv2_s0",
            "efficientvim_m1", "efficientvit_m0", "levit_128s", "levit_conv_128s", "shvit_s1", "swiftformer_xs",
            "tiny_vit_5m_224", "pvt_v2_b0", "twins_svt_small", "twins_pcpvt_small", "xcit_nano_12_p16_224",
            "crossvit_tiny_240", "pit_ti_224", "convit_tiny", "coat_tiny", "coat_lite_tiny", "coatnet_nano_rw_224",
            "maxvit_pico_rw_256", "nest_tiny", "gcvit_xxtiny", "davit_tiny", "swin_tiny_patch4_window7_224",
            "swin_s3_tiny_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_224", "mvitv2_tiny", "hiera_tiny_224",
            "hiera_small_abswin_256", "visformer_tiny", "vitamin_small_224", "volo_d1_224", "cait_xxs24_224",
            "tnt_s_patch16_224", "gmixer_12_224", "resmlp_12_224", "gmlp_ti16_224", "mixer_s32_224",
            "sequencer2d_s", "caformer_s18", "convformer_s18", "nextvit_small", "botnet26t_256", "halonet26t",
            "lambda_resnet26t", "eca_botnext26ts_256", "vit_tiny_r_s16_p8_224", "vit_small_r26_s32_224",
            "eva02_tiny_patch14_224", "beit_base_patch16_224", "vit_tiny_patch16_dinov3_qkvb", "test_vit_relpos",
            "vit_relpos_small_patch16_224", "deit3_small_patch16_224", "deit_tiny_distilled_patch16_224",
            "vit_base_patch32_clip_224", "hieradet_small", "vit_little_patch16_reg4_gap_256",
            "naflexvit_base_patch16_gap",
        ),
        None,
    ),
}  # fmt: skip
TIMM_OPTIONS: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"img_size": 96},
    "vit_tiny_patch16_224, four registers": {"img_size": 96, "reg_tokens": 4},
    "vit_tiny_patch16_224, mean pooling": {
        "img_size": 96,
        "global_pool": "avg",
        "class_token": False,
    },
    "vit_tiny_patch16_224, not square": {"img_size": (64, 160)},
    "vit_tiny_patch16_224, attention pooling": {"img_size": 96, "global_pool": "map"},
    "samvit_base_patch16_224": {"depth": 4, "global_attn_indexes": (3,)},
    "swin_tiny_patch4_window7_224, not square": {"img_size": (112, 224)},
}
TORCHVISION = (
    "alexnet", "vgg11", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "squeezenet1_0",
    "squeezenet1_1", "densenet121", "googlenet", "inception_v3", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small",
    "mobilenet_v3_large", "efficientnet_b0", "efficientnet_v2_s", "regnet_x_400mf", "regnet_y_400mf",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "convnext_tiny", "maxvit_t", "swin_t", "swin_v2_t", "vit_b_32",
    "fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large", "fasterrcnn_resnet50_fpn",
    "fcos_resnet50_fpn", "retinanet_resnet50_fpn", "ssd300_vgg16",
)  # fmt: skip
DETECTORS = (
    "fasterrcnn_resnet50_fpn",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "ssd300_vgg16",
)
_VIT = {
    "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48, "image_size": 64,
    "patch_size": 8,
}  # fmt: skip
_STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
_SWIN = {
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [2, 2],
    "num_heads": [2, 2],
    "window_size": 4,
}
_BACKBONE = {"out_features": ["stage1", "stage2", "stage3"], **_VIT}
# Head, its configuration, and options of it.
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViTForImageClassification": ("ViTConfig", _VIT),
    "ViTModel": ("ViTConfig", _VIT),
    "ViTMSNForImageClassification": ("ViTMSNConfig", _VIT),
    "DeiTForImageClassification": ("DeiTConfig", _VIT),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", _VIT),
    "BeitForImageClassification": ("BeitConfig", _VIT),
    "Data2VecVisionForImageClassification": ("Data2VecVisionConfig", _VIT),
    "Dinov2ForImageClassification": ("Dinov2Config", _VIT),
    "Dinov2WithRegistersForImageClassification": ("Dinov2WithRegistersConfig", {**_VIT, "num_register_tokens": 4}),
    "DINOv3ViTModel": ("DINOv3ViTConfig", {**_VIT, "num_register_tokens": 4}),
    "IJepaForImageClassification": ("IJepaConfig", _VIT),
    "CLIPForImageClassification": ("CLIPConfig", {"vision_config": {**_VIT, "projection_dim": 16}}),
    "CLIPVisionModelWithProjection": ("CLIPVisionConfig", {**_VIT, "projection_dim": 16}),
    "CLIPVisionModel": ("CLIPVisionConfig", _VIT),
    "SiglipVisionModel": ("SiglipVisionConfig", _VIT),
    "BlipVisionModel": ("BlipVisionConfig", _VIT),
    "ChineseCLIPVisionModel": ("ChineseCLIPVisionConfig", _VIT),
    "YolosModel": ("YolosConfig", {**_VIT, "image_size": [64, 64], "num_detection_tokens": 10}),
    "SwinForImageClassification": ("SwinConfig", _SWIN),
    "Swinv2ForImageClassification": ("Swinv2Config", _SWIN),
    "ConvNextForImageClassification": ("ConvNextConfig", _STAGES),
    "ConvNextV2ForImageClassification": ("ConvNextV2Config", _STAGES),
    "ResNetForImageClassification": ("ResNetConfig", {**_STAGES, "embedding_size": 8, "layer_type": "basic"}),
    "RegNetForImageClassification": ("RegNetConfig", {**_STAGES, "embedding_size": 8, "groups_width": 8}),
    "BitForImageClassification": (
        "BitConfig",
        {**_STAGES, "embedding_size": 32, "hidden_sizes": [32, 64, 64, 64], "num_groups": 8},
    ),
    "PoolFormerForImageClassification": ("PoolFormerConfig", _STAGES),
    "PvtForImageClassification": ("PvtConfig", {"image_size": 64}),
    "PvtV2ForImageClassification": ("PvtV2Config", {"image_size": 64}),
    "LevitForImageClassification": ("LevitConfig", {"image_size": 128}),
    "CvtForImageClassification": ("CvtConfig", {}),
    "FocalNetForImageClassification": ("FocalNetConfig", {"image_size": 64, "embed_dim": 16}),
    "HieraForImageClassification": ("HieraConfig", {"image_size": [128, 128], "embed_dim": 16, "depths": [1, 1, 2, 1]}),
    "MobileNetV1ForImageClassification": ("MobileNetV1Config", {"depth_multiplier": 0.25}),
    "MobileNetV2ForImageClassification": ("MobileNetV2Config", {"depth_multiplier": 0.25}),
    "MobileViTForImageClassification": ("MobileViTConfig", {"image_size": 192}),
    "MobileViTV2ForImageClassification": ("MobileViTV2Config", {"image_size": 64, "width_multiplier": 0.5}),
    "EfficientNetForImageClassification": ("EfficientNetConfig", {"image_size": 64}),
    "SwiftFormerForImageClassification": ("SwiftFormerConfig", {"image_size": 64}),
    "TextNetForImageClassification": ("TextNetConfig", {}),
    "HGNetV2ForImageClassification": ("HGNetV2Config", {}),
    "SegformerForImageClassification": ("SegformerConfig", {}),
    "SegformerForSemanticSegmentation": ("SegformerConfig", {}),
    "MobileViTForSemanticSegmentation": ("MobileViTConfig", {"image_size": 192}),
    "MobileNetV2ForSemanticSegmentation": ("MobileNetV2Config", {"depth_multiplier": 0.5}),
    "GLPNForDepthEstimation": ("GLPNConfig", {"depths": [1, 1, 1, 1]}),
    "DPTForDepthEstimation": (
        "DPTConfig",
        {**_VIT, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 8, 16, 16],
         "fusion_hidden_size": 16, "is_hybrid": False, "patch_size": 16},
    ),
    "ResNetBackbone": ("ResNetConfig", {**_STAGES, "embedding_size": 8, "layer_type": "basic"}),
    "SwinBackbone": ("SwinConfig", {**_SWIN, "out_features": ["stage1", "stage2"]}),
    "Dinov2Backbone": ("Dinov2Config", _BACKBONE),
    "VitDetBackbone": ("VitDetConfig", {**_VIT, "pretrain_image_size": 64}),
}  # fmt: skip
TRANSFORMERS_SIZES = {
    "LevitForImageClassification": 128,
    "HieraForImageClassification": 128,
    **dict.fromkeys(
        (
            "PoolFormerForImageClassification", "MobileNetV1ForImageClassification",
            "MobileNetV2ForImageClassification",
            "MobileNetV2ForSemanticSegmentation", "EfficientNetForImageClassification",
            "HGNetV2ForImageClassification",
            "MobileViTForImageClassification", "MobileViTForSemanticSegmentation", "BitForImageClassification",
        ),
        192,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """A model that can be made, and an image that it takes."""

    library: str
    name: str

    def __str__(self) -> str:
        return f"{self.library}:{self.name}"

    def build(self, *, fitted: bool = False) -> tuple[nn.Module, Tensor]:
        """Model and image; ``fitted`` sets the statistics of batch norms to those of noise."""
        torch.manual_seed(0)
        model, size = {
            "timm": _timm,
            "torchvision": _torchvision,
            "transformers": _transformers,
            "own": _own,
        }[self.library](self.name)
        if fitted:
            calibrate(model, size)
        for parameter in model.parameters():  # some heads start at zero
            if parameter.ndim == 2 and not parameter.any():
                nn.init.normal_(parameter, std=0.02)
        x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():  # some models hook themselves when they first run
            model.eval()(x)
        return model, x


def calibrate(model: nn.Module, size: tuple[int, int]) -> None:
    """Give batch norms the statistics of noise: with those they start with, deep networks hardly see the image."""

    def fit(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and args[0].ndim in (2, 4) and args[0].shape[0] > 1:
            variance, mean = torch.var_mean(args[0], [d for d in range(args[0].ndim) if d != 1])
            module.running_mean.copy_(mean)
            module.running_var.copy_(variance + 1e-5)

    norms = [
        m
        for m in model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    handles = [norm.register_forward_pre_hook(fit) for norm in norms]
    try:
        if norms:
            with torch.no_grad():
                model.eval()(torch.randn(2, 3, *size))
    finally:
        for handle in handles:
            handle.remove()


Built = tuple[nn.Module, tuple[int, int]]


def _timm(name: str) -> Built:
    timm = importlib.import_module("timm")
    options = TIMM_OPTIONS.get(name, {})
    model = timm.create_model(name.partition(",")[0], pretrained=False, num_classes=7, **options)
    side = options.get("img_size") or TIMM.get(name) or model.default_cfg["input_size"][1:]
    return model, (side, side) if isinstance(side, int) else tuple(side)


def _torchvision(name: str) -> Built:
    models = importlib.import_module("torchvision.models")
    options: dict[str, Any] = {"weights": None}
    if "googlenet" in name or "inception" in name:
        options["init_weights"] = False
    if "resnet50_fpn" in name or name in DETECTORS or name.startswith(("fcn", "deeplab", "lraspp")):
        options["weights_backbone"] = None
    model = models.get_model(name, **options)
    if name in DETECTORS:  # a detector takes lists of images; its backbone is what can be explained
        return model.backbone, (300, 300)
    side = {"inception_v3": 299, "vgg11": 128, "vit_b_32": 224, "maxvit_t": 224}.get(name, 192)
    return model, (side, side)


def _transformers(name: str) -> Built:
    transformers = importlib.import_module("transformers")
    config, options = TRANSFORMERS[name]
    if "Model" not in name and "Backbone" not in name:
        options = {**options, "num_labels": 7}
    model = getattr(transformers, name)(getattr(transformers, config)(**options))
    side = TRANSFORMERS_SIZES.get(name, 64)
    return model, (side, side)


def _own(name: str) -> Built:
    own = importlib.import_module("reference.own_architectures")
    return own.BUILDERS[name]()


def architectures() -> list[Architecture]:
    """All of them, in the order of the page."""
    own = importlib.import_module("reference.own_architectures")
    return [
        *(Architecture("timm", name) for name in [*TIMM, *TIMM_OPTIONS]),
        *(Architecture("torchvision", name) for name in TORCHVISION),
        *(Architecture("transformers", name) for name in TRANSFORMERS),
        *(Architecture("own", name) for name in own.BUILDERS),
    ]


# --------------------------------------------------------------------------------------- what is made of it


@dataclass(frozen=True)
class Row:
    """What camlucida makes of an architecture.

    Attributes:
        architecture: which.
        default: the default layer; empty where it was refused.
        grid: how it is read.
        evidence: by what evidence.
        share: of the cells of the default layer that change most with their own quarter of the image.
        verdict: ``"agrees"``, ``"unclear"`` or ``"contradicts"``: what the probe says.
        layers: I-CAM's automatic layers.
        misread: layers among all these that the probe contradicts.
        changed: what about the model was not as before.
        refusal: the words, where there is no default layer.
    """

    architecture: Architecture
    default: str = ""
    grid: str = ""
    evidence: str = ""
    share: float | None = None
    verdict: str = ""
    layers: tuple[str, ...] = ()
    misread: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    refusal: str = ""


def examine(architecture: Architecture) -> Row:
    """Build an architecture and see what camlucida makes of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, x = architecture.build()
        before = snapshot(model)
        try:
            default = camlucida.default_layer(model, x)
            found = reading(model, x, default)
            layers = candidate_layers(model, x, rectified=True)
        except camlucida.CamlucidaError as error:
            return Row(
                architecture,
                refusal=str(error),
                changed=tuple(differences(before, snapshot(model))),
            )
        grids = {name: reading(model, x, name).grid for name in (default, *layers)}
        changed = tuple(differences(before, snapshot(model)))
        judged = judge_all(model, x, grids)
        if judged[default][1] == "unclear":
            # Deep networks whose batch norms know no statistics hardly see the image.
            again, _ = architecture.build(fitted=True)
            judged = {
                name: max(judged[name], new, key=_order)
                for name, new in judge_all(again, x, grids).items()
            }
    return Row(
        architecture,
        default,
        str(found.grid),
        str(found.evidence),
        *judged[default],
        layers,
        tuple(name for name, (_, verdict) in judged.items() if verdict == "contradicts"),
        changed,
    )


Judgement = tuple[float | None, str]


def _order(judgement: Judgement) -> tuple[int, float]:
    share, verdict = judgement
    return ("unclear", "agrees", "contradicts").index(verdict), share or 0.0


def judge_all(model: nn.Module, x: Tensor, grids: dict[str, Any]) -> dict[str, Judgement]:
    size = (int(x.shape[2]), int(x.shape[3]))
    return {
        name: judge(changes, grids[name], size)
        for name, changes in measure(model, x, grids).items()
    }


def measure(model: nn.Module, x: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
    """How each position of each layer's output changes with each quarter of the image."""
    images = probe_images(x)
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    handles = []
    for name, outputs in kept.items():

        def keep(_: nn.Module, __: Any, output: Any, outputs: list[Tensor] = outputs) -> None:
            tensor = single_tensor(output)
            assert tensor is not None
            outputs.append(tensor.clone())

        handles.append(model.get_submodule(name).register_forward_hook(keep))
    try:
        with borrowed(model, x) as module, torch.no_grad():
            for image in images:
                module(image[None].clone())
    finally:
        for handle in handles:
            handle.remove()
    return {name: response(torch.cat(outputs)) for name, outputs in kept.items()}


def judge(changes: Tensor, grid: Any, size: tuple[int, int]) -> Judgement:
    """Share of the cells in place, and whether this supports the reading."""
    measured, best = agreement(changes, grid), find(changes, size)
    if measured is None:
        return None, "unclear"
    if best.clear and best.grid != grid and grid.order is None:
        assert best.agreement is not None
        # Of a few cells, windows and strides may put some into the neighbouring quarter.
        if best.agreement.share > measured.share + 0.1:
            return measured.share, "contradicts"
    return measured.share, "agrees" if measured.share >= 0.6 and measured.luck < 0.05 else "unclear"


# --------------------------------------------------------------------------------------------------- the page

_HEAD = """# What is found in which architecture

Every row is a model with random weights on one small image: the layer that is explained when none is named, how its
output is read, by what evidence, the share of the cells that change most with their own quarter of the image, measured
apart from all that, and the layers that I-CAM weighs by itself (how many, the first and the last). *Unclear* means that
at random weights the layer mixes all positions so well that the probe sees no place at all; it never means that another
reading fits better. Each model came back bit for bit.

`python -m reference.architectures` in the folder `tests` writes this page anew;
`pytest tests/engine/test_architectures.py` checks every row.

"""


def page(rows: list[Row]) -> str:
    """The rows as a page."""
    lines = [_HEAD]
    for library in dict.fromkeys(row.architecture.library for row in rows):
        of = [row for row in rows if row.architecture.library == library]
        lines.append(f"## {library}: {len(of)} architectures\n")
        lines.append("| architecture | default layer | read as | evidence | probe | I-CAM |")
        lines.append("|---|---|---|---|---|---|")
        for row in of:
            name = row.architecture.name
            if row.refusal:
                lines.append(f"| {name} | refused | {row.refusal.replace('|', '/')} | | | |")
                continue
            share = "" if row.share is None else f"{row.share:.0%}"
            probe = share if row.verdict == "agrees" else f"{row.verdict} {share}".strip()
            ends = dict.fromkeys((row.layers[0], row.layers[-1]))
            layers = f"{len(row.layers)}: " + " to ".join(f"`{layer}`" for layer in ends)
            lines.append(
                f"| {name} | `{row.default}` | {row.grid} | {row.evidence} | {probe} | {layers} |"
            )
        lines.append("")
    return "\n".join(lines)


def main(rows: Callable[[Iterable[Architecture]], Iterable[Row]] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--only", default="", help="architectures with this in their name; the page is printed"
    )
    chosen = parser.parse_args()
    wanted = [one for one in architectures() if chosen.only in str(one)]
    torch.set_num_threads(1)
    if rows is not None:
        found = list(rows(wanted))
    elif chosen.processes > 1:
        with ProcessPoolExecutor(
            chosen.processes, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            found = list(pool.map(examine, wanted))
    else:
        found = [examine(one) for one in wanted]
    if chosen.only:
        print(page(found))
    else:
        PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
