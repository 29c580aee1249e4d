"""Cell types by name in each context, beside real patches of the type.

    python benchmarks/contexts.py kidney.model --data kidney.paired -n 32

Per type: Frechet distance of n generated patches to n real test patches of the type, over the floor (n other real test patches of
the type), and the share of patches that a linear classifier, fitted on features of real training patches, takes for the type: of
real test patches, and of generated ones. A context serves where its distance is near the floor and its share near that of real
patches. Fluorescence is read as virtual H&E.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sge2hist.api import SGE2Hist
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.channels import is_rgb
from sge2hist.data.virtual_he import choose_stains
from sge2hist.evaluation.features.extractors import resolve_extractor
from sge2hist.evaluation.metrics.frechet import frechet_of


def type_rows(data: PairedDataset, split: str, name: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Up to n random cells of a type of a split, int64."""
    rows = data.rows(split)
    rows = rows[data.obs["cell_type"].astype(str).to_numpy()[rows] == name]
    return rng.permutation(rows)[:n]


def he_of(data: PairedDataset, images: np.ndarray) -> np.ndarray:
    """H&E images as they are, stains as virtual H&E; uint8 [n, H, W, 3]."""
    if is_rgb(data.channels):
        return images
    stains, _ = choose_stains(data.channels)
    return stains.render_levels(images, data.channels, data.stain_transform)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=str)
    parser.add_argument("--data", type=Path, required=True, help="its paired dataset")
    parser.add_argument("-n", type=int, default=32, help="patches per type")
    parser.add_argument("--contexts", default="niche,homotypic")
    parser.add_argument("--train", type=int, default=100, help="real training patches per type, for the classifier")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="folder for contact sheets")
    args = parser.parse_args()
    model, data = SGE2Hist.from_pretrained(args.model), PairedDataset.open(args.data)
    rng, extractor, shape = np.random.default_rng(args.seed), resolve_extractor(), model.bundle.config

    def real_patches(rows: np.ndarray) -> np.ndarray:
        return he_of(data, data.patches(rows, side_um=shape.patch_um, out_px=shape.patch_px))

    types = [name for name in data.types if name in model.types.names]
    names, features = [], []
    for name in types:
        rows = type_rows(data, "train", name, args.train, rng)
        features.append(extractor(real_patches(rows)))
        names += [name] * len(rows)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    classifier.fit(np.concatenate(features), names)
    contexts = args.contexts.split(",")
    print(f"| type | found, real | {' | '.join(f'found, {c} | distance / floor, {c}' for c in contexts)} |")
    print("|---|---|" + "---|---|" * len(contexts))
    table = []
    for name in types:
        rows = type_rows(data, "test", name, 2 * args.n, rng)
        real = extractor(real_patches(rows))
        half = len(rows) // 2
        floor = frechet_of(real[:half], real[half : 2 * half])
        line = [float((classifier.predict(real) == name).mean())]
        for context in contexts:
            images = he_of(
                data, model.generate_from_types([name], n=half, seed=args.seed, context=context, progress=False)
            )
            if args.save is not None:
                from PIL import Image

                args.save.mkdir(exist_ok=True)
                sheet = np.concatenate([np.concatenate(list(images[i : i + 8]), 1) for i in range(0, min(16, half), 8)])
                Image.fromarray(sheet).save(args.save / f"{name.replace(' ', '_')}_{context}.png")
            generated = extractor(images)
            line += [
                float((classifier.predict(generated) == name).mean()),
                frechet_of(real[:half], generated) / floor,
            ]
        table.append(line)
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in line) + " |", flush=True)
    print("| mean | " + " | ".join(f"{value:.2f}" for value in np.mean(table, 0)) + " |")


if __name__ == "__main__":
    main()
