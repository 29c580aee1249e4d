"""Registration finds the map that an image was painted with, and refuses what has none."""

import numpy as np
import pytest

from fixtures.stained_cells import EXTENT_UM, map_matrix, on_image, scatter_cells, stain_cells
from sge2hist.data.errors import InputError
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.pairing.alignment import automatic
from sge2hist.pairing.alignment.automatic import Registration, register
from sge2hist.pairing.alignment.nuclear_map import ImageNuclei, PointNuclei

CELLS_UM = scatter_cells()


def find(
    cells_um: np.ndarray, pixels: np.ndarray, um_per_px: float, *, stated: bool = True, unit_um: float = 1.0
) -> Registration:
    image = ImageNuclei(SlideImage.from_array(pixels, um_per_px), um_per_px)
    cells = PointNuclei(cells_um / unit_um, unit_um, sigma_um=3.0)
    return register(cells, image, n_cells=len(cells_um), scale_is_stated=stated, where="image.tif")


def error_um(found: np.ndarray, true: np.ndarray, size_px: tuple[int, int], um_per_px: float) -> float:
    """The worst error over the cells on the image."""
    there = on_image(true, CELLS_UM)
    inside = ((there >= 0) & (there < size_px)).all(axis=1)
    assert inside.sum() > 500
    return float(np.linalg.norm(on_image(found, CELLS_UM) - there, axis=1)[inside].max() * um_per_px)


@pytest.mark.parametrize(
    ("um_per_px", "degrees", "mirror", "size_px", "shear"),
    [
        (1.0, 0.0, False, (1500, 1100), 0.0),
        (1.3, 137.0, True, (1100, 1000), 0.02),
        (2.1, -64.0, False, (420, 700), 0.0),  # a part of the section
        (1.7, 201.0, True, (1500, 1300), 0.01),  # the section is a part of the image
    ],
)
def test_any_turn_mirror_image_shear_and_crop_is_found(um_per_px, degrees, mirror, size_px, shear) -> None:
    middle = size_px[0] / 2, size_px[1] / 2
    true = map_matrix(um_per_px, degrees=degrees, mirror=mirror, at_px=middle, shear=shear)
    pixels = stain_cells(CELLS_UM, true, size_px, um_per_px)
    found = find(CELLS_UM, pixels, um_per_px)
    assert error_um(found.matrix, true, size_px, um_per_px) < 1.0
    assert found.evidence.residual_um < 1.5
    assert found.evidence.uncertainty_um < 1.0
    assert found.score > 1.3 * found.runner_up


def test_a_wrong_um_per_px_is_no_obstacle() -> None:
    true = map_matrix(1.5, degrees=33.0, at_px=(500, 400))
    pixels = stain_cells(CELLS_UM, true, (1000, 800), 1.5)
    found = find(CELLS_UM, pixels, 1.5 * 3.4, stated=False)
    assert error_um(found.matrix, true, (1000, 800), 1.5) < 1.0


def test_positions_of_any_unit(monkeypatch) -> None:
    true = map_matrix(2.0, degrees=90.0, at_px=(300, 390))
    pixels = stain_cells(CELLS_UM, true, (600, 780), 2.0)
    found = find(CELLS_UM, pixels, 2.0, unit_um=0.2125)
    assert error_um(found.matrix @ np.diag([1 / 0.2125, 1 / 0.2125, 1]), true, (600, 780), 2.0) < 1.0


@pytest.fixture
def few_scales(monkeypatch) -> None:
    """Refusals try every scale; a few suffice for a test."""
    monkeypatch.setattr(automatic, "ANY_SCALE", (0.75, 1.4))


@pytest.mark.usefixtures("few_scales")
@pytest.mark.parametrize("cells", ["other section", "uniform", "displaced"])
def test_cells_of_something_else_are_refused(cells: str) -> None:
    rng = np.random.default_rng(5)
    other = {
        "other section": scatter_cells(seed=9),
        "uniform": rng.uniform([0, 0], EXTENT_UM, (4000, 2)),
        "displaced": CELLS_UM + rng.normal(0, 30, CELLS_UM.shape),
    }[cells]
    pixels = stain_cells(CELLS_UM, map_matrix(2.0, degrees=20.0, at_px=(400, 330)), (800, 660), 2.0)
    with pytest.raises(InputError, match=r"no map from the cells to the image.*--alignment FILE"):
        find(other, pixels, 2.0)


def test_a_symmetric_pattern_is_refused() -> None:
    half = CELLS_UM[CELLS_UM[:, 0] < EXTENT_UM[0] / 2]
    both = np.concatenate([half, np.array(EXTENT_UM) - half])
    pixels = stain_cells(both, map_matrix(2.0, at_px=(375, 275)), (750, 550), 2.0)
    with pytest.raises(InputError, match="2 different maps that fit equally well"):
        find(both, pixels, 2.0)


def test_a_blank_image_and_few_cells_are_refused() -> None:
    with pytest.raises(InputError, match="an image without any nuclear stain"):
        find(CELLS_UM, np.full((300, 300, 3), 255, np.uint8), 2.0)
    glass = np.random.default_rng(0).normal(240, 2, (400, 400, 3)).clip(0, 255).astype(np.uint8)
    with pytest.raises(InputError, match="an image without any nuclear stain"):
        find(CELLS_UM, glass, 2.0)
    with pytest.raises(InputError, match=r"100 cells; expected at least 200"):
        find(CELLS_UM[:100], glass, 2.0)
