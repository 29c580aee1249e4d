import pickle

import numpy as np
import pytest
import torch
from scipy import ndimage

from fixtures.painted_nuclei import paint_nuclei
from sge2hist.data.errors import InputError
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.pairing.segmentation.network import (
    WEIGHTS_FILE,
    NetworkConfig,
    NetworkSegmenter,
    NucleiUNet,
    folded,
    load_network,
    save_weights,
)
from sge2hist.pairing.segmentation.network_training import (
    LabelledTile,
    NucleiTrainingConfig,
    TileSampler,
    normalised_depth,
    nuclei_loss,
    train_nuclei_network,
)
from sge2hist.pairing.segmentation.scores import score_nuclei
from sge2hist.pairing.segmentation.tiles import TilingConfig, segment_slide


@pytest.fixture(scope="module")
def painted() -> tuple[np.ndarray, np.ndarray]:
    return paint_nuclei(height_px=256, width_px=320, seed=1)


def test_shipped_weights_find_painted_nuclei(painted):
    image, truth = painted
    assert WEIGHTS_FILE.stat().st_size < 2 * 2**20
    assert score_nuclei(truth, NetworkSegmenter()(image)).f1 > 0.8


def test_windows_give_what_the_whole_image_gives(painted):
    image, _ = painted
    whole = NetworkSegmenter(config=NetworkConfig(window_px=512)).maps(image)
    windows = NetworkSegmenter(config=NetworkConfig(window_px=64)).maps(image)
    for one, other in zip(whole, windows, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_tiles_give_what_the_whole_image_gives(painted):
    image, _ = painted
    slide, segmenter = SlideImage.from_array(image), NetworkSegmenter()
    tiled = segment_slide(slide, 0.5, segmenter, config=TilingConfig(tile_px=128, processes=1))
    whole = segment_slide(slide, 0.5, segmenter, config=TilingConfig(tile_px=1024, processes=1))
    same = (tiled.window(0, 0, 320, 256) > 0) == (whole.window(0, 0, 320, 256) > 0)
    assert tiled.n_labels == whole.n_labels
    assert same.mean() > 0.9995


def test_any_image_size_and_no_nucleus_on_white():
    segmenter = NetworkSegmenter()
    assert segmenter(np.full((13, 9, 3), 255, np.uint8)).shape == (13, 9)
    assert segmenter(np.full((70, 61, 3), 250, np.uint8)).max() == 0


def test_segmenter_can_be_pickled(painted):
    image, _ = painted
    segmenter = NetworkSegmenter()
    copy = pickle.loads(pickle.dumps(segmenter))
    np.testing.assert_array_equal(copy(image), segmenter(image))


def test_folding_normalisation_changes_nothing():
    network = NucleiUNet((8, 8, 8), normalised=True)
    density = torch.rand(4, 3, 32, 32)
    for _ in range(3):
        network.train()(density)
    with torch.no_grad():
        torch.testing.assert_close(folded(network)(density), network.eval()(density), atol=1e-5, rtol=1e-4)


def test_weights_round_trip(tmp_path):
    network = NucleiUNet((8, 12, 16), normalised=True)
    save_weights(network, tmp_path / "w.safetensors", metadata={"source": "test"})
    density = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        stored = load_network(tmp_path / "w.safetensors")
        torch.testing.assert_close(stored(density), folded(network)(density), atol=5e-3, rtol=5e-3)  # stored as float16


def test_missing_and_damaged_weights(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match="no weights file"):
        load_network(path)
    path.write_bytes(WEIGHTS_FILE.read_bytes()[:5000])
    with pytest.raises(InputError, match="weights that cannot be read"):
        load_network(path)


def test_depth_is_one_at_the_deepest_point_and_scipy_elsewhere():
    labels = np.zeros((30, 40), np.int32)
    labels[5:15, 5:20], labels[15:25, 5:20], labels[2:6, 30:33] = 1, 2, 4
    depth = normalised_depth(labels)
    for label in (1, 2, 4):
        distance = ndimage.distance_transform_edt(labels == label)
        own = labels == label
        np.testing.assert_allclose(depth[own], (distance / distance.max())[own], rtol=1e-6)
    assert depth[labels == 0].max() == 0


def test_crops_depend_on_seed_and_step_only(painted):
    tile, config = LabelledTile(*painted), NucleiTrainingConfig(batch=2, crop_px=64)
    first, second = (TileSampler([tile], config).batch(5) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.equal(first[0], TileSampler([tile], config).batch(6)[0])
    density, nucleus, depth = first
    assert density.shape == (2, 3, 64, 64)
    assert float(depth.max()) <= 1 + 1e-5
    assert 0.02 < float(nucleus.mean()) < 0.6


def test_loss_is_minimal_at_the_truth():
    nucleus = (torch.rand(2, 16, 16) > 0.7).float()
    depth = nucleus * 0.6
    right = torch.stack([(nucleus * 2 - 1) * 12, depth], 1)
    assert float(nuclei_loss(right, nucleus, depth, depth_weight=2.0)) < 1e-3
    assert float(nuclei_loss(-right, nucleus, depth, depth_weight=2.0)) > 5


def test_training_learns_and_leaves_the_global_seed_alone(painted):
    losses: list[float] = []
    state = torch.get_rng_state()
    config = NucleiTrainingConfig(steps=51, batch=2, crop_px=32)
    network = train_nuclei_network([LabelledTile(*painted)], config=config, log=lambda *s: losses.append(s[2]))
    assert torch.equal(state, torch.get_rng_state())
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.isfinite(value).all() for value in folded(network).state_dict().values())


def test_configs_check_their_ranges():
    for bad in ({"nucleus_probability": 1.0}, {"seed_depth": 0.0}, {"window_px": 100}):
        with pytest.raises(InputError):
            NetworkConfig(**bad)
    for bad in ({"crop_px": 30}, {"steps": 0}, {"scale_range": (2.0, 1.0)}):
        with pytest.raises(InputError):
            NucleiTrainingConfig(**bad)
    with pytest.raises(InputError, match="no labelled tiles"):
        train_nuclei_network([], config=NucleiTrainingConfig())
