// The command palette (Ctrl + K) and the list of keys (?). Knows: the page's tabs, the buttons of
// the tab in view, who tells which presets there are (form_memory.js). Does not know: what a button
// does. All text is set as text, never as HTML.

const MOST = 60; // rows at once
const KEYS = [
  [
    'Everywhere',
    ['Ctrl + K', 'Command palette: any action, tab or preset'],
    ['Ctrl + Enter', 'Generate, Run or Start in this tab'],
    ['Ctrl + V', 'An image: into this tab, or choose what it is for'],
    ['?', 'This list (outside of text fields)'],
  ],
  [
    'In a prompt',
    ['Ctrl + ↑ ↓', 'Weigh the word or the selection 0.1 more or less'],
    ['Alt + ↑ ↓', 'Earlier and later prompts'],
    ['↑', 'In an empty prompt: the last one'],
    ['Tab', 'Take the word that is offered'],
  ],
  [
    'In the Gallery',
    ['Arrow keys', 'Move between images; with Shift select them'],
    ['Space', 'Open large; Esc closes'],
    ['0 – 5', 'Stars'],
    ['F', 'Favourite'],
    ['X', 'Select'],
    ['Delete', 'Move to the bin'],
    ['Ctrl + A', 'Select all on this page'],
    ['Ctrl + Z', 'Undo moving to the bin'],
  ],
  [
    'On an image',
    ['Right-click', 'Menu: send to, reuse, compare, favourite, bin'],
    ['Shift + F10', 'The same menu by keyboard'],
  ],
];

const make = (tag, settings = {}, ...inside) => {
  const made = Object.assign(document.createElement(tag), settings);
  made.append(...inside);
  return made;
};
const isSeen = element => Boolean(element.offsetParent);
const panel = window.studioTabs.inView;

// ---- what there is to do
const listTabs = () =>
  [...window.studioTabs.list()].map(([name, button]) => ({
    group: 'Tab',
    text: name,
    act: () => button.click(),
  }));
const listActions = () => {
  const buttons = [...(panel()?.querySelectorAll('button[id]') || [])].filter(
    button => isSeen(button) && !button.disabled && button.textContent.trim(),
  );
  const named = new Map();
  for (const button of buttons) {
    const text = button.textContent.trim();
    if (text.length < 60 && !named.has(text)) named.set(text, button);
  }
  const main = button => button.classList.contains('on-ctrl-enter');
  return [...named]
    .sort(([, one], [, other]) => main(other) - main(one))
    .map(([text, button]) => ({
      group: 'Action',
      text,
      keys: main(button) ? 'Ctrl + Enter' : '',
      act: () => button.click(),
    }));
};
const listOwn = () => [
  {group: 'Page', text: 'List keys', keys: '?', act: () => openKeys()},
  {group: 'Page', text: 'Forget last prompts', act: () => window.studioPrompts.forget()},
];
const presetForm = () => {
  const id = panel()?.querySelector('.form-memory')?.id || 'txt2img-memory';
  return id.replace(/-memory$/, '');
};
const listPresets = (form, names) =>
  names.map(name => ({
    group: 'Preset',
    text: name,
    act: () => {
      if (panel()?.id !== `tab-${form}`) window.studioTabs.open('txt2img');
      window.studioForms.loadPreset(form, name);
    },
  }));

// ---- the palette
const field = make('input', {
  type: 'text',
  placeholder: 'Type an action, a tab or a preset',
  autocomplete: 'off',
  spellcheck: false,
  maxLength: 100,
});
for (const [name, value] of Object.entries({
  role: 'combobox',
  'aria-label': 'Command',
  'aria-controls': 'palette-list',
  'aria-expanded': 'true',
  'aria-autocomplete': 'list',
}))
  field.setAttribute(name, value);
const list = make('ul', {id: 'palette-list'});
list.setAttribute('role', 'listbox');
list.setAttribute('aria-label', 'Commands');
const none = make('p', {className: 'palette-none', textContent: 'Nothing matches.'});
none.setAttribute('role', 'status');
const palette = make('dialog', {id: 'palette'}, field, list, none);
palette.setAttribute('aria-label', 'Command palette');
let commands = [],
  offered = [],
  chosen = 0,
  before = null; // what had the focus

