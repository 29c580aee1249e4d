"""Study of time and memory on made-up input: what `reproduce.py speed` runs. It needs no model and no data."""

from __future__ import annotations

from reproduce_steps import Study, prints

PAGE = "preparation.md"
SPEED = Study(
    name="speed",
    steps=(
        prints("prepare-cost", "python {benchmarks}/prepare.py --scales 0.25 0.5 1", 6, PAGE),
        prints(
            "large-table",
            "python {benchmarks}/large_tables.py table --cells 5000 20000 100000 --folder {work}/large",
            4,
            PAGE,
        ),
        prints(
            "mosaic",
            "python {benchmarks}/large_tables.py mosaic --side 8192 20000 40000 --folder {work}/large",
            3,
            PAGE,
        ),
        prints("nuclei-speed", "python {benchmarks}/nuclei.py speed --megapixels 28 56 113", 4, PAGE),
    ),
)
