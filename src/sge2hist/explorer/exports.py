"""What leaves a session: edits as GeoJSON, images marked as synthetic, and the command and the Python that repeat an image."""

from __future__ import annotations

import json
import re
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.artifacts import atomic_path
from sge2hist.data.slides.channels import is_rgb
from sge2hist.explorer.edit_list import collection_of, edits_of_collection
from sge2hist.explorer.fields import RequestError, malformed, not_found
from sge2hist.explorer.pictures import png
from sge2hist.explorer.sessions import Session
from sge2hist.explorer.targets import Target, threads_of
from sge2hist.explorer.tissue import Tissue
from sge2hist.generation.slide.stand_alone import write_region_image

SUFFIX = ".edits.geojson"
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9 _-]{0,63}")
EDITS_FILE, DEFAULT_NAME = "edits.geojson", "edits"
MAX_SAVED = 1000


def collection(tissue: Tissue, session: Session) -> dict[str, Any]:
    """The edits of a session as GeoJSON, in px of the slide."""
    return collection_of(session.name, session.edits, session.settings, tissue.source.um_per_edit_unit)


def file_name(name: str) -> str:
    """A name as the stem of a file: letters, digits, - and _ alone."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:64] or DEFAULT_NAME


# --- saved lists ----------------------------------------------------------------------------------------------------


class SavedEdits:
    """The folder of saved lists that the user named at start; None: nothing can be saved."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Names of the saved lists."""
        if self.folder is None or not self.folder.is_dir():
            return []
        found = sorted(path.name.removesuffix(SUFFIX) for path in self.folder.glob(f"*{SUFFIX}"))
        return [name for name in found if NAME.fullmatch(name)][:MAX_SAVED]

    def path(self, name: str) -> Path:
        """File of a list; `RequestError` for a name that is none, or without a folder."""
        if not NAME.fullmatch(name):
            raise malformed("a name is 1 to 64 letters, digits, spaces, - and _")
        if self.folder is None:
            raise RequestError(
                409, "conflict", "no folder to save to: start with --save-to FOLDER, or download the edits"
            )
        return self.folder / f"{name}{SUFFIX}"

    def save(self, name: str, content: dict[str, Any]) -> None:
        """Write a list; an earlier one of this name is replaced."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def load(self, name: str) -> dict[str, Any]:
        """Read a list."""
        path = self.path(name)
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except OSError:
            raise not_found(f"no saved edits {name!r}") from None
        except ValueError:
            raise malformed(f"the file of {name!r} is damaged") from None
        return content


def replace_by_collection(tissue: Tissue, session: Session, content: object, name: str | None = None) -> None:
    """Replace the list of a session by GeoJSON."""
    own, edits, settings = edits_of_collection(content, tissue.source.um_per_edit_unit)
    session.replace_all(edits, name or own, settings)


# --- the same by command line and Python ----------------------------------------------------------------------------


def repeat_commands(
    tissue: Tissue, session: Session, target: Target, dose: tuple[Sequence[str], Sequence[float]] | None = None
) -> dict[str, Any]:
    """The command line and the Python that write the image of a target, and the file of edits that they read."""
    if target.sample and target.region_um is None:
        raise malformed("a command repeats sample 0: choose another seed instead")
    enabled = [edit for edit in session.edits if edit["enabled"]] if dose is None else []
    file = f"{file_name(session.name)}.geojson" if session.name else EDITS_FILE
    seed = session.settings["seed"] + (target.sample if target.region_um is not None else 0)
    threads = threads_of(tissue, target, dose=dose is not None)
    options = [*_options(tissue, session, seed), "--threads", str(threads)]
    model, data = tissue.model_name, str(tissue.dataset.path)
    if target.region_um is None:
        output = f"{file_name(str(target.cell))}.generated"
        words = ["sge2hist", "generate", model, "--data", data, f"--cell={_quoted_id(str(target.cell))}"]
        if dose is not None:
            words += [
                word for gene in dose[0] for word in ("--gene", f"{gene}={','.join(map(repr, map(float, dose[1])))}")
            ]
    else:
        output = "region.generated"
        region = ",".join(repr(value) for value in target.region_um)
        words = ["sge2hist", "generate-slide", model, "--data", data, f"--region={region}", "--stand-alone"]
        words += [] if len(tissue.dataset.slide_ids) == 1 else ["--section", tissue.source.slide]
    words += ["--edits", file] if enabled else []
    words += [*options, "-o", output]
    return {
        "command": shlex.join(words),
        "python": _python(tissue, session, target, dose, file if enabled else None, seed, output, threads),
        "edits_file": file,
        "edits": collection(tissue, session) if enabled else None,
        "output": output,
    }


def _quoted_id(cell: str) -> str:
    """An id for --cell, in which commas separate."""
    return '"' + cell.replace('"', '""') + '"' if "," in cell or '"' in cell or cell != cell.strip() else cell


def _options(tissue: Tissue, session: Session, seed: int) -> list[str]:
    own, settings = tissue.settings, session.settings
    options = ["--seed", str(seed)]
    if settings["n_steps"] != own["n_steps"]:
        options += ["--steps", str(settings["n_steps"])]
    if settings["guidance"] != own["guidance"]:
        options += ["--guidance", repr(float(settings["guidance"]))]
    return [*options, *(["--force"] if tissue.force else [])]


def _python(
    tissue: Tissue,
    session: Session,
    target: Target,
    dose: tuple[Sequence[str], Sequence[float]] | None,
    edits_file: str | None,
    seed: int,
    output: str,
    threads: int,
) -> str:
    settings = session.settings
    sampler = (
        f"replace(model.bundle.config.sampler, n_steps={settings['n_steps']}, guidance={float(settings['guidance'])!r})"
    )
    lines = [
        "from dataclasses import replace",
        "",
        "import sge2hist",
        "import torch",
        "",
        f"torch.set_num_threads({threads})  # another number may round otherwise",
        f"model = sge2hist.SGE2Hist.from_pretrained({tissue.model_name!r})",
        f"data = sge2hist.PairedDataset.open({str(tissue.dataset.path)!r})",
        f"sampler = {sampler}",
    ]
    force = ", force=True" if tissue.force else ""
    if dose is not None:
        genes, factors = list(dose[0]), [float(factor) for factor in dose[1]]
        lines.append(
            f"images = model.dose(data, {target.cell!r}, {genes!r}, {factors!r}, seed={seed}, sampler=sampler{force})"
        )
    elif target.region_um is None:
        edits = "" if edits_file is None else f", edits={edits_file!r}"
        lines.append(f"row = data.obs.index.get_loc({target.cell!r})")
        lines.append(
            f"image = model.generate_from_genes(data, rows=[row], seed={seed}, sampler=sampler{edits}{force})[0, 0]"
        )
    else:
        edits = "" if edits_file is None else f"edits={edits_file!r}, "
        section = "" if len(tissue.dataset.slide_ids) == 1 else f"section={tissue.source.slide!r}, "
        lines += [
            "slide = sge2hist.generate_slide(",
            f"    model, data, {output!r}, region_um={target.region_um!r}, stand_alone=True,",
            f"    {section}{edits}seed={seed}, sampler=sampler{force},",
            ")",
            "image = slide.image.as_array()",
        ]
    return "\n".join(lines) + "\n"


# --- images ---------------------------------------------------------------------------------------------------------


def image_file(tissue: Tissue, image: np.ndarray, form: str) -> bytes:
    """An image as PNG or OME-TIFF, marked as synthetic."""
    if form == "png":
        if not is_rgb(tissue.bundle.config.channels) and image.shape[-1] != 1:
            raise malformed("a PNG holds red, green and blue, or one channel: choose ome-tiff")
        return png(image if image.shape[-1] == 3 else image[..., 0])
    if form != "ome-tiff":
        raise malformed("format is png or ome-tiff")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "region.ome.tif"
        write_region_image(path, image, tissue.bundle)
        return path.read_bytes()
