"""From a data folder to the weights of a shipped model, in one command. A stopped run goes on where it was.

    python recipes/shipped.py pancreas xenium_pancreas -o pancreas --hours 2
    python recipes/shipped.py kidney kidney_visium_hd -o kidney --hours 6

OUTPUT receives the paired dataset, the model of every stage, and `shipped`, the folder that the package holds. `--hours` is the
time of all trainings together; preparation takes minutes more. `--list` prints the commands.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sge2hist.api import SGE2Hist

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command that writes `output`; it is skipped once that is complete."""

    output: str
    command: str  # with the places {data}, {out}, {here} (of the recipes) and {hours}
    share: float = 0.0  # of --hours


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Steps from a data folder to the last model, and what its card says of the data."""

    steps: list[Step]
    source: str
    clusters: str = ""  # clusters.csv of the instrument, in the data folder: named by recipes/NAME_clusters.csv


LICENCE = "by 10x Genomics, licensed under [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)"
EXCLUDED = "--exclude {here}/kidney_deposits.geojson"
RECIPES = {
    "pancreas": Recipe(
        clusters="analysis/clustering/gene_expression_graphclust/clusters.csv",
        steps=[
            Step(
                output="cells.paired",
                command="sge2hist prepare {data} --channels all --types {out}/types.csv --patch-um 108.8 --patch-px 256",
            ),
            Step(
                output="trained.model",
                command="sge2hist train {out}/cells.paired --preset cells --patch-px 96 --hours {hours}",
                share=1.0,
            ),
            Step(
                output="corrected.model",
                command="python {here}/correct_images.py {out}/trained.model --data {out}/cells.paired",
            ),
        ],
        source=f"public Xenium dataset of a human pancreas with tumour (FFPE, multimodal cell segmentation) {LICENCE}; the "
        "stains were halved in resolution, and the vendor's clusters were named by their leading genes",
    ),
    "kidney": Recipe(
        steps=[
            Step(
                output="bins.paired",
                command="sge2hist prepare {data}/outs --image {data}/he.tif --bin-um 16 --patch-um 128 --patch-px 64 "
                "--types markers:kidney --shift-um 7,2",
            ),
            Step(
                output="trained.model",
                command="sge2hist train {out}/bins.paired --preset small --hours {hours} " + EXCLUDED,
                share=0.82,
            ),
            Step(
                output="sharp.model",
                command="sge2hist sharpen {out}/trained.model --data {out}/bins.paired --hours {hours} --seed 1 "
                + EXCLUDED,
                share=0.13,
            ),
            Step(
                output="noise.model",
                command="sge2hist sharpen {out}/sharp.model --data {out}/bins.paired --decoder-noise --learning-rate 1e-4 "
                "--hours {hours} --seed 2 " + EXCLUDED,
                share=0.05,
            ),
            Step(
                output="glass.model",
                command="python {here}/glass_kidney.py {out}/noise.model --data {out}/bins.paired " + EXCLUDED,
            ),
            Step(
                output="corrected.model",
                command="python {here}/correct_images.py {out}/glass.model --data {out}/bins.paired",
            ),
        ],
        source=f"public Visium HD dataset of human kidney (FFPE) {LICENCE}; bins of 8 um were summed to 16 um, cell types were "
        "added by marker genes",
    ),
}


def name_clusters(clusters: Path, names: Path, output: Path) -> None:
    """Write a table cell,type of the cells of every cluster that has a name."""
    with open(names, encoding="utf-8") as file:
        name_of = {row["cluster"]: row["type"] for row in csv.DictReader(file)}
    with open(clusters, encoding="utf-8") as file, open(output, "w", newline="", encoding="utf-8") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["cell", "type"])
        table.writerows(
            (row["Barcode"], name_of[row["Cluster"]]) for row in csv.DictReader(file) if row["Cluster"] in name_of
        )


def is_complete(output: Path) -> bool:
    """Whether a paired dataset or a model was written to its end."""
    return (output / ("manifest.json" if output.suffix == ".paired" else "config.json")).is_file()


def main() -> None:
    """Run the steps that are not done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("data", type=Path, help="the data folder")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--hours", type=float, help="of all trainings together")
    parser.add_argument("--prepare-only", action="store_true", help="stop after the paired dataset")
    parser.add_argument("--list", action="store_true", help="print the commands and do nothing")
    args = parser.parse_args()
    recipe, out = RECIPES[args.name], args.output
    if args.hours is None and not args.prepare_only:
        parser.error("--hours, of all trainings together, is needed")
    if not args.data.is_dir():
        parser.error(f"{args.data} is no folder")
    if not args.list:
        out.mkdir(parents=True, exist_ok=True)
        if recipe.clusters:
            name_clusters(args.data / recipe.clusters, HERE / f"{args.name}_clusters.csv", out / "types.csv")
    for step in recipe.steps[: 1 if args.prepare_only else None]:
        places = {name: shlex.quote(str(path)) for name, path in (("data", args.data), ("out", out), ("here", HERE))}
        command = step.command.format(**places, hours=f"{step.share * (args.hours or 0):.3g}")
        command += f" -o {shlex.quote(str(out / step.output))}"
        print(command, flush=True)
        if not args.list and not is_complete(out / step.output):
            program, *words = shlex.split(command)
            module = ["-m", "sge2hist"] if program == "sge2hist" else []
            subprocess.run([sys.executable, *module, *words], check=True)
    if not args.list and not args.prepare_only:
        model = SGE2Hist.from_pretrained(out / recipe.steps[-1].output)
        model.bundle.provenance["source"] = recipe.source
        model.save_pretrained(out / "shipped", half=True)
        print(f"wrote {out / 'shipped'}")


if __name__ == "__main__":
    main()
