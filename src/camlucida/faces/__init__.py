"""Face verification: embedders, faces in photos, and what makes two of them similar."""

from camlucida.faces.align import Crop, align, aligned
from camlucida.faces.bench_pairs import BenchPair, listed_pairs, varied_pairs
from camlucida.faces.detect import Face, choose, find_faces
from camlucida.faces.embedder import Embedder, centred
from camlucida.faces.load import load_embedder
from camlucida.faces.pair import PairExplanation, explain_pair
from camlucida.faces.pair_side import PairSide, face_photo, read_landmarks
from camlucida.faces.pairs_file import PairList, read_pairs
from camlucida.faces.photos import FacePhoto, demo_photos, face_photos, gather_photos
from camlucida.faces.variations import varied_face, vary
from camlucida.faces.verification import VerificationBenchmark, run_verification
from camlucida.faces.verification_report import VerificationReport
from camlucida.faces.verify_list import VerifiedList, verify_pairs

__all__ = [
    "BenchPair",
    "Crop",
    "Embedder",
    "Face",
    "FacePhoto",
    "PairExplanation",
    "PairList",
    "PairSide",
    "VerificationBenchmark",
    "VerificationReport",
    "VerifiedList",
    "align",
    "aligned",
    "centred",
    "choose",
    "demo_photos",
    "explain_pair",
    "face_photo",
    "face_photos",
    "find_faces",
    "gather_photos",
    "listed_pairs",
    "load_embedder",
    "read_landmarks",
    "read_pairs",
    "run_verification",
    "varied_face",
    "varied_pairs",
    "vary",
    "verify_pairs",
]
