"""The public data sets that `sge2hist fetch` knows: the vendor's addresses, the files of each, licence and citation.

Addresses and names are those of the vendor's download pages; the files are not part of this package. None of these downloads
was run when the catalogue was written: which of the optional files exist is asked of the server.
"""

from __future__ import annotations

from dataclasses import dataclass

VENDOR = "https://cf.10xgenomics.com/samples/spatial-exp"
LICENCE = "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/"


@dataclass(frozen=True, kw_only=True)
class WantedFile:
    """One file of a data set, under the first of its names that the server has."""

    names: tuple[str, ...]  # file names after the data set's prefix and "_"
    place: str  # folder below the output folder
    unpacked: str = ""  # of an archive: the folder of `outs` that it holds; "": not an archive
    required: bool = True


WITH_ARCHIVES = (
    WantedFile(names=("binned_outputs.tar.gz",), place="downloads", unpacked="binned_outputs"),
    WantedFile(names=("spatial.tar.gz",), place="downloads", unpacked="spatial", required=False),
    WantedFile(names=("segmented_outputs.tar.gz",), place="downloads", unpacked="segmented_outputs", required=False),
    WantedFile(names=("feature_slice.h5",), place="outs", required=False),
    WantedFile(names=("tissue_image.btf", "tissue_image.tif"), place=""),
)
"""What a public Visium HD data set consists of, as far as this package reads it."""


@dataclass(frozen=True, kw_only=True)
class PublishedData:
    """A public data set."""

    name: str  # on the command line
    title: str
    prefix: str  # of every file name
    address: str  # the folder of the files, without the last slash
    citation: str
    page: str  # the vendor's page
    licence: str = LICENCE
    files: tuple[WantedFile, ...] = WITH_ARCHIVES

    def file_name(self, name: str) -> str:
        """The whole name of a file on the server."""
        return f"{self.prefix}_{name}"


def _visium_hd(name: str, title: str, version: str, prefix: str, page: str = "") -> PublishedData:
    return PublishedData(
        name=name,
        title=f"{title}, Visium HD, Space Ranger {version}",
        prefix=prefix,
        address=f"{VENDOR}/{version}/{prefix}",
        citation=f"10x Genomics, {title}, Visium HD public data set ({prefix}, Space Ranger {version})",
        page=f"https://www.10xgenomics.com/datasets{page}",
    )


CATALOGUE = (
    _visium_hd(
        "visium-hd-mouse-brain",
        "Mouse brain, fresh frozen",
        "3.1.1",
        "Visium_HD_Mouse_Brain_Fresh_Frozen",
        "/visium-hd-cytassist-gene-expression-mouse-brain-fresh-frozen",
    ),
    _visium_hd(
        "visium-hd-mouse-embryo",
        "Mouse embryo, FFPE",
        "4.0.1",
        "Visium_HD_Mouse_Embryo",
        "/visium-hd-cytassist-gene-expression-libraries-of-mouse-embryo",
    ),
    _visium_hd(
        "visium-hd-mouse-embryo-3.0",
        "Mouse embryo, FFPE",
        "3.0.0",
        "Visium_HD_Mouse_Embryo",
        "/visium-hd-cytassist-gene-expression-libraries-of-mouse-embryo",
    ),
    _visium_hd("visium-hd-human-kidney", "Human kidney, FFPE", "4.0.1", "Visium_HD_Human_Kidney_FFPE"),
)
