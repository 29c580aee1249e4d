"""Virtual H&E: colours of haematoxylin and eosin computed from fluorescence by the Beer-Lambert law.

    I_RGB = 255 exp(-(2.0 h OD_haematoxylin + 0.55 e OD_eosin)),   h = sum_c w_c s_c over nuclear stains, e over the others

with s_c the light of channel c as a share of its robust maximum, cut at 1 (Giacomelli et al. 2016, PLoS ONE 11:e0159337; Serafin
et al. 2020, PLoS ONE 15:e0233198) and the vectors of `he_stain`. Weights are those of a trial on a pancreas stained for
segmentation by Xenium. It is an image of real nuclei and cells, but no real H&E: collagen, erythrocytes and mucin have no stain,
fat is white.

Shape letters: C channels, V values of a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.he_stain import EOSIN_OD_RGB, HAEMATOXYLIN_OD_RGB
from sge2hist.data.slides.channels import describe_channels, is_nuclear, is_rgb
from sge2hist.data.slides.stain_scale import LINEAR, StainScale, linear_light

REQUEST = "virtual-he"
"""Given as the image, alone or followed by a colon and a file: the fluorescence of the run, shown as H&E."""
MARK = "virtual H&E, computed from fluorescence"
MANIFEST_KEY = "virtual_he"
HAEMATOXYLIN_OD, EOSIN_OD = 2.0, 0.55  # natural logarithm, of a channel of weight 1 at its robust maximum
EOSIN_WEIGHTS = {
    ("18s", "rna", "polyt", "cytoplasm"): 0.6,
    ("atp1a1", "cadherin", "cd45", "boundary", "cellbound", "membrane"): 0.4,
    ("sma", "actin", "vimentin", "panck", "cytokeratin", "protein"): 0.4,
}
"""Words in the name of a channel -> its weight; all that are there are scaled to a sum of 1.4, that of the three kinds."""
EOSIN_SUM = 1.4
ROLES = ("haematoxylin", "eosin")


@dataclass(frozen=True, kw_only=True)
class VirtualHE:
    """Weights of the channels that absorb as haematoxylin and as eosin; other channels do not show."""

    haematoxylin: dict[str, float]
    eosin: dict[str, float]

    def density(self, channels: Sequence[str]) -> np.ndarray:
        """Optical density (natural logarithm) of each channel at its robust maximum, float64 [C, 3]."""
        hue = HAEMATOXYLIN_OD * np.array(HAEMATOXYLIN_OD_RGB), EOSIN_OD * np.array(EOSIN_OD_RGB)
        return np.array(
            [self.haematoxylin.get(name, 0) * hue[0] + self.eosin.get(name, 0) * hue[1] for name in channels]
        )

    def tables(self, shares_CV: Sequence[np.ndarray], channels: Sequence[str]) -> list[np.ndarray]:
        """Light that a channel lets through for each value of its file, C arrays float32 [V, 3]; `shares_CV`: s_c of a value."""
        shares = [np.clip(share, 0, 1)[:, None] for share in shares_CV]
        return [
            np.exp(-share * one).astype(np.float32) for share, one in zip(shares, self.density(channels), strict=True)
        ]

    def render_levels(self, levels: np.ndarray, channels: Sequence[str], transform: str = LINEAR) -> np.ndarray:
        """Colours of stored or generated levels, uint8 [..., C] -> uint8 [..., 3]; `transform`: that of the levels."""
        share = linear_light(np.arange(256, dtype=np.uint8), transform)
        return render(levels, self.tables([share] * len(channels), channels))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return {"haematoxylin": dict(self.haematoxylin), "eosin": dict(self.eosin)}


def render(values: np.ndarray, tables: Sequence[np.ndarray]) -> np.ndarray:
    """Colours of values [..., C], by the product of what each channel lets through: uint8 [..., 3]."""
    through = tables[0][values[..., 0]]
    for channel, table in enumerate(tables[1:], start=1):
        through *= table[values[..., channel]]
    return (255 * through + 0.5).astype(np.uint8)


def tables_of_scales(stains: VirtualHE, scales: Mapping[str, StainScale], n_values: int) -> list[np.ndarray]:
    """`VirtualHE.tables` of a file whose channels have these ranges, for values 0 to `n_values` - 1."""
    values = np.arange(n_values, dtype=np.float64)
    shares = [(values - scale.low) / (scale.high - scale.low) for scale in scales.values()]
    return stains.tables(shares, list(scales))


def requested_file(image: str | Path | None) -> tuple[bool, Path | None]:
    """Whether an image is asked for as virtual H&E, and the file that is to be shown so, if one is named.

    >>> requested_file("virtual-he"), requested_file("virtual-he:dapi.tif")[1].name, requested_file("he.tif")
    ((True, None), 'dapi.tif', (False, None))
    """
    name, _, file = str(image).partition(":")
    if image is None or name != REQUEST:
        return False, None
    return True, Path(file) if file else None


def choose_stains(channels: Sequence[str], roles: str | None = None) -> tuple[VirtualHE, list[str]]:
    """Roles of the channels, by their names or as the text of an option says; and the channels that do not show.

    Parameters
    ----------
    roles
        ``DAPI=haematoxylin,18S=eosin:0.6``: channels and, after a colon, weights (1 without). Others do not show.

    Raises
    ------
    InputError
        If the image is RGB, no channel is named after a nuclear stain, or `roles` names an unknown channel or role, or no
        haematoxylin.
    """
    if is_rgb(channels):
        raise InputError(found="an RGB image", expected="fluorescence, from which virtual H&E is computed")
    stains = _by_name(channels) if roles is None else _by_roles(channels, roles)
    shown = {*stains.haematoxylin, *stains.eosin}
    return stains, [name for name in channels if name not in shown]


def _by_name(channels: Sequence[str]) -> VirtualHE:
    nuclear = next((name for name in channels if is_nuclear(name)), None)
    if nuclear is None:
        raise InputError(
            found=f"channels {describe_channels(channels)}, none named after a nuclear stain",
            expected="one to show as haematoxylin",
            repair=f'--stain-roles "{channels[0]}=haematoxylin"',
        )
    others = [name for name in channels if not is_nuclear(name)]
    weights = {name: _eosin_weight(name) for name in others}
    known = {name: weight for name, weight in weights.items() if weight} or dict.fromkeys(others, 1.0)
    total = sum(known.values())
    return VirtualHE(
        haematoxylin={nuclear: 1.0}, eosin={name: weight * EOSIN_SUM / total for name, weight in known.items()}
    )


def _eosin_weight(name: str) -> float:
    plain = name.casefold()
    return next((weight for words, weight in EOSIN_WEIGHTS.items() if any(word in plain for word in words)), 0.0)


def _by_roles(channels: Sequence[str], roles: str) -> VirtualHE:
    found: dict[str, dict[str, float]] = {role: {} for role in ROLES}
    known = {name.casefold(): name for name in channels}
    for part in roles.split(","):
        name, _, text = part.strip().rpartition("=")
        role, _, weight = text.partition(":")
        try:
            value = float(weight or 1)
        except ValueError:
            value = -1.0
        if name.strip().casefold() not in known or role not in ROLES or not 0 < value < np.inf:
            raise InputError(
                found=f"--stain-roles {part.strip()!r}",
                expected=f"CHANNEL=haematoxylin or CHANNEL=eosin:WEIGHT with a channel of {', '.join(channels)}",
            )
        found[role][known[name.strip().casefold()]] = value
    if not found["haematoxylin"]:
        raise InputError(found=f"--stain-roles {roles!r} without haematoxylin", expected="a nuclear stain")
    return VirtualHE(**found)


def recipe_of(manifest: Mapping[str, Any]) -> VirtualHE | None:
    """What made virtual H&E of the stains that a model generated; None for images that are not such.

    Raises
    ------
    InputError
        If the manifest has a recipe that cannot be read.
    """
    recipe = manifest.get(MANIFEST_KEY)
    if not isinstance(recipe, Mapping):  # none, or H&E of a model that was trained on virtual H&E
        return None
    try:
        weights = [{str(name): float(weight) for name, weight in recipe[role].items()} for role in ROLES]
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            found=f"a recipe of virtual H&E that cannot be read ({error!r})",
            where=f"{MANIFEST_KEY} of the manifest",
            expected=" and ".join(f"{role}: {{channel: weight}}" for role in ROLES),
            repair="generate the images again",
        ) from error
    return VirtualHE(haematoxylin=weights[0], eosin=weights[1])


def mark_of(manifest: Mapping[str, Any]) -> str:
    """Words for images that are virtual H&E by their manifest (or a model's provenance); "" for all others."""
    return MARK if manifest.get(MANIFEST_KEY) else ""
