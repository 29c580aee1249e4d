"""Add examples of the neighbourhoods of cell types to a model of a version that did not write them.

    python recipes/add_niches.py kidney.model --data kidney.paired -o kidney_niches.model

Training writes them itself. Nothing else of the model changes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from sge2hist.data.artifacts import check_output
from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.models.bundle import KIND, ModelBundle, model_folder
from sge2hist.training.gene.data import GeneData
from sge2hist.training.niches import model_niches


def main() -> None:
    """Write the copy with examples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="the paired dataset that it was trained on")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the choice of examples")
    args = parser.parse_args()
    check_output(args.output, overwrite=False, kind=KIND)
    bundle, dataset = ModelBundle.load(model_folder(args.model)), PairedDataset.open(args.data)
    columns = bundle.genes.align(dataset.genes).columns
    if (columns < 0).any():
        raise InputError(found="a dataset that lacks genes of the model", expected="the one that it was trained on")
    cells = GeneData.from_paired(dataset, np.arange(len(dataset)), columns, bundle.proteins)
    bundle.niches = model_niches(bundle.model, dataset, cells, seed=args.seed)
    bundle.save(args.output)


if __name__ == "__main__":
    main()
