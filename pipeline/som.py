"""The names of `pipeline.clustering.directions` and `.som` under their former place, until all have moved."""

from pipeline.clustering.directions import *  # noqa: F403
from pipeline.clustering.som import *  # noqa: F403
