// The network: peers where the plan draws them, coloured by a figure; edges by how they keep up with their rates.

const CROSS = `data:image/svg+xml;utf8,${encodeURIComponent(
  '<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32" viewBox="0 0 32 32"><path d="M8 8l16 16M24 8 8 24" '
  + 'stroke="COLOUR" stroke-width="3.4" stroke-linecap="round"/></svg>')}`;
const NAMED_MAX = 40;
const STALE_S = 10;
const SLOP_PX = 8;
const EDGE_STATES = ['well', 'slow', 'cut', 'suspect', 'idle', 'plain'];

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

function sizesFor(nodes, edges) {
  const size = Math.max(11, Math.min(36, 150 / Math.sqrt(nodes)));
  return { size, thin: edges > 200 ? 0.8 : 1.4, thick: edges > 200 ? 2 : 4.5, many: edges > 200 };
}

function graphStyle(c, { size, many }) {
  const cross = CROSS.replace('COLOUR', encodeURIComponent(c.bad));
  const label = { 'text-valign': 'center', 'text-halign': 'center', 'text-margin-y': 0 };
  return [
    { selector: 'core', style: { 'active-bg-opacity': 0 } },
    { selector: 'node', style: {
      width: size, height: size, 'background-color': 'data(fill)', 'border-width': many ? 1 : 1.5,
      'border-color': c.card, 'overlay-opacity': 0, 'z-index': 10,
    } },
    { selector: 'node.named', style: {
      label: 'data(name)', ...label, color: 'data(text)', 'font-size': 12, 'font-family': 'system-ui, sans-serif',
      'font-weight': 600,
    } },
    { selector: 'node.blank', style: { 'background-color': c.page, 'border-color': c.soft, 'border-width': 1.5, color: c.soft } },
    { selector: 'node.tagged', style: {
      label: 'data(name)', 'text-valign': 'top', 'text-margin-y': -4, color: c.ink, 'font-size': 12, 'z-index': 20,
      'font-family': 'system-ui, sans-serif', 'font-weight': 600, 'text-background-color': c.card,
      'text-background-opacity': 0.85, 'text-background-padding': 2, 'text-background-shape': 'roundrectangle',
    } },
    { selector: 'node.n', style: {
      'background-color': c.page, 'border-color': c.soft, 'border-style': 'dashed', 'border-width': 1.5 } },
    { selector: 'node.m, node.d', style: { 'border-color': c.accent, 'border-width': 3 } },
    { selector: 'node.e', style: { shape: 'round-rectangle' } },
    { selector: 'node.s', style: { 'outline-color': c.slow, 'outline-width': many ? 2 : 3, 'outline-offset': 2 } },
    { selector: 'node.g', style: {
      'background-color': c.card, 'background-image': cross, 'background-fit': 'contain', 'border-color': c.bad,
      'border-width': many ? 1.5 : 2, 'border-style': 'dashed', 'z-index': 15 } },
    { selector: 'node.picked', style: {
      'underlay-color': c.picked, 'underlay-opacity': 0.5, 'underlay-padding': many ? 5 : 7, 'underlay-shape': 'ellipse' } },
    ...edgeStyle(c, many),
  ];
}

function edgeStyle(c, many) {
  const opacity = many ? 0.55 : 0.9;
  return [
    { selector: 'edge', style: {
      width: 'data(width)', 'line-color': c.edge, opacity, 'overlay-opacity': 0, 'z-index': 1,
      'curve-style': 'straight' } },
    { selector: 'edge.curved', style: {
      'curve-style': 'unbundled-bezier', 'control-point-distances': 'data(bow)', 'control-point-weights': 0.5,
      'edge-distances': 'node-position' } },
    { selector: 'edge.plain, edge.idle', style: { 'line-color': c.faint } },
    { selector: 'edge.slow', style: { 'line-color': c.slow, opacity: 1, 'z-index': 3 } },
    { selector: 'edge.suspect', style: {
      'line-color': c.slow, 'line-style': 'dashed', 'line-dash-pattern': [2, 4], opacity: 1, 'z-index': 3 } },
    { selector: 'edge.cut', style: {
      'line-color': c.bad, 'line-style': 'dashed', 'line-dash-pattern': [6, 5], opacity: many ? 0.6 : 0.75, 'z-index': 2 } },
    { selector: 'edge.near', style: { 'line-color': c.picked, opacity: 1, 'z-index': 4 } },
    { selector: 'edge.far', style: { opacity: many ? 0.12 : 0.3 } },
  ];
}

