"""`prepare --image virtual-he` on a Xenium folder: colours by hand from the file's values, and marks on what is made."""

import numpy as np
import pytest
import tifffile

from fixtures.tissue import make_tissue
from fixtures.xenium import write_xenium
from pairing.sections import make_section
from pairing.test_stain_ranges import stained
from sge2hist.cli.inspect import artifact_facts
from sge2hist.data.errors import InputError
from sge2hist.pairing.config import PrepareConfig
from sge2hist.pairing.inputs import open_inputs
from sge2hist.pairing.prepare import prepare
from sge2hist.pairing.stain_ranges import with_virtual_he
from sge2hist.readers.tenx.xenium import find_morphology


@pytest.fixture(scope="module")
def xenium(tmp_path_factory):
    """A run without an H&E, with two stains of 16 bits in a pyramid; its folder and the values [H, W, 2]."""
    folder = tmp_path_factory.mktemp("xenium")
    truth = write_xenium(make_tissue(), folder / "run", he_to_dapi=np.eye(3))
    for path in folder.rglob("*he_image*"):
        path.unlink()
    focus = truth.folder / "morphology_focus"
    focus.mkdir()
    values = np.random.default_rng(0).gamma(2.0, 300, (2, 700, 900)).astype(np.uint16) + 100
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "18S"]}}
    with tifffile.TiffWriter(focus / "morphology_focus_0000.ome.tif", ome=True) as tiff:
        options = {"photometric": "minisblack", "tile": (256, 256)}
        tiff.write(values, subifds=1, metadata=metadata, **options)
        tiff.write(values[:, ::2, ::2], subfiletype=1, **options)
    return truth.folder, np.moveaxis(values, 0, -1)


def _open(folder, config=None, **options):
    ((section, _),) = open_inputs(folder, "virtual-he", config or PrepareConfig(**options), lambda _: None)
    return section


def test_colours_are_computed_from_the_values_of_the_file(xenium) -> None:
    folder, values = xenium
    section = _open(folder)
    recipe = section.image.virtual_he
    assert (recipe["haematoxylin"], recipe["eosin"]) == ({"DAPI": 1.0}, {"18S": pytest.approx(1.4)})
    share = []
    for channel, name in enumerate(("DAPI", "18S")):
        low, high = recipe["ranges"][name]
        assert low == pytest.approx(np.percentile(values[..., channel], 1), abs=2)
        assert high == pytest.approx(np.percentile(values[..., channel], 99.95), rel=0.15)  # of the squares with cells
        share.append(np.clip((values[..., channel].astype(float) - low) / (high - low), 0, 1))
    density = share[0][..., None] * 2.0 * np.array([0.65, 0.70, 0.29])
    density = density + share[1][..., None] * 1.4 * 0.55 * np.array([0.07, 0.99, 0.11])
    window = section.image.read(30, 240, 300, 200)
    assert np.abs(window - 255 * np.exp(-density[240:440, 30:330])).max() <= 0.51
    assert section.image.channels == ("red", "green", "blue")
    assert section.image.levels[1].region(0, 0, 350, 450).shape == (350, 450, 3)
    assert "virtual H&E" in section.notes[-1]


def test_the_file_and_the_roles_can_be_named(xenium) -> None:
    folder, _ = xenium
    config = PrepareConfig(stain_roles="18S=haematoxylin")
    path = folder / "morphology_focus" / "morphology_focus_0000.ome.tif"
    ((section, _),) = open_inputs(folder, f"virtual-he:{path}", config, lambda _: None)
    assert section.image.virtual_he["haematoxylin"] == {"18S": 1.0}
    assert section.image.virtual_he["not_shown"] == ["DAPI"]
    alone = _open(folder, channels="DAPI")
    assert alone.image.virtual_he["eosin"] == {}


def test_it_is_offered_where_there_is_no_he(xenium) -> None:
    folder, _ = xenium
    with pytest.raises(InputError, match="--image virtual-he: H&E colours computed from morphology_focus_0000"):
        open_inputs(folder, None, PrepareConfig(), lambda _: None)
    with pytest.raises(InputError, match="--stain-roles without virtual H&E"):
        open_inputs(folder, None, PrepareConfig(stain_roles="DAPI=haematoxylin", channels="all"), lambda _: None)


def test_only_xenium_holds_its_stains(tmp_path) -> None:
    (tmp_path / "cells.h5ad").write_bytes(b"")
    with pytest.raises(InputError, match=r"--image virtual-he with AnnData.*virtual-he:FILE"):
        open_inputs(tmp_path / "cells.h5ad", "virtual-he", PrepareConfig(format="anndata"), lambda _: None)


@pytest.mark.parametrize(
    "name",
    [
        "morphology_focus/ch0000_dapi.ome.tif",
        "morphology_focus.ome.tif",
        "morphology_mip.ome.tif",
        "ID_morphology_mip.ome.tif",
    ],
)
def test_morphology_images_of_every_version_are_found(tmp_path, name) -> None:
    assert find_morphology(tmp_path) is None
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    assert find_morphology(tmp_path) == tmp_path / name


def test_an_old_image_without_names_is_dapi(tmp_path) -> None:
    truth = write_xenium(make_tissue(), tmp_path / "run", he_to_dapi=np.eye(3))
    plane = np.full((700, 900), 500, np.uint16)
    tifffile.imwrite(truth.folder / "morphology_mip.ome.tif", plane, photometric="minisblack", metadata=None)
    assert _open(truth.folder).image.virtual_he["haematoxylin"] == {"DAPI": 1.0}


def test_what_is_made_of_it_is_marked(tmp_path) -> None:
    section = with_virtual_he(stained()[0], None)
    config = PrepareConfig(
        patch_um=40.0, patch_px=20, types="region", split_block_um=150.0, check_alignment=False, min_counts=5
    )
    data = prepare(section, tmp_path / "v.paired", config, log=lambda _: None)
    assert data.is_virtual_he
    assert data.manifest["virtual_he"] is True
    assert data.manifest["slides"][0]["virtual_he"]["haematoxylin"] == {"DAPI": 1.0}
    assert "virtual H&E" in repr(data)
    assert "virtual H&amp;E" in data._repr_html_()
    assert any("virtual H&E" in value for _, value in artifact_facts(data.path))
    with tifffile.TiffFile(tmp_path / "v.paired" / "slide.ome.tif") as tiff:
        assert "virtual H&amp;E" in tiff.ome_metadata
    assert np.array_equal(data.slides[0].as_array(), section.image.as_array())
    with pytest.raises(InputError, match="virtual H&E beside another image"):
        prepare([section, make_section(name="two")], tmp_path / "w.paired", config, log=lambda _: None)
