"""Faces in photos: found, chosen, refused in words."""

import numpy as np
import pytest
from PIL import Image

from camlucida.common.errors import ImageError, ModelError
from camlucida.data.images import read_image
from camlucida.faces.align import five_points
from camlucida.faces.detect import Face, choose, find_faces
from camlucida.faces.networks.dlib_net import model_file
from camlucida.faces.photos import demo_photos

dlib = pytest.importorskip("dlib")
try:
    model_file()
except ModelError as error:
    pytest.skip(str(error), allow_module_level=True)

PHOTOS = {photo.path.stem: photo for photo in demo_photos()}
ONE = PHOTOS["eileen-collins-1"]


def _face(width=50.0, left=0.0):
    return Face((left, 0, left + width, width), np.zeros((68, 2)), 1.0)


@pytest.mark.parametrize("name", sorted(PHOTOS))
def test_each_photo_of_the_package_has_one_face(name):
    photo = read_image(PHOTOS[name])
    (face,) = find_faces(PHOTOS[name])
    left, top, right, bottom = face.box
    assert left < right
    assert top < bottom
    assert face.turn == 0
    assert face.landmarks.shape == (68, 2)
    eyes = five_points(face.landmarks)
    assert eyes[0, 0] < eyes[2, 0] < eyes[1, 0]  # left eye, nose, right eye
    assert eyes[0, 1] < eyes[2, 1] < eyes[3, 1]  # eye, nose, mouth
    assert (eyes > 0).all()
    assert (eyes < photo.size).all()


@pytest.mark.parametrize("points", [68, 5])
def test_crops_equal_those_of_dlib(points):
    photo = read_image(PHOTOS["grace-hopper-1"])
    (face,) = find_faces(photo, points=points)
    assert face.landmarks.shape == (points, 2)
    name = {
        68: "shape_predictor_68_face_landmarks.dat",
        5: "shape_predictor_5_face_landmarks.dat",
    }[points]
    predictor = dlib.shape_predictor(str(model_file(name)))
    array = np.asarray(photo)
    shape = predictor(array, dlib.rectangle(*(round(v) for v in face.box)))
    chip = dlib.get_face_chip(array, shape, 150, 0.25)
    ours = np.asarray(face.crop(photo, "dlib-150").image)
    assert np.abs(chip.astype(int) - ours).max() <= 1


def test_a_large_face_is_shrunk_much_as_dlib_does():
    photo = read_image(PHOTOS["eileen-collins-1"])
    photo = photo.resize((photo.width * 4, photo.height * 4), Image.Resampling.BICUBIC)
    (face,) = find_faces(photo)
    predictor = dlib.shape_predictor(str(model_file("shape_predictor_68_face_landmarks.dat")))
    array = np.asarray(photo)
    shape = predictor(array, dlib.rectangle(*(round(v) for v in face.box)))
    chip = dlib.get_face_chip(array, shape, 150, 0.25)
    ours = np.asarray(face.crop(photo, "dlib-150").image)
    assert np.abs(chip.astype(int) - ours).mean() < 3


def test_a_photo_on_its_side_is_turned_to_find_the_face():
    upright = read_image(ONE)
    (expected,) = find_faces(upright)
    on_its_side = upright.transpose(Image.Transpose.ROTATE_270)
    with pytest.raises(ImageError, match="no face was found") as caught:
        find_faces(on_its_side, turns=(0,))
    assert "turned" not in str(caught.value)
    (face,) = find_faces(on_its_side)
    assert abs(face.turn) == 90
    # Landmarks in the photo as it lies: (x, y) was turned clockwise to (height - 1 - y, x).
    x, y = expected.landmarks.T
    there = np.stack([upright.height - 1 - y, x], 1)
    assert np.abs(face.landmarks - there).mean() < 3
    crop = face.crop(on_its_side)
    assert abs(abs(crop.turned) - 90) < 10
    same = np.asarray(expected.crop(upright).image, dtype=float)
    assert np.abs(np.asarray(crop.image) - same).mean() < 12


def test_two_faces_are_both_found_the_largest_first():
    a, b = read_image(PHOTOS["grace-hopper-1"]), read_image(ONE)
    both = Image.new("RGB", (a.width + b.width, a.height))
    both.paste(b, (0, 0))
    both.paste(a, (b.width, 0))
    faces = find_faces(both)
    assert len(faces) == 2
    assert faces[0].area > faces[1].area
    assert faces[0].box[0] > b.width
    with pytest.raises(ImageError, match="2 faces were found") as caught:
        choose(faces)
    assert "largest" in str(caught.value)
    assert choose(faces, "largest") is faces[0]
    assert choose(faces, 1) is faces[1]


def test_choosing():
    faces = (_face(60), _face(50, 100))
    assert choose(faces[:1]) is faces[0]
    for wrong in (2, -1, "smallest"):
        with pytest.raises(ImageError, match="from 0 to 1"):
            choose(faces, wrong)
    with pytest.raises(ImageError, match="no face"):
        choose(())


def test_no_face_is_said_with_what_was_tried():
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    with pytest.raises(ImageError, match="no face was found") as caught:
        find_faces(noise)
    assert "300 x 200" in str(caught.value)
    assert "90" in str(caught.value)


def test_a_tiny_face_is_refused_or_not_found():
    photo = read_image(ONE)
    tiny = photo.resize((photo.width // 7, photo.height // 7), Image.Resampling.LANCZOS)
    with pytest.raises(ImageError, match=r"too small|no face"):
        find_faces(tiny)


def test_a_file_that_is_no_picture(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("not a picture")
    with pytest.raises(ImageError, match=r"notes\.jpg"):
        find_faces(path)
    with pytest.raises(ImageError, match="no such file"):
        find_faces(tmp_path / "none.jpg")
