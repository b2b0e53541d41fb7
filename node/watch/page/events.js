// What happened, newest first; the plan's promises; and what the run is.

const ICONS = {
  circle: 'M8 3.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9z', up: 'M8 3 13.5 12.5h-11z', down: 'M8 13 2.5 3.5h11z',
  diamond: 'M8 2.5 13.5 8 8 13.5 2.5 8z', cross: 'M4 2.5 8 6.5l4-4L13.5 4l-4 4 4 4-1.5 1.5-4-4-4 4L2.5 12l4-4-4-4z',
  tick: 'M6.4 12.7 2.3 8.6l1.5-1.5 2.6 2.6 5.8-5.9 1.5 1.5z', dash: 'M4 7.3h8v1.4H4z',
  square: 'M3.5 3.5h9v9h-9z', left: 'M13 2.5v11L3.5 8z',
  star: 'M8 1.8 9.9 6l4.6.4-3.5 3 1.1 4.5L8 11.5l-4.1 2.4L5 9.4l-3.5-3L6.1 6z',
  back: 'M8 2.5a5.5 5.5 0 0 1 0 11v-2a3.5 3.5 0 0 0 0-7v2.2L3.8 3.5 8 .3z',
};
const KINDS = {
  joined: ['up', 'calm'], learning: ['circle', 'well'], suspect: ['diamond', 'warn'], gone: ['cross', 'bad'],
  back: ['back', 'well'], merging: ['diamond', 'calm'], merged: ['star', 'well'], ended: ['square', 'calm'],
  lost: ['cross', 'bad'], crashed: ['cross', 'bad'], left: ['left', 'calm'],
  slow: ['down', 'warn'], over: ['square', 'well'],
};
const VERDICTS = {
  true: ['tick', 'well', 'kept'], false: ['cross', 'bad', 'missed'], null: ['dash', 'open', 'can’t be told'],
};
const FOLD_FROM = 5;
const FOLD_S = 3;
const EVENTS_MAX = 400;

// Neighbouring events of one kind are one entry: a hundred peers that start within a moment are no news each.
function folded(events) {
  const groups = [];
  for (const event of events) {
    const group = groups[groups.length - 1];
    if (group && group[0].kind === event.kind && event.t - group[group.length - 1].t <= FOLD_S) group.push(event);
    else groups.push([event]);
  }
  return groups.flatMap((group) => (group.length < FOLD_FROM ? group.map((event) => [event]) : [group]));
}

class Events {
  constructor(host, seek) {
    this.host = host;
    this.seek = seek;
  }

  draw(view) {
    const key = `${view.pickedName()}|${view.story.title}`, latest = view.events[view.events.length - 1];
    if (this.key !== key || this.latest !== latest || this.story !== view.story) this.list(view);
    [this.key, this.latest, this.story] = [key, latest, view.story];
    const now = view.follows ? Infinity : view.frame?.t ?? Infinity;
    if (this.now === now) return;
    this.now = now;
    this.rows.forEach(({ item, t }) => item.classList.toggle('later', t > now));
  }

  list(view) {
    const name = view.pickedName();
    this.now = null;
    this.rows = folded(view.events).slice(-EVENTS_MAX).reverse().map((group) => {
      const item = group.length > 1 ? this.fold(group, name) : this.row(group[0], name);
      return { item, t: group[0].t };
    });
    this.host.replaceChildren(...this.rows.map(({ item }) => item));
    if (!this.rows.length) this.host.append(make('li', { class: 'soft' }, 'nothing yet'));
  }

  row(event, name) {
    const [shape, tone] = KINDS[event.kind] ?? ['circle', 'calm'];
    const time = make('button', { type: 'button', class: 'time', title: 'show this moment' }, duration(event.t));
    time.addEventListener('click', () => this.seek(event.t));
    const item = make('li', { 'data-kind': event.kind }, drawn(ICONS[shape], tone), time,
      make('span', { class: 'kind' }, event.kind), make('span', { class: 'text' }, event.text));
    if (name !== null) item.classList.add(event.peer === name ? 'own' : 'other');
    return item;
  }

  fold(group, name) {
    const text = several(new Set(group.map((event) => event.peer)).size, 'peer', 'peers');
    const item = this.row({ ...group[0], text, peer: null }, name);
    if (group.some((event) => event.peer === name)) item.classList.replace('other', 'own');
    const inner = make('ol', {}, ...[...group].reverse().map((event) => this.row(event, name)));
    item.querySelector('.text').replaceWith(make('details', { class: 'text' }, make('summary', {}, text), inner));
    return item;
  }
}

class Promises {
  draw(view) {
    const { promises, about } = view.story, told = JSON.stringify([promises, about]);
    if (this.told === told) return;
    this.told = told;
    this.table(promises);
    this.list(about);
  }

  table(promises) {
    byId('promises-card').hidden = !promises.length;
    const head = ['what', 'asked', 'achieved', ''].map((text) => make('th', { scope: 'col' }, text));
    head[3].append(make('span', { class: 'unseen' }, 'kept'));
    const rows = promises.map((one) => this.row(one));
    byId('promises').replaceChildren(make('thead', {}, make('tr', {}, ...head)), make('tbody', {}, ...rows));
  }

  row({ what, asked, achieved, well, hint }) {
    const [shape, tone, word] = VERDICTS[well];
    const name = make('th', { scope: 'row' }, what);
    if (hint) name.append(make('small', {}, hint));
    const verdict = make('td', { class: `verdict ${tone}` });
    const said = make('span', { class: well === null ? 'unseen' : '' }, word);
    verdict.append(make('span', {}, drawn(ICONS[shape], tone), said));
    return make('tr', {}, name, make('td', {}, asked ?? UNKNOWN), make('td', {}, achieved ?? UNKNOWN), verdict);
  }

  list(about) {
    byId('about-card').hidden = !about.length;
    const pairs = about.map(([label, value]) => make('div', {}, make('dt', {}, label), make('dd', {}, value)));
    byId('about').replaceChildren(...pairs);
  }
}
