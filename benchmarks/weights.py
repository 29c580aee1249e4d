"""What the files of a model say of its making: size, seconds and steps of each part, settings of the last training.

    python benchmarks/weights.py pretrained:kidney

Prints a Markdown table. A model that was trained in several runs records the last one: a warm start forgets the seconds before.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from sge2hist import SGE2Hist
from sge2hist.models.bundle import model_folder

SETTINGS = {"hours": "hours", "learning_rate": "learning rate", "batch": "batch", "seed": "seed"}
START = ("warm_start", "start")  # the second is the name in version 0.1
AFTERWARDS = {"sharpen": ("hours", "learning_rate"), "glass": ("steps", "learning_rate"), "correction": ("cells",)}


def rows(provenance: dict[str, Any], n_parameters: int, n_bytes: int) -> Iterator[tuple[str, str, str]]:
    """Yield part, what it took, and its settings."""
    yield "weights", f"{n_bytes / 1e6:.1f} MB", f"{n_parameters / 1e6:.2f} M parameters"
    training, steps = provenance["training"], provenance.get("stage_steps", {})
    start = ["warm start"] * any(training.get(name) for name in START)
    given = [f"{title} {training[name]}" for name, title in SETTINGS.items() if training.get(name) is not None]
    yield "last training", f"{provenance['n_train_cells']:,} cells", ", ".join(start + given)
    for name, seconds in provenance["stage_seconds"].items():
        if seconds or name in steps:
            took = f"{seconds / 60:.0f} min" if seconds else "in a training before"
            count = [f"{steps[name]:,} steps"] if name in steps else []
            yield name, took, ", ".join(count + settings(provenance, name))
    if "correction" in provenance:
        yield "correction", "fitted", ", ".join(settings(provenance, "correction"))


def settings(provenance: dict[str, Any], part: str) -> list[str]:
    """Return the settings of what came after the training."""
    found = provenance.get(part, {})
    return [
        f"{name.replace('_', ' ')} {found[name]}" for name in AFTERWARDS.get(part, ()) if found.get(name) is not None
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder, or pretrained:NAME")
    given = parser.parse_args()
    bundle = SGE2Hist.from_pretrained(given.model).bundle
    n_parameters = sum(parameter.numel() for parameter in bundle.model.parameters())
    n_bytes = (model_folder(given.model) / "model.safetensors").stat().st_size
    print("| part | took | settings |\n| --- | --- | --- |")
    for row in rows(bundle.provenance, n_parameters, n_bytes):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
