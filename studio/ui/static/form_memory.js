// Keeps what is typed into a form while its browser tab lives: for a reload, and for Back. Knows:
// the hidden block of each form (components/form_memory.py), sessionStorage, which preset a form
// was filled from. Does not know: what a field means, how it is put back (the server does that when
// the form is filled).

const MOST = 200_000; // characters of a form; of a longer one nothing is kept
const PAUSE = 900; // ms after the last key or click
const LATER = 4000; // ms after a click, which may have filled the form
const login = document.querySelector('meta[name="studio-login"]')?.content || '';
const keyOf = form => `studio-form ${login} ${form}`;
const begun = new Set(); // forms that the server has filled: earlier there is nothing to keep
const timers = new Map();
const listeners = new Map(); // form → who waits for its presets
const asked = new Set(); // forms that the palette has a preset loaded into

const load = form => {
  try {
    return JSON.parse(sessionStorage.getItem(keyOf(form))) || {};
  } catch {
    return {}; // storage may be forbidden
  }
};
const store = (form, kept) => {
  try {
    const text = JSON.stringify(kept);
    if (text.length <= MOST) sessionStorage.setItem(keyOf(form), text);
    else sessionStorage.removeItem(keyOf(form));
  } catch {}
};
const blockOf = form => document.getElementById(`${form}-memory`);
const tell = (form, name, detail = {}) =>
  dispatchEvent(new CustomEvent(`studio-${name}`, {detail: {...detail, form}}));

// ---- whether a form still is what its preset made of it
const isSame = (one, other) => {
  const plain = value => (value === '' || value === undefined ? null : value);
  return JSON.stringify(plain(one)) === JSON.stringify(plain(other));
};
const markPreset = (form, kept) => {
  const id = form === 'txt2img' ? 'presets' : `${form}-presets`;
  const title = document.querySelector(`#${id} > .label-wrap, #${id} button.label-wrap`);
  if (!title) return;
  const {preset, values = {}} = kept;
  if (!preset) {
    delete title.dataset.preset;
    return;
  }
  const isChanged = Object.keys(preset.values).some(
    name => !isSame(preset.values[name], values[name]),
  );
  title.dataset.preset = isChanged ? `${preset.name}, changed` : preset.name;
};

const toValues = (names, values) =>
  Object.fromEntries(names.map((name, index) => [name, values[index] ?? null]));

window.studioForms = {
  read: form => {
    try {
      return sessionStorage.getItem(keyOf(form)) || '';
    } catch {
      return '';
    }
  },
  begin: form => {
    begun.add(form);
    const kept = load(form);
    markPreset(form, kept);
  },
  keep: (form, names, values) => {
    if (!begun.has(form)) return;
    const kept = {...load(form), values: toValues(names, values)};
    store(form, kept);
    markPreset(form, kept);
  },
  name: (form, preset, names, values) => {
    if (!preset) return;
    const all = toValues(names, values);
    const kept = {values: all, preset: {name: String(preset), values: all}};
    store(form, kept);
    markPreset(form, kept);
  },
  nameAsked: (form, ...rest) => asked.delete(form) && window.studioForms.name(form, ...rest),
  unname: form => {
    const kept = load(form);
    delete kept.preset;
    store(form, kept);
    markPreset(form, kept);
  },
  forget: form => {
    try {
      sessionStorage.removeItem(keyOf(form));
    } catch {}
    markPreset(form, {});
  },
  // Presets: asked of the server, which knows who may see which.
  askPresets: (form, listen) => {
    listeners.set(form, listen);
    tell(form, 'ask', {action: 'presets', time: Date.now()});
  },
  offerPresets: (form, names) => listeners.get(form)?.(names),
  loadPreset: (form, name) => {
    asked.add(form);
    tell(form, 'ask', {action: 'preset', name});
  },
};

// ---- when to keep
const formOf = element => {
  const block = element.closest?.('.tabitem')?.querySelector('.form-memory');
  return block?.id.replace(/-memory$/, '');
};
const keepSoon = event => {
  const form = formOf(event.target);
  if (!form || !begun.has(form)) return;
  clearTimeout(timers.get(form));
  const collect = name => () => {
    timers.delete(name);
    tell(form, 'collect');
  };
  timers.set(form, setTimeout(collect(form), PAUSE));
  if (event.type !== 'click') return;
  clearTimeout(timers.get(`${form} later`));
  timers.set(`${form} later`, setTimeout(collect(`${form} later`), LATER));
};
for (const kind of ['input', 'change', 'click', 'drop']) addEventListener(kind, keepSoon, true);

// Whoever leaves within the pause: gradio cannot be asked any more, but what is typed can be read.
addEventListener('pagehide', () => {
  for (const form of [...timers.keys()].filter(name => begun.has(name))) {
    const kept = load(form),
      names = blockOf(form)?.dataset.fields?.split(' ') || [];
    kept.values ||= {};
    for (const block of document.querySelectorAll(`[id^="${form}-"].block`)) {
      const name = block.id.slice(form.length + 1).replaceAll('-', '_');
      const field = block.querySelector(
        'textarea[data-testid="textbox"], input[data-testid="textbox"], input[type="number"]',
      );
      if (!field || !names.includes(name)) continue;
      if (field.type !== 'number') kept.values[name] = field.value;
      else kept.values[name] = field.value === '' ? null : Number(field.value);
    }
    store(form, kept);
  }
});
