// What is looked at: a story, the moment of it that is shown, and what is picked out. Parts of the page draw it.

const FRAMES_MAX = 600;
const RECENT = 120;
const EVENTS_KEPT = 500;

class View {
  constructor() {
    this.connection = 'waiting';
    this.shown = null;
    this.picked = null;
    this.colourBy = null;
    this.colourWish = null;
    this.version = 0;
    this.take(null);
  }

  // A story replaces everything but what the reader has picked.
  take(story) {
    const name = this.pickedName();
    this.story = story ?? { nodes: [], edges: [], about: [], promises: [], frames: [], events: [], title: '' };
    this.frames = [...this.story.frames];
    this.events = [...this.story.events];
    this.edgesOf = this.story.nodes.map(() => []);
    this.story.edges.forEach((edge, k) => { this.edgesOf[edge.a].push(k); this.edgesOf[edge.b].push(k); });
    this.extents = {};
    this.frames.forEach((frame) => this.widen(frame));
    const again = this.story.nodes.findIndex((node) => node.name === name);
    this.picked = again < 0 ? null : again;
    if (this.shown) this.shown = this.nearest(this.shown.t);
    this.version += 1;
  }

  append(message) {
    if (message.frame) this.add(message.frame);
    this.events = [...this.events, ...(message.events ?? [])].slice(-EVENTS_KEPT);
    for (const key of ['promises', 'merged', 'over']) if (key in message) this.story[key] = message[key];
    this.version += 1;
  }

  add(frame) {
    if (this.last?.t === frame.t) this.frames.pop();
    this.frames.push(frame);
    this.widen(frame);
    if (this.shown && !this.frames.includes(this.shown)) this.shown = null;
    if (this.frames.length > FRAMES_MAX) this.thin();
  }

  // Every second frame of those long past goes.
  thin() {
    const old = this.frames.length - RECENT;
    this.frames = this.frames.filter((_, k) => k >= old || k % 2 === 0);
    if (this.shown) this.shown = this.nearest(this.shown.t);
  }

  widen(frame) {
    for (const key of ['accuracy', 'loss', 'distance']) {
      for (const value of frame[key] ?? []) if (known(value)) this.widenBy(key, value);
    }
  }

  widenBy(key, value) {
    const extent = this.extents[key] ??= { low: value, high: value, above: Infinity };
    extent.low = Math.min(extent.low, value);
    extent.high = Math.max(extent.high, value);
    if (value > 0) extent.above = Math.min(extent.above, value);
  }

  get last() { return this.frames[this.frames.length - 1] ?? null; }

  get frame() { return this.shown ?? this.last; }

  get follows() { return this.shown === null; }

  get index() { return this.shown ? this.frames.indexOf(this.shown) : this.frames.length - 1; }

  nearest(t) {
    let best = null;
    for (const frame of this.frames) if (!best || Math.abs(frame.t - t) < Math.abs(best.t - t)) best = frame;
    return best === this.last ? null : best;
  }

  seek(index) {
    this.shown = index >= this.frames.length - 1 ? null : this.frames[Math.max(0, index)];
  }

  pick(node) {
    this.picked = node === this.picked ? null : node;
  }

  pickedName() {
    return this.picked === null || this.picked === undefined ? null : this.story.nodes[this.picked].name;
  }

  stateOf(node, frame = this.frame) { return frame?.state[node] ?? 'n'; }

  // Exchanges a second with all neighbours; null where no edge has been counted.
  exchangesOf(node) {
    return total(this.edgesOf[node].map((k) => this.frame?.achieved?.[k]));
  }

  get hasRates() { return this.story.edges.some((edge) => known(edge.asked)); }

  // How an edge keeps up: 'cut', 'suspect', 'idle', 'plain' (no rate is asked of it), 'slow' or 'well'.
  edgeState(k) {
    const edge = this.story.edges[k], link = this.frame?.link?.[k];
    const ends = [this.stateOf(edge.a), this.stateOf(edge.b)];
    if (ends.includes('n')) return 'idle';
    if (ends.includes('g') || (link === 'g' && !ends.includes('e'))) return 'cut';
    if (ends.includes('e') && (this.story.live || ends[0] !== ends[1])) return 'idle';
    if (link === 's') return 'suspect';
    if (!known(edge.asked)) return 'plain';
    return link === 'l' ? 'slow' : 'well';
  }
}

function total(values) {
  const told = values.filter(known);
  return told.length ? told.reduce((sum, value) => sum + value, 0) : null;
}
