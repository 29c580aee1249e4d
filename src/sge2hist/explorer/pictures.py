"""PNG files of generated images, as `generate` writes them: marked as synthetic."""

from __future__ import annotations

from io import BytesIO

import numpy as np

from sge2hist.data.generated import png_options


def png(image: np.ndarray) -> bytes:
    """An image, uint8 [H, W, 3] or [H, W], as a PNG that says that it is synthetic."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", **png_options())
    return buffer.getvalue()
