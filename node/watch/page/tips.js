// The figures of one peer or one edge, as rows of what and how much; the first row is its name.

function peerLines(view, k) {
  const frame = view.frame ?? {}, value = (key) => frame[key]?.[k];
  const told = (key, text) => (known(value(key)) ? text(value(key)) : null);
  return [view.story.nodes[k].name, ...[
    ['state', STATES[view.stateOf(k)]], ['accuracy', told('accuracy', percent)], ['loss', told('loss', figure)],
    ['distance to the optimum', told('distance', figure)], ['local steps', told('steps', count)],
    ['round', told('round', count)],
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
    ['link', LINKS[frame.link?.[k]] ?? null],
    ['keeps its rate', { slow: 'no, below 80 %', well: 'yes' }[view.edgeState(k)] ?? null],
  ].filter(([, text]) => text !== null)];
}
