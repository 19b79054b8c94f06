// The menu of an image: right-click, the menu key, or its "…" button. Knows: the results of the
// tabs, the tiles of the gallery, the buttons that already do what it offers. Does not know: how
// any of it is done. All text is set as text, never as HTML.

const results = '.result img';
const tiles = '#gallery-grid .images-entry:not(.many)';
const {later} = window.studioTabs;

const menu = Object.assign(document.createElement('div'), {id: 'image-menu', popover: 'manual'});
menu.setAttribute('role', 'menu');
menu.setAttribute('aria-label', 'Image');
let before = null; // what had the focus
const isOpen = () => menu.matches(':popover-open');

const isSeen = element => Boolean(element?.offsetParent);
const ask = (form, detail) =>
  dispatchEvent(new CustomEvent('studio-ask', {detail: {...detail, form}}));

const PARTS = {
  prompt: 'Reuse prompt',
  seed: 'Reuse seed',
  size: 'Reuse size',
  all: 'Reuse all settings',
};

// What a tab's result can do: all that its buttons can, and a few things more.
const listForResult = tab => {
  const form = tab.id.replace(/^tab-/, '');
  const buttons = [...tab.querySelectorAll('.send button')].filter(
    button => isSeen(button) && !button.disabled && !button.matches('.more, [id$="reuse-seed"]'),
  );
  const items = buttons.map(button => [button.textContent.trim(), () => button.click()]);
  if (!tab.querySelector(`#${form}-memory`)) return items;
  const reuse = Object.entries(PARTS).map(([part, title]) => [
    title,
    () => ask(form, {action: 'reuse', part}),
  ]);
  return [
    ...items,
    null,
    ...reuse,
    null,
    ['Favourite', () => ask(form, {action: 'favourite'})],
    ['Move to bin', () => ask(form, {action: 'bin'})],
  ];
};

// The gallery's buttons are about the image in view: the tile comes into view first.
const listForTile = entry => {
  const id = entry.dataset.key.slice(1);
  const act = detail =>
    entry.parentElement.dispatchEvent(new CustomEvent('act', {detail: {...detail, id}}));
  const isInView = () => document.querySelector(`#gallery-about [data-target="${id}"]`);
  const inView = find => () => {
    entry.querySelector('.images-tile').click();
    later(() => isInView() && find(), button => button.click());
  };
  if (document.querySelector('#gallery-grid .images-line.bin'))
    return [['Restore', () => act({action: 'restore'})]];
  const sends = [...document.querySelectorAll('#tab-gallery .send button[id]')];
  const titles = sends.length
    ? sends.map(button => [button.textContent.trim(), button.id])
    : [['Send to txt2img', 'send-gallery-txt2img']];
  const reuse = Object.entries(PARTS).map(([part, title]) => [
    `${title} in txt2img`,
    () => {
      window.studioTabs.openThen('txt2img', 'txt2img', () =>
        ask('txt2img', {action: 'reuse', part, id}),
      );
    },
  ]);
  return [
    ...titles.map(([title, button]) => [
      title,
      inView(() => isSeen(document.getElementById(button)) && document.getElementById(button)),
    ]),
    null,
    ...reuse,
    null,
    ['Favourite', () => act({action: 'favourite'})],
    ['Move to bin', () => act({action: 'bin'})],
  ];
};

const open = (items, x, y) => {
  if (!items.length) return false;
  if (!menu.contains(document.activeElement)) before = document.activeElement;
  menu.replaceChildren(
    ...items.map(item => {
      if (!item) {
        const line = document.createElement('hr');
        line.setAttribute('role', 'separator');
        return line;
      }
      const button = Object.assign(document.createElement('button'), {
        type: 'button',
        textContent: item[0],
        tabIndex: -1,
      });
      button.setAttribute('role', 'menuitem');
      button.addEventListener('click', () => {
        menu.hidePopover();
        item[1]();
      });
      return button;
    }),
  );
  if (!menu.isConnected) document.body.append(menu);
  if (!isOpen()) menu.showPopover();
  const size = menu.getBoundingClientRect(),
    edge = 8;
  menu.style.left = `${Math.max(edge, Math.min(x, innerWidth - size.width - edge))}px`;
  menu.style.top = `${Math.max(edge, Math.min(y, innerHeight - size.height - edge))}px`;
  menu.querySelector('button').focus({preventScroll: true});
  return true;
};
const openFor = (element, x, y) => {
  const tile = element.closest?.(tiles);
  if (tile) return open(listForTile(tile), x, y);
  const tab = element.closest?.('.tabitem');
  if (!tab || !element.matches(`${results}, .more, .result *`)) return false;
  return open(listForResult(tab), x, y);
};

addEventListener('contextmenu', event => {
  const box = event.target.getBoundingClientRect?.();
  const isKey = event.button !== 2; // the menu key has no place of its own
  const [x, y] = isKey && box ? [box.left + 8, box.top + 8] : [event.clientX, event.clientY];
  if (openFor(event.target, x, y)) event.preventDefault();
});
addEventListener('click', event => {
  const more = event.target.closest?.('.send .more, .images-more');
  if (!more) return;
  const box = more.getBoundingClientRect();
  openFor(more, box.left, box.bottom + 4);
});
menu.addEventListener('keydown', event => {
  const items = [...menu.querySelectorAll('button')],
    index = items.indexOf(document.activeElement);
  const next = {
    ArrowDown: index + 1,
    ArrowUp: index - 1,
    Home: 0,
    End: items.length - 1,
  }[event.key];
  if (event.key === 'Tab' || event.key === 'Escape') menu.hidePopover();
  else if (next !== undefined) items.at(next % items.length).focus();
  else return;
  event.preventDefault();
});
menu.addEventListener('toggle', event => {
  if (event.newState === 'closed' && before?.isConnected) before.focus({preventScroll: true});
});
// An automatic popover would go when the right button comes up again.
for (const change of ['scroll', 'resize', 'pointerdown'])
  addEventListener(
    change,
    ({target}) => {
      const isInside = target instanceof Node && menu.contains(target);
      if (isOpen() && !isInside) menu.hidePopover();
    },
    true,
  );
