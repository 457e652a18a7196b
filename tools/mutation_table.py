"""The table of mistakes that `mutations.py` makes in a copy of the code."""

HT = 'learners/hypertransformer'
# A file in hyperudl/, then the files in tests/ that guard it, if not the one of
# the same name: (original, mutated) fragments. An original occurs once in its
# file. Mutations are numbered from 1 over the whole table.
TABLE = {
  'ops/losses.py': (
    ('/ jnp.maximum(jnp.sum(mask), 1.0)', '/ len(mask)'),
    ('jnp.maximum(jnp.sum(one_hot, axis=0), 1.0)', 'jnp.full(way, len(y))'),
    ('- 2 * cross', '- cross'),
    ('jax.lax.rsqrt(jnp.sum(x', 'jnp.reciprocal(jnp.sum(x'),
    ('-0.5 * jnp.sum(terms', '-jnp.sum(terms'),
    ('jnp.log(2 * jnp.pi)', 'jnp.log(jnp.pi)'),
    ('unit(jax.lax.stop_gradient(reference))', 'unit(reference)'),
    ('pairs = mask[:, None] * mask', 'pairs = mask[:, None] + 0 * mask'),
    ('unit(jax.lax.stop_gradient(target))', 'unit(target)'),
    ('-jnp.sum(marginal * jnp.log', 'jnp.sum(marginal * jnp.log'),
    ('jnp.sign(x) * jnp.log1p', 'jnp.log1p'),
    (' - jnp.log(samples)', ''),
    ('total / jnp.maximum(jnp.sum(one_hot), 1.0)', 'total / len(y)'),
    ('jnp.maximum(jnp.sum((y >= 0).astype(jnp.float32)), 1.0)', 'len(y)'),
  ),
  'ops/cluster_metrics.py': (
    ('cost = -jax', 'cost = jax'),
    ('most = (rows + columns) / 2', 'most = jnp.maximum(rows, columns)'),
    ('mean = (rows + columns) / 2', 'mean = jnp.sqrt(rows * columns)'),
  ),
  'ops/clustering.py': (
    ('init_counts * init_centroids +', 'init_counts * centroids +'),
    ('weight = mask * jnp.maximum(nearest', 'weight = jnp.maximum(nearest'),
    ('jnp.minimum(nearest, distances)', 'distances'),
    ('jnp.argmin(loss)', 'jnp.argmax(loss)'),
  ),
  'ops/gradient_descent.py': (
    ('jnp.sqrt(sum(squares) + 1e-20)', 'sum(squares) + 1e-20'),
    ('jnp.minimum(1.0, clip / n)', 'clip / n'),
    ('f + order * (g - f)', 'g + order * (f - g)'),
  ),
  'ops/conv.py': (
    ('(k - 1 - a, k - 1 - b)', '(k - 1 - b, k - 1 - a)'),
    ('jnp.swapaxes(w[::-1, ::-1], 2, 3)', 'jnp.swapaxes(w, 2, 3)'),
  ),
  'ops/normalization.py learners/udl/domain_norm_test.py': (
    ('part / jnp.maximum(jnp.sum(part, axis=0), 1.0)', 'part / len(part)'),
  ),
  'ops/normalization.py nets/conv_test.py': (
    ("if norm == 'batch' else (1, 2, 3)", "if norm == 'batch' else (1, 2)"),
  ),
  'ops/pooling.py': (
    ('variances + jnp.square(means - mean)', 'variances'),
    ('reshape(-1, 1, 2, 1) < height', 'reshape(-1, 1, 2, 1) <= height'),
  ),
  'ops/image.py': (('[[cos, sin], [-sin, cos]]', '[[cos, -sin], [sin, cos]]'),),
  'ops/shift_transform.py': (
    ('slope * (rows[:, None] - shift[0])', 'slope * rows[:, None]'),
    ('-inverse @ (PIXELS', 'inverse @ (PIXELS'),
    ("_COSH / (2 * np.arange(_TERMS, dtype='f4') + 1)", '_COSH'),
    ('(1.5 * distance - 2.5)', '(1.25 * distance - 2.25)'),
  ),
  'learners/udl/shift.py': (
    ('+ weight * sizes * moved', '+ weight * moved'),
    ('known + in_excess(estimate)', 'known'),
    ('jnp.square(both), axis=(1, 2, 3)) / 36', 'both, axis=(1, 2, 3)) / 36'),
    ('skewness * clean_skewness < 0', 'skewness > 0'),
    ("learned['misfit'] * terms['log_misfit']", "learned['misfit']"),
    (
      'images.x[rows], images.mask[rows]',
      'images.x[:count], images.mask[:count]',
    ),
  ),
  'learners/udl/target_network.py learners/udl/shift_test.py': (
    ('clean, method', 'x, method'),
    ('shift_transform.apply(phi, decoded)', 'decoded'),
    ('x + weight * (reconstruct', 'x - weight * (reconstruct'),
    ('jnp.where(is_labelled, x, clean', 'jnp.where(False, x, clean'),
  ),
  'ops/weight_tokens.py': (
    ('slices[:, first:size].T', 'slices[:, -len(extras) :].T'),
  ),
  'learners/udl/inner_losses.py': (
    ('jnp.exp(0.5 * log_variance)', 'jnp.exp(log_variance)'),
    ('error + BETA * kl', 'error + kl'),
    ("terms['nll'] + terms['kl']", "terms['nll'] - terms['kl']"),
    ('losses.masked_mean(entropies, inputs.images.mask)', 'entropies.mean()'),
    ('losses.byol(predict(second), first', 'losses.byol(first, first'),
    ('x.mean(axis=(2, 4))', 'x.sum(axis=(2, 4))'),
    ('(2,), -2, 3)', '(2,), -2, 2)'),
    ("@ params['last'], mask)", "@ params['last'], jnp.ones_like(mask))"),
    ("params.get('weights', initial)", 'initial'),
    ('in active_losses if loss.auxiliary', 'in active_losses'),
  ),
  'learners/udl/gates.py': (
    ('jnp.exp(2 * (scale - OPEN))', 'jnp.exp(scale - OPEN)'),
    ('mean_error - labelled_error', 'labelled_error - mean_error'),
    ('jnp.square(mean - labelled_mean) / variance', 'jnp.square(mean)'),
    ('ordered[:, -1] - ordered[:, -2]', 'ordered[:, -1] - ordered[:, 0]'),
  ),
  'learners/udl/fast_weights.py': (
    ('unit * decay.reshape', 'unit * 0.3 * decay.reshape'),
    ("with_encoder(params, v)['frozen']", "params['frozen']"),
  ),
  'learners/udl/baselines.py learners/udl/evaluate_test.py': (
    ('images, scale * tau, 1.0', 'images, scale, 1.0'),
    ('losses.log_mean_probability(jax.lax', 'sum(jax.lax'),
  ),
  'learners/udl/cluster_setting.py': (
    ('true_classes(episode), way', 'episode.support.y, way'),
    ('contingency(y, clusters, way)', 'contingency(clusters, y, way)'),
    ('(queries - mean) @ axes', 'queries @ axes'),
  ),
  'learners/protonet.py': (
    ("jnp.exp(params['log_scale'])", "params['log_scale']"),
    ('unlabelled = (y == -1)', 'unlabelled = (y >= 0)'),
  ),
  'learners/maml.py': (
    ('step >= config.order_steps', 'step > config.order_steps'),
    (
      'jnp.minimum(jnp.arange(steps), config.inner_steps - 1)',
      'jnp.arange(steps) % config.inner_steps',
    ),
    ("leaf[k], params['norms']", "leaf[0], params['norms']"),
  ),
  'learners/hypermaml.py': (
    ('sum(jnp.sum(jnp.square(leaf))', 'sum(jnp.mean(jnp.square(leaf))'),
  ),
  'learners/bayeshmaml.py': (
    ('jnp.exp(0.5 * v)', 'jnp.exp(v)'),
    ('new - old, mean', 'new + old, mean'),
  ),
  'learners/hallucination.py': (
    ('mass * jnp.mean(hallucinated', 'mass * jnp.sum(hallucinated'),
    ('jnp.sqrt(jnp.sum(jnp.square(x - truth)))', 'jnp.sum((x - truth) ** 2)'),
  ),
  'learners/vae.py': (
    ("terms['nll'] + beta * terms['kl']", "terms['nll'] + terms['kl']"),
    ('math.prod(episode.support.x.shape[1:])', 'episode.support.x.shape[1]'),
    ('jax.lax.stop_gradient(', 'tuple('),
    ("jnp.log(jnp.var(terms['mean']", "jnp.log(jnp.std(terms['mean']"),
  ),
  'learners/contrastive.py data/language/captions_test.py': (
    ('jnp.where(also_true.T, hidden', 'jnp.where(also_true, hidden'),
    ('return value / 2,', 'return value,'),
  ),
  'learners/hyperclip.py': (
    ('same / same.sum(axis=1)', 'same / same.sum()'),
    ('0.5 * config.guidance_penalty', 'config.guidance_penalty'),
    ('jax.random.fold_in(key, step)', 'key'),
    ('guidance = -jax.grad', 'guidance = jax.grad'),
  ),
  f'{HT}/losses.py {HT}/losses_test.py {HT}/options_test.py': (
    ('uniform = -jnp.mean(', 'uniform = -jnp.sum('),
    ("jnp.square(layer['kernel'] - kernel)", "jnp.square(layer['kernel'])"),
  ),
  'learners/continual.py': (('jnp.tril(jnp.ones', 'jnp.triu(jnp.ones'),),
  f'{HT}/continual_rollout.py {HT}/continual_rollout_test.py': (
    ('(number > t)', '(number >= t)'),
    ('jnp.cumsum(rows * stored, axis=0)', 'jnp.cumsum(stored, axis=0)'),
  ),
  f'{HT}/continual_metrics.py learners/continual_test.py': (
    ('y + way * number[:, None]', 'y + number[:, None]'),
  ),
  'evaluation/statistics.py': (
    ('t_quantile(len(sums) - 1)', 't_quantile(len(values) - 1)'),
    ('* (count / (count - 1))', ''),
    ('(1 - ratio**2)', '(1 - ratio)'),
    ('prepend=0.0) / speeds', 'prepend=0.0) * speeds'),
  ),
  (
    'evaluation/calibration.py '
    'evaluation/calibration_test.py '
    'evaluation/uncertainty_test.py'
  ): (
    ('np.sum(np.square(p - one_hot)', 'np.mean(np.square(p - one_hot)'),
    ('np.sum(count[filled] * gap) / np.sum(count)', 'np.mean(gap)'),
    ('m * (m + 1) / 2', 'm * (m - 1) / 2'),
  ),
}
