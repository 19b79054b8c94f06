"""The pictures of a dataset beside their captions, edited in place: one component.

Knows: how cards are drawn and when a caption is sent. Does not know: what becomes of it.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

# The value is a list of cards: {dataset, key, src, caption, about, note, by, fault, locked}. A card that is there already stays:
# what somebody types is never drawn over, only where it says what was known. A caption is sent when its box is left, after a pause
# in typing, and on Enter, which goes to the next picture. All text is set as text, never as HTML.
SCRIPT = """
const list = element.querySelector('.album-cards'), cards = new Map();
const make = (tag, settings, ...inside) => {
  const made = Object.assign(document.createElement(tag), settings);
  made.append(...inside);
  return made;
};
const line = text => text.split(/\\s+/).filter(Boolean).join(' ');
const changed = card => card.box.value !== card.known && line(card.box.value) !== card.known;
const mark = card => { card.root.dataset.state = changed(card) ? 'unsaved' : ''; };
const send = card => {
  clearTimeout(card.later);
  if (!changed(card) || card.busy === card.box.value || card.told.locked) return;
  card.sent = card.busy = card.box.value;
  setTimeout(() => { card.busy = null; }, 3000);
  trigger('click', {what: 'put', dataset: card.told.dataset, subject: card.told.key, text: card.box.value, was: card.known});
};
const button = (card, what, label, title) => {
  const made = make('button', {type: 'button', className: 'lora-link', textContent: label, title});
  made.addEventListener('click', () => trigger('click', {what, dataset: card.told.dataset, subject: card.told.key}));
  return made;
};
const build = told => {
  const card = {told, known: told.caption, sent: null, busy: null, later: 0};
  card.box = make('textarea', {rows: 3, value: told.caption, maxLength: 16000, placeholder: 'no caption yet', spellcheck: true});
  card.box.setAttribute('aria-label', `Caption of ${told.key}`);
  card.box.addEventListener('input', () => {
    mark(card);
    clearTimeout(card.later);
    card.later = setTimeout(() => send(card), 4000);
  });
  card.box.addEventListener('blur', () => send(card));
  card.box.addEventListener('keydown', event => {
    if (event.key === 'Escape') { card.box.value = card.known; mark(card); }
    if (event.key !== 'Enter' || event.isComposing) return;
    event.preventDefault();
    send(card);
    const boxes = [...list.querySelectorAll('textarea')];
    (boxes[boxes.indexOf(card.box) + 1] || card.box).focus();
  });
  card.about = make('small', {className: 'album-about'});
  card.fault = make('p', {className: 'lora-problem'});
  card.links = make('span', {className: 'album-links'});
  card.picture = told.src ? make('img', {src: told.src, alt: told.key, loading: 'lazy'})
    : make('span', {className: 'gone', textContent: 'cannot be shown'});
  card.root = make('div', {className: 'album-card'}, card.picture,
    make('div', {className: 'album-side'}, card.box, card.fault, make('div', {className: 'album-foot'}, card.about, card.links)));
  card.root.dataset.key = told.key;
  return card;
};
const tell = (card, told) => {
  let fault = told.fault;
  card.told = told;
  if (told.caption !== card.known) {
    if (!changed(card) || card.box.value === card.sent) card.box.value = told.caption;
    else if (card.sent === null || line(card.sent) !== told.caption) {
      fault = `Changed meanwhile to: ${told.caption || 'nothing'}. Yours stays in the box; Esc takes the other.`;
    }
    card.known = told.caption;
    card.sent = null;
  }
  mark(card);
  card.box.readOnly = told.locked;
  card.about.textContent = [told.note, told.key, told.about, told.by].filter(Boolean).join(' \\u00b7 ');
  if (fault || !changed(card)) card.fault.textContent = fault;
  card.links.replaceChildren(...(told.locked ? [] : [
    button(card, 'like', 'more like it', 'Pictures that are like this one, by CLIP'),
    button(card, 'aside', 'set aside', 'Out of the dataset, with its caption; Undo brings it back')]));
};
const draw = () => {
  const wanted = Array.isArray(props.value) ? props.value : [], seen = new Set();
  const every = wanted.map(told => {
    const id = told.dataset + '/' + told.key;
    seen.add(id);
    if (!cards.has(id)) cards.set(id, build(told));
    tell(cards.get(id), told);
    return cards.get(id).root;
  });
  for (const [id, card] of cards) if (!seen.has(id)) { clearTimeout(card.later); card.root.remove(); cards.delete(id); }
  every.forEach((root, at) => { if (list.children[at] !== root) list.insertBefore(root, list.children[at] || null); });
};
document.addEventListener('keydown', event => {
  if (!(event.ctrlKey || event.metaKey) || event.altKey || !element.offsetParent) return;
  if (event.target.closest('input, textarea, [contenteditable]')) return;  // there the browser's own undo works
  const key = event.key.toLowerCase(), which = key === 'y' || (key === 'z' && event.shiftKey) ? 'redo' : key === 'z' ? 'undo' : '';
  if (!which) return;
  event.preventDefault();
  document.querySelector(`#album-${which}`).click();
});
addEventListener('pagehide', () => cards.forEach(send));
watch('value', draw);
draw();
"""


def cards(**settings: Any) -> gr.HTML:
    """The component. Its click says {what: put | like | aside, dataset, subject: the picture's key, text, was}."""
    return gr.HTML(value=[], html_template='<div class="album-cards"></div>', js_on_load=SCRIPT, apply_default_css=False,
                   **settings)
