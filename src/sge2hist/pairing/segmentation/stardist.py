"""StarDist as the segmenter, where the user has installed it (`pip install stardist tensorflow`).

Schmidt et al., Cell Detection with Star-convex Polygons, MICCAI 2018; weights "2D_versatile_he" of the authors. Not run
in this project's tests: the weights are downloaded at first use. The interface is tested with a stand-in.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError

MODEL = "2D_versatile_he"


def stardist_installed() -> bool:
    """Whether StarDist and the TensorFlow that its weights need can be imported (nothing is imported to find out)."""
    return find_spec("stardist") is not None and find_spec("tensorflow") is not None


class StarDistSegmenter:
    """Callable: uint8 [H, W, 3] at 0.5 um/px -> int32 labels [H, W]; runs in one process, TensorFlow uses all cores."""

    um_per_px = 0.5
    parallel = False

    def __init__(self, model: Any = None) -> None:
        self.model = load_stardist() if model is None else model

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Label the nuclei of one tile; intensities are divided by 255, the same for every tile of a slide."""
        labels, _ = self.model.predict_instances(image.astype(np.float32) / 255)
        return np.asarray(labels, np.int32)


def load_stardist(name: str = MODEL) -> Any:
    """Open the pretrained model; StarDist downloads it once.

    Raises
    ------
    InputError
        StarDist or TensorFlow is not installed, or the weights cannot be downloaded.
    """
    if not stardist_installed():
        raise InputError(
            found="no StarDist",
            where="--segmenter stardist",
            expected="the packages stardist and tensorflow",
            repair="pip install stardist tensorflow, or use --segmenter network",
        )
    from stardist.models import StarDist2D

    try:
        model = StarDist2D.from_pretrained(name)
    except Exception as error:  # downloads fail in many ways
        raise InputError(
            found=f"StarDist without its weights ({error})",
            where="--segmenter stardist",
            expected=f"a connection for the download of {name}",
            repair="use --segmenter network, which needs none",
        ) from error
    if model is None:
        raise InputError(found=f"no StarDist model {name!r}", where="--segmenter stardist", repair="update stardist")
    return model
