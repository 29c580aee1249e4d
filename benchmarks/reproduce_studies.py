"""Studies of the shipped models and of the toy: what `reproduce.py` runs, in order.

``{work}`` is the folder of outputs, ``{data}`` that of real data, ``{benchmarks}`` the one of this file.
"""

from __future__ import annotations

from dataclasses import replace

from reproduce_genes import GENES
from reproduce_speed import SPEED
from reproduce_steps import PAIRED, PREPARE_KIDNEY, Step, Study, prints
from reproduce_tables import (
    Table,
    clustering,
    extractors,
    filters,
    scores,
    sizes,
    small_changes,
    statistics,
    values,
    whole,
)

SQUARE = "2048,4096,1024,1024"
SEEDS = range(8)
KIDNEY = Study(
    name="kidney",
    model="pretrained:kidney",
    steps=(
        replace(PREPARE_KIDNEY, tables=(Table(name="prepared-kidney", page="preparation.md", make=filters),)),
        prints("kidney-weights", "python {benchmarks}/weights.py pretrained:kidney", 0.1, "kidney.md"),
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
            "few-steps",
            f"python {{benchmarks}}/image_model.py few pretrained:kidney-fast {PAIRED} -n 512 "
            "--compare teacher=pretrained:kidney",
            12,
            "fine-tuning.md",
        ),
        Step(
            name="generate-fast",
            command=f"sge2hist generate pretrained:kidney-fast {PAIRED} --split test -n 1500 -o {{work}}/fast.generated",
            makes="fast.generated",
            minutes=4,
        ),
        Step(
            name="fast-scores",
            command=f"sge2hist evaluate {{work}}/fast.generated {PAIRED} --no-umap -o {{work}}/fast_report",
            makes="fast_report",
            minutes=4,
            tables=(Table(name="kidney-fast-scores", page="fine-tuning.md", make=scores),),
        ),
        prints(
            "kidney-fast-realism",
            f"python {{benchmarks}}/realism.py {{work}}/fast.generated {PAIRED} -n 600 --looks network,cosine",
            8,
            "fine-tuning.md",
        ),
        prints(
            "sampling-noise",
            f"python {{benchmarks}}/image_model.py noise pretrained:kidney {PAIRED} -n 256",
            15,
            "sampling.md",
        ),
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
            make=values,
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
        *(
            Step(
                name=f"square-{seed}",
                command=f"sge2hist generate-slide pretrained:kidney {PAIRED} --region {SQUARE} --seed {seed} "
                f"-o {{work}}/square_{seed}.generated",
                makes=f"square_{seed}.generated",
                minutes=2,
            )
            for seed in SEEDS
        ),
        prints(
            "slide-square",
            f"python {{benchmarks}}/slide.py score {' '.join(f'{{work}}/square_{seed}.generated' for seed in SEEDS)} {PAIRED}",
            10,
            "slide.md",
        ),
        Step(
            name="section",
            command=f"sge2hist generate-slide pretrained:kidney-fast {PAIRED} -o {{work}}/section.generated",
            makes="section.generated",
            minutes=10,
        ),
        prints(
            "slide-section",
            f"python {{benchmarks}}/slide.py score {{work}}/section.generated {PAIRED} --patches {{work}}/fast.generated",
            10,
            "slide.md",
        ),
        prints("gene-pooled", f"python {{benchmarks}}/pooled_types.py pretrained:kidney {PAIRED}", 1, "gene-model.md"),
        prints("slide-cost", "python {benchmarks}/slide.py cost --preset tiny --mm2 4 16 100", 8, "slide.md"),
        prints(
            "evaluation-speed",
            "python {benchmarks}/evaluation.py speed {work}/kidney.paired -n 1000",
            2,
            "evaluation.md",
        ),
        *(
            prints(
                name,
                f"python {{benchmarks}}/explorer.py pretrained:{model} {PAIRED} --edits 100 --regions 10 --busy 1",
                4,
                "explorer.md",
            )
            for name, model in (("explorer", "kidney"), ("explorer-fast", "kidney-fast"))
        ),
        Step(
            name="registered-bins",
            command="python {benchmarks}/registration.py --visium-hd {data}/kidney_visium_hd/outs "
            "--other-image {data}/kidney_visium_hd/he.tif --cases 2 --output {work}/bins.jsonl",
            makes="bins.jsonl",
            minutes=4,
        ),
        prints(
            "registration-bins", "python {benchmarks}/registration.py --table {work}/bins.jsonl", 0.1, "registration.md"
        ),
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
            tables=(Table(name="prepared-pancreas", page="preparation.md", make=filters),),
        ),
        prints("pancreas-weights", "python {benchmarks}/weights.py pretrained:pancreas", 0.1, "pancreas.md"),
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
            command="python {benchmarks}/registration.py {data}/xenium_pancreas --cases 100 --output {work}/cases.jsonl",
            makes="cases.jsonl",
            minutes=90,
        ),
        prints(
            "registration-cases",
            "python {benchmarks}/registration.py --table {work}/cases.jsonl",
            0.1,
            "registration.md",
        ),
        Step(
            name="refusals",
            command="python {benchmarks}/registration_refusals.py {data}/xenium_pancreas "
            "--other {data}/kidney_visium_hd/he.tif 2.0 --seeds 1 --output {work}/refusals.jsonl",
            makes="refusals.jsonl",
            minutes=6,
        ),
        prints(
            "registration-refusals",
            "python {benchmarks}/registration_refusals.py --table {work}/refusals.jsonl",
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

STUDIES = {study.name: study for study in (KIDNEY, PANCREAS, TOY, GENES, SPEED)}
