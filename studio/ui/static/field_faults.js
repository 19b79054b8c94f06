// Errors beside their fields, and how long a prompt is. Knows: the line under a form's main button
// (ui/components/field_faults.py), gradio's fields. Does not know: what is wrong with a value.

const inputOf = block => block.querySelector('textarea, input:not([type="range"], [type="file"])');
const marked = new Map(); // form → ids of fields that are marked

const describe = (input, id, isAdded) => {
  const ids = (input.getAttribute('aria-describedby') ?? '').split(' ').filter(Boolean);
  const others = ids.filter(other => other !== id);
  const all = isAdded ? [...others, id] : others;
  all.length
    ? input.setAttribute('aria-describedby', all.join(' '))
    : input.removeAttribute('aria-describedby');
};

const clear = id => {
  const block = document.getElementById(id);
  document.getElementById(`${id}-fault`)?.remove();
  for (const input of block?.querySelectorAll('[aria-invalid="true"]') ?? []) {
    input.removeAttribute('aria-invalid');
    describe(input, `${id}-fault`, false);
  }
};

// A row of narrow fields has the sentence below all of them, with the field's name before it.
const rows = '.pair, .size-row, .seed-row';
const mark = (id, text, title) => {
  const block = document.getElementById(id);
  if (!block) return;
  const row = block.closest(rows);
  let sentence = document.getElementById(`${id}-fault`);
  if (!sentence) {
    sentence = Object.assign(document.createElement('p'), {
      id: `${id}-fault`,
      className: 'field-fault',
    });
    (row ?? block).append(sentence);
  }
  const words = row ? `${title}: ${text[0].toLowerCase()}${text.slice(1)}` : text;
  if (sentence.textContent !== words) sentence.textContent = words;
  const input = inputOf(block);
  if (!input || input.getAttribute('aria-invalid') === 'true') return;
  input.setAttribute('aria-invalid', 'true');
  describe(input, sentence.id, true);
};

// Where a refusal leads: to the first field, for which what is folded is opened.
const goTo = id => {
  const block = document.getElementById(id);
  if (!block) return;
  for (let fold = block.parentElement; fold; fold = fold.parentElement) {
    const label = fold.querySelector(':scope > .label-wrap:not(.open)');
    if (label && fold.matches('.block')) label.click();
  }
  // what was folded is laid out in the next frame
  requestAnimationFrame(() => {
    block.scrollIntoView({block: 'nearest'});
    inputOf(block)?.focus({preventScroll: true});
  });
};

const showTokens = (id, text) => {
  const block = document.getElementById(id);
  if (!block) return;
  let count = block.querySelector(':scope > .token-count');
  if (!count) {
    count = Object.assign(document.createElement('span'), {
      className: 'token-count',
      title: 'Tokens that the model reads. More than 75 are read in several chunks.',
    });
    block.append(count);
  }
  if (count.textContent === text) return;
  count.textContent = text;
  count.setAttribute('aria-label', `${text} tokens`);
  count.classList.toggle('long', !/\/ 75$/.test(text) && text.includes('/'));
};

const refusals = new Set();
addEventListener('studio-faults', event => {
  const line = event.target.querySelector('[data-faults]');
  if (!line) return;
  const {form, faults} = JSON.parse(line.dataset.faults);
  const wrong = new Map();
  const titles = new Map();
  for (const [id, title, text] of faults) {
    wrong.set(id, wrong.has(id) ? `${wrong.get(id)} ${text}` : text);
    titles.set(id, title);
  }
  for (const id of marked.get(form) ?? []) if (!wrong.has(id)) clear(id);
  for (const [id, text] of wrong) mark(id, text, titles.get(id));
  marked.set(form, [...wrong.keys()]);
  for (const [id, text] of JSON.parse(line.dataset.tokens ?? '[]')) showTokens(id, text);
  const {refusal} = line.dataset;
  if (!refusal || refusals.has(refusal)) return;
  refusals.add(refusal);
  const first = [...wrong.keys()][0];
  if (first) goTo(first);
  else line.scrollIntoView({block: 'nearest'});
});
