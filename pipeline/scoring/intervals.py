"""Bootstrap intervals of the scores over the models that happen to be in the data set."""

import numpy as np

from pipeline.scoring.contingency import Contingency
from pipeline.scoring.scores import clusters_error_percent, compute_scores


def bootstrap_intervals(table: Contingency, n_resamples: int, seed: int) -> tuple[dict, dict]:
    """Return the scores and the error in the number of clusters, each with its 95 % bootstrap interval over models.

    Returns
    -------
    scores : {score name: {"value", "low", "high"}}
    error : the same for `clusters_error_percent`

    As many models are drawn with replacement, `n_resamples` times. A draw has fewer different models than the data
    set, hence fewer that could be mixed up, and scores a little higher: the interval is the spread of the draws around
    their mean, moved to the value. With a single model there is nothing to draw: low and high are None.
    """
    n_models = len(table.models)
    value = compute_scores(table) | {"error": clusters_error_percent(table)}
    if n_models < 2 or n_resamples == 0:
        result = {name: {"value": v, "low": None, "high": None} for name, v in value.items()}
        return result, result.pop("error")
    draws = np.random.default_rng(seed).multinomial(n_models, np.full(n_models, 1 / n_models), size=n_resamples)
    drawn = [compute_scores(table, weights) | {"error": clusters_error_percent(table, weights)} for weights in draws]
    result = {}
    for name, v in value.items():
        of_draws = np.array([draw[name] for draw in drawn])
        low, high = v + np.quantile(of_draws, [0.025, 0.975]) - of_draws.mean()
        least, most = (-100.0, np.inf) if name == "error" else (-1.0 if name in ("ari", "ami") else 0.0, 1.0)
        # the shift may leave a value at the edge of its range just outside
        result[name] = {"value": v, "low": float(min(max(low, least), v)), "high": float(max(min(high, most), v))}
    return result, result.pop("error")
