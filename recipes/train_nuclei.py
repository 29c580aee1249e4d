"""Train the nucleus network that comes with the package (see nuclei.md for the command, the data and the scores)."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from nuclei_data import read_histolytics, read_nuclei_he

from sge2hist.pairing.segmentation.network import save_weights
from sge2hist.pairing.segmentation.network_training import NucleiTrainingConfig, train_nuclei_network


def main() -> None:
    """Read both public sets, train on their training parts, write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--nuclei-he", type=Path, required=True, help="folder of *_image.png and *_labels.png (DSB 2018, CC0)"
    )
    parser.add_argument(
        "--histolytics", type=Path, required=True, help="histolytics/data of the package of that name (BSD-3)"
    )
    parser.add_argument("--steps", type=int, default=NucleiTrainingConfig.steps, help="training steps")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("-o", "--output", type=Path, required=True, help="weights to write (.safetensors)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tiles = read_nuclei_he(arguments.nuclei_he).train + read_histolytics(arguments.histolytics).train
    config = NucleiTrainingConfig(steps=arguments.steps)
    print(f"{len(tiles)} tiles, {sum(len(np.unique(tile.labels)) - 1 for tile in tiles)} nuclei")
    network = train_nuclei_network(
        tiles,
        config=config,
        log=lambda step, seconds, loss: print(f"{step:6d} {seconds:7.1f} s  loss {loss:.4f}", flush=True),
    )
    source = "DSB 2018 stage 1 (CC0) and histolytics 0.3.0 (BSD-3-Clause); recipes/nuclei.md"
    save_weights(network, arguments.output, metadata={"source": source, "um_per_px": "0.5"})


if __name__ == "__main__":
    main()
