"""Images of any channels come back from a generated set as they were written, and evaluation reads the same."""

import numpy as np
import pandas as pd
import pytest

from sge2hist.data.generated import GeneratedSet, generated_set_writer
from sge2hist.data.slides.channels import RGB
from sge2hist.evaluation.image_sets import read_image


@pytest.mark.parametrize(
    ("channels", "suffix"),
    [(RGB, ".png"), (("DAPI",), ".png"), (("DAPI", "A"), ".ome.tif"), (("a", "b", "c"), ".ome.tif")],
)
def test_images_come_back(tmp_path, channels, suffix):
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 20, len(channels)), dtype=np.uint8)
    obs = pd.DataFrame({"cell_id": ["a", "b", "c"]})
    with generated_set_writer(tmp_path / "x.generated", obs, {}, {"channels": channels}, overwrite=False) as writer:
        writer.add(images)
    found = GeneratedSet.open(tmp_path / "x.generated")
    assert found.channels == channels
    for i, image in enumerate(images):
        path = found.path / "images" / str(found.obs["image"].iloc[i])
        assert path.name.endswith(suffix)
        assert np.array_equal(found.image(i), image)
        assert np.array_equal(read_image(path, channels), image)
