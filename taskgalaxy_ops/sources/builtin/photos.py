"""The source ``photos``: photographs and pictures of known licence, from packages that are installed anyway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.sources.builtin import Made, package_folder

_INSTALL = {"skimage": "scikit-image", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}
_FOLDER = {"skimage": "data", "sklearn": "datasets/images", "matplotlib": "mpl-data/sample_data"}
_PUBLIC = "public domain"
_CC0 = "CC0-1.0"
_BSD = "BSD-3-Clause"
_TEAM = "the scikit-image team"


class _Picture(NamedTuple):
    package: str
    file: str
    licence: str
    attribution: str
    origin: str | None
    kind: str
    truth: dict[str, Any]


def _truth(subject: str, *objects: str, colour: bool = True, **more: Any) -> dict[str, Any]:
    return {"subject": subject, "objects": list(objects), "colour": colour, **more}


# Licences and authors are those of the packages' documentation; pictures of which it names none are left out.
_PICTURES = (
    _Picture("skimage", "astronaut.png", _PUBLIC, "NASA", "https://flic.kr/p/r9qvLn", "portrait", _truth(
        "the astronaut Eileen Collins, smiling, in an orange space suit", "person", "space suit", "flag", "shuttle",
    )),
    _Picture("skimage", "brick.png", _CC0, "CC0Textures", "https://cc0textures.com/view.php?tex=Bricks25", "texture",
             _truth("a brick wall", "bricks", colour=False)),
    _Picture("skimage", "camera.png", _CC0, "Lav Varshney", None, "photo", _truth(
        "a man in a coat behind a camera on a tripod", "man", "camera", "tripod", "buildings", colour=False)),
    _Picture("skimage", "cell.png", _CC0, "Paul Müller and others", "https://doi.org/10.1364/OE.26.010729", "science",
             _truth("a cell under a microscope", "cell", colour=False)),
    _Picture("skimage", "chelsea.png", _CC0, "Stefan van der Walt", None, "photo",
             _truth("the face of a tabby cat", "cat")),
    _Picture("skimage", "chessboard_RGB.png", _BSD, _TEAM, None, "pattern", _truth("a chessboard pattern", "squares")),
    _Picture("skimage", "clock_motion.png", _PUBLIC, "Stefan van der Walt", None, "photo",
             _truth("a wall clock, blurred by motion", "clock", colour=False, blurred=True)),
    _Picture("skimage", "coffee.png", _CC0, "Rachel Michetti, Pikolo Espresso Bar", None, "photo",
             _truth("a cup of coffee on a saucer with a spoon", "cup", "saucer", "spoon", "table")),
    _Picture("skimage", "coins.png", "no known copyright restrictions", "Brooklyn Museum",
             "https://www.brooklynmuseum.org/opencollection/archives/image/51611", "photo",
             _truth("old coins from Pompeii in rows", "coins", colour=False, coins=24)),
    _Picture("skimage", "grass.png", _CC0, "linolafett",
             "https://www.deviantart.com/linolafett/art/Grass-01-434853879", "texture",
             _truth("grass", "grass", colour=False)),
    _Picture("skimage", "gravel.png", _CC0, "CC0Textures", "https://cc0textures.com/view.php?tex=Gravel04", "texture",
             _truth("gravel", "stones", colour=False)),
    _Picture("skimage", "horse.png", _CC0, "Andreas Preuss (marauder)", "https://openclipart.org/detail/158377",
             "silhouette", _truth("the silhouette of a horse", "horse", colour=False)),
    _Picture("skimage", "hubble_deep_field.jpg", _PUBLIC, "NASA",
             "https://hubblesite.org/newscenter/archive/releases/2012/37/image/a/", "science",
             _truth("distant galaxies, seen by the Hubble telescope", "galaxies", "stars")),
    _Picture("skimage", "ihc.png", "no known copyright restrictions", "Center for Microscopy and Molecular Imaging",
             None, "science", _truth("stained colonic glands under a microscope", "glands", "cells")),
    _Picture("skimage", "logo.png", _BSD, _TEAM, "https://scikit-image.org/", "logo",
             _truth("the logo of scikit-image, a snake", "snake")),
    _Picture("skimage", "microaneurysms.png", _CC0, "Andreas Maier",
             "https://www5.cs.fau.de/research/data/fundus-images/", "science",
             _truth("a detail of a retina with microaneurysms", "blood vessels", colour=False)),
    _Picture("skimage", "phantom.png", _BSD, _TEAM, "https://doi.org/10.1109/TNS.1974.6499235", "science",
             _truth("the Shepp-Logan phantom, a model of a head's section", "ellipses", colour=False)),
    _Picture("skimage", "retina.jpg", _CC0, "Mikael Häggström",
             "https://commons.wikimedia.org/wiki/File:Fundus_photograph_of_normal_left_eye.jpg", "science",
             _truth("the retina of a left eye", "optic disc", "blood vessels")),
    _Picture("skimage", "rocket.jpg", _PUBLIC, "SpaceX", "https://www.flickr.com/photos/spacexphotos/16511594820/",
             "photo", _truth("the launch of a rocket at night", "rocket", "towers", "smoke")),
    _Picture("skimage", "text.png", _PUBLIC, "Wikimedia Commons", "https://en.wikipedia.org/wiki/File:Corner.png",
             "text", _truth("handwritten text", "text", colour=False)),
    _Picture("sklearn", "china.jpg", "CC-BY-2.0", "danielbuechele",
             "https://www.flickr.com/photos/danielbuechele/6061409035/", "photo",
             _truth("a Chinese temple hall under a blue sky", "temple", "trees")),
    _Picture("sklearn", "flower.jpg", "CC-BY-2.0", "vultilion",
             "https://www.flickr.com/photos/vultilion/6056698931/", "photo", _truth("a flower, close up", "flower")),
    _Picture("matplotlib", "grace_hopper.jpg", _PUBLIC, "James S. Davis, United States Navy",
             "https://commons.wikimedia.org/wiki/File:Grace_Hopper.jpg", "portrait",
             _truth("Grace Hopper in naval uniform before a flag", "person", "uniform", "flag", "glasses")),
    _Picture("matplotlib", "Minduka_Present_Blue_Pack.png", _PUBLIC, "Minduka, Open Clip Art Library",
             "https://openclipart.org/", "clip art", _truth("a blue gift with a ribbon", "gift", "ribbon")),
)  # fmt: skip


def images(limit: int | None, seed: int) -> Iterator[Made]:
    """The pictures in a fixed order, byte for byte. seed: has no effect, because nothing is random here.

    Raises SourceError if a package or one of its files is missing.
    """
    del seed
    for picture in _PICTURES[:limit]:
        path = package_folder(picture.package, _INSTALL[picture.package]) / _FOLDER[picture.package] / picture.file
        if not path.is_file():
            install = _INSTALL[picture.package]
            raise SourceError(f"builtin:photos: {path} is missing. Run `pip install --force-reinstall {install}`.")
        truth = {**picture.truth, "package": _INSTALL[picture.package]}
        yield Made(
            file=picture.file,
            raw=path.read_bytes(),
            kind=picture.kind,
            truth=truth,
            licence=picture.licence,
            attribution=picture.attribution,
            origin=picture.origin,
        )
