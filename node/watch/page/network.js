// The network: peers where the plan draws them, coloured by a figure; edges by how they keep up with their rates.

const NAMED_MAX = 40;
const SLOP_PX = 8;

// The network for those who cannot see it.
function inWords(view) {
  const { nodes, edges } = view.story;
  const gone = nodes.filter((_, k) => view.stateOf(k) === 'g').map((node) => node.name);
  const size = `${several(nodes.length, 'peer', 'peers')}, ${several(edges.length, 'edge', 'edges')}`;
  return `the network: ${size}${gone.length ? `; gone: ${gone.join(', ')}` : ''}; arrow keys pick a peer`;
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
      const moved = Math.hypot(clientX - start.clientX, clientY - start.clientY);
      if (moved > SLOP_PX) window.dispatchEvent(new Event('touchcancel'));
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
    mark(this.host, 'aria-label', inWords(view));
  }

  drawNode(view, node, k) {
    const state = view.stateOf(k), value = view.frame?.[view.colourBy]?.[k] ?? null;
    const share = known(value) ? rank(view, view.colourBy, value) : null;
    const fill = share === null ? null : shade(share);
    const tagged = this.nodes.length > NAMED_MAX ? state === 'g' || view.picked === k : state === 'g';
    const named = !tagged && this.nodes.length <= NAMED_MAX;
    const flags = { blank: !fill, picked: view.picked === k, tagged, named };
    const classes = [state, ...Object.keys(flags).filter((flag) => flags[flag])].join(' ');
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
    const told = rows.map(([what, value]) => make('span', {}, make('i', {}, what), value));
    this.tip.replaceChildren(make('strong', {}, head), ...told);
    const at = target.isNode() ? target.renderedPosition() : target.renderedMidpoint();
    const left = Math.min(Math.max(at.x + 14, 4), this.host.clientWidth - this.tip.offsetWidth - 4);
    const below = at.y + 18 + this.tip.offsetHeight < this.host.clientHeight;
    const top = below ? at.y + 18 : Math.max(4, at.y - 18 - this.tip.offsetHeight);
    this.tip.style.transform = `translate(${left}px, ${top}px)`;
  }
}
