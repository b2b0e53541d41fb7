// Curves over the run: the band from the worst to the best peer, their mean, and the peer that is picked.

const CHARTS = [
  { key: 'accuracy', title: 'accuracy', text: percent, band: true },
  { key: 'loss', title: 'loss', text: figure, band: true },
  { key: 'distance', title: 'distance to the optimum', text: figure, log: true },
  { key: 'apart', title: 'consensus distance', text: figure, log: true },
  { key: 'sent', title: 'sent', text: bytes },
];
// A line of one point would not be seen.
const FEW = 4;
const AXIS_PX = 62;
const FONT = '11px system-ui, sans-serif';

// uPlot's columns of one chart: time, mean, and for a band its ends; last the picked peer.
function columnsOf(view, { key, band, log }) {
  const drawable = (value) => (known(value) && (!log || value > 0) ? value : null);
  const curve = (at) => view.frames.map((frame) => drawable(at(frame.curves[key])));
  const lines = band ? [curve((c) => c?.[1]), curve((c) => c?.[2]), curve((c) => c?.[0])] : [curve((c) => c)];
  const own = view.frames.map((frame) => drawable(pickedValue(view, frame, key)));
  return [view.frames.map((frame) => frame.t), ...lines, own];
}

function pickedValue(view, frame, key) {
  if (view.picked === null) return null;
  if (key !== 'apart') return frame[key]?.[view.picked];
  const squares = view.edgesOf[view.picked].map((k) => frame.apart?.[k]).filter(known).map((value) => value * value);
  return squares.length ? Math.sqrt(total(squares) / squares.length) : null;
}

function axisTime(seconds) {
  if (seconds < 60) return `${seconds}${NARROW}s`;
  return duration(seconds);
}

class Chart {
  constructor(host, spec, seek) {
    this.spec = spec;
    this.seek = seek;
    this.told = Object.fromEntries(['time', 'mean', 'range', 'own'].map((part) => [part, make('span', { class: part })]));
    const readout = make('p', { class: 'readout' }, ...Object.values(this.told));
    this.frame = make('div', { class: 'plot' });
    this.host = host.appendChild(make('figure', { class: 'chart', 'aria-label': spec.title },
      make('figcaption', {}, make('span', {}, spec.title), readout), this.frame));
    new ResizeObserver(() => this.resize()).observe(this.frame);
  }

  restyle() {
    this.plot?.destroy();
    this.plot = null;
  }

  // A chart that has nothing to show is left out.
  draw(view) {
    this.view = view;
    const stale = this.version !== view.version || this.picked !== view.picked || !this.plot;
    if (stale) {
      this.columns = columnsOf(view, this.spec);
      this.host.hidden = !this.columns[1].some((value) => known(value) && (value > 0 || this.spec.key !== 'sent'));
    }
    if (this.host.hidden) return;
    if (!this.plot) this.plot = new uPlot(this.options(), this.columns, this.frame);
    else if (stale) this.plot.setData(this.columns);
    else this.plot.redraw(false, false);
    [this.version, this.picked] = [view.version, view.picked];
    this.tell();
  }

