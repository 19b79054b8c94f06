// Keeps the open list of a dropdown to what is typed. Knows: how gradio marks a dropdown's text,
// its list and the name that Enter would take. Does not know: which names there are, or who sends
// them.

// gradio looks for typed text only when a key goes down: a list that comes from the server is shown
// whole until the next key, and so are the names for a letter that comes later than its key, or for
// pasted text. So its list is looked at whenever it or the text has changed, whichever came first.
let box = null, // the dropdown's text field that is being typed in
  isTyped = false;

const press = key => box.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));

// As gradio does it: anywhere in the name, capitals or not.
const showsOthers = () => {
  const text = box.value.toLowerCase(),
    list = document.getElementById(box.getAttribute('aria-controls'));
  return [...(list?.querySelectorAll('[role="option"]') || [])].some(
    option => !option.getAttribute('aria-label').toLowerCase().includes(text),
  );
};

const observer = new MutationObserver(() => {
  if (!box || !isTyped || !showsOthers()) return;
  // Any key would do, but most go to the first name: down and up stays where somebody went.
  if (box.getAttribute('aria-activedescendant')) ['ArrowDown', 'ArrowUp'].forEach(press);
  else press('Shift');
});

addEventListener('focusin', event => {
  observer.disconnect();
  box = event.target.matches?.('.wrap input[role="combobox"]') ? event.target : null;
  isTyped = false;
  if (!box) return;
  observer.observe(box.closest('.wrap'), {
    attributeFilter: ['aria-label'],
    childList: true,
    subtree: true,
  });
});
addEventListener('focusout', event => {
  if (event.target !== box) return;
  observer.disconnect();
  box = null;
});
addEventListener('input', event => {
  if (event.target !== box) return;
  isTyped = true;
  press('Shift');
});
