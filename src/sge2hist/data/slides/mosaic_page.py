"""One channel of a picture that is put together from pictures of fields of view, decoded where it is looked at."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from sge2hist.data.slides.pixel_source import TiffPixels

MAX_OPEN = 6  # fields of view whose file and decoded pixels are kept; a patch touches at most four


class MosaicPage:
    """Pages at places of a larger picture; 0 between them, the later one where two overlap. See `ChannelPage`."""

    def __init__(self, pages: Sequence[TiffPixels], left_top_px: np.ndarray) -> None:
        """`left_top_px`: upper left corner of each page, int64 [F, 2]."""
        self.pages, self.left_top_px = list(pages), left_top_px
        size = np.array([[page.width_px, page.height_px] for page in pages])
        self._low_px, self._high_px = left_top_px, left_top_px + size
        self.width_px, self.height_px = (int(n) for n in self._high_px.max(axis=0))
        self.dtype = pages[0].dtype
        self._open: OrderedDict[int, None] = OrderedDict()

    def region(self, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
        """Return values [y1 - y0, x1 - x0, 1]; the region lies inside the picture."""
        out = np.zeros((y1 - y0, x1 - x0, 1), self.dtype)
        low, high = np.maximum(self._low_px, [x0, y0]), np.minimum(self._high_px, [x1, y1])
        for number in np.flatnonzero((low < high).all(axis=1)):
            (xa, ya), (xb, yb) = low[number].tolist(), high[number].tolist()
            left, top = self._low_px[number].tolist()
            self._keep(int(number))
            out[ya - y0 : yb - y0, xa - x0 : xb - x0] = self.pages[number].region(
                ya - top, xa - left, yb - top, xb - left
            )
        return out

    def _keep(self, number: int) -> None:
        self._open[number] = None
        self._open.move_to_end(number)
        while len(self._open) > MAX_OPEN:
            self.pages[self._open.popitem(last=False)[0]].close()

    def close(self) -> None:
        """Close the files; they are reopened when pixels are requested again."""
        for number in self._open:
            self.pages[number].close()
        self._open.clear()