  options() {
    const c = themeColours(), { band, log, text } = this.spec;
    const axis = { stroke: c.soft, font: FONT, grid: { stroke: c.line, width: 1 }, ticks: { show: false } };
    const few = { show: (plot, k) => plot.data[k].filter(known).length < FEW, size: 5 };
    const line = (stroke, width, points) => ({ stroke, width, points, spanGaps: false });
    const edge = line(c.band, 0, { show: false });
    return {
      ...this.size(), legend: { show: false }, padding: [8, 16, 0, 0], select: { show: false },
      cursor: { sync: { key: 'run', scales: ['x', null] }, y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: { x: { time: false }, y: { distr: log ? 3 : 1, range: log ? logRange : linearRange } },
      axes: [
        { ...axis, size: 26, values: (_, ticks) => ticks.map(axisTime), space: 70 },
        { ...axis, size: AXIS_PX, space: 20, values: (_, ticks) => ticks.map((v) => whole(text(v))), ...(log && LOG_AXIS) },
      ],
      series: [{}, line(c.accent, 1.8, few), ...(band ? [edge, edge] : []), line(c.picked, 2, few)],
      bands: band ? [{ series: [2, 3], fill: c.band }] : [],
      hooks: {
        draw: [(plot) => this.drawMoment(plot, c)], setCursor: [() => this.tell()],
        ready: [(plot) => this.listen(plot)],
      },
    };
  }

  listen(plot) {
    plot.over.addEventListener('click', () => { if (plot.cursor.idx !== null) this.seek(plot.cursor.idx); });
  }

  // The moment that the rest of the page shows.
  drawMoment(plot, c) {
    if (this.view.follows || !this.view.frame) return;
    const x = Math.round(plot.valToPos(this.view.frame.t, 'x', true)) + 0.5, { top, height } = plot.bbox;
    plot.ctx.save();
    plot.ctx.strokeStyle = c.soft;
    plot.ctx.lineWidth = devicePixelRatio;
    plot.ctx.beginPath();
    plot.ctx.moveTo(x, top);
    plot.ctx.lineTo(x, top + height);
    plot.ctx.stroke();
    plot.ctx.restore();
  }

  // The figures under the cursor, or else of the moment that is shown.
  tell() {
    if (!this.view?.frames.length) return;
    const k = this.plot?.cursor.idx ?? this.view.index, { band, text } = this.spec;
    const [time, mean, best, worst] = this.columns.map((column) => column[k]);
    const picked = this.columns[this.columns.length - 1][k];
    say(this.told.time, this.plot?.cursor.idx == null ? '' : duration(time));
    say(this.told.mean, text(mean));
    say(this.told.range, band && known(worst) ? `${text(worst)} … ${text(best)}` : '');
    say(this.told.own, this.view.picked === null ? '' : `${this.view.pickedName()} ${text(picked)}`);
  }

  size() {
    return { width: Math.max(120, this.frame.clientWidth), height: Math.max(80, this.frame.clientHeight) };
  }

  resize() {
    if (this.plot && this.frame.clientWidth) this.plot.setSize(this.size());
  }
}

// 20.0 MB as 20 MB.
function whole(text) {
  return text.replace(/\.0+(?!\d)/, '');
}

// Powers of ten, and where there are few of them what lies between.
function logTicks(low, high) {
  const decades = Math.log10(high / low), ticks = [];
  const between = decades < 0.7 ? [1, 1.5, 2, 3, 4, 5, 6, 8] : decades < 2.5 ? [1, 2, 5] : [1];
  const step = Math.max(1, Math.ceil(decades / 5));
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += step) {
    for (const digit of between) ticks.push(Number(`${digit}e${power}`));
  }
  return ticks.filter((tick) => tick >= low && tick <= high);
}

const LOG_AXIS = { splits: (_plot, _axis, low, high) => logTicks(low, high), filter: (_plot, ticks) => ticks };

function linearRange(_, low, high) {
  if (!known(low)) return [0, 1];
  const room = 0.06 * (high - low || Math.abs(high) || 1);
  return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
}

function logRange(_, low, high) {
  if (!known(low)) return [0.1, 1];
  const room = Math.max(1.1, (high / low) ** 0.06);
  return [low / room, high * room];
}

class Charts {
  constructor(host, seek) {
    this.charts = CHARTS.map((spec) => new Chart(host, spec, seek));
    this.keys = byId('keys');
  }

  restyle() { this.charts.forEach((chart) => chart.restyle()); }

  draw(view) {
    this.charts.forEach((chart) => chart.draw(view));
    const name = view.pickedName();
    if (this.told === name) return;
    this.told = name;
    const keys = [['mean', 'mean'], ['worst to best', 'band'], ...(name ? [[name, 'one']] : [])];
    this.keys.replaceChildren(...keys.map(([text, sign]) => signed(`key ${sign}`, text)));
  }
}
