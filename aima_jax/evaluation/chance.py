"""What random ranking gives: the floor that a trained model is measured against."""

import numpy as np
from jaxtyping import Int


def random_ranking(relevant: Int[np.ndarray, "query"], gallery: int) -> dict[str, float]:
    """Expected Rank-1 and mAP when a gallery is shuffled, over queries with something relevant.

    With R relevant among N, Rank-1 is R/N, and the average precision is
    (H_N + (R-1)/(N-1) · (N - H_N)) / N with the harmonic number H_N: a place k holds a relevant
    image with probability R/N, and then the k-1 places before it hold (k-1)(R-1)/(N-1) others.

    Args:
        relevant: number of relevant images of each query.
        gallery: number of images ranked.
    """
    relevant = relevant[relevant > 0]
    harmonic = np.sum(1.0 / np.arange(1, gallery + 1))
    others = (relevant - 1) / max(gallery - 1, 1)
    precision = (harmonic + others * (gallery - harmonic)) / gallery
    return {"R1": float(np.mean(relevant / gallery)), "mAP": float(np.mean(precision))}
