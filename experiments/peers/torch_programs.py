"""MAML and its relatives, and prototypical networks, in plain torch.

For comparison: the same networks, losses and shapes as ours, in the usual
formulations of torch code. `loop` goes through the tasks one after another,
takes inner gradients by `torch.autograd.grad` and calls backward after each
task, so that graphs do not accumulate; `func` does the same with
`torch.func.grad`; `vmap` batches the tasks with `torch.func.vmap`. Weights are
dicts {'block0': {'kernel', 'scale', 'bias'}, ..., 'head': {...}} in torch's own
layouts; batch norm uses the statistics of the current images.
"""

import torch
from torch.nn import functional as F

EPSILON = 1e-5
RATE = 0.01  # of inner steps


def from_jax(params, dtype=torch.float32):
  """Return our weights ([k, k, Cin, Cout], [D, N], NumPy) in torch's layouts.

  Features of more than one position would also need another order; here the
  last feature map has a single position.
  """
  turn = {4: lambda a: a.transpose(3, 2, 0, 1), 2: lambda a: a.T}
  return {
    layer: {
      name: torch.tensor(turn.get(a.ndim, lambda a: a)(a).copy(), dtype=dtype)
      for name, a in leaves.items()
    }
    for layer, leaves in params.items()
  }


def embed(weights, x, pool_first=False):
  """Return f[n, D] of images f[n, C, H, W]: four times conv, norm, ReLU, pool.

  With `pool_first` ReLU comes after pooling, which gives the same values and
  leaves no ties of zeros between which gradients could differ.
  """
  for name in sorted(key for key in weights if key.startswith('block')):
    w = weights[name]
    x = F.conv2d(x, w['kernel'], padding=1)
    x = F.batch_norm(
      x, None, None, w['scale'], w['bias'], training=True, eps=EPSILON
    )
    x = F.relu(F.max_pool2d(x, 2)) if pool_first else F.max_pool2d(F.relu(x), 2)
  return x.flatten(1)


def linear(head, z):
  """Return the logits of features, with a kernel [N, D]."""
  return F.linear(z, head['kernel'], head['bias'])


def logits(weights, x, pool_first=False):
  """Return the logits of the network with its linear head."""
  return linear(weights['head'], embed(weights, x, pool_first))


def _leaves(tree):
  return [leaf for layer in tree.values() for leaf in layer.values()]


def _like(tree, leaves):
  leaves = iter(leaves)
  return {
    layer: {name: next(leaves) for name in group}
    for layer, group in tree.items()
  }


def _move(tree, gradients, rate):
  pairs = zip(_leaves(tree), gradients)
  return _like(tree, [v - rate * g for v, g in pairs])


def maml_loss(
  weights,
  support,
  query,
  steps=5,
  first_order=False,
  rate=RATE,
  pool_first=False,
):
  """Return the query loss after the inner steps on one task."""
  value = weights
  for _ in range(steps):
    inner = F.cross_entropy(logits(value, support[0], pool_first), support[1])
    gradients = torch.autograd.grad(
      inner, _leaves(value), create_graph=not first_order
    )
    value = _move(value, gradients, rate)
  return F.cross_entropy(logits(value, query[0], pool_first), query[1])


def anil_loss(weights, support, query, steps=5, rate=RATE):
  """Return the query loss if only the head is adapted; features are reused."""
  head = {'head': weights['head']}
  z = embed(weights, support[0])
  for _ in range(steps):
    inner = F.cross_entropy(linear(head['head'], z), support[1])
    gradients = torch.autograd.grad(inner, _leaves(head), create_graph=True)
    head = _move(head, gradients, rate)
  predicted = linear(head['head'], embed(weights, query[0]))
  return F.cross_entropy(predicted, query[1])


def hypermaml_loss(weights, support, query):
  """Return HyperMAML's query loss after its warm-up, for one shot."""
  z, head = embed(weights, support[0]), weights['head']
  predictions = F.softmax(linear(head, z), dim=1).detach()
  rows = torch.cat(
    [z, predictions, F.one_hot(support[1], predictions.shape[1])], 1
  )
  layers = weights['hypernetwork']
  for index in range(3):
    rows = F.linear(rows, layers[f'kernel{index}'], layers[f'bias{index}'])
    rows = F.relu(rows) if index < 2 else rows
  # Rows are in the order of the classes, as `make_tasks` makes them.
  head = {
    'kernel': head['kernel'] - rows[:, :-1],
    'bias': head['bias'] - rows[:, -1],
  }
  return F.cross_entropy(linear(head, embed(weights, query[0])), query[1])


