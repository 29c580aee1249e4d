"""Study of the gene model: what `reproduce.py genes` runs. It fits models, and needs no shipped one."""

from __future__ import annotations

from reproduce_gene_tables import blocks, deepest, methods, panel
from reproduce_steps import PREPARE_KIDNEY, Step, Study, prints
from reproduce_tables import Table

GENES = Study(
    name="genes",
    steps=(
        PREPARE_KIDNEY,
        Step(
            name="fits",
            command="python {benchmarks}/gene_model.py --sets toy pbmc {work}/kidney.paired --seeds 5 "
            "--output {work}/gene_model.json",
            makes="gene_model.json",
            minutes=150,
            tables=(
                Table(name="gene-types", page="gene-model.md", make=methods),
                Table(name="gene-deepest", page="gene-model.md", make=deepest),
                Table(name="gene-blocks", page="gene-model.md", make=blocks),
                Table(name="gene-panel", page="gene-model.md", make=panel),
            ),
        ),
        prints("gene-speed", "python {benchmarks}/gene_speed.py --threads 1 --steps 8", 3, "gene-model.md"),
        Step(
            name="protein-models",
            command="python {benchmarks}/proteins.py --folder {work}/proteins",
            makes="proteins",
            minutes=3,
        ),
        prints("proteins", "python {benchmarks}/proteins.py --table {work}/proteins/0.json", 0.1, "gene-model.md"),
    ),
)
