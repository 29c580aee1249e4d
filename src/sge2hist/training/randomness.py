"""Random generators that are a function of (seed, stage, step): what was drawn before never matters."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def stage_rng(seed: int, stage: str, step: int) -> np.random.Generator:
    """Generator of every random choice at one step of one stage: nothing else is needed to resume."""
    return np.random.default_rng([seed, zlib.crc32(stage.encode()), step])


def stage_generator(seed: int, stage: str, step: int) -> torch.Generator:
    """As :func:`stage_rng`, for torch, on the CPU."""
    return torch.Generator().manual_seed(int(stage_rng(seed, stage, step).integers(2**62)))
