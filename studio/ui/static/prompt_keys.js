// Keys of prompts: the last ones come back, words are weighed. Knows: prompts by their ids, A1111's
// brackets and LoRA tags, localStorage. Does not know: how a prompt is read; who paints it.

const prompts = '[id$="-prompt"] textarea';
const isNegative = field => field.closest('[id$="-prompt"]').id.endsWith('-negative-prompt');

// As typed: gradio hears of it, and Ctrl + Z takes it back. Nothing is offered for completion.
const replace = (field, from, to, text) => {
  field.dataset.quiet = '';
  field.focus();
  field.setSelectionRange(from, to);
  if (text) document.execCommand('insertText', false, text);
  else if (from !== to) document.execCommand('delete');
  delete field.dataset.quiet;
};

// ---- the last prompts, kept in this browser
const MOST = 100; // of each kind
const LONGEST = 4000; // characters
const login = document.querySelector('meta[name="studio-login"]')?.content || '';
const keyOf = field => `studio-prompts ${login} ${isNegative(field) ? 'negative' : 'positive'}`;
const recall = key => {
  try {
    const texts = JSON.parse(localStorage.getItem(key));
    return Array.isArray(texts) ? texts.filter(text => typeof text === 'string') : [];
  } catch {
    return [];
  }
};
const note = field => {
  const text = field.value.trim(),
    key = keyOf(field);
  if (!text || text.length > LONGEST) return;
  try {
    const others = recall(key).filter(other => other !== text);
    localStorage.setItem(key, JSON.stringify([text, ...others].slice(0, MOST)));
  } catch {} // storage may be forbidden or full
};
addEventListener(
  'click',
  event => {
    const button = event.target.closest?.('.on-ctrl-enter');
    button?.closest('.tabitem')?.querySelectorAll(prompts).forEach(note);
  },
  true,
);
window.studioPrompts = {
  forget: () => {
    for (const kind of ['positive', 'negative'])
      try {
        localStorage.removeItem(`studio-prompts ${login} ${kind}`);
      } catch {}
  },
};

let walk = null; // {field, texts, index, shown}: the first text is what stood there
const step = (field, by) => {
  if (walk?.field !== field || walk.shown !== field.value) {
    const own = field.value;
    walk = {field, texts: [own, ...recall(keyOf(field)).filter(text => text !== own)], index: 0};
  }
  const index = walk.index + by;
  if (index >= 0 && index < walk.texts.length) {
    walk.index = index;
    replace(field, 0, field.value.length, walk.texts[index]);
  }
  walk.shown = field.value;
};

// ---- weights
const number = '[+-]?(?:\\d+\\.?\\d*|\\.\\d+)';
const format = weight => String(Math.round(weight * 100) / 100);
const change = (text, by) => format(Math.max(0, Math.min(10, Number(text) + by)));

// Inside <lora:name:0.8> the first weight is what changes.
const weighTag = (field, by) => {
  const tags = new RegExp(`(<(?:lora|lyco):[^:<>]+)(?::(${number})([^<>]*))?>`, 'gi');
  for (const match of field.value.matchAll(tags)) {
    const end = match.index + match[0].length;
    if (field.selectionStart < match.index || field.selectionStart >= end) continue;
    if (field.selectionEnd > end) continue;
    const tag = `${match[1]}:${change(match[2] ?? '1', by)}${match[3] ?? ''}>`;
    replace(field, match.index, end, tag);
    field.setSelectionRange(match.index + 1, match.index + 1);
    return true;
  }
  return false;
};

const isEscaped = (text, index) => /(^|[^\\])(\\\\)*\\$/.test(text.slice(0, index));
// The round brackets around a place, the innermost ones: [after the opening, before the closing].
const findBrackets = (text, place) => {
  let depth = 0,
    from = -1;
  for (let index = place - 1; index >= 0 && from < 0; index--) {
    if (isEscaped(text, index)) continue;
    if (text[index] === ')') depth++;
    else if (text[index] === '(' && depth-- === 0) from = index + 1;
  }
  if (from < 0) return null;
  depth = 0;
  for (let index = place; index < text.length; index++) {
    if (isEscaped(text, index)) continue;
    if (text[index] === '(') depth++;
    else if (text[index] === ')' && depth-- === 0) return [from, index];
  }
  return null;
};
const findWord = (text, place) => {
  const edge = /[\s\\.,/!?%^*;:{}=`~()[\]<>|]/;
  let [from, to] = [place, place];
  while (from > 0 && !edge.test(text[from - 1])) from--;
  while (to < text.length && !edge.test(text[to])) to++;
  return [from, to];
};
const weigh = (field, by) => {
  if (weighTag(field, by)) return true;
  const text = field.value;
  let [from, to] = [field.selectionStart, field.selectionEnd];
  if (from === to) {
    const brackets = findBrackets(text, from);
    const weighted = new RegExp(`:\\s*${number}\\s*$`);
    if (brackets && weighted.test(text.slice(...brackets)))
      [from, to] = [brackets[0], brackets[0] + text.slice(...brackets).search(weighted)];
    else if (brackets) [from, to] = brackets;
    else [from, to] = findWord(text, from);
  }
  while (from < to && /\s/.test(text[from])) from++;
  while (to > from && /\s/.test(text[to - 1])) to--;
  // The brackets may be selected as well.
  const whole = new RegExp(`^\\(([^]*):\\s*${number}\\s*\\)$`).exec(text.slice(from, to));
  if (whole) [from, to] = [from + 1, from + 1 + whole[1].length];
  if (from === to) return false;
  const words = text.slice(from, to),
    hasOpening = text[from - 1] === '(' && !isEscaped(text, from - 1),
    closing = new RegExp(`^:\\s*(${number})\\s*\\)`).exec(text.slice(to));
  let [begin, end, weight] = [from, to, '1'];
  if (hasOpening && closing) [begin, end, weight] = [from - 1, to + closing[0].length, closing[1]];
  else if (hasOpening && text[to] === ')') [begin, end, weight] = [from - 1, to + 1, '1.1'];
  const changed = change(weight, by);
  const isPlain = changed === '1';
  replace(field, begin, end, isPlain ? words : `(${words}:${changed})`);
  const start = begin + (isPlain ? 0 : 1);
  field.setSelectionRange(start, start + words.length);
  return true;
};

addEventListener(
  'keydown',
  event => {
    const field = event.target;
    const by = {ArrowUp: 1, ArrowDown: -1}[event.key];
    if (!by || !field.matches?.(prompts) || event.isComposing || event.shiftKey) return;
    const isControl = event.ctrlKey || event.metaKey;
    if (event.altKey && !isControl) step(field, by);
    else if (isControl && !event.altKey) weigh(field, by / 10);
    else if (!isControl && by > 0 && field.value === '') step(field, by);
    else return;
    event.preventDefault();
    event.stopImmediatePropagation();
  },
  true,
);

// A weight's decimal comma is a point as soon as its bracket is closed.
const mendWeight = event => {
  const field = event.target;
  if (!field.matches?.(prompts) || event.inputType !== 'insertText') return;
  if (event.data !== ')' && event.data !== '>') return;
  const place = field.selectionStart,
    match = /(?:\([^()]*|<(?:lora|lyco):[^:<>]+):\s*[+-]?\d+(,)\d+\s*[)>]$/i.exec(
      field.value.slice(0, place),
    );
  if (!match) return;
  const comma = field.value.lastIndexOf(',', place);
  replace(field, comma, comma + 1, '.');
  field.setSelectionRange(place, place);
};
addEventListener('input', mendWeight, true); // before shortcuts.js holds it back
