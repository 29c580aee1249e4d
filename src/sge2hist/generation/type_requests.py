"""Requests for images of cell types by name: z1 from the components of the type."""

from __future__ import annotations

import numpy as np
import torch

from sge2hist.data.errors import InputError
from sge2hist.generation.edited_patches import joined
from sge2hist.generation.niche import niche_patch, niches_of
from sge2hist.generation.requests import (
    CONTEXTS,
    HOMOTYPIC,
    NICHE,
    GenerationRequest,
    centre_latents,
    default_context,
    known_context,
    without_neighbours,
)
from sge2hist.generation.windows import image_seed
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.gene.vae import GeneVAE
from sge2hist.models.image.conditioning import PlacedCells

Z2_SOURCES = ("type", "prior")


def request_from_types(
    bundle: ModelBundle,
    names: list[str],
    *,
    n: int = 16,
    seed: int = 0,
    z2: str | np.ndarray = "type",
    context: str | None = None,
) -> GenerationRequest:
    """`n` images of each named cell type: z1 from its mixture components.

    Parameters
    ----------
    z2
        The microenvironment: "type" (as among the training cells of the component), "prior" (N(0, I), as published), or that of a
        reference cell, [n_micro].
    context
        "niche": the cell among others, as the training section has them around such cells (`generation.niche`).
        "homotypic" fills the patch with cells of the type on a lattice: z1 of each is a sample of the component, z2 the mean of
        what `z2` names. "single_cell" samples z1 and z2 of one cell at the centre. None: :func:`default_type_context`.

    Raises
    ------
    InputError
        If `names` is empty, names an unknown type or one type twice, or `z2` is something else.
    """
    import pandas as pd

    z2 = _checked_z2(bundle, z2)
    context = known_context(context or default_type_context(bundle, z2), (NICHE, *CONTEXTS[1:]))
    if context == NICHE:
        return _request_in_niches(bundle, names, n=n, seed=seed, z2=z2)
    gene = bundle.model.gene
    names = _checked_names(bundle, names)
    std_KT = np.exp(0.5 * gene.mixture.log_vars_KT.detach().cpu().float().numpy())
    z, std, records = [], [], []
    for name in names:
        components, weights = bundle.components_of(name)
        for sample in range(n):
            seed_i = image_seed(seed, f"type {name.casefold()}", sample)
            generator = torch.Generator().manual_seed(seed_i)
            component = int(components[int(torch.multinomial(torch.from_numpy(weights), 1, generator=generator))])
            z.append(_component_latent(gene, component, z2, context == HOMOTYPIC, generator))
            std.append(std_KT[component])
            records.append({"cell_id": f"{name} {sample}", "cell_type": name, "sample": sample, "seed": seed_i})
    z_NZ, std_NT = np.stack(z), np.stack(std)
    obs = pd.DataFrame(records).assign(row=-1, condition_row=-1)
    seed_N = obs["seed"].to_numpy()

    def placed_cells(part: slice) -> PlacedCells:
        centres = z_NZ[part], std_NT[part], np.zeros(len(z_NZ[part]), np.float32)
        return without_neighbours(bundle, centres, seed_N[part], context)

    return GenerationRequest(
        obs=obs,
        placed_cells=placed_cells,
        latents=centre_latents(bundle, z_NZ),
        manifest={
            "mode": "types",
            "types": names,
            "context": context,
            "z2": z2 if isinstance(z2, str) else "reference cell",
            "toy": bundle.is_toy,
        },
    )


def default_type_context(bundle: ModelBundle, z2: str | np.ndarray = "type") -> str:
    """The context "niche" where the model has neighbourhoods of types and z2 is free; else that of a cell without neighbours."""
    in_niche = bundle.niches is not None and len(bundle.niches) > 0 and isinstance(z2, str) and z2 == "type"
    return NICHE if in_niche else default_context(bundle)


def _request_in_niches(
    bundle: ModelBundle, names: list[str], *, n: int, seed: int, z2: str | np.ndarray
) -> GenerationRequest:
    import pandas as pd

    if not (isinstance(z2, str) and z2 == "type"):
        raise InputError(
            found="z2 of a prior or of a reference cell in a niche, where it follows from the cells around",
            expected="--z2 type, without --like",
            repair="--context homotypic",
        )
    names = _checked_names(bundle, names)
    niches_of(bundle)
    records = [
        {
            "cell_id": f"{name} {i}",
            "cell_type": name,
            "sample": i,
            "seed": image_seed(seed, f"type {name.casefold()}", i),
        }
        for name in names
        for i in range(n)
    ]
    patches = [niche_patch(bundle, str(record["cell_type"]), int(str(record["seed"]))) for record in records]
    return GenerationRequest(
        obs=pd.DataFrame(records).assign(row=-1, condition_row=-1),
        placed_cells=lambda part: joined([placed for placed, _ in patches[part]]),
        latents=centre_latents(bundle, np.stack([z_centre for _, z_centre in patches])),
        manifest={"mode": "types", "types": names, "context": NICHE, "z2": "niche", "toy": bundle.is_toy},
    )


def _checked_names(bundle: ModelBundle, names: list[str]) -> list[str]:
    names = [bundle.canonical_type_name(name) for name in names]
    if len(names) == 0 or len(set(names)) < len(names):
        found = "no cell type" if len(names) == 0 else f"a cell type named twice in {', '.join(names)}"
        raise InputError(found=found, expected=f"each once, of: {', '.join(bundle.types.names)}")
    return names


def _checked_z2(bundle: ModelBundle, z2: str | np.ndarray) -> str | np.ndarray:
    n_micro = bundle.config.gene.n_latent - bundle.config.gene.n_type
    if isinstance(z2, str):
        if z2 not in Z2_SOURCES:
            raise InputError(found=f"z2 {z2!r}", expected=f"one of {', '.join(Z2_SOURCES)}, or a reference cell's")
        return z2
    try:
        found = np.asarray(z2, np.float32)
    except (TypeError, ValueError):
        found = np.empty(0, np.float32)
    if found.shape != (n_micro,) or not np.isfinite(found).all():
        raise InputError(found=f"z2={z2!r}"[:200], expected=f"{n_micro} finite numbers, as a reference cell's")
    return found


def _component_latent(
    gene: GeneVAE, component: int, z2: str | np.ndarray, at_mean: bool, generator: torch.Generator
) -> np.ndarray:
    """Latent of a cell of a mixture component, float32 [n_latent]: its mean, or a sample."""
    one = torch.tensor([component])
    mixture, micro, n_micro = gene.mixture, gene.micro, gene.config.n_micro
    from_prior = isinstance(z2, str) and z2 == "prior"
    if at_mean:
        z1 = mixture.means_KT[component].detach().cpu().float()
        usual = torch.zeros(n_micro) if from_prior else micro.means_KM[component].cpu()
    else:
        z1 = mixture.sample(one, generator)[0].cpu()
        usual = torch.randn(n_micro, generator=generator) if from_prior else micro.sample(one, generator)[0].cpu()
    chosen = usual if isinstance(z2, str) else torch.from_numpy(z2)
    return torch.cat([z1, chosen.float()]).numpy()
