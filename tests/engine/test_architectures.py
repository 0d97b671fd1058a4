"""What is found in some 250 architectures: the page of the docs, and no silent misreading."""

import pytest
import torch

from reference.architectures import PAGE, architectures, examine

for library in ("timm", "torchvision", "transformers"):
    pytest.importorskip(library)

REFUSED = {
    # Nothing in these shows the image as it lies.
    "own:lying on its side",
    "own:mirrored",
    "own:upside down",
    "own:spatial transformer, 180 degrees",
    "own:fully connected",
}
UNCLEAR = {
    # Attention without a shortcut or without positions: at random weights every token sees the same.
    "timm:levit_128s",
    "timm:levit_conv_128s",
    "timm:visformer_tiny",
    "transformers:LevitForImageClassification",
    # Deep networks with small maps, whose every cell sees the whole image.
    "timm:efficientnetv2_rw_t",
    "transformers:MobileViTForImageClassification",
    "transformers:MobileViTForSemanticSegmentation",
}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", architectures(), ids=str)
def test_architecture(architecture):
    torch.set_num_threads(1)
    row = examine(architecture)
    assert row.changed == ()
    assert bool(row.refusal) == (str(architecture) in REFUSED), row.refusal
    if not row.refusal:
        assert row.verdict != "contradicts"
        assert row.misread == ()
        assert (row.verdict == "unclear") == (str(architecture) in UNCLEAR), row.share
        assert row.layers


def test_the_page_has_every_architecture():
    text = PAGE.read_text(encoding="utf-8")
    assert len(architectures()) >= 150
    for architecture in architectures():
        assert f"| {architecture.name} |" in text
