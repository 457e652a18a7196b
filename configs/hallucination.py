"""Configures ProtoNet with hallucination (Wang et al. 2018, arXiv:1801.05401).

  python -m hyperudl.train --workdir=runs/hallucination \
    --config=configs/hallucination.py:omniglot,way=5,shot=1
  python -m hyperudl.plots --kind=tsne --workdir=runs/hallucination

The setting of the code that this follows, on 84 x 84 images:

  python -m hyperudl.train --workdir=runs/source \
    --config=configs/hallucination.py:miniimagenet,way=5,shot=1 \
    --config.learner.generator=source --config.learner.count=100 \
    --config.learner.weight=count --config.learner.learn_scale=False

`learner.frozen=True` with `init_from.protonet` trains only the generator.
"""

from configs import protonet


def get_config(arg=None):
  config = protonet.get_config(arg, 'hallucination').unlock()
  config.init_from.protonet = ''
  config.init_from.net = ''
  return config.lock()
