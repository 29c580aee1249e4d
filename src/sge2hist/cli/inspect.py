"""`sge2hist inspect`: facts of inputs (by the readers) and of our own folders (from their manifests alone)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sge2hist.data.errors import InputError

Facts = list[tuple[str, str]]


def inspect(
    path: Annotated[
        Path,
        typer.Argument(help="Instrument folder or file, paired dataset, model (or pretrained:NAME) or generated set."),
    ],
    image: Annotated[
        Path | None, typer.Option(help="H&E image, to compare its size with what the folder expects.")
    ] = None,
) -> None:
    """Describe an input or an artifact: technology, software, units, sizes, um per px and where each comes from.

    Nothing is changed, and counts are not loaded.

    Example: `sge2hist inspect outs --image he.btf`
    """
    from sge2hist.data.artifacts import is_artifact
    from sge2hist.models.bundle import is_shipped, model_folder

    if is_shipped(path):
        path = model_folder(path)
    if is_artifact(path) or (path / "training" / "run.json").is_file():
        facts = artifact_facts(path)
    else:
        from sge2hist.readers.describe import input_facts

        facts = input_facts(path, image=image)
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        typer.echo(f"{name:<{width}}  {value}")


def artifact_facts(path: Path) -> Facts:
    """Lines (name, value) for a paired dataset, model, generated set or upsampler.

    Raises
    ------
    InputError
        If the manifest is damaged, or its kind is unknown to this version.
    """
    from sge2hist.data.artifacts import FORMAT_VERSION, MANIFEST_NAME, is_artifact, read_json

    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    on_disk = ("on disk", f"{size / 1e6:,.1f} MB")
    if not is_artifact(path):
        return [("kind", "training that has not finished; the same command resumes it"), on_disk]
    name = MANIFEST_NAME if (path / MANIFEST_NAME).is_file() else "config.json"
    content = read_json(path / name)
    kind = content.get("kind")
    describers: dict[str, Callable[[dict[str, Any]], Facts]] = {
        "paired": _paired,
        "model": _model,
        "gene-weights": _gene_weights,
        "generated": _generated,
        "upsampler": _upsampler,
    }
    if kind not in describers:
        raise InputError(found=f"kind {kind!r}", where=str(path / name), expected=f"one of {', '.join(describers)}")
    if content.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise InputError(
            found=f"format version {content.get('format_version')!r}",
            where=str(path / name),
            expected=f"version {FORMAT_VERSION}",
            repair="install the version that wrote it",
        )
    try:
        facts = describers[str(kind)](content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(found=f"an incomplete manifest ({error!r})", where=str(path / name)) from error
    version = content.get("sge2hist_version") or content.get("provenance", {}).get("sge2hist_version", "unknown")
    return [*facts, on_disk, ("written by", f"sge2hist {version}")]


def _paired(manifest: dict[str, Any]) -> Facts:
    side = f"{manifest['observation_um']:g} um " if manifest.get("observation_um") else ""
    facts = [
        ("kind", "paired dataset" + (" of toy tissue" if manifest.get("toy") else "")),
        ("technology", " ".join(filter(None, [manifest.get("technology"), _bracketed(manifest.get("software"))]))),
        ("cells", f"{manifest['n_cells']:,} (each a {side}{manifest['observation']}) x {manifest['n_genes']:,} genes"),
        *_roles(manifest),
        ("um per px", f"{manifest['um_per_px']:.4g} (stored slides)"),
        ("patch", f"{manifest['patch_um']:g} um, {manifest['patch_px']} px"),
        ("channels", _channels(manifest, manifest)),
    ]
    for slide in manifest["slides"]:
        facts.append((f"slide {slide['id']}", f"{slide['width_px']:,} x {slide['height_px']:,} px"))
    for record in manifest.get("alignment", []):
        stated = ", ".join(f"{value:.4g} ({name})" for name, value in record["um_per_px_sources"].items())
        facts.append((f"um per px of {record['slide']}", stated))
    if "split" in manifest:
        counts = manifest["split"]["counts"]
        facts.append(("split", ", ".join(f"{name} {n:,}" for name, n in counts.items())))
    if "protein" in manifest:
        protein = manifest["protein"]
        facts.append(("proteins", f"{', '.join(protein['names'])} ({protein['unit']})"))
    if "types" in manifest:
        types = manifest["types"]
        facts.append(("types", f"{', '.join(types['names'])} (from {types['source']}; {types['unknown']:,} unknown)"))
    return facts


def _model(config: dict[str, Any]) -> Facts:
    model, provenance = config["model"], config.get("provenance", {})
    facts = [("kind", "model" + (" trained on toy tissue" if provenance.get("toy") else ""))]
    facts.append(("channels", _channels(model, provenance)))
    for name in ("patch_px", "um_per_px"):
        if name in model:
            facts.append((name.replace("_", " "), f"{model[name]:g}"))
    gene = model.get("gene", {})
    if "n_genes" in gene:
        facts.append(("genes", f"{gene['n_genes']:,}"))
    if gene.get("n_proteins"):
        facts.append(("proteins", f"{gene['n_proteins']:,} (proteins.csv)"))
    from sge2hist.data.virtual_he import MANIFEST_KEY

    for name, value in provenance.items():
        if isinstance(value, str | int | float) and name not in ("toy", MANIFEST_KEY, "sge2hist_version"):
            facts.append((name.replace("_", " "), str(value)))
    facts.append(("weights sha256", str(config.get("weights_sha256", ""))[:16]))
    return facts


def _gene_weights(config: dict[str, Any]) -> Facts:
    gene, provenance = config["model"]["gene"], config["provenance"]
    return [
        ("kind", "imported weights of a gene model, for `sge2hist train --preset paper --warm-start`"),
        ("genes", f"{gene['n_genes']:,}"),
        ("latent", f"{gene['n_type']} + {gene['n_micro']} dims"),
        ("imported from", f"{provenance['imported_from']} ({provenance['layout']})"),
        ("weights sha256", str(config.get("weights_sha256", ""))[:16]),
    ]


def _generated(manifest: dict[str, Any]) -> Facts:
    facts = [("kind", "generated set (synthetic images)"), ("images", f"{manifest['n_images']:,}")]
    facts.append(("channels", _channels(manifest, manifest)))
    for name in ("mode", "um_per_px", "patch_um", "patch_px", "n_samples", "seed", "model", "data", "features"):
        if manifest.get(name) is not None:
            facts.append((name.replace("_", " "), str(manifest[name])))
    from sge2hist.data.generated import APPLICABILITY, applicability_headline

    if headline := applicability_headline(manifest.get(APPLICABILITY)):
        facts.append(("cells", headline))
    return facts


def _upsampler(manifest: dict[str, Any]) -> Facts:
    config, provenance = manifest["config"], manifest["provenance"]
    coarse, factor = config["um_per_px"], config["factor"]
    return [
        ("kind", "upsampler" + (" trained on toy tissue" if provenance.get("toy") else "")),
        ("channels", _channels(manifest, provenance)),
        ("um per px", f"{coarse:g} -> {coarse / factor:g} ({factor} times finer)"),
        ("trained on", ", ".join(provenance["slides"])),
        ("weights sha256", str(manifest.get("weights_sha256", ""))[:16]),
    ]


def _roles(manifest: dict[str, Any]) -> Facts:
    """How many cells are trained on and evaluated, and how many are only placed; nothing where all are the same."""
    n_cells, n_centre = manifest["n_cells"], manifest.get("n_centre", manifest["n_cells"])
    if n_centre == n_cells:
        return []
    return [("centre cells", f"{n_centre:,} pass the filters; {n_cells - n_centre:,} are placed only")]


def _channels(stated: dict[str, Any], marked: dict[str, Any]) -> str:
    """Names of the channels, and whether they are virtual H&E."""
    from sge2hist.data.slides.channels import RGB, describe_channels
    from sge2hist.data.virtual_he import mark_of

    mark = mark_of(marked)
    return describe_channels(stated.get("channels") or RGB) + (f" ({mark})" if mark else "")


def _bracketed(text: Any) -> str:
    return f"({text})" if text else ""
