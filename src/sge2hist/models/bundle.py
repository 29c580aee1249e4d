"""A model folder ``X.model/``: config.json, model.safetensors (averaged weights), genes.csv, types.csv, niches.npz, README.md,
and proteins.csv if the model reads proteins.
"""

from __future__ import annotations

import copy
import difflib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sge2hist.data.artifacts import FORMAT_VERSION, atomic_path, sha256_of
from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.table.proteins import ProteinPanel
from sge2hist.models.gene.cell_types import TypeTable
from sge2hist.models.joint_model import JointModel, ModelConfig
from sge2hist.models.niches import Niches, read_niches, write_niches
from sge2hist.models.types_csv import TYPES_NAME, read_types, write_types
from sge2hist.models.version_0_1 import current_weights

KIND = "model"
GENE_KIND = "gene-weights"  # a gene model without an image model, for a warm start alone
CONFIG_NAME, WEIGHTS_NAME, GENES_NAME = "config.json", "model.safetensors", "genes.csv"
PROTEINS_NAME = "proteins.csv"


@dataclass(kw_only=True)
class ModelBundle:
    """A trained model and everything that is needed to use it; contains no expression and no images."""

    model: JointModel
    genes: GenePanel
    types: TypeTable
    provenance: dict[str, Any] = field(default_factory=dict)  # data, training, seed, toy flag: see `train`
    fingerprint: str = ""  # sha256 of the weights file, set when saved or loaded
    kind: str = KIND  # or GENE_KIND: its image networks are placeholders
    z2_range: np.ndarray | None = None  # [2, M] lowest and highest z2 of the training cells; None: unknown
    proteins: ProteinPanel | None = None  # that it reads beside the genes; None: RNA alone
    niches: Niches | None = None  # examples of what lies around cells of each type; None: of a version without

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self.model.config

    @property
    def is_toy(self) -> bool:
        """Whether it was trained on toy tissue."""
        return bool(self.provenance.get("toy", False))

    @property
    def trained_on(self) -> dict[str, Any]:
        """Fingerprint of the training data, slides and donors of its training cells; for the manifests of its images.

        `slides` is None for a model of an older version that was trained on a dataset of several: some may have been held out.
        """
        slides = self.provenance.get("slides", [])
        return {
            "data_fingerprint": self.provenance.get("data_fingerprint"),
            "slides": self.provenance.get("train_slides", slides if len(slides) == 1 else None),
            "donors": self.provenance.get("train_donors", []),
        }

    def with_patch_px(self, patch_px: int | None) -> ModelBundle:
        """The same weights for patches of another side in px; None: as trained. Networks are shared, not copied.

        The image networks are convolutions: a larger patch is one canvas, not windows put together.

        Raises
        ------
        InputError
            If the networks cannot generate such patches.
        """
        if patch_px is None or patch_px == self.config.patch_px:
            return self
        if self.config.image.condition.form != "map":
            raise InputError(
                found=f"patches of {patch_px} px",
                expected=f"{self.config.patch_px} px, the only size of a model that is conditioned on one cell",
            )
        try:
            config = replace(self.config, patch_px=patch_px)
        except ValueError as error:
            raise InputError(found=f"patches of {patch_px} px", expected=f"another side ({error})") from error
        model = copy.copy(self.model)
        model.config = config
        return replace(self, model=model)

    def components_of(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the components called `name` (case does not matter) and their weights.

        Raises
        ------
        InputError
            If no component has this name.
        """
        try:
            return self.types.components(name)
        except KeyError as error:
            close = difflib.get_close_matches(name, self.types.names, n=1, cutoff=0.5)
            raise InputError(
                found=f"cell type {name!r}",
                expected=f"one of: {', '.join(self.types.names)}",
                repair=f"did you mean {close[0]!r}?" if close else "`sge2hist types MODEL` lists them",
            ) from error

    def canonical_type_name(self, name: str) -> str:
        """The name of a type as the model spells it; raises `InputError` as :meth:`components_of`."""
        components, _ = self.components_of(name)
        return next(row.name for row in self.types.rows if row.component == components[0])

    def save(self, path: Path, *, half: bool = False) -> None:
        """Write the bundle into the folder `path`; config.json comes last and makes it a model.

        `half` stores matrices and convolutions in float16: half the size, and images that differ by rounding. Vectors (norms,
        biases, statistics, dispersions) and the mixture stay in float32.
        """
        from safetensors.torch import save_file

        path.mkdir(parents=True, exist_ok=True)
        state = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
        if half:
            state = {name: value.half() if _is_weight(name, value) else value for name, value in state.items()}
        with atomic_path(path / WEIGHTS_NAME) as partial:
            save_file(state, partial, metadata={"format": "pt"})
        with atomic_path(path / GENES_NAME) as partial:
            self.genes.to_csv(partial)
        if self.proteins is not None:
            with atomic_path(path / PROTEINS_NAME) as partial:
                self.proteins.to_csv(partial)
        write_types(path, self.types)
        if self.niches is not None:
            write_niches(path, self.niches)
        self.fingerprint = sha256_of(path / WEIGHTS_NAME)
        content = {
            "kind": self.kind,
            "format_version": FORMAT_VERSION,
            "model": self.config.to_dict(),
            "provenance": self.provenance,
            "weights_sha256": self.fingerprint,
            "z2_range": None if self.z2_range is None else np.round(self.z2_range, 4).tolist(),
        }
        with atomic_path(path / CONFIG_NAME) as partial:
            partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path, *, device: str = "cpu", for_training: bool = False) -> ModelBundle:
        """Open a model folder, in evaluation mode. `for_training`: imported weights of a gene model alone will do.

        Raises
        ------
        InputError
            If a file is missing, damaged, or does not belong to the others.
        """
        content = _read_config(path, (KIND, GENE_KIND) if for_training else (KIND,))
        try:
            config = ModelConfig.from_dict(content["model"])
        except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
            raise InputError(found=f"a config that does not fit ({error})", where=str(path / CONFIG_NAME)) from error
        model = JointModel(config)
        fingerprint = load_weights(model, path / WEIGHTS_NAME, content.get("weights_sha256"))
        genes = GenePanel.from_csv(path / GENES_NAME)
        if len(genes) != config.gene.n_genes:
            raise InputError(
                found=f"{len(genes)} genes", where=str(path / GENES_NAME), expected=f"{config.gene.n_genes}"
            )
        proteins = _proteins_of(path, config.gene.n_proteins)
        types = read_types(path)
        if len(types.rows) != model.gene.mixture.n_components:
            raise InputError(
                found=f"{len(types.rows)} components",
                where=str(path / TYPES_NAME),
                expected=f"{model.gene.mixture.n_components}",
            )
        return cls(
            model=model.to(device).eval(),
            genes=genes,
            proteins=proteins,
            types=types,
            provenance=content.get("provenance", {}),
            fingerprint=fingerprint,
            kind=content["kind"],
            z2_range=_range_of(content.get("z2_range"), config.gene.n_latent - config.gene.n_type, path),
            niches=read_niches(path, model.gene.mixture.n_components),
        )


def _proteins_of(path: Path, n_proteins: int) -> ProteinPanel | None:
    """The proteins that a model reads; raises `InputError` where the list does not fit its networks."""
    if not n_proteins:
        return None
    found = ProteinPanel.from_csv(path / PROTEINS_NAME)
    if len(found) != n_proteins:
        raise InputError(
            found=f"{len(found)} proteins",
            where=str(path / PROTEINS_NAME),
            expected=f"{n_proteins}",
            repair="copy again",
        )
    return found


def z2_range_of(z2_NM: np.ndarray) -> np.ndarray:
    """The 0.1 % and 99.9 % quantiles of z2 in each dim: [2, M]."""
    return np.quantile(z2_NM, (0.001, 0.999), axis=0)


def _range_of(values: Any, n_micro: int, path: Path) -> np.ndarray | None:
    if values is None:
        return None
    try:
        found = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        found = np.empty(0, np.float32)
    if found.shape != (2, n_micro) or not (found[0] <= found[1]).all():
        raise InputError(found="a z2_range that does not fit", where=str(path / CONFIG_NAME), expected=f"2 x {n_micro}")
    return found


def _is_weight(name: str, value: torch.Tensor) -> bool:
    small_enough = value.is_floating_point() and float(value.abs().max()) < 1e4  # float16 ends at 65,504
    return small_enough and value.dim() >= 2 and not name.startswith(("gene.mixture.", "gene.micro."))


def _read_config(path: Path, kinds: tuple[str, ...]) -> dict[str, Any]:
    if not (path / CONFIG_NAME).is_file():
        unfinished = (path / "training").is_dir()
        raise InputError(
            found="a model whose training has not finished" if unfinished else "no model (config.json)",
            where=str(path),
            expected="a folder written by `sge2hist train`",
            repair="run the same `sge2hist train` command again: it resumes" if unfinished else "check the path",
        )
    try:
        content = json.loads((path / CONFIG_NAME).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(found=f"a damaged config ({error})", where=str(path / CONFIG_NAME)) from error
    if content.get("kind") == GENE_KIND and GENE_KIND not in kinds:
        raise InputError(
            found="imported weights of a gene model, without an image model",
            where=str(path),
            expected="a model that was trained to its end",
            repair=f"sge2hist train X.paired -o X.model --preset paper --warm-start {path}",
        )
    if content.get("kind") not in kinds or content.get("format_version") != FORMAT_VERSION:
        raise InputError(
            found=f"kind {content.get('kind')!r}, format version {content.get('format_version')!r}",
            where=str(path / CONFIG_NAME),
            expected=f"kind {KIND!r}, format version {FORMAT_VERSION}",
            repair="install the version of sge2hist that wrote it, or train again",
        )
    return content


def load_weights(model: nn.Module, path: Path, expected_sha256: str | None) -> str:
    """Load a safetensors file into a module, as float32; returns its sha256. Raises `InputError` when it does not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        fingerprint = sha256_of(path)
        state = current_weights(load_file(path))
    except (SafetensorError, OSError) as error:
        raise InputError(found=f"weights that cannot be read ({error})", where=str(path)) from error
    if expected_sha256 and fingerprint != expected_sha256:
        raise InputError(
            found="weights that are not the ones that were saved here (sha256 differs)",
            where=str(path),
            repair="copy the folder again",
        )
    try:
        model.load_state_dict(
            {name: value.to(torch.float32) if value.is_floating_point() else value for name, value in state.items()}
        )
    except RuntimeError as error:
        raise InputError(found=f"weights of another shape ({error})", where=str(path)) from error
    return fingerprint


# Names of models: a folder, a model of the package ("pretrained:kidney"), or one on the hub ("owner/name").


PREFIX = "pretrained:"
SHIPPED = Path(__file__).parent.parent / "pretrained"


def shipped_models() -> list[str]:
    """Names of the models of the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def is_shipped(name: str | Path) -> bool:
    """Whether `name` is a model of the package, whose folder is never written to."""
    return str(name).startswith(PREFIX)


def model_folder(name: str | Path) -> Path:
    """Return the folder of a model.

    Parameters
    ----------
    name
        A folder, "pretrained:NAME", or "owner/name" of a model on the hub (downloaded once and cached).

    Raises
    ------
    InputError
        If neither the package nor the hub has such a model.
    """
    if is_shipped(name):
        wanted = str(name).removeprefix(PREFIX)
        if wanted not in shipped_models():
            raise InputError(
                found=f"no model {wanted!r} in the package",
                expected=" or ".join(PREFIX + known for known in shipped_models()) or "a model folder",
            )
        return SHIPPED / wanted
    path = Path(name)
    if path.exists() or str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        return path
    return _from_hub(str(name))


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            found=f"no folder {name!r}, and the hub did not give a model of that name ({type(error).__name__})",
            expected="a model folder written by `sge2hist train`, or owner/name of a model on the hub",
        ) from error
