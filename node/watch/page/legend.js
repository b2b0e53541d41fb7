// What the network's colours and shapes mean, and the choice of what they are to show.

const SHAPES = [
  ['gone', 'g'], ['suspect', 's'], ['merging', 'm'], ['ended', 'e'], ['not there yet', 'n'],
];
const LINES = [
  ['keeps its rate', 'well'], ['below 80 %', 'slow'], ['suspect', 'suspect'], ['cut or gone', 'cut'],
  ['no rate asked', 'plain'],
];

class Legend {
  constructor() {
    this.choice = byId('colour-by');
    this.host = byId('legend');
    this.ticks = [make('span'), make('span'), make('span')];
    this.bar = make('span', { class: 'ramp', 'aria-hidden': 'true' });
    this.bar.style.background = ramp();
    this.shapes = make('span', { class: 'signs' });
    this.lines = make('span', { class: 'signs' });
    this.host.append(make('span', { class: 'scale' }, this.bar, ...this.ticks), this.shapes, this.lines);
  }

  draw(view, states) {
    const keys = Object.keys(MEASURES).filter((key) => (key === 'stale' ? view.story.live : key in view.extents));
    view.colourBy = keys.includes(view.colourWish) ? view.colourWish : keys[0] ?? null;
    this.offer(keys, view);
    this.host.firstChild.hidden = !view.colourBy;
    if (view.colourBy) this.scale(view);
    this.signs(this.shapes, SHAPES.filter(([, letter]) => view.frame?.state.includes(letter)), 'shape');
    this.signs(this.lines, LINES.filter(([, state]) => states.includes(state)), 'line');
  }

  scale(view) {
    const { text, scale, back } = MEASURES[view.colourBy], [worst, best] = ends(view, view.colourBy);
    const middle = back((scale(worst) + scale(best)) / 2);
    this.ticks.forEach((tick, k) => say(tick, text([worst, middle, best][k])));
  }

  signs(host, wanted, kind) {
    const key = wanted.map(([, sign]) => sign).join();
    if (host.dataset.key === key) return;
    host.dataset.key = key;
    host.replaceChildren(...wanted.map(([text, sign]) => signed(`${kind} ${sign}`, text)));
  }

  offer(keys, view) {
    const key = keys.join();
    if (this.choice.dataset.key !== key) {
      this.choice.dataset.key = key;
      this.choice.hidden = keys.length < 2;
      this.choice.replaceChildren(...keys.map((name) => this.option(name)));
    }
    for (const input of this.choice.querySelectorAll('input')) input.checked = input.value === view.colourBy;
  }

  option(name) {
    const input = make('input', { type: 'radio', name: 'colour-by', value: name });
    return make('label', {}, input, make('span', {}, MEASURES[name].label));
  }
}
