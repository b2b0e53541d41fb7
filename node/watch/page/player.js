// The bar at the foot: any moment of the run, and playing it.

const PLAY = 'M4 2.5v11l9-5.5z';
const PAUSE = 'M4 3h3v10H4zM9 3h3v10H9z';
const WHOLE_MS = 20000;
const STEP_MS = 50;
const MARKED = ['gone', 'lost', 'crashed', 'back', 'slow', 'over', 'merged', 'left'];

class Player {
  constructor(view, redraw) {
    this.view = view;
    this.redraw = redraw;
    this.playing = null;
    this.slider = byId('time');
    this.button = byId('play');
    this.slider.addEventListener('input', () => { this.pause(); this.go(this.slider.valueAsNumber); });
    this.button.addEventListener('click', () => (this.playing ? this.pause() : this.play()));
    byId('now').addEventListener('click', () => { this.pause(); this.go(Infinity); });
  }

  go(index) {
    this.view.seek(index);
    this.redraw();
  }

  seekTime(t) {
    this.pause();
    this.view.shown = this.view.nearest(t);
    this.redraw();
  }

  play() {
    if (this.view.follows) this.view.seek(0);
    const step = Math.max(STEP_MS, WHOLE_MS / this.view.frames.length);
    this.playing = setInterval(() => {
      this.go(this.view.index + 1);
      if (this.view.follows) this.pause();
    }, step);
    this.redraw();
  }

  pause() {
    clearInterval(this.playing);
    this.playing = null;
    this.redraw();
  }

  draw(view) {
    const last = view.frames.length - 1;
    byId('player').hidden = last < 1;
    if (last < 1) return;
    mark(this.slider, 'max', String(last));
    this.slider.value = view.index;
    this.slider.style.setProperty('--done', `${100 * view.index / last}%`);
    mark(this.slider, 'aria-valuetext', duration(view.frame.t));
    say(byId('at'), duration(view.frame.t));
    mark(this.button, 'aria-label', this.playing ? 'pause' : 'play');
    mark(this.button.querySelector('path'), 'd', this.playing ? PAUSE : PLAY);
    const now = byId('now');
    say(now, view.story.live && !view.story.over ? 'now' : 'end');
    now.disabled = view.follows;
    this.marks(view, last);
  }

  marks(view, last) {
    const key = `${view.version}|${view.events.length}`;
    if (this.key === key) return;
    this.key = key;
    const wanted = view.events.filter((event) => MARKED.includes(event.kind)).slice(-200);
    byId('marks').replaceChildren(...wanted.map((event) => {
      const tick = make('i', { class: (KINDS[event.kind] ?? ['', 'calm'])[1] });
      tick.style.left = `${100 * place(view.frames, event.t, last)}%`;
      return tick;
    }));
  }
}

// Where a time lies among the frames, 0 to 1.
function place(frames, t, last) {
  const next = frames.findIndex((frame) => frame.t >= t);
  if (next <= 0) return next === 0 ? 0 : 1;
  const [before, after] = [frames[next - 1].t, frames[next].t];
  return (next - 1 + (t - before) / (after - before)) / last;
}
