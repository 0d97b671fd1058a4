"""Face verification: embedders, faces in photos, and what makes two of them similar."""

from camlucida.faces.align import Crop, align, aligned
from camlucida.faces.detect import Face, choose, find_faces
from camlucida.faces.embedder import Embedder, centred
from camlucida.faces.load import load_embedder
from camlucida.faces.photos import FacePhoto, demo_photos, face_photos, gather_photos
from camlucida.faces.variations import Varied, varied_face, vary

__all__ = [
    "Crop",
    "Embedder",
    "Face",
    "FacePhoto",
    "Varied",
    "align",
    "aligned",
    "centred",
    "choose",
    "demo_photos",
    "face_photos",
    "find_faces",
    "gather_photos",
    "load_embedder",
    "varied_face",
    "vary",
]
