"""The tensor that torchvision, timm and transformers make of the same photo."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from camlucida.common.errors import ModelError
from camlucida.data.images import read_image
from camlucida.data.offline_photos import picture
from camlucida.data.preprocess import IMAGENET_MEAN, Preprocess

# landscape, portrait, square, odd, smaller than the crop in one or both sides
SIZES = [(451, 300), (300, 451), (256, 256), (333, 257), (500, 230), (97, 61), (120, 331), (1, 9)]


def photo(width: int, height: int) -> Image.Image:
    return read_image(picture("chelsea")).resize((width, height))


def noise(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", [224, 225, 400])
def test_equals_torchvision_pipeline(size, crop):
    T = pytest.importorskip("torchvision.transforms")
    theirs = T.Compose(
        [
            T.Resize(256),
            T.CenterCrop(crop),
            T.ToTensor(),
            T.Normalize(IMAGENET_MEAN, (0.229, 0.224, 0.225)),
        ]
    )
    image = noise(*size)
    ours = Preprocess.imagenet(size=crop)(image)
    assert ours.shape == (3, crop, crop)
    torch.testing.assert_close(ours, theirs(image), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(451, 300), (97, 61)])
@pytest.mark.parametrize("name", ["resnet50", "vit_h_14", "swin_t", "efficientnet_b1", "vgg16"])
def test_from_torchvision_equals_the_preset(name, size):
    models = pytest.importorskip("torchvision.models")
    preset = models.get_model_weights(name).DEFAULT.transforms()
    image = photo(*size)
    ours = Preprocess.from_torchvision(preset)(image)
    torch.testing.assert_close(ours, preset(image), atol=1e-6, rtol=0)


def test_from_torchvision_refuses_other_objects():
    with pytest.raises(ModelError, match=r"crop_size.*weights\.transforms\(\)"):
        Preprocess.from_torchvision(object())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "config",
    [
        {"input_size": (3, 224, 224), "crop_pct": 0.875, "interpolation": "bicubic"},
        {"input_size": (3, 240, 240), "crop_pct": 0.882, "interpolation": "bilinear"},
        {"input_size": (3, 224, 224), "crop_pct": 0.9, "crop_mode": "squash"},
        {"input_size": (3, 224, 224), "crop_pct": 1.0, "crop_mode": "squash"},
        {"input_size": (3, 128, 96), "crop_pct": 1.0, "mean": (0.5,) * 3, "std": (0.5,) * 3},
        {"input_size": (3, 128, 96), "crop_pct": 0.8},
        {"input_size": (3, 128, 96), "crop_pct": 0.8, "crop_mode": "squash"},
    ],
)
def test_from_timm_equals_the_eval_transform(config, size):
    data = pytest.importorskip("timm.data")
    theirs = data.create_transform(**data.resolve_data_config(pretrained_cfg=config))
    image = noise(*size)
    torch.testing.assert_close(
        Preprocess.from_timm(config)(image), theirs(image), atol=1e-6, rtol=0
    )


def test_from_timm_takes_timm_defaults():
    data = pytest.importorskip("timm.data")
    theirs = data.create_transform(**data.resolve_data_config(pretrained_cfg={"num_classes": 9}))
    image = photo(300, 260)
    torch.testing.assert_close(Preprocess.from_timm({})(image), theirs(image), atol=1e-6, rtol=0)


def test_from_timm_refuses_borders():
    with pytest.raises(ModelError, match="crop_mode 'border' is not supported"):
        Preprocess.from_timm({"input_size": (3, 224, 224), "crop_mode": "border"})


def test_from_timm_with_one_channel_is_grey():
    preprocess = Preprocess.from_timm({"input_size": (1, 28, 28), "mean": (0.5, 0.25, 0.0)})
    assert preprocess.channels == "gray"
    assert preprocess.mean == (0.25,)
    assert preprocess(photo(40, 30)).shape == (1, 28, 28)


@pytest.mark.parametrize("size", [(451, 300), (300, 451), (333, 259), (501, 230), (61, 40)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ViTImageProcessorPil", {}),
        ("ViTImageProcessorPil", {"size": {"height": 96, "width": 64}, "resample": 3}),
        ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 224}}),
        ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 384}}),
        ("CLIPImageProcessorPil", {}),
        ("LevitImageProcessorPil", {}),
        ("PoolFormerImageProcessorPil", {}),
        ("EfficientNetImageProcessorPil", {"rescale_offset": True, "rescale_factor": 1 / 127.5}),
        ("MobileViTImageProcessorPil", {}),
        ("ViTImageProcessorPil", {"do_rescale": False}),
        ("ViTImageProcessorPil", {"do_normalize": False, "rescale_factor": 1 / 127.5}),
    ],
)
def test_from_huggingface_equals_the_processor(kind, options, size):
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, kind):
        pytest.skip(f"this version of transformers has no {kind}")
    processor = getattr(transformers, kind)(**options)
    image = photo(*size)
    theirs = torch.tensor(np.array(processor(image)["pixel_values"][0])).float()
    ours = Preprocess.from_huggingface(processor)(image)
    assert ours.shape == theirs.shape
    scale = float(theirs.abs().max())
    torch.testing.assert_close(ours, theirs, atol=2e-6 * max(scale, 1), rtol=0)


def test_from_huggingface_reads_the_json_file_too():
    config = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    assert Preprocess.from_huggingface(config) == Preprocess(
        size=(32, 32),
        resize=(32, 32),
        crop=False,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        offset="down",
    )


SHORT = {"do_center_crop": True, "crop_size": 224, "resample": 3}
OLD_FILES = [
    # as the files of the hub's first years say it
    ({"feature_extractor_type": "ViTFeatureExtractor", "size": 224}, "ViT"),
    ({"image_processor_type": "ViTImageProcessor", "size": [96, 64]}, "ViT"),
    ({"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, **SHORT}, "DeiT"),
    ({"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, **SHORT}, "CLIP"),
    ({"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224, "crop_pct": 0.875,
      "resample": 3}, "ConvNext"),
    ({"feature_extractor_type": "ViTFeatureExtractor", "size": 224, "image_mean": 0.5,
      "image_std": 0.25}, "ViT"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "kind"), OLD_FILES)
def test_from_huggingface_reads_old_files_as_the_library_does(config, kind):
    transformers = pytest.importorskip("transformers")
    factory = getattr(transformers, f"{kind}ImageProcessorPil", None)
    if factory is None:
        pytest.skip(f"this version of transformers has no {kind}ImageProcessorPil")
    config = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5] * 3, **config}
    named = {k: v for k, v in config.items() if not k.endswith("_type")}
    processor = factory(**named)
    image = photo(333, 259)
    theirs = torch.tensor(np.array(processor(image)["pixel_values"][0])).float()
    ours = Preprocess.from_huggingface(config)(image)
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("PerceiverImageProcessorPil", "tensor of shape"),
        ("Owlv2ImageProcessorPil", "rules that are not known"),
    ],
)
def test_from_huggingface_notices_unknown_rules(kind, message):
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, kind):
        pytest.skip(f"this version of transformers has no {kind}")
    with pytest.raises(ModelError, match=message):
        Preprocess.from_huggingface(getattr(transformers, kind)())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"size": {"longest_edge": 3}}, "is not supported"),
        ({"size": 224}, "no fixed size"),
        ({"size": [1, 2, 3]}, r"size \[1, 2, 3\] is not supported"),
        ({}, "size None is not supported"),
        ({"size": {"shortest_edge": 224}}, "no fixed size"),
        ({"do_resize": False}, "neither resizes nor crops"),
        ({"size": {"height": 3, "width": 3}, "resample": 5}, "'hamming' is not supported"),
        ({"size": {"height": 3, "width": 3}, "resample": 77}, "number 77"),
    ],
)
def test_from_huggingface_says_what_it_cannot_express(config, message):
    with pytest.raises(ModelError, match=message):
        Preprocess.from_huggingface(config)
