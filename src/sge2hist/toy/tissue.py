"""The toy tissue: architecture, cells, RNA and image from one seed.

Example
-------
>>> tissue = simulate(ToyTissueConfig.tiny(), seed=0)
>>> tissue.image.shape
(600, 600, 3)
>>> int(tissue.bin_counts(8).sum()) == int(tissue.counts_NG.sum())
True
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sge2hist.toy.architecture import Architecture, Region, build_architecture
from sge2hist.toy.cells import ToyCells, place_cells
from sge2hist.toy.config import ArrayFrame, ToyTissueConfig
from sge2hist.toy.expression import (
    ToyGenes,
    Transcripts,
    count_by_bin,
    make_genes,
    mean_counts,
    sample_counts,
    sample_depth,
    scatter_transcripts,
    type_by_bin,
)
from sge2hist.toy.render import StainMaps, paint_stains, stain_to_rgb

__all__ = ["ToyTissue", "ToyTissueConfig", "simulate"]


@dataclass(frozen=True, kw_only=True)
class ToyTissue:
    """One simulated section with its truth. N cells, G genes; images [height, width]."""

    config: ToyTissueConfig
    seed: int
    architecture: Architecture
    frame: ArrayFrame
    cells: ToyCells
    genes: ToyGenes
    mean_NG: np.ndarray  # expected counts
    counts_NG: sparse.csr_array  # int32, sampled
    transcripts: Transcripts
    stains: StainMaps
    image: np.ndarray  # uint8 [height, width, 3]

    def bin_counts(self, bin_um: int) -> sparse.csr_array:
        """Counts of every bin of the array, row-major, int32 [n_bins, G]; they sum to the counts of the cells."""
        return count_by_bin(self.transcripts, self.frame, bin_um, len(self.genes))

    def bin_types(self, bin_um: int) -> np.ndarray:
        """Cell type index that gave most transcripts to each bin, int64 [n_bins], -1 for none."""
        return type_by_bin(self.transcripts, self.cells, self.frame, bin_um)

    def bin_centre_xy_px(self, bin_um: int) -> np.ndarray:
        """Centres of all bins in px of the image, float64 [n_bins, 2], row-major."""
        n = self.frame.n_bins(bin_um)
        column, row = np.meshgrid(np.arange(n), np.arange(n), indexing="xy")
        array_xy_um = (np.stack([column.ravel(), row.ravel()], axis=1) + 0.5) * bin_um
        return self.frame.to_image(array_xy_um) / self.config.um_per_px

    def bins_in_tissue(self, bin_um: int) -> np.ndarray:
        """Bool [n_bins]: the centre lies on tissue (lumens included), or a transcript was caught at the edge."""
        centre_um = self.bin_centre_xy_px(bin_um) * self.config.um_per_px
        on_tissue = self.architecture.at(self.architecture.region, centre_um) != Region.GLASS
        n_bins = self.frame.n_bins(bin_um) ** 2
        return on_tissue | (np.bincount(self.transcripts.bin_of(self.frame, bin_um), minlength=n_bins) > 0)


def simulate(config: ToyTissueConfig, seed: int = 0) -> ToyTissue:
    """Build one toy section. The same config and seed give the same section, to the last count and pixel."""
    # One stream per step: a change of one step does not change the others.
    streams = np.random.default_rng(seed).spawn(6)
    architecture = build_architecture(config, streams[0])
    cells = place_cells(config, architecture, streams[1])
    genes = make_genes(config, streams[2])
    mean_NG = mean_counts(genes, cells, sample_depth(cells, config, streams[3]))
    counts_NG = sample_counts(mean_NG, config.dispersion, streams[3])
    frame = ArrayFrame.from_config(config)
    transcripts = scatter_transcripts(counts_NG, cells, frame, streams[4])
    stains = paint_stains(config, architecture, cells, streams[5])
    return ToyTissue(
        config=config,
        seed=seed,
        architecture=architecture,
        frame=frame,
        cells=cells,
        genes=genes,
        mean_NG=mean_NG,
        counts_NG=counts_NG,
        transcripts=transcripts,
        stains=stains,
        image=stain_to_rgb(stains, config.um_per_px, streams[5]),
    )
