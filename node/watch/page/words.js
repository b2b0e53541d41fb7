// Numbers, times and states as people read them. What is not known is an en dash.

const UNKNOWN = '–';
const NARROW = '\u202f';

const STATES = {
  n: 'not there yet', w: 'waiting', l: 'learning', m: 'merging', d: 'draining', e: 'ended', s: 'suspect', g: 'gone',
};
const LINKS = { a: 'alive', l: 'alive', s: 'suspect', g: 'gone', '?': 'not known' };

function known(value) {
  return typeof value === 'number' && Number.isFinite(value);
}

function percent(share) {
  return known(share) ? `${(100 * share).toFixed(1)}${NARROW}%` : UNKNOWN;
}

function grouped(whole) {
  return whole.replace(/\B(?=(\d{3})+$)/g, NARROW);
}

function count(value) {
  return known(value) ? grouped(String(Math.round(value))) : UNKNOWN;
}

// Three significant digits, all of them of large numbers.
function figure(value) {
  if (!known(value)) return UNKNOWN;
  const size = Math.abs(value);
  if (size >= 999.5) return grouped(value.toFixed(0));
  if (size !== 0 && size < 0.001) return value.toExponential(1).replace('-', '−');
  return String(Number(value.toPrecision(3)));
}

function bytes(value) {
  if (!known(value)) return UNKNOWN;
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let scaled = value, k = 0;
  while (scaled >= 999.5 && k < units.length - 1) { scaled /= 1000; k += 1; }
  return `${k ? scaled.toPrecision(3) : Math.round(scaled)}${NARROW}${units[k]}`;
}

function duration(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds < 60) return `${seconds.toFixed(1)}${NARROW}s`;
  const whole = Math.floor(seconds), h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60, s = whole % 60;
  const two = (n) => String(n).padStart(2, '0');
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

function several(n, one, many) {
  return `${count(n)} ${n === 1 ? one : many}`;
}
