"""Draws a figure: `python -m hyperudl.plots --kind=KIND --workdir=DIR[,DIR]`.

--kind is one of the following, by default curves:
curves   accuracy on the evaluated splits with 95% intervals, and training loss,
         over steps; one colour per workdir. For runs with unsupervised inner
         steps also the inner loss at the first and the last step, the accuracy
         without them and that of k-means.
episode  one episode: support, unlabelled images, queries, and the predictions
         of the newest checkpoint, before and after unsupervised inner steps if
         there are any; the names of the classes; the support through an
         inferred shift, and the queries as the autoencoder decodes them.
         --shift=FAMILY applies that shift to queries and unlabelled images.
adaptation  accuracy after each unsupervised inner step and after clustering,
         and gain by shift family, with 95% intervals, for all results of one
         workdir; and the shift that is inferred in one episode (of --shift).
clock    training accuracy over minutes of training, and the test results; runs
         that differ only in their seed (NAME-0, NAME-1) share a colour.
sequences  accuracy after each task of a sequence, for results of `continual`.
         --tag selects the result.
tsne     t-SNE of the features of one episode: queries, support and, for
         `hallucination`, generated features, with metrics of their quality in
         the title.
confusion  which classes `hyperudl classify` confuses: --predictions=FILE, in
         place of --workdir, is what it wrote for queries in class folders.
shots    accuracy over labelled images per class, from all results of
         `evaluate --shot=K`, one line per workdir. --tag selects the results.
uncertainty  for results of `evaluate --uncertainty`: accuracy over confidence,
         and histograms of the uncertainty of predictions for queries of classes
         in the support and of other classes. --tag selects the result.

The PNG is written to --out, by default <first workdir>/<kind>.png, or beside
the predictions. Exit codes: 0 done; 2 bad flag or nothing to plot; 3 no
checkpoint is readable.
"""

import pathlib

from absl import flags
from absl import logging

from hyperudl import core
from hyperudl.core import cli
from hyperudl.core import paths
from hyperudl.plots import adaptation
from hyperudl.plots import clock
from hyperudl.plots import confusion
from hyperudl.plots import curves
from hyperudl.plots import episode
from hyperudl.plots import figure as figures
from hyperudl.plots import sequences
from hyperudl.plots import shots
from hyperudl.plots import tsne
from hyperudl.plots import uncertainty

# For each kind, a function from the values of the flags to the figure.
KINDS = {
  'curves': lambda values: curves.draw(values.workdir),
  'episode': lambda values: episode.draw(values.workdir[0], values.shift),
  'adaptation': lambda values: adaptation.draw(values.workdir[0], values.shift),
  'clock': lambda values: clock.draw(values.workdir),
  'sequences': lambda values: sequences.draw(values.workdir, values.tag),
  'uncertainty': lambda values: uncertainty.draw(values.workdir, values.tag),
  'confusion': lambda values: confusion.draw(values.predictions),
  'tsne': lambda values: tsne.draw_run(values.workdir[0]),
  'shots': lambda values: shots.draw(values.workdir, values.tag),
}
SHIFTED = ('episode', 'adaptation')
TAGGED = ('uncertainty', 'sequences', 'shots')


def main(argv: list[str]) -> None:
  """Draw the figure and write it."""
  del argv
  cli.set_up()
  values = flags.FLAGS
  for name, kinds in (('shift', SHIFTED), ('tag', TAGGED)):
    if values[name].value and values.kind not in kinds:
      raise core.BadInput(
        f'--{name}={values[name].value} is for --kind={", ".join(kinds)}, not '
        f'{values.kind}'
      )
  needed = 'predictions' if values.kind == 'confusion' else 'workdir'
  for name in ('predictions', 'workdir'):
    if bool(values[name].value) != (name == needed):
      raise core.BadInput(
        f'--kind={values.kind} takes --{needed}, and of --workdir and '
        '--predictions only that'
      )
  figure = KINDS[values.kind](values)
  folder = (
    pathlib.Path(values.predictions).parent
    if needed == 'predictions'
    else values.workdir[0]
  )
  out = values.out or pathlib.Path(folder, f'{values.kind}.png')
  figures.save(figure, out)
  logging.info('wrote %s', out)


if __name__ == '__main__':
  flags.DEFINE_enum('kind', 'curves', list(KINDS), 'What to plot.')
  flags.DEFINE_string(
    'tag', '', 'Of the results that uncertainty, sequences and shots draw.'
  )
  paths.define_list('workdir', 'Folders of runs.', required=False)
  paths.define('predictions', None, 'File that hyperudl classify has written.')
  flags.DEFINE_string('shift', '', 'Shift of the episode that is drawn.')
  paths.define('out', None, 'PNG to write; by default in the first workdir.')
  cli.run(main)
