// The pictures of a dataset beside their captions, edited in place, and which of them are ticked.
//
// In:  props.options {cards: [{dataset, key, src, caption, about, note, by, fault, locked,
//      others}], shown, whole, locked}: the cards of a page, how many pictures the filter lets
//      through, whether those are all, whether the dataset stays as it is.
// Out: props.value, the keys that are ticked, of whatever page: only the browser changes it while
//      somebody ticks; and events click {action: put | like | aside | others | all, dataset,
//      target, …}.
// A card that is there already stays: what somebody types is never drawn over, only where it says
// what was known. A caption is sent when its box is left, after a pause in typing, and on Enter,
// which goes to the next picture. All text is set as text, never as HTML.
const list = element.querySelector('.album-cards'),
  bar = element.querySelector('.album-bar'),
  cards = new Map();
let ticked = new Set(),
  from = null; // the card that was ticked last: a range begins there
const options = () => props.options || {};
const make = (tag, settings, ...inside) => {
  const made = Object.assign(document.createElement(tag), settings);
  made.append(...inside);
  return made;
};

// ---- captions
const line = text => text.split(/\s+/).filter(Boolean).join(' ');
const changed = card => card.box.value !== card.known && line(card.box.value) !== card.known;
const mark = card => {
  card.root.dataset.state = changed(card) ? 'unsaved' : '';
};
const send = card => {
  clearTimeout(card.later);
  if (!changed(card) || card.busy === card.box.value || card.data.locked) return;
  card.sent = card.busy = card.box.value;
  setTimeout(() => {
    card.busy = null;
  }, 3000);
  trigger('click', {
    action: 'put',
    dataset: card.data.dataset,
    target: card.data.key,
    text: card.box.value,
    was: card.known,
  });
};

// ---- ticks
const counted = (count, noun) => `${count.toLocaleString('en')} ${noun}${count === 1 ? '' : 's'}`;
const press = (action, label, title, act) => {
  const made = make('button', {type: 'button', className: 'lora-link', textContent: label, title});
  made.dataset.action = action;
  made.addEventListener('click', act);
  return made;
};
const state = make('span', {className: 'album-ticked'});
state.setAttribute('role', 'status');
const all = press('all', '', 'Ctrl + A', () =>
  trigger('click', {action: 'all', dataset: options().dataset, ticked: [...ticked]}),
);
const none = press('none', 'deselect', 'Deselect all images', () =>
  tick([...ticked], false),
);
const aside = press(
  'aside',
  'Exclude',
  'Remove the selected images and their captions from the dataset; Undo brings them back',
  () =>
    trigger('click', {
      action: 'aside',
      dataset: options().dataset,
      target: null,
      ticked: [...ticked],
    }),
);
bar.append(make('div', {}, state, make('span', {className: 'album-links'}, all, none, aside)));
const paint = () => {
  const {shown = 0, whole = true, locked = true} = options();
  bar.hidden = !options().dataset;
  bar.dataset.ticked = ticked.size;
  const those = whole
    ? `all ${counted(shown, 'image')}`
    : `the ${counted(shown, 'image')} shown`;
  const target = ticked.size === 1 ? 'it' : 'them';
  state.textContent = ticked.size
    ? `${counted(ticked.size, 'image')} selected: actions apply to ${target}`
    : `Nothing selected: actions apply to ${those}`;
  all.textContent = `select all ${shown.toLocaleString('en')}${whole ? '' : ' shown'}`;
  all.hidden = !shown;
  none.hidden = !ticked.size;
  aside.hidden = !ticked.size || locked;
  for (const card of cards.values()) {
    card.tick.checked = ticked.has(card.data.key);
    card.root.dataset.ticked = card.tick.checked ? 'yes' : '';
  }
};
const tick = (keys, on) => {
  for (const key of keys)
    if (on) ticked.add(key);
    else ticked.delete(key);
  props.value = [...ticked];
  paint();
};
const range = (card, far) => {
  // with the one that was ticked last, as it is ticked; else this one alone
  const every = [...list.children].map(root => root.dataset.key),
    on = card.tick.checked;
  const [one, other] = [every.indexOf(card.data.key), far ? every.indexOf(from) : -1].sort(
    (a, b) => a - b,
  );
  tick(one < 0 ? [card.data.key] : every.slice(one, other + 1), on);
  from = card.data.key;
};
const walk = (card, by, selector) => {
  // the same part of the next or previous card
  const every = [...list.querySelectorAll(selector)];
  const at = every.indexOf(selector === 'textarea' ? card.box : card.tick);
  (every[at + by] || every[at]).focus();
};

// ---- cards
const button = (card, action, label, title, more) =>
  press(action, label, title, () =>
    trigger('click', {
      action,
      dataset: card.data.dataset,
      target: card.data.key,
      ...(more ? more() : {}),
    }),
  );
