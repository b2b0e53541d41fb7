// The figures by which peers are coloured, and how good a value of each is.

const STALE_S = 10;

const MEASURES = {
  accuracy: { label: 'accuracy', text: percent, scale: logError, back: (error) => 1 - Math.exp(error), good: 'high' },
  loss: { label: 'loss', text: figure, scale: Math.log, back: Math.exp, good: 'low' },
  distance: { label: 'distance to the optimum', text: figure, scale: Math.log, back: Math.exp, good: 'low' },
  stale: { label: 'staleness', text: duration, scale: Number, back: Number, good: 'low' },
};
const ERROR_MIN = 0.002;

// 96 % and 98 % are as different as 60 % and 80 %: one errs half as often as the other.
function logError(accuracy) {
  return Math.log(Math.max(ERROR_MIN, 1 - accuracy));
}

// The worst and the best of the whole run, so that a shade means the same at any time.
function ends(view, key) {
  if (key === 'stale') return [STALE_S, 0];
  const { low, high, above } = view.extents[key];
  if (MEASURES[key].good === 'high') return [low, high];
  return [high, low > 0 ? low : Math.min(above, high)];
}

// Where a value lies between the worst (0) and the best (1).
function rank(view, key, value) {
  const { scale } = MEASURES[key], [worst, best] = ends(view, key).map(scale);
  const at = scale(key === 'stale' ? value : Math.max(value, Math.min(...ends(view, key))));
  return worst === best ? 1 : (at - worst) / (best - worst);
}
