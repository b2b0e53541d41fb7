// Colours: the theme's, read from the style sheet, and viridis, whose steps look even, also to the colour-blind.

const VIRIDIS = [
  [68, 1, 84], [72, 26, 108], [71, 47, 125], [65, 68, 135], [57, 86, 140], [49, 104, 142], [42, 120, 142],
  [35, 136, 142], [31, 152, 139], [34, 168, 132], [53, 183, 121], [84, 197, 104], [122, 209, 81], [165, 219, 54],
  [210, 226, 27], [253, 231, 37],
];
const SHADES = 32;

function viridis(share) {
  const at = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
  const k = Math.min(VIRIDIS.length - 2, Math.floor(at));
  const [from, to] = [VIRIDIS[k], VIRIDIS[k + 1]];
  return `rgb(${from.map((c, i) => Math.round(c + (at - k) * (to[i] - c))).join(',')})`;
}

const SHADE = Array.from({ length: SHADES }, (_, k) => viridis(k / (SHADES - 1)));

// One of a few shades, so that a peer is drawn anew only when a difference could be seen.
function shade(share) {
  return SHADE[Math.round(Math.min(1, Math.max(0, share)) * (SHADES - 1))];
}

function ramp() {
  const stops = Array.from({ length: 9 }, (_, k) => viridis(k / 8));
  return `linear-gradient(90deg, ${stops.join(', ')})`;
}

// Canvases know nothing of style sheets: what a variable of the theme comes to at the moment.
function themeColours() {
  const probe = document.body.appendChild(make('i'));
  const names = ['ink', 'soft', 'line', 'card', 'page', 'accent', 'band', 'picked', 'slow', 'bad', 'edge', 'faint'];
  const found = {};
  for (const name of names) {
    probe.style.color = `var(--${name})`;
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return found;
}

// The switch overrules the system's setting until the page is left.
function isDark() {
  const chosen = document.documentElement.style.colorScheme;
  return chosen ? chosen === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
}

function makeTheme(button, changed) {
  const show = () => {
    const dark = isDark();
    mark(button, 'aria-pressed', String(dark));
    for (const source of document.querySelectorAll('picture source[media*="prefers-color-scheme"], source[data-dark]')) {
      source.dataset.dark = 'yes';
      source.media = dark ? 'all' : 'not all';
    }
    changed();
  };
  button.addEventListener('click', () => {
    document.documentElement.style.colorScheme = isDark() ? 'light' : 'dark';
    show();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', show);
  show();
}
