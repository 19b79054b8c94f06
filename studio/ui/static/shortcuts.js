// What the whole page does with keys. Knows: gradio's text and number fields. Does not know: what
// any of them means.

// Ctrl + Enter presses the main button of the tab in view, and nothing else: gradio's checkboxes
// would take it for Enter, and be unticked.
addEventListener(
  'keydown',
  event => {
    if (!(event.ctrlKey || event.metaKey) || event.key !== 'Enter') return;
    const buttons = [...document.querySelectorAll('.on-ctrl-enter')];
    const main = buttons.find(button => button.offsetParent);
    if (!main) return;
    event.stopPropagation();
    main.click();
  },
  true,
);

// gradio looks through its whole page for every value that a handler reads, at every letter: where
// a form has sixty, a third of a second. So it hears of typed text after a short pause, when the
// field is left, when Enter is pressed or when anything is clicked, whichever comes first.
const PAUSE = 250; // ms
const waiting = new Map(); // field → timer
const texts = 'textarea[data-testid="textbox"], input[data-testid="textbox"]';
const fields = `${texts}, .gradio-container input[type="number"]`;

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
addEventListener('blur', event => tell(event.target), true);
addEventListener('change', event => tell(event.target), true);
// a tap or a screen reader's press need not leave the field
addEventListener('click', () => [...waiting.keys()].forEach(tell), true);
addEventListener('keydown', event => event.key === 'Enter' && tell(event.target), true);
