"""Rows of the page `guidance`: what a question alone does to weights.

Results are named SETTING-LEVEL-test; the table has a line for each setting.
`Kshot` is after 10 inner steps on K x way labelled images, whatever their
classes: of `hypernet` from the z of no task, of `hyperldm` from the one that
the question gave.
"""


def rows():
  """{row: (config, flags of the training, evaluations)}."""

  def asked(*flags, tag='', levels=('wording', 'semantic')):
    return {
      f'{tag}{level}-test': [
        '--split=test',
        '--episodes=1000',
        f'--config.language.level={level}',
        *flags,
        f'--tag={tag}{level}',
      ]
      for level in levels
    }

  def also(*flags, tag):
    return asked(*flags, tag=tag, levels=('wording',))

  def few(*flags, shots):
    each = {}
    for shot in shots:
      each |= also(f'--config.episode.shot={shot}', *flags, tag=f'{shot}shot-')
    return each

  upstream = lambda name: (
    f'--config.init_from.{name}={{folder}}/{name}-{{seed}}'
  )
  encoder, net, hvae = map(upstream, ('contrastive', 'hypernet', 'hvae'))
  on_hvae = [net, hvae, '--config.learner.space=hvae']
  gammas = {}
  for gamma in ('0', '1.5', '4', '7.5'):
    gammas |= also(f'--config.learner.gamma={gamma}', tag=f'gamma{gamma}-')
  found = {
    'contrastive': (
      'contrastive.py:{dataset}',
      [],
      {
        **asked('--config.language.answers=bare'),
        **asked('--config.language.answers=full', tag='full-'),
      },
    )
  }
  for kind in ('multitask', 'conditional', 'film'):
    flags = [encoder, f'--config.learner.kind={kind}']
    flags += ['--config.learner.inner_steps=0']
    found[kind] = 'hypernet.py:{dataset}', flags, asked()
  found['hypernet'] = (
    'hypernet.py:{dataset}',
    [encoder],
    {
      **asked(),
      **also('--config.learner.inner_steps=0', tag='steps0-'),
      **also('--config.learner.inner_steps=100', tag='steps100-'),
      **few(shots=(1, 2, 4, 8)),
    },
  )
  found['hvae'] = 'hvae.py:{dataset}', [net], asked()
  single = asked('--config.episode.tasks=0')
  found['hyperclip'] = (
    'hyperclip.py:{dataset}',
    [net],
    {
      **single,
      **asked('--config.episode.tasks=12', tag='retrieval-'),
    },
  )
  found['hyperclip-hvae'] = 'hyperclip.py:{dataset}', on_hvae, single
  finetuned = few('--config.learner.finetune_steps=10', shots=(1, 2, 4, 8))
  found['hyperldm'] = (
    'hyperldm.py:{dataset}',
    [net],
    {**asked(), **gammas, **finetuned},
  )
  found['hyperldm-hvae'] = 'hyperldm.py:{dataset}', on_hvae, asked()
  return found
