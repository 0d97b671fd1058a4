"""Images, and the small pictures that come with the package."""

from camlucida.data.images import find_images, read_image
from camlucida.data.pictures import Picture, picture

__all__ = ["Picture", "find_images", "picture", "read_image"]
