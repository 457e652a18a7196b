"""The table of experiments: every results page by name, in `PAGES`."""

from experiments.pages import baselines
from experiments.pages import gradient
from experiments.pages import guidance
from experiments.pages import hypertransformer
from experiments.pages import metric
from experiments.pages import models
from experiments.pages import udl
from experiments.pages import ways

PAGES = {
  **gradient.PAGES,
  **metric.PAGES,
  **baselines.PAGES,
  **hypertransformer.PAGES,
  **guidance.PAGES,
  **udl.PAGES,
  **ways.PAGES,
  **models.PAGES,
}
