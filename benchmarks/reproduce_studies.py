"""What `reproduce.py` runs: for each study its steps, in order, with pinned arguments.

``{work}`` is the folder of outputs, ``{data}`` that of real data, ``{benchmarks}`` the one of this file.
"""

from __future__ import annotations

from dataclasses import dataclass

from reproduce_tables import (
    Make,
    Table,
    clustering,
    extractors,
    printed,
    scores,
    sizes,
    small_changes,
    statistics,
    whole,
)

PRINTS = ".md"  # a step that makes NAME.md: its standard output is kept there


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command.

    Attributes:
        name: of the step; command: words separated by spaces.
        makes: file or folder in the work folder that is there when the step is done; `NAME.md` keeps what it prints.
        minutes: expected on two free cores; measured where a results page gives the time, else estimated.
        tables: tables that are made from it.
        needs: file or folder without which the step cannot run.
    """

    name: str
    command: str
    makes: str
    minutes: float
    tables: tuple[Table, ...] = ()
    needs: str = ""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Steps in the order in which they run; `model` is the shipped model that they need."""

    name: str
    steps: tuple[Step, ...]
    model: str = ""


def prints(name: str, command: str, minutes: float, page: str, needs: str = "", make: Make = printed) -> Step:
    """Return a step whose printed tables become the table of the same name."""
    table = Table(name=name, page=page, make=make)
    return Step(name=name, command=command, makes=name + PRINTS, minutes=minutes, tables=(table,), needs=needs)


KIDNEY_DATA = "kidney_visium_hd/outs"
PAIRED = "--data {work}/kidney.paired"
SQUARE = "2048,4096,1024,1024"
KIDNEY = Study(
    name="kidney",
    model="pretrained:kidney",
    steps=(
        Step(
            name="prepare",
            command="sge2hist prepare {data}/kidney_visium_hd/outs --image {data}/kidney_visium_hd/he.tif --bin-um 16 "
            "--patch-um 128 --patch-px 64 --types markers:kidney --shift-um 7,2 -o {work}/kidney.paired",
            makes="kidney.paired",
            minutes=2,
            needs=KIDNEY_DATA,
        ),
        Step(
            name="generate",
            command=f"sge2hist generate pretrained:kidney {PAIRED} --split test -n 1500 -o {{work}}/kidney.generated",
            makes="kidney.generated",
            minutes=10,
        ),
        Step(
            name="generate-shuffled",
            command=f"sge2hist generate pretrained:kidney {PAIRED} --split test -n 1500 --shuffle-cells "
            "-o {work}/shuffled.generated",
            makes="shuffled.generated",
            minutes=10,
        ),
        Step(
            name="scores",
            command=f"sge2hist evaluate {{work}}/kidney.generated {{work}}/shuffled.generated {PAIRED} "
            "--extractor densenet121-imagenet,texture-v1 -o {work}/report",
            makes="report",
            minutes=4,
            tables=(
                Table(name="kidney-scores", page="kidney.md", make=scores),
                Table(name="kidney-statistics", page="kidney.md", make=statistics),
                Table(name="kidney-clustering", page="kidney.md", make=clustering),
                Table(name="kidney-extractors", page="kidney.md", make=extractors),
                Table(name="kidney-small-changes", page="kidney.md", make=small_changes),
            ),
        ),
        *(
            Step(
                name=f"scores-{n}",
                command=f"sge2hist evaluate {{work}}/kidney.generated {PAIRED} -n {n} --no-umap -o {{work}}/report_{n}",
                makes=f"report_{n}",
                minutes=2,
                tables=(Table(name="kidney-sizes", page="kidney.md", make=sizes),) if n == 1000 else (),
            )
            for n in (500, 1000)
        ),
        prints(
            "kidney-halves",
            f"python {{benchmarks}}/disjoint_floor.py {{work}}/kidney.generated {PAIRED}",
            2,
            "kidney.md",
        ),
        prints(
            "kidney-realism",
            f"python {{benchmarks}}/realism.py {{work}}/kidney.generated {PAIRED} -n 600 --looks network,cosine",
            8,
            "kidney.md",
        ),
        prints("kidney-niches", f"python {{benchmarks}}/contexts.py pretrained:kidney {PAIRED} -n 48", 15, "kidney.md"),
        prints(
            "image-conditions",
            f"python {{benchmarks}}/image_model.py conditions pretrained:kidney {PAIRED} -n 512",
            12,
            "image-model.md",
        ),
        prints("image-cost", "python {benchmarks}/image_model.py cost pretrained:kidney", 15, "image-model.md"),
        prints(
            "sampling-guidance",
            f"python {{benchmarks}}/image_model.py guidance pretrained:kidney {PAIRED} -n 512",
            15,
            "sampling.md",
        ),
        prints(
            "sampling-steps",
            f"python {{benchmarks}}/image_model.py steps pretrained:kidney {PAIRED} -n 512",
            30,
            "sampling.md",
        ),
        prints(
            "evaluation-degradations",
            "python {benchmarks}/evaluation.py degradations {work}/kidney.paired -n 400",
            5,
            "evaluation.md",
        ),
        prints(
            "evaluation-faults",
            "python {benchmarks}/evaluation.py faults {work}/kidney.paired -n 1000 --models ours={work}/kidney.generated",
            8,
            "evaluation.md",
        ),
        prints(
            "expression_judge",
            f"python {{benchmarks}}/expression_judge.py {{work}}/kidney.generated {PAIRED} "
            "--network {work}/kidney_network.pt --patches 20000 --steps 350",
            30,
            "expression.md",
            make=whole,
        ),
        prints(
            "edits",
            f"python {{benchmarks}}/edits.py pretrained:kidney {PAIRED} --network {{work}}/kidney_network.pt "
            "-n 10 --doses 1 2 --steps 6",
            40,
            "expression.md",
            make=whole,
        ),
        Step(
            name="generate-train",
            command=f"sge2hist generate pretrained:kidney {PAIRED} --split train -n 200 --steps 6 --seed 1 "
            "-o {work}/train.generated",
            makes="train.generated",
            minutes=2,
        ),
        prints(
            "utility",
            f"python {{benchmarks}}/utility.py {{work}}/train.generated {PAIRED} "
            "--real 600 --test 400 --val 200 --copies 1 --seeds 4",
            10,
            "expression.md",
            make=whole,
        ),
        prints("slide-regressions", f"python {{benchmarks}}/slide.py score {PAIRED}", 10, "slide.md"),
        Step(
            name="square",
            command=f"sge2hist generate-slide pretrained:kidney {PAIRED} --region {SQUARE} -o {{work}}/square.generated",
            makes="square.generated",
            minutes=1,
        ),
        prints(
            "slide-square", f"python {{benchmarks}}/slide.py score {{work}}/square.generated {PAIRED}", 10, "slide.md"
        ),
        prints("slide-cost", "python {benchmarks}/slide.py cost --preset tiny --mm2 4 16", 5, "slide.md"),
    ),
)

