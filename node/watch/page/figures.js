// The head of the page: what is run, how it stands, and the few figures that matter most.

const SAYS = {
  waiting: 'connecting', live: 'live', lost: 'connection lost, trying again', past: 'looking back',
  over: 'over', left: 'over, the watcher has gone', recorded: 'over',
};

function standing(view) {
  if (!view.story.live && view.frames.length) return view.follows ? 'recorded' : 'past';
  if (view.connection === 'waiting') return 'waiting';
  if (view.story.over) return view.connection === 'lost' ? 'left' : 'over';
  if (view.connection === 'lost') return 'lost';
  return view.follows ? 'live' : 'past';
}

class Head {
  draw(view) {
    const state = standing(view), pill = byId('state');
    mark(pill, 'data-state', state);
    say(pill, SAYS[state]);
    say(byId('clock'), view.frame ? duration(view.frame.t) : '');
    if (view.story.title) {
      say(byId('title'), view.story.title);
      document.title = state === 'live' ? `${view.story.title} · live` : view.story.title;
    }
    this.notice(view, state);
  }

  notice(view, state) {
    const texts = {
      lost: 'The watcher does not answer. What you see is from before; the page goes on by itself once it is back.',
      left: 'The run is over and the watcher has gone. The page stays as it was, and looks for another run when you come back to it.',
    };
    const early = view.connection !== 'waiting' && !view.frames.length;
    const text = texts[state] ?? (early ? 'No peer has answered yet.' : '');
    byId('notice').hidden = !text;
    say(byId('notice'), text);
  }
}

// Bytes a second over the latest ten seconds before the moment shown.
function sentRate(view) {
  const frame = view.frame;
  let before = null;
  for (let i = view.index; i > 0 && (!before || frame.t - before.t < 10); i -= 1) before = view.frames[i - 1];
  if (!before || !known(before.curves.sent) || !known(frame.curves.sent) || frame.t <= before.t) return null;
  return Math.max(0, frame.curves.sent - before.curves.sent) / (frame.t - before.t);
}

function peersFigure(view) {
  const states = view.story.nodes.map((_, k) => view.stateOf(k));
  const n = (letter) => states.filter((state) => state === letter).length;
  const there = states.length - n('g') - n('n');
  const notes = [[n('g'), 'gone'], [n('s'), 'suspect'], [n('n'), 'not there yet'], [n('w'), 'waiting'],
    [n('m') + n('d'), 'merging'], [n('e'), 'ended']];
  const note = notes.filter(([count]) => count).map(([count, word]) => `${count} ${word}`).join(', ') || 'all learning';
  return { value: `${there} of ${states.length}`, note, tone: n('g') ? 'bad' : n('s') ? 'warn' : '' };
}

function worstPeer(view, key, worse) {
  const values = view.frame[key] ?? [];
  let worst = null;
  values.forEach((value, k) => {
    if (known(value) && view.stateOf(k) !== 'g' && (worst === null || worse(value, values[worst]))) worst = k;
  });
  return worst;
}

// The figure by which peers are judged: accuracy, or of tasks that have none the distance to the optimum or the loss.
function qualityFigures(view) {
  const { frame } = view, curves = frame.curves;
  const key = ['accuracy', 'distance', 'loss'].find((name) => curves[name] !== null && curves[name] !== undefined);
  if (!key) return [{ id: 'mean', label: 'mean accuracy', value: UNKNOWN, note: 'not measured yet' }];
  const { label, text, good } = MEASURES[key];
  const mean = Array.isArray(curves[key]) ? curves[key][1] : curves[key];
  const told = (frame[key] ?? []).filter((value, k) => known(value) && !'ng'.includes(view.stateOf(k))).length;
  const worst = worstPeer(view, key, good === 'high' ? (a, b) => a < b : (a, b) => a > b);
  return [
    { id: 'mean', label: `mean ${label}`, value: text(mean), note: `of ${several(told, 'peer', 'peers')}` },
    worst === null ? null
      : { id: 'worst', label: 'worst peer', value: text(frame[key][worst]), note: view.story.nodes[worst].name },
  ];
}

function rateFigure(view) {
  const rate = total(view.frame.achieved ?? []), asked = total(view.story.edges.map((edge) => edge.asked));
  if (rate === null) return null;
  const note = asked === null ? 'no rate is asked' : `of ${figure(asked)} asked`;
  return { id: 'rate', label: 'exchanges a second', value: figure(rate), note };
}

function roundFigure(view) {
  const rounds = (view.frame.round ?? []).filter(known);
  if (!rounds.length) return null;
  const [low, high] = [Math.min(...rounds), Math.max(...rounds)];
  const note = low === high ? 'all peers' : `slowest peer ${count(low)}`;
  return { id: 'round', label: 'round', value: count(high), note };
}

function sentFigure(view) {
  const { sent } = view.frame.curves, rate = sentRate(view);
  if (!known(sent)) return null;
  return { id: 'sent', label: 'sent', value: bytes(sent), note: rate === null ? '' : `${bytes(rate)} a second` };
}

function mergedFigure(view) {
  const merged = view.story.merged;
  if (!merged) return null;
  const models = several(merged.models, 'model', 'models');
  if (!known(merged.accuracy)) return { id: 'merged', label: 'merged', value: models, note: 'the final merge' };
  return { id: 'merged', label: 'merged accuracy', value: percent(merged.accuracy), note: `of ${models}` };
}

class Figures {
  constructor(host) {
    this.host = host;
    this.tiles = new Map();
  }

  draw(view) {
    if (!view.frame) return;
    const wanted = [
      mergedFigure(view), ...qualityFigures(view), { id: 'alive', label: 'peers there', ...peersFigure(view) },
      roundFigure(view), rateFigure(view), sentFigure(view),
    ].filter(Boolean);
    const order = wanted.map((tile) => tile.id).join();
    if (order !== this.order) {
      this.order = order;
      this.host.replaceChildren(...wanted.map(({ id }) => this.tile(id).box));
    }
    for (const { id, label, value, note, tone } of wanted) this.fill(this.tile(id), label, value, note, tone ?? '');
  }

  tile(id) {
    if (!this.tiles.has(id)) {
      const label = make('dt'), note = make('dd', { class: 'note' });
      const value = make('dd', { class: 'value', id: `figure-${id}` });
      this.tiles.set(id, { box: make('div', {}, label, value, note), label, value, note });
    }
    return this.tiles.get(id);
  }

  fill(tile, label, value, note, tone) {
    say(tile.label, label);
    say(tile.value, value);
    say(tile.note, note);
    mark(tile.note, 'data-tone', tone);
  }
}
