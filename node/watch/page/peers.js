// The table of the peers. Cells are made once and written to when they change.

const COLUMNS = [
  { key: 'name', label: 'peer' },
  { key: 'state', label: 'state', value: (view, k) => STATES[view.stateOf(k)], text: String },
  { key: 'accuracy', label: 'accuracy', text: percent },
  { key: 'loss', label: 'loss', text: figure },
  { key: 'distance', label: 'distance to the optimum', text: figure },
  { key: 'steps', label: 'local steps', text: count },
  { key: 'round', label: 'round', text: count },
  { key: 'rate', label: 'exchanges a second', value: (view, k) => view.exchangesOf(k), text: figure },
  { key: 'sent', label: 'sent', text: bytes },
  { key: 'stale', label: 'last heard of', text: (value) => (known(value) ? `${duration(value)} ago` : UNKNOWN), live: true },
];

const BY_NUMBER = new Intl.Collator('en', { numeric: true });

class Peers {
  constructor(table, pick) {
    this.table = table;
    this.pick = pick;
    this.sort = { key: 'name', down: false };
    this.head = make('tr');
    this.body = make('tbody');
    table.append(make('thead', {}, this.head), this.body);
  }

  draw(view) {
    this.view = view;
    const columns = COLUMNS.filter((column) => this.worth(view, column));
    const key = columns.map((column) => column.key).join();
    if (this.story !== view.story || this.key !== key) this.build(view, columns);
    [this.story, this.key] = [view.story, key];
    this.rows.forEach((row, k) => this.fill(view, row, k));
    this.order();
  }

  worth(view, { key, value, live }) {
    if (key === 'name' || key === 'state') return true;
    if (live && !view.story.live) return false;
    const last = view.last;
    if (!last) return false;
    return view.story.nodes.some((_, k) => known(value ? value(view, k) : last[key]?.[k]));
  }

  build(view, columns) {
    this.columns = columns;
    this.head.replaceChildren(...columns.map((column) => this.heading(column)));
    this.rows = view.story.nodes.map((node, k) => this.row(node, k));
    this.body.replaceChildren(...this.rows.map(({ row }) => row));
    this.shown = this.rows.map((_, k) => k).join();
  }

  heading({ key, label }) {
    const button = make('button', { type: 'button' }, label);
    button.addEventListener('click', () => {
      this.sort = { key, down: this.sort.key === key ? !this.sort.down : false };
      this.order(true);
    });
    return make('th', { scope: 'col', 'data-key': key }, button);
  }

  row(node, k) {
    const name = make('button', { type: 'button', 'aria-pressed': 'false' }, node.name);
    name.addEventListener('click', () => this.pick(k));
    const cells = this.columns.slice(1).map(({ key }) => make('td', { 'data-key': key }));
    return { row: make('tr', {}, make('th', { scope: 'row' }, name), ...cells), cells, name };
  }

  fill(view, { row, cells, name }, k) {
    mark(name, 'aria-pressed', String(view.picked === k));
    mark(row, 'data-state', view.stateOf(k));
    cells.forEach((cell, c) => say(cell, this.columns[c + 1].text(this.valueOf(this.columns[c + 1], k))));
  }

  valueOf({ key, value }, k) {
    if (key === 'name') return this.view.story.nodes[k].name;
    return value ? value(this.view, k) : this.view.frame?.[key]?.[k] ?? null;
  }

  // Rows keep their place while one of them has the focus, lest it be lost.
  order(asked = false) {
    const column = this.columns.find(({ key }) => key === this.sort.key) ?? COLUMNS[0];
    for (const th of this.head.children) {
      const own = th.dataset.key === column.key;
      mark(th, 'aria-sort', own ? (this.sort.down ? 'descending' : 'ascending') : 'none');
    }
    if (!asked && this.body.contains(document.activeElement)) return;
    const values = this.rows.map((_, k) => this.valueOf(column, k)), sign = this.sort.down ? -1 : 1;
    const wanted = this.rows.map((_, k) => k).sort((a, b) => sign * compare(values[a], values[b]) || a - b);
    if (wanted.join() === this.shown) return;
    this.shown = wanted.join();
    this.body.append(...wanted.map((k) => this.rows[k].row));
  }
}

// Numbers by size, names with n2 before n10, what is not known first.
function compare(a, b) {
  if (a === null || b === null) return (a === null ? 0 : 1) - (b === null ? 0 : 1);
  return typeof a === 'string' ? BY_NUMBER.compare(a, b) : a - b;
}
