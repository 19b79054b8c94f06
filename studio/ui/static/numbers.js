// Numbers as they are typed. Knows: gradio's number fields and sliders, their bounds and steps, the
// weights of LoRA rows. Does not know: what a number means; who reads it.

// A browser drops a comma that is typed into a number: 7,5 becomes 75. Here it is a point.
const numbers = 'input[type="number"]';
const readNumber = text => {
  const trimmed = text.trim().replace(/[\s\u00a0\u202f']/g, ''),
    commas = trimmed.split(',').length - 1,
    points = trimmed.split('.').length - 1;
  if (commas === 1 && points === 0) return trimmed.replace(',', '.');
  if (commas && points && trimmed.lastIndexOf(',') > trimmed.lastIndexOf('.'))
    return commas === 1 ? trimmed.replaceAll('.', '').replace(',', '.') : trimmed; // 1.234,5
  return points === 1 ? trimmed.replaceAll(',', '') : trimmed; // 1,234.5
};
addEventListener(
  'beforeinput',
  event => {
    const field = event.target;
    if (!field.matches?.(numbers) || event.isComposing) return;
    const text = event.data ?? event.dataTransfer?.getData('text/plain');
    if (!text?.includes(',')) return;
    const wanted = text === ',' ? '.' : readNumber(text);
    if (wanted === text) return;
    event.preventDefault();
    document.execCommand('insertText', false, wanted); // so that Ctrl + Z takes it back
  },
  true,
);
// The keys of a phone: digits with whichever mark its language has.
addEventListener('focusin', event => {
  const field = event.target;
  if (field.matches?.(numbers) && !field.inputMode) field.inputMode = 'decimal';
});

// gradio changes what a slider cannot show when its box is left, and says nothing. Here what was
// typed stays, is judged beside the field, and is refused when it is asked for; only an empty box
// gets its last value back.
const sliderBox = 'input[data-testid="number-input"]';
const entered = new WeakMap(); // field → what stood there when it was entered
const judged = new Map(); // field → the sentence beside it
const names = new Intl.NumberFormat('en', {maximumFractionDigits: 20, useGrouping: false});
const read = text => (text === null || text === '' ? NaN : Number(text));

const findFault = field => {
  if (field.validity.badInput) return 'Enter a number.';
  const value = read(field.value),
    least = read(field.getAttribute('min')),
    most = read(field.getAttribute('max')),
    step = read(field.getAttribute('step'));
  if (Number.isNaN(value)) return '';
  const said = ` (you entered ${field.value})`;
  if (value < least) return `Must be ${names.format(least)} or more${said}.`;
  if (value > most) return `Must be ${names.format(most)} or less${said}.`;
  if (Number.isInteger(step) && !Number.isInteger(value)) return `Must be a whole number${said}.`;
  return '';
};
let count = 0,
  timer = 0;
const placeOf = field => field.closest('.lora-weight, .block:not(label)');
// The server's own sentence, where a form is checked there while it is filled in.
const isTold = field => Boolean(placeOf(field)?.querySelector('.field-fault'));
const withdraw = field => {
  judged.get(field)?.remove();
  judged.delete(field);
  field.removeAttribute('aria-errormessage');
  if (!isTold(field)) field.removeAttribute('aria-invalid');
};
const judge = field => {
  const fault = findFault(field),
    sentence = judged.get(field);
  if (!fault || !field.isConnected || isTold(field)) return sentence && withdraw(field);
  if (sentence?.textContent === fault && sentence.isConnected) return;
  withdraw(field);
  const place = placeOf(field);
  if (!place) return;
  const made = Object.assign(document.createElement('p'), {
    className: 'cut echo wrong',
    id: `number-fault-${++count}`,
    textContent: fault,
  });
  made.setAttribute('role', 'alert');
  place.append(made);
  judged.set(field, made);
  field.setAttribute('aria-invalid', 'true');
  field.setAttribute('aria-errormessage', made.id);
  // A value that comes from elsewhere, such as a preset, makes no event.
  timer ||= setInterval(() => {
    [...judged.keys()].forEach(judge);
    if (!judged.size) timer = clearInterval(timer);
  }, 400);
};
// The server's sentence takes the place of the one here at once.
addEventListener('studio-faults', () => queueMicrotask(() => [...judged.keys()].forEach(judge)));
const SOON = 600; // ms, in which the server may say it better
const judgeSoon = field => setTimeout(judge, SOON, field);
const inPage = field => field.matches?.(`.gradio-container ${numbers}`);
addEventListener(
  'focus',
  event => {
    if (inPage(event.target)) entered.set(event.target, event.target.value);
  },
  true,
);
addEventListener(
  'blur',
  event => {
    const field = event.target;
    if (!inPage(field)) return;
    if (field.matches(sliderBox)) {
      event.stopPropagation(); // or gradio clamps it
      if (field.value === '' && !field.validity.badInput && entered.get(field)) {
        field.value = entered.get(field);
        field.dispatchEvent(new CustomEvent('input', {bubbles: true}));
      }
    }
    judgeSoon(field);
  },
  true,
);
addEventListener('input', event => judged.has(event.target) && judge(event.target), true);
addEventListener(
  'keydown',
  event => {
    if (event.key === 'Enter' && inPage(event.target)) judgeSoon(event.target);
  },
  true,
);
