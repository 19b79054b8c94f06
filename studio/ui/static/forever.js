// Generate forever: presses Generate again when a job is done, until Stop. Knows: the buttons of a
// tab that makes images, and what its job came to. Does not know: what is made.

const PAUSE = 300; // ms between two jobs
const PATIENCE = 20_000; // ms in which a job has to begin
const endless = new Map(); // the row of buttons → its observer

const partsOf = row => ({
  toggle: row.querySelector('.forever'),
  generate: row.querySelector('.on-ctrl-enter'),
  stop: row.querySelector('button.stop'),
});
const say = (row, text) => {
  let line = row.parentElement.querySelector('.forever-note');
  if (!line) {
    line = Object.assign(document.createElement('p'), {className: 'forever-note echo'});
    line.setAttribute('role', 'status');
    row.after(line);
  }
  line.textContent = text;
};
const end = (row, text = '') => {
  const run = endless.get(row);
  if (!run) return;
  run.observer.disconnect();
  clearTimeout(run.timer);
  endless.delete(row);
  partsOf(row).toggle?.setAttribute('aria-pressed', 'false');
  say(row, text);
};
const press = row => {
  const run = endless.get(row),
    {generate} = partsOf(row);
  if (!run) return;
  clearTimeout(run.timer);
  run.timer = setTimeout(() => end(row, 'Stopped: nothing was generated.'), PATIENCE);
  generate.click();
};
const follow = row => {
  const run = endless.get(row),
    {stop} = partsOf(row);
  if (!run || stop.disabled === run.wasIdle) return;
  run.wasIdle = stop.disabled;
  clearTimeout(run.timer);
  if (!stop.disabled) return;
  const outcome = row.closest('.tabitem').querySelector('.live [data-state]')?.dataset.state;
  if (['failed', 'interrupted', 'cancelled'].includes(outcome)) return end(row);
  run.timer = setTimeout(() => press(row), PAUSE);
};
const begin = row => {
  const {toggle, stop} = partsOf(row),
    seed = row.closest('.tabitem').querySelector('[id$="-seed"] input');
  if (seed && Number(seed.value) !== -1)
    return say(row, 'The seed is fixed, so every image would be the same. Set it to -1 first.');
  const observer = new MutationObserver(() => follow(row));
  observer.observe(stop, {attributeFilter: ['disabled']});
  endless.set(row, {observer, timer: 0, wasIdle: stop.disabled});
  toggle.setAttribute('aria-pressed', 'true');
  say(row, 'Generates until you press Stop.');
  if (stop.disabled) press(row);
};
addEventListener('click', event => {
  const row = event.target.closest?.('.actions');
  if (!row?.querySelector('.forever')) return;
  if (event.target.closest('.forever')) endless.has(row) ? end(row) : begin(row);
  else if (event.target.closest('button.stop')) end(row);
});