// Labels on light shades are dark, on dark ones light; viridis gets lighter all along.
function inkOn(share) {
  return share > 0.45 ? '#10141a' : '#ffffff';
}

// On a circle, straight lines to the next node but one would hide behind the node between: they bow inwards.
function bows(places, edges) {
  const n = places.length, centre = [0, 1].map((d) => places.reduce((sum, p) => sum + p[d], 0) / n);
  const radii = places.map((p) => Math.hypot(p[0] - centre[0], p[1] - centre[1]));
  const radius = Math.max(...radii);
  if (n < 13 || radius - Math.min(...radii) > 0.02 * radius) return null;
  const chords = edges.map(({ a, b }) => Math.hypot(places[a][0] - places[b][0], places[a][1] - places[b][1]));
  const shortest = Math.min(...chords);
  return edges.map(({ a, b }, k) => {
    if (chords[k] < 1.5 * shortest) return 0;
    const [x, y] = [0, 1].map((d) => (places[a][d] + places[b][d]) / 2 - centre[d]);
    const cosine = Math.hypot(x, y) / radius, sine = chords[k] / 2 / radius;
    if (cosine < 1e-6) return 0;
    const depth = radius * (cosine - cosine / (1 + sine));
    const [dx, dy] = [places[b][0] - places[a][0], places[b][1] - places[a][1]];
    return dx * -y - dy * -x > 0 ? depth : -depth; // to the side of the line on which the centre is
  });
}

// Scales places in 0..1 into a frame of so many pixels; both directions alike, so that a circle stays one.
function fitted(nodes, width, height, margin) {
  const bounds = ['x', 'y'].map((d) => [Math.min(...nodes.map((p) => p[d])), Math.max(...nodes.map((p) => p[d]))]);
  const [w, h] = bounds.map(([low, high]) => high - low);
  const scale = Math.min((width - 2 * margin) / (w || 1), (height - 2 * margin) / (h || 1));
  return nodes.map((p) => [
    width / 2 + (p.x - bounds[0][0] - w / 2) * scale, height / 2 + (p.y - bounds[1][0] - h / 2) * scale,
  ]);
}

class Network {
  constructor(host, pick) {
    this.host = host;
    this.tip = byId('tip');
    this.hovered = null;
    this.legend = new Legend();
    this.cy = cytoscape({
      container: host, elements: [], layout: { name: 'preset' }, autoungrabify: true, boxSelectionEnabled: false,
      userZoomingEnabled: false, userPanningEnabled: false, selectionType: 'single', style: [],
    });
    this.listen(pick);
    new ResizeObserver(() => this.place()).observe(host);
  }

  listen(pick) {
    this.cy.on('tap', (event) => this.tapped(event.target, pick));
    this.cy.on('mouseover', 'node, edge', (event) => this.hover(event.target));
    this.cy.on('mouseout', 'node, edge', () => this.hover(null));
    this.host.addEventListener('mouseleave', () => this.hover(null));
    this.host.addEventListener('keydown', (event) => this.pressed(event, pick));
    this.scrollWithFingers();
  }

  // A finger that moves scrolls the page: cytoscape, which would hold it up where it began on an element, lets go.
  scrollWithFingers() {
    let start = null;
    this.host.addEventListener('touchstart', (event) => { start = event.touches[0]; }, { passive: true });
    this.host.addEventListener('touchmove', (event) => {
      const { clientX, clientY } = event.touches[0];
      if (Math.hypot(clientX - start.clientX, clientY - start.clientY) > SLOP_PX) window.dispatchEvent(new Event('touchcancel'));
      event.stopPropagation();
    }, { passive: true });
  }

