"""What is no path is one clear error, in every function of the package that takes one."""

from __future__ import annotations

import pytest

import sge2hist
from sge2hist import InputError

NO_PATHS = [None, 3, 2.5, "", b"x"]


@pytest.mark.parametrize("wrong", NO_PATHS)
@pytest.mark.parametrize("name", ["PairedDataset", "GeneratedSet", "GeneratedSlide"])
def test_open(name, wrong):
    with pytest.raises(InputError, match="a path"):
        getattr(sge2hist, name).open(wrong)


@pytest.mark.parametrize("wrong", NO_PATHS)
@pytest.mark.parametrize("argument", ["inputs", "output", "images"])
def test_prepare(tmp_path, argument, wrong):
    if argument == "images" and wrong is None:
        pytest.skip("None: the input holds the image")
    given = {"inputs": tmp_path, "output": tmp_path / "a.paired", "images": None} | {argument: wrong}
    with pytest.raises(InputError, match="a path"):
        sge2hist.prepare(given["inputs"], given["output"], images=given["images"], log=lambda _: None)


@pytest.mark.parametrize("wrong", NO_PATHS)
def test_save_pretrained(tiny_model, wrong):
    with pytest.raises(InputError, match="a path"):
        sge2hist.SGE2Hist.from_pretrained(tiny_model).save_pretrained(wrong)


def test_a_missing_dataset_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(InputError, match="sge2hist prepare"):
        sge2hist.PairedDataset.open(tmp_path / "none.paired")
