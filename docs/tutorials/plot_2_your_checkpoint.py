"""
Your own checkpoint
===================

A network of yours, its weights in a file, its own size, colours and class names.
"""

import tempfile
from pathlib import Path

import torch
from torch import nn

import camlucida

# %%
# Somebody trained this network long ago and saved it with a wrapper's prefix and an optimiser beside the weights:


class Net(nn.Module):
    """A small classifier."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(32, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images to logits."""
        return self.head(self.trunk(images).mean((2, 3)))


torch.manual_seed(0)
folder = Path(tempfile.mkdtemp())
weights = {f"module.{name}": value for name, value in Net().state_dict().items()}
torch.save({"state_dict": weights, "epoch": 12}, folder / "weights.pth")

# %%
# The file is read without running any code in it; the prefix that fits is found. The preprocessing belongs to the
# model, so it is said once, here.

model = camlucida.load_model(
    str(folder / "weights.pth"),
    architecture=Net,
    preprocess=camlucida.Preprocess(size=(96, 96), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    class_names=["cat", "cup", "rocket"],
)
explanation = camlucida.explain(model, camlucida.data.picture("rocket"))
explanation

# %%
# (With random weights the map means nothing: here it only shows that everything fits.)
#
# On the command line the same is
# ``camlucida explain photo.jpg --model weights.pth --architecture nets.py:Net --size 96 --mean 0.5,0.5,0.5 --std
# 0.25,0.25,0.25 --class-names names.txt``.
#
# A module that is already in memory needs no file, and it comes back exactly as it was: training flags, gradients,
# hooks, buffers and random state.

net = Net().train()
camlucida.explain(net, torch.rand(2, 3, 96, 96), target=1)
print(net.training, [p.grad for p in net.parameters()][0])

# %%
# Which methods fit it, and what do they cost?

print(
    camlucida.methods_for(
        net, torch.rand(1, 3, 96, 96), methods=["gradcam", "legrad", "rise"], seconds=0.1
    )
)