  tapped(target, pick) {
    if (target === this.cy) {
      this.hover(null);
      if (this.view.picked !== null) pick(this.view.picked);
      return;
    }
    if (target.isNode()) pick(target.data('index'));
    this.hover(target);
  }

  pressed(event, pick) {
    const n = this.view.story.nodes.length, at = this.view.picked;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step && n) pick(at === null ? (step > 0 ? 0 : n - 1) : (at + step + n) % n);
    else if (event.key === 'Escape' && at !== null) pick(at);
    else return;
    event.preventDefault();
  }

  restyle() {
    if (!this.sizes) return;
    this.cy.style(graphStyle(themeColours(), this.sizes));
  }

  build(view) {
    this.story = view.story;
    const { nodes, edges } = view.story;
    this.sizes = sizesFor(nodes.length, edges.length);
    this.most = Math.max(...edges.map((edge) => edge.asked ?? 0), 0);
    this.drawn = { nodes: [], edges: [], widths: [] };
    this.cy.elements().remove();
    this.restyle();
    this.cy.add([
      ...nodes.map((node, index) => ({
        group: 'nodes', data: { id: `p${index}`, index, name: node.name, fill: '#888', text: '#fff' } })),
      ...edges.map((edge, index) => ({
        group: 'edges', data: {
          id: `e${index}`, index, source: `p${edge.a}`, target: `p${edge.b}`, width: this.sizes.thin, bow: 0 } })),
    ]);
    this.nodes = nodes.map((_, k) => this.cy.getElementById(`p${k}`));
    this.edges = edges.map((_, k) => this.cy.getElementById(`e${k}`));
    this.place();
  }

  place() {
    if (!this.nodes?.length || !this.host.clientWidth) return;
    this.cy.resize();
    const { nodes, edges } = this.story;
    const places = fitted(nodes, this.host.clientWidth, this.host.clientHeight, this.sizes.size / 2 + 16);
    const curves = bows(places, edges);
    this.cy.batch(() => {
      this.nodes.forEach((node, k) => node.position({ x: places[k][0], y: places[k][1] }));
      if (curves) this.edges.forEach((edge, k) => edge.data('bow', curves[k]).toggleClass('curved', curves[k] !== 0));
    });
    this.cy.viewport({ zoom: 1, pan: { x: 0, y: 0 } });
  }

  draw(view) {
    this.view = view;
    if (view.story !== this.story) this.build(view);
    const states = view.story.edges.map((_, k) => view.edgeState(k));
    this.legend.draw(view, states);
    this.cy.batch(() => {
      this.nodes.forEach((node, k) => this.drawNode(view, node, k));
      this.edges.forEach((edge, k) => this.drawEdge(view, edge, k, states[k]));
    });
    this.tell();
    const { nodes, edges } = view.story;
    const gone = nodes.filter((_, k) => view.stateOf(k) === 'g').map((node) => node.name);
    mark(this.host, 'aria-label', `the network: ${several(nodes.length, 'peer', 'peers')}, `
      + `${several(edges.length, 'edge', 'edges')}${gone.length ? `; gone: ${gone.join(', ')}` : ''}; arrow keys pick a peer`);
  }

  drawNode(view, node, k) {
    const state = view.stateOf(k), value = view.frame?.[view.colourBy]?.[k] ?? null;
    const share = known(value) ? rank(view, view.colourBy, value) : null;
    const fill = share === null ? null : shade(share);
    const tagged = this.nodes.length > NAMED_MAX ? state === 'g' || view.picked === k : state === 'g';
    const named = !tagged && this.nodes.length <= NAMED_MAX;
    const classes = [state, fill ? '' : 'blank', view.picked === k ? 'picked' : '', tagged ? 'tagged' : '', named ? 'named' : '']
      .filter(Boolean).join(' ');
    const look = `${classes}|${fill}`;
    if (this.drawn.nodes[k] === look) return;
    this.drawn.nodes[k] = look;
    node.data({ fill: fill ?? '#888', text: inkOn(share) }).classes(classes);
  }

  drawEdge(view, edge, k, state) {
    const { a, b, asked } = view.story.edges[k];
    const rate = view.frame?.achieved?.[k] ?? null;
    const counted = known(asked) && known(rate) && state !== 'cut';
    const share = counted ? Math.sqrt(Math.min(1, rate / (this.most || 1))) : 0;
    const width = this.widthFor(k, this.sizes.thin + (this.sizes.thick - this.sizes.thin) * share);
    const picked = view.picked !== null;
    const near = picked && (a === view.picked || b === view.picked);
    const flags = near ? (['slow', 'cut', 'suspect'].includes(state) ? '' : ' near') : picked ? ' far' : '';
    const look = `${state}${flags}|${width}`;
    if (this.drawn.edges[k] === look) return;
    this.drawn.edges[k] = look;
    edge.data('width', width);
    const kept = edge.hasClass('curved') ? ' curved' : '';
    edge.classes(`${state}${flags}${kept}`);
  }

  // Rates flicker; an edge is drawn anew when its width has changed by what can be seen.
  widthFor(k, wanted) {
    const last = this.drawn.widths[k], step = (this.sizes.thick - this.sizes.thin) / 6;
    if (last === undefined || Math.abs(wanted - last) > step) this.drawn.widths[k] = Math.round(wanted / step) * step;
    return this.drawn.widths[k];
  }

  hover(target) {
    this.hovered = target && !target.removed() && target.data('index') !== undefined ? target : null;
    this.tell();
  }

  // The figures of what the pointer is over; they go on while it stays there.
  tell() {
    const target = this.hovered?.inside() ? this.hovered : null;
    this.tip.hidden = !target;
    if (!target) return;
    const k = target.data('index');
    const [head, ...rows] = target.isNode() ? peerLines(this.view, k) : edgeLines(this.view, k);
    this.tip.replaceChildren(make('strong', {}, head), ...rows.map(([what, value]) => make('span', {}, make('i', {}, what), value)));
    const at = target.isNode() ? target.renderedPosition() : target.renderedMidpoint();
    const left = Math.min(Math.max(at.x + 14, 4), this.host.clientWidth - this.tip.offsetWidth - 4);
    const below = at.y + 18 + this.tip.offsetHeight < this.host.clientHeight;
    this.tip.style.transform = `translate(${left}px, ${below ? at.y + 18 : Math.max(4, at.y - 18 - this.tip.offsetHeight)}px)`;
  }
}