CELLS = "--data {work}/pancreas/cells.paired"

PANCREAS = Study(
    name="pancreas",
    model="pretrained:pancreas",
    steps=(
        Step(
            name="prepare",
            command="python {benchmarks}/../recipes/shipped.py pancreas {data}/xenium_pancreas --prepare-only -o {work}/pancreas",
            makes="pancreas/cells.paired",
            minutes=2,
            needs="xenium_pancreas",
        ),
        prints(
            "single-cells",
            f"python {{benchmarks}}/single_cell.py pretrained:pancreas {CELLS} -n 20 --seeds 3 --parts cells,cost",
            25,
            "pancreas.md",
            make=whole,
        ),
        prints(
            "pancreas-edits",
            f"python {{benchmarks}}/cell_edits.py pretrained:pancreas {CELLS} -n 8 "
            "--picture {benchmarks}/../docs/pictures/pancreas_edits.png",
            10,
            "pancreas.md",
            make=whole,
        ),
        prints(
            "pancreas-distances",
            f"python {{benchmarks}}/single_cell.py pretrained:pancreas {CELLS} --parts distances --distances 64:256,256:96",
            5,
            "pancreas.md",
            make=whole,
        ),
        Step(
            name="generate",
            command=f"sge2hist generate pretrained:pancreas {CELLS} --split test -n 200 --patch-px 64 "
            "-o {work}/pancreas.generated",
            makes="pancreas.generated",
            minutes=1,
        ),
        prints(
            "pancreas-realism",
            f"python {{benchmarks}}/realism.py {{work}}/pancreas.generated {CELLS} --looks network,cosine",
            5,
            "pancreas.md",
            make=whole,
        ),
        Step(
            name="registrations",
            command="python {benchmarks}/registration.py {data}/xenium_pancreas --cases 10 --output {work}/cases.jsonl",
            makes="cases.jsonl",
            minutes=10,
            needs="xenium_pancreas",
        ),
        prints(
            "registration-cases",
            "python {benchmarks}/registration.py --table {work}/cases.jsonl",
            0.1,
            "registration.md",
        ),
    ),
)

TOY = Study(
    name="toy",
    steps=(
        Step(name="demo", command="sge2hist demo --tiny -o {work}/demo", makes="demo", minutes=1),
        Step(
            name="scores",
            command="sge2hist evaluate {work}/demo/genes.generated {work}/demo/shuffled.generated "
            "--data {work}/demo/toy.paired --extractor texture-v1 --bootstrap 20 --no-umap -o {work}/report",
            makes="report",
            minutes=0.3,
            tables=(
                Table(name="toy-scores", page="toy.md", make=scores),
                Table(name="toy-statistics", page="toy.md", make=statistics),
                Table(name="toy-small-changes", page="toy.md", make=small_changes),
            ),
        ),
        prints(
            "toy-degradations",
            "python {benchmarks}/evaluation.py degradations {work}/demo/toy.paired -n 60 --extractor texture-v1",
            0.2,
            "toy.md",
        ),
    ),
)

STUDIES = {study.name: study for study in (KIDNEY, PANCREAS, TOY)}
