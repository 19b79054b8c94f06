// Brings what a button did into view. Knows: the panes of a tab. Does not know: what was done
// (ui/events.py, look_at_js), or whether it went well: it is told of what did.

const WAIT_FRAMES = 60; // what an event changed may be drawn a moment later
const FIRST = ['.stage > .view', '#sweep-head', '#run-head', '#queue-list', '.workspace'];

let origin = null; // what had the focus before

const isShown = element => element.getClientRects().length > 0;
const isTyping = () => {
  const active = document.activeElement;
  return active?.matches('textarea, input:not([type="radio"], [type="checkbox"], [type="range"])');
};

const look = (selectors, label, tries) => {
  const target = selectors
    .flatMap(selector => [...document.querySelectorAll(selector)])
    .find(isShown);
  if (!target) return tries && requestAnimationFrame(() => look(selectors, label, tries - 1));
  target.classList.add('looked-at'); // leaves room for the header
  target.scrollIntoView({block: 'nearest'});
  const {top, bottom} = target.getBoundingClientRect();
  if (top < 0 || bottom > innerHeight) target.scrollIntoView({block: 'start'});
  // Whoever asks with Ctrl + Enter goes on typing.
  if (isTyping()) return;
  if (label) {
    target.setAttribute('role', 'region');
    target.setAttribute('aria-label', label);
  }
  origin = document.activeElement;
  target.tabIndex = -1;
  target.focus({preventScroll: true});
};

// Escape leads back to the button.
addEventListener('keydown', event => {
  if (event.key !== 'Escape' || !event.target.matches?.('.looked-at')) return;
  if (origin?.isConnected) origin.focus();
});

addEventListener('studio-look', ({detail}) => {
  const {selector, label, tab, title} = detail;
  if (!tab) return requestAnimationFrame(() => look([selector], label, WAIT_FRAMES));
  window.studioTabs.open(title);
  const parts = FIRST.map(part => `#tab-${tab} ${part}`);
  requestAnimationFrame(() => look(parts, title, WAIT_FRAMES));
});