def protonet_loss(weights, support, query, way=5):
  """Return the query loss of a prototypical network, squared distances."""
  both = embed(weights, support[0]), embed(weights, query[0])
  means = torch.stack([both[0][support[1] == c].mean(0) for c in range(way)])
  return F.cross_entropy(-torch.cdist(both[1], means).square(), query[1])


def by_loop(loss, weights, tasks):
  """Return (mean loss, gradients), with a backward pass after each task."""
  leaves, total = _leaves(weights), 0.0
  for leaf in leaves:
    leaf.grad = None
  for support, query in tasks:
    value = loss(weights, support, query) / len(tasks)
    value.backward()
    total += float(value.detach())
  return total, [leaf.grad for leaf in leaves]


def _functional_maml(weights, support, query, steps, first_order):
  value = weights
  for _ in range(steps):
    gradients = torch.func.grad(
      lambda v: F.cross_entropy(logits(v, support[0]), support[1])
    )(value)
    leaves = _leaves(gradients)
    if first_order:
      leaves = [leaf.detach() for leaf in leaves]
    value = _move(value, leaves, RATE)
  return F.cross_entropy(logits(value, query[0]), query[1])


def by_func(weights, tasks, steps=5, first_order=False):
  """Return MAML's (mean loss, gradients) by `torch.func.grad`, task by task."""
  total, mean = None, 0.0
  run = torch.func.grad_and_value(_functional_maml)
  for support, query in tasks:
    gradients, value = run(weights, support, query, steps, first_order)
    leaves = [leaf / len(tasks) for leaf in _leaves(gradients)]
    total = leaves if total is None else [a + b for a, b in zip(total, leaves)]
    mean += float(value.detach()) / len(tasks)
  return mean, total


def by_vmap(weights, tasks, steps=5, first_order=False):
  """Return MAML's (mean loss, gradients) by `torch.func.vmap` over tasks."""
  stack = lambda part, index: torch.stack([task[part][index] for task in tasks])
  support, query = ((stack(part, 0), stack(part, 1)) for part in range(2))

  def mean(weights):
    one = lambda s, q: _functional_maml(weights, s, q, steps, first_order)
    return torch.func.vmap(one)(support, query).mean()

  gradients, value = torch.func.grad_and_value(mean)(weights)
  return float(value.detach()), _leaves(gradients)


def make_weights(row, generator):
  """Return random weights for a `workloads.Workload`."""
  normal = lambda *shape: torch.randn(*shape, generator=generator) * 0.05
  weights, inputs, size = {}, 1, row.size
  for index in range(4):
    weights[f'block{index}'] = {
      'kernel': normal(row.channels, inputs, 3, 3),
      'scale': torch.ones(row.channels),
      'bias': torch.zeros(row.channels),
    }
    inputs, size = row.channels, size // 2
  width = inputs * size * size
  if row.method != 'protonet':
    weights['head'] = {
      'kernel': normal(row.way, width),
      'bias': torch.zeros(row.way),
    }
  if row.method == 'hypermaml':
    sizes = (width + 2 * row.way, 512, 512, width + 1)
    layers = {}
    for index in range(3):
      layers[f'kernel{index}'] = normal(sizes[index + 1], sizes[index])
      layers[f'bias{index}'] = torch.zeros(sizes[index + 1])
    weights['hypernetwork'] = layers
  for leaf in _leaves(weights):
    leaf.requires_grad_(True)
  return weights


def make_tasks(row, generator):
  """Return B random tasks ((images, labels), (images, labels)) of a row."""

  def examples(per_class):
    count = row.way * per_class
    x = torch.rand(count, 1, row.size, row.size, generator=generator)
    return x, torch.arange(count) % row.way

  return [(examples(row.shot), examples(row.query)) for _ in range(row.batch)]


def programs(row):
  """Return {formulation: () -> (mean loss, gradients)} of a row in torch."""
  generator = torch.Generator().manual_seed(0)
  weights, tasks = make_weights(row, generator), make_tasks(row, generator)
  if row.method == 'maml':
    loss = lambda w, s, q: maml_loss(w, s, q, row.steps, row.first_order)
    # Functions of `torch.func` need no graph outside of them.
    plain = _like(weights, [leaf.detach() for leaf in _leaves(weights)])
    options = {'steps': row.steps, 'first_order': row.first_order}
    return {
      'loop': lambda: by_loop(loss, weights, tasks),
      'func': lambda: by_func(plain, tasks, **options),
      'vmap': lambda: by_vmap(plain, tasks, **options),
    }
  loss = {
    'anil': anil_loss,
    'hypermaml': hypermaml_loss,
    'protonet': protonet_loss,
  }.get(row.method)
  return {'loop': lambda: by_loop(loss, weights, tasks)} if loss else {}
