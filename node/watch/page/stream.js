// News from the watcher. The browser connects again by itself; after a refusal, which it takes as final, we ask anew.
// When the run is over, we ask only when somebody comes back to the page: another run may follow.

const RETRY_MS = 3000;

function listen(view, redraw) {
  const source = new EventSource('events');
  const heard = (take) => (event) => {
    view.connection = 'open';
    take(JSON.parse(event.data));
    redraw();
  };
  source.addEventListener('story', heard((story) => view.take(story)));
  source.addEventListener('frame', heard((message) => view.append(message)));
  source.addEventListener('error', () => {
    view.connection = 'lost';
    redraw();
    if (view.story.over) {
      source.close();
      addEventListener('focus', () => listen(view, redraw), { once: true });
    } else if (source.readyState === EventSource.CLOSED) {
      setTimeout(() => listen(view, redraw), RETRY_MS);
    }
  });
}
