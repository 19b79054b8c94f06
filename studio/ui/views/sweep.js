// What the blocks of sweep.py do by themselves: say which button was pressed, zoom, go from cell to
// cell, keep a note. gradio runs it once for each block, as the body of a function of element,
// trigger and watch.
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-action]');
  if (!button) return;
  const {action, target, value} = button.dataset;
  if (action === 'zoom') {
    const now = Number(element.style.getPropertyValue('--zoom')) || 1;
    element.style.setProperty('--zoom', Math.min(4, Math.max(0.4, now * Number(value))));
  } else if (action === 'wide') {
    const wide = element.closest('.workspace').classList.toggle('wide');
    button.setAttribute('aria-pressed', wide);
  } else {
    if (action === 'cell') mark((chosen = target));
    trigger('click', {action, target, value});
  }
});
let chosen = null;
const mark = key => {
  const tiles = [...element.querySelectorAll('.tile')];
  if (tiles.some(one => one.dataset.target === key))
    tiles.forEach(one => one.classList.toggle('now', one.dataset.target === key));
};
element.addEventListener('keydown', event => {
  const tile = event.target.closest('.tile');
  if (!tile || event.ctrlKey || event.metaKey || event.altKey) return;
  const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[
    event.key
  ];
  const verb =
    {b: 'best', p: 'pin'}[event.key.toLowerCase()] || (/^[0-5]$/.test(event.key) && 'stars');
  if (way) {
    event.preventDefault();
    const centre = one => {
      const box = one.getBoundingClientRect();
      return [box.x + box.width / 2, box.y + box.height / 2];
    };
    const [x, y] = centre(tile);
    let best = null,
      least = Infinity;
    for (const one of element.querySelectorAll('.tile')) {
      const [a, b] = centre(one),
        along = (a - x) * way[0] + (b - y) * way[1];
      const off = Math.abs((a - x) * way[1]) + Math.abs((b - y) * way[0]);
      if (along > 4 && along + 4 * off < least) {
        best = one;
        least = along + 4 * off;
      }
    }
    if (best) {
      best.focus();
      best.scrollIntoView({block: 'nearest', inline: 'nearest'});
    }
  } else if (verb && (verb === 'pin' || tile.dataset.state === 'done')) {
    event.preventDefault();
    trigger('click', {action: verb, target: tile.dataset.target, value: event.key});
  }
});
let waiting = null;
const note = box => {
  clearTimeout(waiting);
  waiting = null;
  if (box.dataset.kept === box.value) return;
  box.dataset.kept = box.value;
  trigger('click', {action: 'note', target: box.dataset.target, value: box.value});
};
element.addEventListener('input', event => {
  const box = event.target.closest('input.note');
  if (!box) return;
  clearTimeout(waiting);
  waiting = setTimeout(() => note(box), 500);
});
element.addEventListener('change', event => {
  const box = event.target.closest('input.note');
  if (box) note(box);
});
// gradio changes only attributes that differ: what was typed for one cell would stay for the next
let noted = null;
watch('value', () => {
  mark(chosen);
  element
    .querySelector('[data-action=wide]')
    ?.setAttribute('aria-pressed', element.closest('.workspace').classList.contains('wide'));
  const judging = element.querySelector('.judging'),
    box = element.querySelector('input.note');
  if (!judging || judging.dataset.target === noted) return;
  noted = judging.dataset.target;
  if (box) box.value = box.getAttribute('value');
  // the grid may be higher than the window
  dispatchEvent(
    new CustomEvent('studio-look', {detail: {selector: '#sweep-cell', label: 'Selected cell'}}),
  );
});
