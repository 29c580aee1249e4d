"""The whole chain on images that are no H&E: prepare, train, generate, evaluate, on the toy tissue's fluorescence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.channels import ALL, composite
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.models.bundle import ModelBundle

CHANNELS = ("DAPI", "Membrane")


@pytest.fixture(scope="module")
def paired(tmp_path_factory) -> PairedDataset:
    from sge2hist.pairing.config import PrepareConfig
    from sge2hist.pairing.prepare import prepare
    from sge2hist.readers import open_sections
    from sge2hist.toy.tissue import ToyTissueConfig, simulate
    from sge2hist.toy.visium_hd_folder import write_visium_hd

    folder = tmp_path_factory.mktemp("fluorescence")
    paths = write_visium_hd(simulate(ToyTissueConfig.tiny()), folder / "toy", bins_um=(16,), fluorescence=CHANNELS)
    sections = open_sections(paths.outs, image=paths.fluorescence, bin_um=16, channels=ALL)
    config = PrepareConfig(patch_um=32.0, patch_px=32, types=str(paths.types_csv[16]), split_block_um=150.0)
    return prepare(sections, folder / "toy.paired", config=config)


@pytest.fixture(scope="module")
def model(paired) -> ModelBundle:
    from sge2hist.training.config import TrainConfig
    from sge2hist.training.train import train

    config = TrainConfig(preset="tiny", mixed_precision="no", preview_every_s=0.0)
    return train(paired, paired.path.with_suffix(".model"), config, log=lambda _: None)


@pytest.fixture(scope="module")
def generated(paired, model):
    from sge2hist.generation.patches import generate
    from sge2hist.generation.requests import request_from_paired

    request = request_from_paired(model, paired, paired.rows("test")[:40])
    return generate(model, request, paired.path.with_suffix(".generated"))


def test_the_dataset_names_its_channels_and_records_how_16_bits_became_8(paired):
    assert paired.channels == CHANNELS
    assert paired.manifest["channels"] == list(CHANNELS)
    (slide,) = paired.manifest["slides"]
    assert list(slide["ranges"]) == list(CHANNELS)
    assert {"DAPI_mean", "density_mean"} <= set(slide["stain"])
    assert paired[0]["image"].shape == (32, 32, 2)
    # counts and nuclei lie on each other, so the measured shift is none
    assert paired.manifest["alignment"][0]["measured_shift"]["length_um"] < 10


def test_patches_are_those_of_the_file_given(paired):
    given = SlideImage.open(paired.path.parent / "toy" / "fluorescence.ome.tif", channels=ALL)
    assert np.array_equal(paired.patch(5), given.read_patch(paired.centre_xy_px[5], 32.0, 32, 1.0))


def test_the_model_has_the_channels_of_its_data_and_knows_dark_glass(model):
    assert model.config.channels == CHANNELS
    assert model.config.image.image_channels == 2
    assert len(model.provenance["glass_rgb"]) == 2
    assert max(model.provenance["glass_rgb"]) < 30
    loaded = type(model.config).from_dict(json.loads(json.dumps(model.config.to_dict())))
    assert loaded == model.config


def test_images_are_tiffs_with_names(generated):
    assert generated.channels == CHANNELS
    image = generated.image(3)
    assert image.shape == (32, 32, 2)
    path = generated.path / "images" / "000003.ome.tif"
    with tifffile.TiffFile(path) as tiff:
        assert "synthetic" in tiff.ome_metadata
    assert np.array_equal(SlideImage.open(path, channels=ALL).as_array(), image)


def test_stains_are_written_as_virtual_he_and_marked(generated, paired, model, tmp_path):
    from PIL import Image

    from sge2hist.data.virtual_he import choose_stains
    from sge2hist.evaluation.open_images import open_image_sets
    from sge2hist.generation.patches import generate
    from sge2hist.generation.requests import request_from_paired
    from sge2hist.generation.slide.render import generate_slide

    request = request_from_paired(model, paired, paired.rows("test")[:3])
    shown = generate(model, request, tmp_path / "he.generated", render="virtual-he")
    stains, _ = choose_stains(CHANNELS)
    assert np.array_equal(shown.image(2), stains.render_levels(generated.image(2), CHANNELS, "linear"))
    assert shown.manifest["virtual_he"]["haematoxylin"] == {"DAPI": 1.0}
    with Image.open(shown.path / "images" / "000000.png") as picture:
        assert "virtual H&E" in picture.info["Comment"]
    with pytest.raises(InputError, match="generate without --render"):
        open_image_sets([shown.path], paired, "test")
    region = (200.0, 200.0, 40.0, 40.0)
    slides = [
        generate_slide(model, paired, tmp_path / f"{name}.generated", region_um=region, render=name)
        for name in (None, "virtual-he")
    ]
    expected = stains.render_levels(slides[0].image.as_array(), CHANNELS, "linear")
    assert np.array_equal(slides[1].image.as_array(), expected)
    assert slides[1].manifest["virtual_he"]["stain_transform"] == "linear"


def test_only_stains_are_rendered(model, tiny_model):
    from sge2hist.generation.look import look_of

    with pytest.raises(InputError, match=r"--render virtual-he with a model that generates H&E"):
        look_of(ModelBundle.load(tiny_model), "virtual-he")
    with pytest.raises(InputError, match=r"--render sepia; expected virtual-he"):
        look_of(model, "sepia")
    with pytest.raises(InputError, match="--stain-roles without --render"):
        look_of(model, None, "DAPI=haematoxylin")


def test_generated_sets_are_scored_by_the_light_of_their_channels(generated, paired, tmp_path):
    from sge2hist.evaluation.config import EvaluateConfig
    from sge2hist.evaluation.evaluate import evaluate

    config = EvaluateConfig(extractor="texture-v1", n_bootstrap=10, umap=False, max_train=100, max_val=50)
    report = evaluate([generated.path], paired, tmp_path / "report", config=config)
    found = [entry["statistic"] for entry in next(iter(report["morphometry"].values()))]
    assert found == [f"{name} light {what}" for name in CHANNELS for what in ("mean", "SD")]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "light of the channels" in page
    assert "haematoxylin" not in page.replace("place of stain", "")
    assert any("colour composite" in note for note in report["notes"])


def test_a_slide_has_the_channels_too(paired, model, tmp_path):
    from sge2hist.generation.slide.render import generate_slide
    from sge2hist.viewer.build import build_viewer

    slide = generate_slide(model, paired, tmp_path / "s.generated", region_um=(200.0, 200.0, 60.0, 40.0))
    assert slide.channels == CHANNELS
    assert slide.image.as_array().shape == (40, 60, 2)
    assert build_viewer(slide.path, tmp_path / "view", data=paired).is_file()


def test_a_model_of_any_channels_is_sharpened(paired, model, tmp_path):
    from sge2hist.training.finetune.adversarial_decoder import SharpenConfig, sharpen

    config = SharpenConfig(steps=6, batch=4, n_generated=8, discriminator_width=8)
    sharp = sharpen(model, paired, tmp_path / "sharp.model", config, log=lambda _: None)
    assert sharp.config.channels == CHANNELS
    before, after = (bundle.model.image.autoencoder.decoder.state_dict() for bundle in (model, sharp))
    assert any(not np.array_equal(before[name], after[name]) for name in before)


def test_other_channels_are_refused_before_any_image_is_generated(paired, model, tiny_paired, tiny_model, tmp_path):
    from sge2hist.generation.requests import request_from_paired
    from sge2hist.training.config import TrainConfig
    from sge2hist.training.train import train

    message = r"images of RGB.*expected images of DAPI, Membrane"
    with pytest.raises(InputError, match=message):
        request_from_paired(model, tiny_paired, np.arange(3))
    with pytest.raises(InputError, match=r"start from.*images of RGB"):
        train(paired, tmp_path / "m.model", TrainConfig(preset="tiny", warm_start=str(tiny_model)), log=lambda _: None)


def test_a_model_without_saved_channels_generates_rgb(tiny_model):
    bundle = ModelBundle.load(Path(tiny_model))
    values = bundle.config.to_dict()
    del values["channels"]
    assert type(bundle.config).from_dict(values).channels == ("red", "green", "blue")
    with pytest.raises(ValueError, match="2 channels, but networks for 3"):
        type(bundle.config).from_dict({**values, "channels": ["a", "b"]})


def test_a_preview_shows_colours(model, paired):
    assert composite(paired.patch(0), paired.channels).shape == (32, 32, 3)
    assert list((paired.path.with_suffix(".model") / "training").glob("preview_*.png"))


@pytest.fixture(scope="module")
def slides(paired, model):
    """The same region as stains and as virtual H&E."""
    from sge2hist.generation.slide.render import generate_slide

    region, folder = (200.0, 200.0, 64.0, 64.0), paired.path.parent
    return {
        name: generate_slide(model, paired, folder / f"slide {name}.generated", region_um=region, render=name)
        for name in (None, "virtual-he")
    }


def test_the_explorer_shows_virtual_he_beside_the_stains_rendered_alike(paired, model, slides):
    pytest.importorskip("starlette", reason="needs the extra [explore]")
    pytest.importorskip("uvicorn", reason="needs the extra [explore]")
    from sge2hist.data.virtual_he import choose_stains
    from sge2hist.explorer.start import open_explorer

    stains, _ = choose_stains(CHANNELS)
    explorer = open_explorer(model, paired, generated=slides["virtual-he"])
    try:
        renderer = explorer._server.renderer
        real, generated = renderer.tissue.tiles.layers.values()
        assert "virtual H&E" in real.note
        assert "virtual H&E" in generated.note
        height, width = real.tile(real.levels - 1, 0, 0).shape[:2]
        assert np.array_equal(
            real.tile(real.levels - 1, 0, 0),
            stains.render_levels(paired.slides[0].read(0, 0, width, height), CHANNELS, paired.stain_transform),
        )
        side = generated.slide.width_px
        assert np.array_equal(
            generated.tile(generated.levels - 1, 0, 0), slides["virtual-he"].image.read(0, 0, side, side)
        )
        levels = slides[None].image.as_array()
        assert np.array_equal(renderer.tissue.colours.show(levels), slides["virtual-he"].image.as_array())
        # haematoxylin is blue, eosin pink: the colours of one stain alone
        nuclei, membrane = real.facts()["stains"]
        assert [nuclei["name"], membrane["name"]] == list(CHANNELS)
        assert generated.facts()["stains"] == [nuclei, membrane]
        one = stains.render_levels(np.array([[255, 0], [0, 255]], np.uint8), CHANNELS, "linear")
        assert [nuclei["colour"], membrane["colour"]] == ["#" + bytes(colour).hex() for colour in one]
    finally:
        explorer.close()


def test_the_explorer_names_the_colours_of_stains(paired, model, slides):
    pytest.importorskip("starlette", reason="needs the extra [explore]")
    pytest.importorskip("uvicorn", reason="needs the extra [explore]")
    from sge2hist.explorer.start import open_explorer

    explorer = open_explorer(model, paired, generated=slides[None])
    try:
        for layer in explorer._server.renderer.tissue.tiles.layers.values():
            assert layer.facts()["stains"] == [
                {"name": "DAPI", "colour": "#0000ff"},
                {"name": "Membrane", "colour": "#00ff00"},
            ]
    finally:
        explorer.close()
    with pytest.raises(InputError, match="omit --section"):
        open_explorer(model, paired, generated=slides[None], section="no such")


def test_the_viewer_shows_virtual_he_beside_the_stains_rendered_alike(paired, slides):
    from sge2hist.data.virtual_he import choose_stains
    from sge2hist.viewer.build import open_layers

    layers = {layer.key: layer for layer in open_layers(slides["virtual-he"].path, paired)[0]}
    assert "virtual H&E" in layers["real"].note
    um = paired.um_per_px
    levels = paired.slides[0].read_window(200 / um, 200 / um, 20, 20, 20, 20)
    expected = choose_stains(CHANNELS)[0].render_levels(levels, CHANNELS, paired.stain_transform)
    assert np.array_equal(layers["real"].read(0, 0, 20, 20), expected)


def test_a_slide_of_other_stains_is_no_view_of_the_data(paired, slides):
    from dataclasses import replace

    from sge2hist.viewer.colours import shown_slide_number

    recipe = slides["virtual-he"].manifest["virtual_he"]
    other = {**slides["virtual-he"].manifest, "virtual_he": {**recipe, "stains": ["DAPI", "Other"]}}
    with pytest.raises(InputError, match="images of RGB"):
        shown_slide_number(replace(slides["virtual-he"], manifest=other), paired)
    broken = {**slides["virtual-he"].manifest, "virtual_he": {"haematoxylin": "DAPI"}}
    from sge2hist.data.virtual_he import recipe_of

    with pytest.raises(InputError, match="generate the images again"):
        recipe_of(broken)
