"""Training: the loop, small networks and the masked VGG, and losses on the maps of a model."""

from camlucida.training.cam_loss import SalienceLoss, TrainableCAM
from camlucida.training.digits import train_digits
from camlucida.training.loop import FitOptions, fit
from camlucida.training.masked import train_masked_vgg
from camlucida.training.planted import PlantedProof, prove_planted
from camlucida.training.salience.one_call import train_salience
from camlucida.training.sham import sham_mask

__all__ = [
    "FitOptions",
    "PlantedProof",
    "SalienceLoss",
    "TrainableCAM",
    "fit",
    "prove_planted",
    "sham_mask",
    "train_digits",
    "train_masked_vgg",
    "train_salience",
]
