// Help lines as tips. Knows: gradio's names of fields and the help lines beside them, which the
// style sheet hides. Does not know: what any of them says.

// One element shows them all, and nothing is added to the page's fields: a form has sixty.
const names = '[data-testid="block-info"].has-info, label:has(+ .info-text)';
const hosts = `${names}, button.icon`;
const WAIT = 350; // ms over a name
const KEYBOARD_WAIT = 600; // ms in a field that was reached by Tab

const tip = document.createElement('div');
Object.assign(tip, {id: 'tip', role: 'tooltip', popover: 'manual'});
let host = null, // what the tip is about
  timer = 0,
  byKeyboard = false,
  count = 0;

const helpOf = name => name.parentElement.querySelector('.info-text');
const textOf = element =>
  element.matches('button') ? element.textContent.trim() : helpOf(element)?.textContent.trim();

const hide = () => {
  clearTimeout(timer);
  if (host && tip.matches(':popover-open')) tip.hidePopover();
  host = null;
};

const show = element => {
  const text = textOf(element);
  if (!text || !element.isConnected) return;
  if (!tip.isConnected) document.body.append(tip);
  host = element;
  tip.textContent = text;
  tip.showPopover();
  const from = element.getBoundingClientRect(),
    size = tip.getBoundingClientRect(),
    gap = 6,
    edge = 8;
  const above = from.top - size.height - gap;
  tip.style.top = `${above < edge ? from.bottom + gap : above}px`;
  tip.style.left = `${Math.max(edge, Math.min(from.left, innerWidth - size.width - edge))}px`;
};

const showSoon = (element, wait) => {
  if (host === element) return;
  hide();
  timer = setTimeout(() => show(element), wait);
};

addEventListener('pointerover', event => {
  if (event.pointerType === 'touch') return;
  const element = event.target.closest?.(hosts);
  if (element) showSoon(element, WAIT);
  else if (event.target !== tip) hide(); // the pointer may rest on the tip itself
});

// A tap on a name shows its help, and does not bring up the keyboard.
addEventListener('click', event => {
  const element = event.target.closest?.(hosts);
  if (element && event.pointerType === 'touch' && element.matches('[data-testid="block-info"]')) {
    event.preventDefault();
    host === element ? hide() : show(element);
  } else hide();
});

// Whoever goes through the form with Tab is told after a moment; a screen reader at once.
addEventListener('keydown', event => {
  byKeyboard = event.key === 'Tab';
  if (event.key === 'Escape' || !byKeyboard) hide();
});
addEventListener('pointerdown', () => (byKeyboard = false), true);
addEventListener('focusin', event => {
  const field = event.target;
  if (byKeyboard && field.matches('button.icon')) return showSoon(field, KEYBOARD_WAIT);
  const help = field.closest?.('.block')?.querySelector('.info-text');
  if (!help || !field.matches('input, textarea')) return byKeyboard && hide();
  if (!field.hasAttribute('aria-describedby')) {
    help.id ||= `help-${++count}`;
    field.setAttribute('aria-describedby', help.id);
  }
  const name = help.parentElement.querySelector(names);
  if (byKeyboard && name) showSoon(name, KEYBOARD_WAIT);
});
addEventListener('focusout', hide);
addEventListener('scroll', hide, {capture: true, passive: true});
