"""Sections made in memory, with counts that follow the picture."""

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array

from sge2hist.data.section import ImageReference, Section
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.readers.count_rows import grouped_rows

PINK = np.array([235, 180, 205], np.float32)
PURPLE = np.array([90, 50, 140], np.float32)


def make_section(
    *,
    name: str = "one",
    width_px: int = 500,
    height_px: int = 400,
    um_per_px: float = 2.0,
    bin_um: float = 10.0,
    n_genes: int = 40,
    shift_um: tuple[float, float] = (0.0, 0.0),
    reference: ImageReference | None = None,
    image: SlideImage | None = None,
    software: str = "",
    seed: int = 0,
) -> Section:
    """Bins over a slide of dark blobs on pink; UMI grow with darkness; three types by region mark their own genes."""
    rng = np.random.default_rng(seed)
    darkness = gaussian_filter(rng.normal(size=(height_px, width_px)), 8 / um_per_px)
    darkness = np.clip(0.5 + 0.5 * darkness / darkness.std(), 0, 1)[..., None]
    pixels = (PINK * (1 - darkness) + PURPLE * darkness).astype(np.uint8)
    x_um, y_um = np.meshgrid(
        np.arange(bin_um / 2, width_px * um_per_px, bin_um), np.arange(bin_um / 2, height_px * um_per_px, bin_um)
    )
    centre_um = np.column_stack([x_um.ravel(), y_um.ravel()])
    at = np.floor(centre_um / um_per_px).astype(int)
    kind = (centre_um[:, 0] // 120).astype(int) % 3
    rate = np.full((3, n_genes), 1.0)
    for t in range(3):
        rate[t, t * 5 : t * 5 + 5] = 12.0
    library = 0.3 + 2.0 * darkness[at[:, 1], at[:, 0]]
    counts = rng.poisson(rate[kind] * library).astype(np.int32)
    n_columns = x_um.shape[1]
    row, column = np.divmod(np.arange(len(centre_um)), n_columns)
    obs = pd.DataFrame(
        {"array_row": row, "array_col": column, "region": np.array(["a", "b", "c"])[kind]},
        index=pd.Index([f"bin_{i:05d}" for i in range(len(row))], name="cell_id"),
    )
    genes = pd.DataFrame({"symbol": [f"G{g}" for g in range(n_genes)]}, index=[f"ENSG{g:05d}" for g in range(n_genes)])
    return Section(
        name=name,
        technology="made up",
        software=software,
        observation="bin",
        observation_um=bin_um,
        obs=obs,
        centre_xy_px=(centre_um - np.array(shift_um)) / um_per_px,
        genes=genes,
        image=image or SlideImage.from_array(pixels, um_per_px, "made.tif"),
        um_per_px=um_per_px,
        um_per_px_sources={"made": um_per_px},
        read_counts=grouped_rows(csr_array(counts)),
        reference=reference,
    )