function peerLines(view, k) {
  const frame = view.frame ?? {}, value = (key) => frame[key]?.[k];
  const told = (key, text) => (known(value(key)) ? text(value(key)) : null);
  return [view.story.nodes[k].name, ...[
    ['state', STATES[view.stateOf(k)]], ['accuracy', told('accuracy', percent)], ['loss', told('loss', figure)],
    ['distance to the optimum', told('distance', figure)], ['local steps', told('steps', count)], ['round', told('round', count)],
    ['exchanges a second', figure(view.exchangesOf(k))], ['sent', told('sent', bytes)],
    ['last heard of', view.story.live && known(value('stale')) ? `${duration(value('stale'))} ago` : null],
  ].filter(([, text]) => text !== null && text !== UNKNOWN)];
}

function edgeLines(view, k) {
  const { a, b, asked } = view.story.edges[k], frame = view.frame ?? {}, rate = frame.achieved?.[k];
  const share = known(asked) && asked > 0 && known(rate) ? ` (${Math.round(100 * rate / asked)}${NARROW}%)` : '';
  return [`${view.story.nodes[a].name} – ${view.story.nodes[b].name}`, ...[
    ['exchanges a second', known(rate) ? figure(rate) : null], ['asked', known(asked) ? figure(asked) + share : null],
    ['models apart', known(frame.apart?.[k]) ? figure(frame.apart[k]) : null],
    ['link', LINKS[frame.link?.[k]] ?? null], ['keeps its rate', { slow: 'no, below 80 %', well: 'yes' }[view.edgeState(k)] ?? null],
  ].filter(([, text]) => text !== null)];
}
