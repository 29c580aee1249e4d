"""The metrics in the order of the report: question, name, direction, what real tissue gives, and one line of
definition.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One row of the report's table.

    Attributes:
        id: key in report.json.
        question: what it answers.
        name: as printed.
        better: "lower", "higher" or "one" (best at 1).
        real: what the column "real" holds: "floor" (the cells' own real patches in place of the generated ones, against
            the comparison patches; of morphometry and copies other real patches), "ceiling" (the cell's own real
            patch), or "" (nothing).
        definition: one line.
        share: whether it is a share, which is shown in per cent everywhere.
    """

    id: str
    question: str
    name: str
    better: str
    real: str
    definition: str
    share: bool = False


REALISTIC, VARIED, TYPE, GENES = "Realistic?", "Realistic and varied?", "Right type?", "Right genes?"
PLACE, ANATOMY, COPY, OLDER = "Right place?", "Right anatomy?", "A copy?", "For comparison with older work"

CATALOGUE = (
    Metric(
        id="frechet",
        question=REALISTIC,
        name="Frechet distance",
        better="lower",
        real="floor",
        definition="between Gaussians fitted to the features of generated and of comparison patches",
    ),
    Metric(
        id="kid",
        question=REALISTIC,
        name="KID",
        better="lower",
        real="floor",
        definition="unbiased squared MMD of the features, kernel (x.y/d + 1)^3",
    ),
    Metric(
        id="frechet_own",
        question=REALISTIC,
        name="Frechet distance, own patches",
        better="lower",
        real="",
        definition="against the cells' own patches, as versions up to 0.1 gave it; it has no floor, compare models by it",
    ),
    Metric(
        id="kid_own",
        question=REALISTIC,
        name="KID, own patches",
        better="lower",
        real="",
        definition="against the cells' own patches, as versions up to 0.1 gave it; it has no floor",
    ),
    Metric(
        id="type_kid",
        question=REALISTIC,
        name="KID within types",
        better="lower",
        real="floor",
        definition="KID of each cell type (20 cells or more) against the comparison patches of that type, mean over types",
    ),
    Metric(
        id="precision",
        question=VARIED,
        name="Precision",
        better="higher",
        real="floor",
        definition="share of generated patches within the k-neighbour radius of a comparison patch",
        share=True,
    ),
    Metric(
        id="recall",
        question=VARIED,
        name="Recall",
        better="higher",
        real="floor",
        definition="share of comparison patches within the k-neighbour radius of a generated patch",
        share=True,
    ),
    Metric(
        id="density",
        question=VARIED,
        name="Density",
        better="higher",
        real="floor",
        definition="neighbourhoods of comparison patches that hold a generated patch, over k",
    ),
    Metric(
        id="coverage",
        question=VARIED,
        name="Coverage",
        better="higher",
        real="floor",
        definition="share of neighbourhoods of comparison patches that hold a generated patch",
        share=True,
    ),
    Metric(
        id="type_f1",
        question=TYPE,
        name="Type agreement, macro-F1",
        better="higher",
        real="ceiling",
        definition="classifier trained on real training patches, applied to generated ones",
    ),
    Metric(
        id="type_f1_normalised",
        question=TYPE,
        name="Type agreement, normalised",
        better="higher",
        real="ceiling",
        definition="(F1 generated - chance) / (F1 real - chance)",
    ),
    Metric(
        id="expression_50",
        question=GENES,
        name="Expression recovery, best 50 genes",
        better="higher",
        real="ceiling",
        definition="median over genes of the correlation between expression predicted from the image and measured",
    ),
    Metric(
        id="expression_500",
        question=GENES,
        name="Expression recovery, best 500 genes",
        better="higher",
        real="ceiling",
        definition="the same over 500 genes",
    ),
    Metric(
        id="expression_ratio_50",
        question=GENES,
        name="Expression recovery, ratio to real (50)",
        better="higher",
        real="ceiling",
        definition="generated over real",
    ),
    Metric(
        id="expression_ratio_500",
        question=GENES,
        name="Expression recovery, ratio to real (500)",
        better="higher",
        real="ceiling",
        definition="generated over real",
    ),
    Metric(
        id="retrieval_top_1",
        question=PLACE,
        name="Retrieval, top 1 %",
        better="higher",
        real="",
        definition="share of cells whose own real patch is among the 1 % most similar to the generated one",
        share=True,
    ),
    Metric(
        id="retrieval_top_5",
        question=PLACE,
        name="Retrieval, top 5 %",
        better="higher",
        real="",
        definition="the same for 5 %",
        share=True,
    ),
    Metric(
        id="retrieval_top_10",
        question=PLACE,
        name="Retrieval, top 10 %",
        better="higher",
        real="",
        definition="the same for 10 %",
        share=True,
    ),
    Metric(
        id="retrieval_median_rank",
        question=PLACE,
        name="Retrieval, median rank",
        better="lower",
        real="",
        definition="0 % is first, 50 % is chance",
        share=True,
    ),
    Metric(
        id="morphometry_correlation",
        question=ANATOMY,
        name="Morphometry, median correlation",
        better="higher",
        real="",
        definition="per-cell correlation of generated and real, median over the statistics listed below",
    ),
    Metric(
        id="morphometry_one_minus_ks",
        question=ANATOMY,
        name="Morphometry, median 1 - KS",
        better="higher",
        real="floor",
        definition="agreement of distributions, median over the statistics",
    ),
    Metric(
        id="morphometry_spread_ratio",
        question=ANATOMY,
        name="Morphometry, median spread ratio",
        better="one",
        real="floor",
        definition="SD of generated over SD of real, median over the statistics",
    ),
    Metric(
        id="copied",
        question=COPY,
        name="Copies of training patches",
        better="lower",
        real="floor",
        definition="share closer to a training patch than the closest 1 % of held-out real patches",
        share=True,
    ),
    Metric(
        id="psnr",
        question=OLDER,
        name="PSNR, dB",
        better="higher",
        real="",
        definition="against the one real patch; rewards blur",
    ),
    Metric(
        id="ssim",
        question=OLDER,
        name="SSIM",
        better="higher",
        real="",
        definition="against the one real patch; rewards blur",
    ),
)

BY_ID = {metric.id: metric for metric in CATALOGUE}
