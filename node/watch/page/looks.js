// How the network's elements look, in the theme's colours.

const CROSS = `data:image/svg+xml;utf8,${encodeURIComponent(
  '<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32" viewBox="0 0 32 32"><path d="M8 8l16 16M24 8 8 24" '
  + 'stroke="COLOUR" stroke-width="3.4" stroke-linecap="round"/></svg>')}`;

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
    { selector: 'node.blank', style: {
      'background-color': c.page, 'border-color': c.soft, 'border-width': 1.5, color: c.soft } },
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
      'underlay-color': c.picked, 'underlay-opacity': 0.5, 'underlay-padding': many ? 5 : 7,
      'underlay-shape': 'ellipse' } },
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
      'line-color': c.bad, 'line-style': 'dashed', 'line-dash-pattern': [6, 5],
      opacity: many ? 0.6 : 0.75, 'z-index': 2 } },
    { selector: 'edge.near', style: { 'line-color': c.picked, opacity: 1, 'z-index': 4 } },
    { selector: 'edge.far', style: { opacity: many ? 0.12 : 0.3 } },
  ];
}

// Labels on light shades are dark, on dark ones light; viridis gets lighter all along.
function inkOn(share) {
  return share > 0.45 ? '#10141a' : '#ffffff';
}
