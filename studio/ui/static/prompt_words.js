// Completes names of embeddings and LoRA tags while a prompt is typed, and puts the embedding whose
// button is pressed into it. Knows: a form's prompts by their ids, and the list of words beside its
// LoRAs. Does not know: what the words stand for. All text is set as text, never as HTML.

const MOST = 8, // shown at once
  LEAST = 2, // letters, before anything is offered
  LONGEST = 300; // of what is begun: a pasted text of megabytes is not looked through
const boxes = '[id$="-prompt"] textarea';
const list = document.createElement('ul');
list.id = 'prompt-words';
list.setAttribute('role', 'listbox');
list.setAttribute('aria-label', 'Words to complete');
list.hidden = true;
let box = null, // the prompt that is typed in
  last = null, // the one that was typed in last
  offered = [],
  chosen = -1,
  range = [0, 0]; // what a word would replace

const formOf = field => field.closest('[id$="-prompt"]').id.replace(/-(negative-)?prompt$/, '');
const isNegative = field => field.closest('[id$="-prompt"]').id.endsWith('-negative-prompt');
const wordsOf = field => {
  const data = document.querySelector(`#${formOf(field)}-words .prompt-words`);
  try {
    return data ? JSON.parse(data.textContent) : [];
  } catch {
    return [];
  }
};

const close = () => {
  list.hidden = true;
  list.replaceChildren();
  if (box) {
    box.removeAttribute('aria-activedescendant');
    box.removeAttribute('aria-controls');
  }
  [box, offered, chosen] = [null, [], -1];
};

const mark = index => {
  chosen = index;
  [...list.children].forEach((item, at) => item.setAttribute('aria-selected', at === index));
  list.children[index]?.scrollIntoView({block: 'nearest'});
  if (index >= 0) box.setAttribute('aria-activedescendant', `prompt-word-${index}`);
  else box.removeAttribute('aria-activedescendant');
};

// gradio hears of it at once: shortcuts.js lets what is marked so through.
const write = (field, text, from, to) => {
  field.focus();
  field.setRangeText(text, from, to, 'end');
  field.dispatchEvent(new CustomEvent('input', {bubbles: true, detail: 'resent'}));
};

const take = index => {
  const word = offered[index],
    field = box,
    [from, to] = range;
  close();
  write(field, word.text, from, to);
};

const place = field => {
  const frame = field.getBoundingClientRect(),
    below = innerHeight - frame.bottom;
  list.style.left = `${Math.max(8, frame.left)}px`;
  list.style.maxWidth = `${Math.min(frame.width, innerWidth - 16)}px`;
  const isAbove = below < 180 && frame.top > below;
  list.style.top = isAbove ? 'auto' : `${frame.bottom + 4}px`;
  list.style.bottom = isAbove ? `${innerHeight - frame.top + 4}px` : 'auto';
};

const offer = field => {
  close();
  if (field.selectionStart !== field.selectionEnd) return;
  const before = field.value.slice(0, field.selectionStart),
    typed = /(<lora:|embedding:)?([^\s,()[\]<>:|]*)$/i.exec(before.slice(-LONGEST)),
    prefix = (typed[1] || '').toLowerCase(),
    begun = typed[2].toLowerCase();
  if (!prefix && begun.length < LEAST) return;
  const kinds = {'<lora:': ['lora'], 'embedding:': ['embedding']}[prefix] || ['embedding', 'lora'];
  const fits = word =>
    kinds.includes(word.kind) && !(word.kind === 'lora' && isNegative(field));
  const words = wordsOf(field).filter(fits),
    starts = words.filter(word => word.name.toLowerCase().startsWith(begun)),
    holds = words.filter(word => word.name.toLowerCase().includes(begun));
  const found = [...new Set([...starts, ...holds])].slice(0, MOST);
  // what stands there whole needs no completing
  if (!found.length || (found.length === 1 && found[0].name.toLowerCase() === begun)) return;
  box = field;
  offered = found.map(word =>
    prefix === 'embedding:' ? {...word, text: `${typed[1]}${word.text}`} : word,
  );
  range = [before.length - typed[0].length, before.length];
  list.replaceChildren(
    ...offered.map((word, index) => {
      const item = document.createElement('li'),
        about = document.createElement('small');
      item.id = `prompt-word-${index}`;
      item.setAttribute('role', 'option');
      item.setAttribute('aria-selected', 'false');
      item.textContent = word.name;
      about.textContent = word.about;
      item.append(about);
      return item;
    }),
  );
  // where gradio's style sheet reaches
  (document.querySelector('.gradio-container') || document.body).append(list);
  field.setAttribute('aria-controls', list.id);
  list.hidden = false;
  place(field);
};

addEventListener(
  'input',
  event => {
    if (!event.target.matches?.(boxes)) return;
    last = event.target;
    if (event.detail !== 'resent' && !('quiet' in event.target.dataset)) offer(event.target);
  },
  true,
);
addEventListener(
  'keydown',
  event => {
    if (!box || event.target !== box || event.ctrlKey || event.metaKey || event.isComposing) return;
    const number = offered.length;
    if (event.key === 'ArrowDown') mark((chosen + 1) % number);
    else if (event.key === 'ArrowUp') mark((chosen <= 0 ? number : chosen) - 1);
    else if (event.key === 'Escape') close();
    else if (event.key === 'Tab' && !event.shiftKey) take(Math.max(chosen, 0));
    else if (event.key === 'Enter' && chosen >= 0) take(chosen);
    else return;
    event.preventDefault();
    event.stopImmediatePropagation();
  },
  true,
);
// Before the field is left, so that it keeps the focus; for fingers as for mice.
list.addEventListener('pointerdown', event => event.preventDefault());
list.addEventListener('click', event => {
  const index = [...list.children].indexOf(event.target.closest('li'));
  if (index >= 0) take(index);
});
addEventListener(
  'focusin',
  event => {
    if (event.target.matches?.(boxes)) last = event.target;
  },
  true,
);
addEventListener('focusout', event => event.target === box && close(), true);
for (const change of ['scroll', 'resize'])
  addEventListener(change, event => event.target !== list && close(), true);

addEventListener('click', event => {
  const button = event.target.closest?.('.embeddings [data-word]');
  if (!button) return;
  const form = button.closest('[id$="-words"]').id.replace(/-words$/, ''),
    isHere = last?.isConnected && formOf(last) === form,
    field = isHere ? last : document.querySelector(`#${form}-prompt textarea`),
    before = field.value.trimEnd(),
    comma = before && !before.endsWith(',') ? ', ' : before ? ' ' : '';
  write(field, `${comma}${button.dataset.word}`, before.length, field.value.length);
});
