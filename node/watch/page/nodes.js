// Elements of the page. Texts of a story only ever get into it as text.

function byId(id) {
  return document.getElementById(id);
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// A text after the sign that it explains.
function signed(sign, text) {
  return make('span', {}, make('i', { class: sign }), text);
}

function drawn(paths, name = '') {
  const space = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(space, 'svg');
  svg.setAttribute('viewBox', '0 0 16 16');
  svg.setAttribute('class', `icon ${name}`);
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(space, 'path');
  path.setAttribute('d', paths);
  svg.append(path);
  return svg;
}

// Leaves the page alone where it says so already: most figures do not change from one frame to the next.
function say(element, text) {
  if (element.says === text) return;
  element.says = text;
  element.textContent = text;
}

function mark(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// Many changes within one frame of the screen are drawn once; nothing is drawn in a tab that nobody sees.
function onceAFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  };
}
