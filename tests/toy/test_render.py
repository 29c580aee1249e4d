import numpy as np
from skimage.color import rgb2hed

from sge2hist.toy.architecture import Region
from sge2hist.toy.nuclei import paint_nuclei
from sge2hist.toy.render import EOSIN, GLASS_RGB, HAEMATOXYLIN, StainMaps, stain_to_rgb
from sge2hist.toy.tissue import ToyTissueConfig, simulate


def test_the_same_seed_gives_the_same_tissue_and_another_seed_another():
    config = ToyTissueConfig.tiny()
    one, two, other = (simulate(config, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.counts_NG.toarray(), two.counts_NG.toarray())
    np.testing.assert_array_equal(one.transcripts.array_xy_um, two.transcripts.array_xy_um)
    assert (one.image != other.image).mean() > 0.5


def test_beer_lambert_on_an_even_field():
    amounts = np.full((64, 64), 0.4, np.float32), np.full((64, 64), 0.3, np.float32)
    rgb = stain_to_rgb(StainMaps(haematoxylin=amounts[0], eosin=amounts[1]), 1.0, np.random.default_rng(0))
    expected = GLASS_RGB * 10.0 ** -(0.4 * HAEMATOXYLIN + 0.3 * EOSIN)
    np.testing.assert_allclose(rgb.reshape(-1, 3).mean(axis=0), expected, atol=0.15)


def test_painted_nuclei_cover_their_true_area(tiny_tissue):
    maps = paint_nuclei(tiny_tissue.cells, (1200, 1200), 0.5, np.random.default_rng(0))
    painted_um2 = float(maps.coverage.sum(dtype=np.float64)) * 0.5**2
    # a few nuclei touch or reach over the border of the image
    assert 0.95 < painted_um2 / tiny_tissue.cells.nucleus_area_um2.sum() < 1.01


def test_stains_are_recovered_by_scikit_image(tiny_tissue):
    inside = tiny_tissue.architecture.region != Region.GLASS
    hed = rgb2hed(tiny_tissue.image)
    haematoxylin, eosin = hed[..., 0][inside], hed[..., 1][inside]
    assert np.corrcoef(haematoxylin, tiny_tissue.stains.haematoxylin[inside])[0, 1] > 0.95
    assert np.corrcoef(eosin, tiny_tissue.stains.eosin[inside])[0, 1] > 0.85


def test_lumens_and_glass_are_white_and_nuclei_dark(tiny_tissue):
    region, grey = tiny_tissue.architecture.region, tiny_tissue.image.mean(axis=2)
    assert grey[region == Region.GLASS].mean() > 235
    assert np.median(grey[region == Region.GLAND_LUMEN]) > 235
    column, row = tiny_tissue.cells.xy_um.astype(int).T
    assert grey[row, column].mean() < 130


def test_redness_of_the_image_follows_the_gradient(tiny_tissue):
    architecture, hed = tiny_tissue.architecture, rgb2hed(tiny_tissue.image)
    for region in (Region.MUSCLE, Region.EPITHELIUM):
        mask = (architecture.region == region) & (tiny_tissue.stains.haematoxylin < 0.2)
        assert np.corrcoef(hed[..., 1][mask], architecture.gradient[mask])[0, 1] > 0.4


def test_fibre_nuclei_lie_along_the_fibres(tiny_tissue):
    cells, architecture = tiny_tissue.cells, tiny_tissue.architecture
    muscle = cells.type_N == 4
    angle = architecture.fibre_angle(architecture.muscle_phase_um, cells.xy_um[muscle])
    assert np.abs(np.cos(angle - cells.orientation_rad[muscle])).mean() > 0.98
    # walking along the fibre, the phase stays; across it, the phase changes
    along = 6.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    phase = architecture.muscle_phase_um
    change = architecture.at(phase, cells.xy_um[muscle] + along) - architecture.at(phase, cells.xy_um[muscle])
    assert np.abs(change).mean() < 1.0