const mark = index => {
  chosen = index;
  [...list.children].forEach((row, at) => row.setAttribute('aria-selected', at === index));
  list.children[index]?.scrollIntoView({block: 'nearest'});
  if (list.children[index]) field.setAttribute('aria-activedescendant', `palette-row-${index}`);
  else field.removeAttribute('aria-activedescendant');
};
const draw = () => {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rank = command => {
    const text = command.text.toLowerCase(),
      all = `${command.group.toLowerCase()} ${text}`;
    if (!words.every(word => all.includes(word))) return 0;
    return words.length && text.startsWith(words[0]) ? 2 : 1;
  };
  offered = commands
    .map((command, index) => ({command, index, rank: rank(command)}))
    .filter(row => row.rank)
    .sort((one, other) => other.rank - one.rank || one.index - other.index)
    .slice(0, MOST)
    .map(row => row.command);
  list.replaceChildren(
    ...offered.map((command, index) => {
      const row = make(
        'li',
        {id: `palette-row-${index}`},
        make('small', {textContent: command.group}),
        make('span', {textContent: command.text}),
      );
      if (command.keys) row.append(make('kbd', {textContent: command.keys}));
      row.setAttribute('role', 'option');
      return row;
    }),
  );
  list.hidden = !offered.length;
  none.hidden = Boolean(offered.length);
  mark(0);
};
const take = index => {
  const command = offered[index];
  if (!command) return;
  palette.close();
  command.act();
};
const openPalette = () => {
  if (palette.open) return palette.close();
  if (!palette.isConnected) document.body.append(palette);
  before = document.activeElement;
  before?.blur?.(); // so that gradio hears what is typed there
  field.value = '';
  commands = [...listActions(), ...listTabs(), ...listOwn()];
  draw();
  palette.showModal();
  field.focus();
  const form = presetForm();
  window.studioForms.askPresets(form, names => {
    if (!palette.open) return;
    const others = commands.filter(command => command.group !== 'Preset');
    commands = [...others, ...listPresets(form, names)];
    const kept = chosen;
    draw();
    mark(Math.min(kept, offered.length - 1));
  });
};
field.addEventListener('input', draw);
field.addEventListener('keydown', event => {
  const number = offered.length;
  if (event.isComposing || !number) return;
  if (event.key === 'ArrowDown') mark((chosen + 1) % number);
  else if (event.key === 'ArrowUp') mark((chosen + number - 1) % number);
  else if (event.key === 'PageDown') mark(Math.min(chosen + 8, number - 1));
  else if (event.key === 'PageUp') mark(Math.max(chosen - 8, 0));
  else if (event.key === 'Enter') take(chosen);
  else return;
  event.preventDefault();
  event.stopPropagation();
});
list.addEventListener('click', event => {
  take([...list.children].indexOf(event.target.closest('li')));
});

// ---- the keys
const rowsOf = ([title, ...rows]) =>
  make(
    'section',
    {},
    make('h3', {textContent: title}),
    make(
      'dl',
      {},
      ...rows.map(([keys, text]) =>
        make(
          'div',
          {},
          make('dt', {}, make('kbd', {textContent: keys})),
          make('dd', {textContent: text}),
        ),
      ),
    ),
  );
const close = make('button', {type: 'button', className: 'keys-close', textContent: 'Close'});
const keys = make(
  'dialog',
  {id: 'keys'},
  make('h2', {id: 'keys-title', textContent: 'Keys'}),
  make('div', {className: 'keys-columns'}, ...KEYS.map(rowsOf)),
  close,
);
keys.setAttribute('aria-labelledby', 'keys-title');
close.addEventListener('click', () => keys.close());
const openKeys = () => {
  if (!keys.isConnected) document.body.append(keys);
  if (!keys.open) {
    before = document.activeElement;
    keys.showModal();
  }
};

for (const dialog of [palette, keys]) {
  dialog.addEventListener('click', event => event.target === dialog && dialog.close());
  dialog.addEventListener('close', () => before?.isConnected && before.focus?.());
}
const typed = 'input:not([type="checkbox"], [type="radio"], [type="range"]), textarea, select';
addEventListener(
  'keydown',
  event => {
    const isControl = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
    if (isControl && event.key.toLowerCase() === 'k') openPalette();
    else if (event.key === '?' && !event.target.closest?.(`${typed}, [contenteditable], dialog`))
      openKeys();
    else return;
    event.preventDefault();
    event.stopPropagation();
  },
  true,
);
