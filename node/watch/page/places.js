// Where the network's elements are.

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
