"""Draws one test episode with the predictions of the newest checkpoint."""

from matplotlib.figure import Figure
from matplotlib.figure import FigureBase
import numpy as np

from hyperudl import core
from hyperudl.core.config import ConfigDict
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import dataset as dataset_lib
from hyperudl.evaluation import evaluator as evaluator_lib
from hyperudl.evaluation import resources as resources_lib
from hyperudl.storage import checkpoints
from hyperudl.storage import selection
from hyperudl.storage.filesystem import StrPath
from hyperudl.training import run_data
from hyperudl.training import setup

COLUMNS = 10
_LINE = 0.2  # inches


def draw(workdir: StrPath, shift: str = '') -> Figure:
  """Draw an episode with its predictions before and after any adaptation.

  Args:
    workdir: folder of a run of images.
    shift: shift of the episode, see `shifts.families`; '' for that of the run.

  Raises:
    core.BadInput: if there is no run or checkpoint, or it draws no images.
  """
  config = setup.read_config(workdir)
  if config.episode.tasks:
    raise core.BadInput(
      f'{workdir} trains on sequences of tasks; --kind=episode draws one task'
    )
  with config.unlocked():
    config.data.shift = shift or config.data.shift
  checkpoint = selection.restore_step(workdir, 'latest')
  resources = resources_lib.Resources()
  episode, values, visuals = evaluate_first(config, checkpoint, resources)
  if episode.query.x.ndim != 4:
    raise core.BadInput(
      f'{workdir} works on features, and --kind=episode draws images'
    )
  predictions = {'queries': values['probabilities'].argmax(axis=-1)}
  if 'accuracy_unadapted' in values:
    with config.unlocked():
      config.episode.inner_data = 'none'
    _, values, _ = evaluate_first(config, checkpoint, resources)
    before = {'queries before': values['probabilities'].argmax(axis=-1)}
    predictions = before | predictions
  support, query = episode.support, episode.query
  labelled = support.y >= 0
  # (title, images, labels, predictions)
  rows = [
    ('support', support.x[labelled], support.y[labelled], None),
    ('unlabelled', support.x[~labelled], None, None),
  ]
  rows += [(title, query.x, query.y, y) for title, y in predictions.items()]
  if 'image/shifted_support' in visuals:
    shifted = visuals['image/shifted_support'][1][labelled]
    rows.insert(1, ('support, shifted', shifted, support.y[labelled], None))
  if 'image/reconstructed' in visuals:
    decoded = visuals['image/reconstructed'][1]
    rows.append(('reconstructed', decoded, None, None))
  title = f'{config.learner.name}, step {checkpoint.step}'
  names = name_labels(episode, resources.dataset(config, 'test'))
  return _draw_rows([row for row in rows if len(row[1])], title, names)


def name_labels(episode: core.Episode, data: run_data.Dataset) -> list[str]:
  """Return each label of an episode with the name of its class.

  Args:
    episode: drawn from the data; `extra` has `class_ids`.
    data: with the names; tasks with language have none.
  """
  if not isinstance(data, dataset_lib.Dataset):
    return []
  names = class_table.labels(data)
  ids = episode.extra['class_ids']
  return [f'{label}: {names[index]}' for label, index in enumerate(ids)]


def evaluate_first(
  config: ConfigDict,
  checkpoint: checkpoints.Checkpoint,
  resources: resources_lib.Resources | None = None,
) -> tuple[core.Episode, evaluator_lib.Metrics, evaluator_lib.Metrics]:
  """Return the first test episode, its metrics, and arrays that are drawn.

  Args:
    config: of the run.
    checkpoint: restored as nested dicts.
    resources: data and programs of other calls, to be used again.
  """
  evaluator = evaluator_lib.Evaluator(config, 'test', 1, resources)
  params = setup.fit_params(checkpoint, evaluator.param_shapes())
  episode, visuals = evaluator.visuals(params)
  return episode, evaluator.first_metrics(params), visuals


def _draw_rows(rows, title, names):
  heights = [-(-len(row[1]) // COLUMNS) for row in rows]
  images, text = 1.2 * sum(heights) + 0.4 * len(rows), _LINE * (len(names) + 1)
  figure = Figure(figsize=(10, images + text))
  heights.append(sum(heights) * text / images)
  parts = figure.subfigures(len(heights), 1, height_ratios=heights)
  for part, row in zip(parts, rows):
    draw_images(part, *row)
  words = {'va': 'top', 'fontsize': 9, 'parse_math': False}
  parts[-1].text(0.02, 1, '\n'.join(names), **words)
  figure.suptitle(title, x=0.01, y=0.998, ha='left', fontsize=9)
  return figure


def draw_images(
  figure: FigureBase,
  title: str,
  images: np.ndarray,
  labels: np.ndarray | None = None,
  predictions: np.ndarray | None = None,
) -> None:
  """Draw images in rows of ten, with labels; predictions in green or red.

  Args:
    figure: or a part of one.
    title: on the left.
    images: f32[n, H, W, C].
    labels: i32[n].
    predictions: i32[n].
  """
  count = -(-len(images) // COLUMNS)
  panels = figure.subplots(count, COLUMNS, squeeze=False).ravel()
  figure.supylabel(title, fontsize=9)
  for axes in panels:
    axes.axis('off')
  for i, (axes, image) in enumerate(zip(panels, np.clip(images, 0, 1))):
    gray = image.shape[-1] == 1
    axes.imshow(image[..., 0] if gray else image, cmap='gray', vmin=0, vmax=1)
    if predictions is not None:
      color = 'tab:green' if predictions[i] == labels[i] else 'tab:red'
      text = f'{predictions[i]} ({labels[i]})'
      axes.set_title(text, fontsize=8, color=color)
    elif labels is not None:
      axes.set_title(str(labels[i]), fontsize=8)
