// The tabs of the page, for the scripts that go to one. Knows: how gradio marks its tabs, in the
// header and in the menu of those that have no room there, and how a tab says that it is being
// filled (ui/app.py). Does not know: what is on a tab.

const PATIENCE = 200; // looks, 50 ms apart, for what the server has to draw first
const SELF_FILLED = ['txt2img', 'gallery', 'models', 'queue']; // they never say that they are

const later = (find, act, tries = PATIENCE, otherwise = () => {}) => {
  const element = find();
  if (element) act(element);
  else if (tries) setTimeout(later, 50, find, act, tries - 1, otherwise);
  else otherwise();
};
const list = () => {
  const shown = document.querySelectorAll('#tabs [role="tab"]'),
    folded = document.querySelectorAll('#tabs .overflow-dropdown button');
  const named = [...shown, ...folded].map(button => [button.textContent.trim(), button]);
  return new Map(named.filter(([title]) => title));
};
const inView = () => [...document.querySelectorAll('.tabitem')].find(tab => tab.offsetParent);
const isFilled = tab =>
  tab.offsetParent &&
  !tab.inert &&
  ('seen' in tab.dataset || SELF_FILLED.includes(tab.id.replace('tab-', '')));

window.studioTabs = {
  later,
  list, // title → what opens it
  inView,
  open: title => list().get(title)?.click(),
  // Goes there, and does `act` with its element as soon as it is filled; `otherwise` if it is not.
  openThen: (id, title, act, otherwise) => {
    if (inView()?.id !== `tab-${id}`) list().get(title)?.click();
    const find = () => {
      const tab = document.getElementById(`tab-${id}`);
      return tab && isFilled(tab) ? tab : null;
    };
    later(find, act, PATIENCE, otherwise);
  },
};
