"""Legacy ST against the sections that the fixture wrote."""

import os
from pathlib import Path

import numpy as np
import pytest

from fixtures.legacy_st import write_legacy_st
from sge2hist.data.errors import InputError
from sge2hist.readers import legacy_st


def test_sections_of_one_folder_equal_what_was_written(tmp_path: Path) -> None:
    truths = write_legacy_st(tmp_path)
    sections = legacy_st.read_all(tmp_path)
    assert [section.name for section in sections] == [truth.name for truth in truths]
    for section, truth in zip(sections, truths, strict=True):
        assert list(section.obs.index) == truth.spots
        assert section.centre_xy_px == pytest.approx(truth.tissue.centre_xy_px, abs=1e-4)
        assert (section.read_counts(None, None).toarray() == truth.tissue.counts_NG).all()
        assert list(section.genes["symbol"]) == truth.tissue.symbols
        assert section.um_per_px == pytest.approx(truth.tissue.um_per_px, rel=1e-4)
        assert (section.image.width_px, section.image.height_px) == truth.tissue.image.shape[1::-1]
        assert "excluded: 1 spots with counts but no position, 1 the other way round" in section.notes


def test_counts_are_summed_by_group(tmp_path: Path) -> None:
    truth = write_legacy_st(tmp_path, ("A1",))[0]
    section = legacy_st.read_all(tmp_path)[0]
    group = np.array([0, 1] * 9 + [-1, -1])
    summed = section.read_counts(group, 3).toarray()
    expected = [truth.tissue.counts_NG[group == 0].sum(axis=0), truth.tissue.counts_NG[group == 1].sum(axis=0)]
    assert (summed[:2] == np.stack(expected)).all()
    assert not summed[2].any()


def test_one_section_is_chosen_by_name(tmp_path: Path) -> None:
    write_legacy_st(tmp_path)
    assert [section.name for section in legacy_st.read_all(tmp_path, sections=["A2"])] == ["A2"]
    with pytest.raises(InputError, match=r"no section B9.*one of A1, A2"):
        legacy_st.read_all(tmp_path, sections=["B9"])


def test_folders_by_kind_are_searched(tmp_path: Path) -> None:
    write_legacy_st(tmp_path, ("A1",))
    for name, folder in (("A1.tsv.gz", "ST-cnts"), ("A1_selection.tsv", "ST-spotfiles"), ("A1.jpg", "ST-imgs/A/A1")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / name).rename(tmp_path / folder / name.replace("A1.jpg", "HE_scan.jpg"))
    assert legacy_st.read_all(tmp_path)[0].image.path.name == "HE_scan.jpg"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "A1.tsv.gz").unlink(), "section A1 without counts"),
        (lambda folder: (folder / "A1.jpg").unlink(), "no H&E image.*--image"),
        (lambda folder: _replace(folder, "pixel_x", "px"), "without pixel_x"),
        (lambda folder: _replace(folder, "\t1\n", "\t0\n"), "no spot in common"),
        (lambda folder: (folder / "A1.tsv.gz").write_bytes(b"no gzip"), "cannot be read"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, damage: object, message: str) -> None:
    write_legacy_st(tmp_path, ("A1",))
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        legacy_st.read_all(tmp_path)


def test_positions_of_other_rows_are_refused(tmp_path: Path) -> None:
    write_legacy_st(tmp_path, ("A1",))
    path = tmp_path / "A1_selection.tsv"
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    pixels = [row[4:6] for row in rows[1:]]
    np.random.default_rng(0).shuffle(pixels)
    mixed = [rows[0], *([*row[:4], *pixel, row[6]] for row, pixel in zip(rows[1:], pixels, strict=True))]
    path.write_text("\n".join("\t".join(row) for row in mixed) + "\n")
    with pytest.raises(InputError, match="away from their array"):
        legacy_st.read_all(tmp_path)


def test_normalised_values_are_refused(tmp_path: Path) -> None:
    write_legacy_st(tmp_path, ("A1",))
    (tmp_path / "A1.tsv.gz").unlink()
    (tmp_path / "A1.tsv").write_text("\tEPCAM\tUMOD\n2x2\t0.5\t1\n3x2\t1\t2\n")
    with pytest.raises(InputError, match="not counts"):
        legacy_st.read_all(tmp_path)


def _replace(folder: Path, old: str, new: str) -> None:
    path = folder / "A1_selection.tsv"
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.real_data
def test_real_sections_have_the_scale_of_their_printed_array() -> None:
    folder = Path(os.environ.get("SGE2HIST_DATA", "")) / "her2st_st"
    if "SGE2HIST_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("SGE2HIST_DATA names no folder with her2st_st")
    section = legacy_st.read_all(folder, sections=["C5"])[0]
    assert section.n_obs == 181
    assert section.um_per_px == pytest.approx(0.689, abs=0.002)
    counts = section.read_counts(None, None)
    assert counts.sum(axis=1).mean() == pytest.approx(11_000, rel=0.05)
    # Spots lie on tissue: darker than the glass around it.
    patches = np.stack(
        [section.image.read_patch(centre, 100.0, 16, section.um_per_px) for centre in section.centre_xy_px]
    )
    assert (patches.mean(axis=(1, 2, 3)) < 0.9 * section.image.thumbnail(512)[0][:40].mean()).mean() > 0.95
