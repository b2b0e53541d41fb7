// Puts the parts together: whatever changes, all of them draw the view anew.

function start() {
  const view = new View();
  const parts = [];
  const redraw = onceAFrame(() => parts.forEach((part) => part.draw(view)));
  const pick = (node) => { view.pick(node); redraw(); };
  const player = new Player(view, redraw);
  const network = new Network(byId('graph'), pick);
  const charts = new Charts(byId('charts'), (index) => { player.pause(); player.go(index); });
  parts.push(
    new Head(), new Figures(byId('figures')), network, charts, new Events(byId('events'), (t) => player.seekTime(t)),
    new Promises(), new Peers(byId('peers'), pick), player, { draw: tellPicked },
  );
  makeTheme(byId('theme'), () => { network.restyle(); charts.restyle(); redraw(); });
  byId('colour-by').addEventListener('change', (event) => { view.colourWish = event.target.value; redraw(); });
  const story = JSON.parse(byId('story').textContent);
  if (story) view.take(story);
  else listen(view, redraw);
  redraw();
}

// What is picked is said once, also to those who cannot see the network; its figures are in the table and the curves.
function tellPicked(view) {
  const name = view.pickedName();
  say(byId('picked'), name === null ? '' : `${name}: ${STATES[view.stateOf(view.picked)]}, `
    + several(view.edgesOf[view.picked].length, 'neighbour', 'neighbours'));
}