const build = given => {
  const card = {data: given, known: given.caption, sent: null, busy: null, later: 0};
  card.box = make('textarea', {
    rows: 3,
    value: given.caption,
    maxLength: 16000,
    placeholder: 'no caption yet',
    spellcheck: true,
  });
  card.box.setAttribute('aria-label', `Caption of ${given.key}`);
  card.box.addEventListener('input', () => {
    mark(card);
    clearTimeout(card.later);
    card.later = setTimeout(() => send(card), 4000);
  });
  card.box.addEventListener('blur', () => send(card));
  card.box.addEventListener('keydown', event => {
    if (event.key === 'Escape') {
      card.box.value = card.known;
      mark(card);
    }
    if (event.key !== 'Enter' || event.isComposing) return;
    event.preventDefault();
    send(card);
    walk(card, 1, 'textarea');
  });
  const help = 'Shift: select everything since the last one';
  card.tick = make('input', {type: 'checkbox', title: help});
  card.tick.setAttribute('aria-label', `Select ${given.key}`);
  card.tick.addEventListener('click', event => range(card, event.shiftKey)); // Space clicks too
  card.tick.addEventListener('keydown', event => {
    const by = {ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1}[event.key];
    if (!by) return;
    event.preventDefault();
    walk(card, by, 'input[type=checkbox]');
  });
  card.about = make('small', {className: 'album-about'});
  card.fault = make('p', {className: 'lora-problem'});
  card.links = make('span', {className: 'album-links'});
  card.picture = given.src
    ? make('img', {src: given.src, alt: given.key, loading: 'lazy'})
    : make('span', {className: 'gone', textContent: 'cannot be shown'});
  card.root = make(
    'div',
    {className: 'album-card'},
    make(
      'div',
      {className: 'album-seen'},
      card.picture,
      make('label', {className: 'album-tick'}, card.tick),
    ),
    make(
      'div',
      {className: 'album-side'},
      card.box,
      card.fault,
      make('div', {className: 'album-foot'}, card.about, card.links),
    ),
  );
  card.root.dataset.key = given.key;
  return card;
};
const tell = (card, given) => {
  let fault = given.fault;
  card.data = given;
  if (given.caption !== card.known) {
    if (!changed(card) || card.box.value === card.sent) card.box.value = given.caption;
    else if (card.sent === null || line(card.sent) !== given.caption) {
      const other = given.caption || 'nothing';
      fault = `Changed elsewhere to: ${other}. Your text stays; press Esc to use that one instead.`;
    }
    card.known = given.caption;
    card.sent = null;
  }
  mark(card);
  card.box.readOnly = given.locked;
  card.about.textContent = [given.note, given.key, given.about, given.by]
    .filter(Boolean)
    .join(' \u00b7 ');
  if (fault || !changed(card)) card.fault.textContent = fault;
  card.links.replaceChildren(
    ...(given.locked
      ? []
      : [
          button(card, 'like', 'Similar', 'Find images like this one (CLIP)'),
          ...(given.others
            ? [
                button(
                  card,
                  'others',
                  given.others === 1
                    ? 'exclude the other'
                    : `exclude the ${given.others} others`,
                  'Remove the rest of its group from the dataset; Undo brings them back',
                  () => ({ticked: [...ticked]}),
                ),
              ]
            : []),
          button(
            card,
            'aside',
            'Exclude',
            'Remove it and its caption from the dataset; Undo brings it back',
            () => ({ticked: [...ticked]}),
          ),
        ]),
  );
};
const draw = () => {
  const wanted = Array.isArray(options().cards) ? options().cards : [],
    seen = new Set();
  const every = wanted.map(given => {
    const id = given.dataset + '/' + given.key;
    seen.add(id);
    if (!cards.has(id)) cards.set(id, build(given));
    tell(cards.get(id), given);
    return cards.get(id).root;
  });
  for (const [id, card] of cards)
    if (!seen.has(id)) {
      clearTimeout(card.later);
      card.root.remove();
      cards.delete(id);
    }
  every.forEach((root, at) => {
    if (list.children[at] !== root) list.insertBefore(root, list.children[at] || null);
  });
  paint();
};
document.addEventListener('keydown', event => {
  if (!(event.ctrlKey || event.metaKey) || event.altKey || !element.offsetParent) return;
  // there the browser's own keys work
  if (event.target.closest('input:not([type=checkbox]), textarea, [contenteditable]')) return;
  const key = event.key.toLowerCase(),
    which = key === 'y' || (key === 'z' && event.shiftKey) ? 'redo' : key === 'z' ? 'undo' : '';
  if (!which && (key !== 'a' || event.shiftKey || all.hidden)) return;
  event.preventDefault();
  if (which) document.querySelector(`#album-${which}`).click();
  else all.click();
});
addEventListener('pagehide', () => cards.forEach(send));
watch('options', draw);
watch('value', () => {
  ticked = new Set(Array.isArray(props.value) ? props.value : []);
  paint();
});
draw();
