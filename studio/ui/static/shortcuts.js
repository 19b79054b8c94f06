// What the whole page does with keys. Knows: gradio's text and number fields. Does not know: what
// any of them means.

// Ctrl + Enter presses the main button of the tab in view.
addEventListener('keydown', event => {
  if (!(event.ctrlKey || event.metaKey) || event.key !== 'Enter') return;
  [...document.querySelectorAll('.on-ctrl-enter')].find(button => button.offsetParent)?.click();
});

// gradio looks through its whole page for every value that a handler reads, at every letter: where
// a form has sixty, a third of a second. So it hears of typed text after a short pause, when the
// field is left, when Enter is pressed or when anything is clicked, whichever comes first.
const PAUSE = 250; // ms
const waiting = new Map(),
  lastly = new WeakMap(); // field → timer; field → what stood there when it was entered
const texts = 'textarea[data-testid="textbox"], input[data-testid="textbox"]';
const fields = `${texts}, .gradio-container input[type="number"]`;

// gradio silently changes what a slider cannot show when its box is left: an empty box gets its
// last value back, and a cut is said.
const judge = field => {
  // the weights of LoRAs are our own, and are judged when asked for
  if (!field.matches?.('input[data-testid="number-input"]')) return;
  const block = field.closest('.block'),
    range = block.querySelector('input[type="range"]');
  block.querySelector('.cut')?.remove();
  const least = Number(range.min),
    most = Number(range.max),
    typed = Number(field.value);
  if (field.value === '' && lastly.get(field)) {
    field.value = lastly.get(field);
    waiting.set(field, 0); // so that it is sent
  } else if (typed < least || typed > most) {
    const nearest = typed < least ? least : most;
    const said = Object.assign(document.createElement('p'), {
      className: 'cut echo wrong',
      role: 'alert',
      textContent: `${typed} was changed to ${nearest}: allowed are ${least} to ${most}.`,
    });
    block.append(said);
    setTimeout(() => said.remove(), 8000);
  }
};
const tell = field => {
  clearTimeout(waiting.get(field));
  if (waiting.delete(field))
    field.dispatchEvent(new CustomEvent('input', {bubbles: true, detail: 'resent'}));
};
const hold = event => {
  const field = event.target;
  if (event.detail === 'resent' || !field.matches?.(fields)) return;
  event.stopImmediatePropagation();
  clearTimeout(waiting.get(field));
  waiting.set(
    field,
    setTimeout(() => tell(field), PAUSE),
  );
};
addEventListener('input', hold, true);
addEventListener(
  'focus',
  event => {
    lastly.set(event.target, event.target.value);
  },
  true,
);
addEventListener(
  'blur',
  event => {
    judge(event.target);
    tell(event.target);
  },
  true,
);
addEventListener('change', event => tell(event.target), true);
// a tap or a screen reader's press need not leave the field
addEventListener('click', () => [...waiting.keys()].forEach(tell), true);
addEventListener('keydown', event => event.key === 'Enter' && tell(event.target), true);
