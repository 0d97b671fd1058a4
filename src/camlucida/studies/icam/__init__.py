r"""I-CAM's own figures: ablation, layer importance, the four cases, nearest training images, and its layers.

``cases`` and ``examples`` take any method; what follows is said of I-CAM, for which they were made. Of a method that
does not weigh its layers, all weights are equal, and of one that explains the input, the map is laid over the model's
last feature map.

``examples`` explains a prediction by the training images that look most alike to what I-CAM says matters. The I-CAM
authors pick such images by hand and leave finding them to future work; the definition is ours. For an image and a
class, with the maps $L_l$ and the weights $W_l$ (which add up to 1) of the layers that I-CAM keeps, the feature of
layer l is the activation averaged over the places that its map marks,

$v_l = \sum_{ij} M_{l,ij} A_{l,ij} / \sum_{ij} M_{l,ij}$, with $M_l = L_l$ scaled to [0, 1] (uniform where $L_l$ is
constant), divided by its length. The feature of the image is the concatenation of $\sqrt{W_l} v_l$ over all layers;
filtered layers have weight 0. The distance of two images is one minus the cosine of their features,
$\cos(f, f') = \sum_l \sqrt{W_l W'_l} \cos(v_l, v'_l)$: two images are near when the same layers matter in both, and
the same channels are active where these layers look.

A photo is explained once for the predicted class, and once for its true class where that is given; it is compared
with the training images *of that class*, each explained for its own label.
"""

from camlucida.studies.icam.ablate import Ablation, ablation
from camlucida.studies.icam.copies import PerturbedCopies, copies
from camlucida.studies.icam.four_cases.run import cases
from camlucida.studies.icam.four_cases.study import CaseStudy
from camlucida.studies.icam.importance import LayerImportance, layer_importance
from camlucida.studies.icam.layers import LayerReport, layer_report
from camlucida.studies.icam.leave_out import audit_layer_scores
from camlucida.studies.icam.neighbours.nearest import Examples, examples

__all__ = [
    "Ablation",
    "CaseStudy",
    "Examples",
    "LayerImportance",
    "LayerReport",
    "PerturbedCopies",
    "ablation",
    "audit_layer_scores",
    "cases",
    "copies",
    "examples",
    "layer_importance",
    "layer_report",
]
