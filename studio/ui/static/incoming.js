// Files and images that are dropped anywhere on the page, dragged from one place of it to another,
// or pasted: the person is asked what they are for. Knows: which tabs take files, and by which
// field; that a thumbnail in thumbs/ stands for an image in outputs/. Does not know: what a tab
// does with a file: each is put on the field as if somebody had chosen it there. All text is set as
// text, never as HTML.

const {later, inView, openThen} = window.studioTabs;
const MOST_FILES = 5000; // of a dropped folder
const SOON = 60; // looks for a field of a tab that is filled

const KINDS = {
  image: /\.(png|jpe?g|webp|avif|gif|bmp|tiff?|jxl|heic)$/i,
  model: /\.(safetensors|ckpt|pth?|bin|gguf)$/i,
  recipe: /\.(txt|json)$/i,
  settings: /\.(toml|json)$/i,
  ratings: /\.json$/i,
  caption: /\.(txt|caption)$/i,
  archive: /\.zip$/i,
};
// In the order in which they are offered. `field` is the input of the tab; `fold` the group of the
// form that has to be open; `many` how many files it takes at least; `pasted`: at once, in its tab.
const USES = [
  {
    tab: 'txt2img',
    title: 'txt2img',
    text: 'Read its settings',
    kinds: ['image', 'recipe'],
    field: '#drop input[type=file]',
    fold: '#from-picture',
    taken: '#drop',
  },
  {
    tab: 'img2img',
    title: 'img2img',
    text: 'Start from it',
    kinds: ['image'],
    field: '#tab-img2img .easel input[type=file]',
    pasted: true,
  },
  {
    tab: 'inpaint',
    title: 'Inpaint',
    text: 'Repaint a part of it',
    kinds: ['image'],
    field: '#tab-inpaint .easel input[type=file]',
    pasted: true,
  },
  {
    tab: 'upscale',
    title: 'Upscale',
    text: 'Enlarge it',
    kinds: ['image'],
    field: '#upscale-image input[type=file]',
    taken: '#upscale-image',
    pasted: true,
  },
  {
    tab: 'img2img',
    title: 'img2img',
    text: 'Start from each of them',
    kinds: ['image'],
    field: '#img2img-files input[type=file]',
    fold: '#img2img-many',
    taken: '#img2img-files',
    many: 2,
  },
  {
    tab: 'captioning',
    title: 'Captions',
    text: 'Add to a dataset',
    kinds: ['image', 'caption', 'archive'],
    field: '#album-files input[type=file]',
    fold: '#album-bring',
    taken: '#album-files',
    many: 1,
  },
  {
    tab: 'models',
    title: 'Models',
    text: 'Add to the library',
    kinds: ['model'],
    field: '#models-drop input[type=file]',
    fold: '#models-add',
    taken: '#models-drop',
    missing: 'Models takes no files now; only the owner of this studio can add some.',
  },
  {
    tab: 'training',
    title: 'Training',
    text: 'Import as kohya settings',
    kinds: ['settings'],
    field: 'input[type=file]:has(+ #train-upload)',
    fold: '#train-kohya',
  },
  {
    tab: 'sweep',
    title: 'Sweep',
    text: 'Import as ratings of the open sweep',
    kinds: ['ratings'],
    field: 'input[type=file]:has(+ #sweep-verdicts)',
    fold: '#sweep-export',
    missing: 'Open the sweep that was rated first, then drop the file again.',
  },
];

const make = (tag, settings = {}, ...inside) => {
  const made = Object.assign(document.createElement(tag), settings);
  made.append(...inside);
  return made;
};
const isOf = (kind, file) =>
  KINDS[kind].test(file.name) || (kind === 'image' && file.type.startsWith('image/'));
const fits = (use, files) => {
  const {many} = use;
  return (
    (many ? files.length >= many : files.length === 1) &&
    files.every(file => use.kinds.some(kind => isOf(kind, file)))
  );
};
// What the tab in view does with a file comes first.
const listUses = files => {
  const here = inView()?.id;
  const fitting = USES.filter(use => fits(use, files));
  const isHere = use => `tab-${use.tab}` === here;
  return [...fitting.filter(isHere), ...fitting.filter(use => !isHere(use))];
};

// ---- putting files on a field
const put = (field, files) => {
  const carrier = new DataTransfer();
  for (const file of field.multiple ? files : files.slice(0, 1)) carrier.items.add(file);
  field.files = carrier.files;
  field.dispatchEvent(new Event('change', {bubbles: true}));
};
// A field that holds something already is emptied first; gradio has none while it does.
const findField = ({field, fold, taken}) => {
  const found = document.querySelector(field);
  if (found) return found;
  document.querySelector(`${fold} button.label-wrap:not(.open)`)?.click();
  const clear = taken && document.querySelector(`${taken} button[aria-label="Clear"]`);
  if (clear) clear.click();
  return null;
};
const use = (chosen, files) => {
  const refuse = () =>
    say(chosen.missing || `The tab ${chosen.title} cannot take files now: try again there.`);
  openThen(
    chosen.tab,
    chosen.title,
    () =>
      later(
        () => findField(chosen),
        field => {
          put(field, files);
          field.closest('.block')?.scrollIntoView({block: 'nearest'});
        },
        SOON,
        refuse,
      ),
    refuse,
  );
};

// ---- the question
const title = make('h2', {id: 'incoming-title'});
const list = make('div', {className: 'incoming-uses'});
const cancel = make('button', {type: 'button', className: 'keys-close', textContent: 'Cancel'});
const dialog = make('dialog', {id: 'incoming'}, title, list, cancel);
dialog.setAttribute('aria-labelledby', 'incoming-title');
let before = null; // what had the focus
const open = () => {
  if (!dialog.isConnected) document.body.append(dialog);
  if (dialog.open) return;
  before = document.activeElement;
  before?.blur?.(); // so that gradio hears what is typed there
  dialog.showModal();
};
const say = text => {
  title.textContent = text;
  list.replaceChildren();
  cancel.textContent = 'Close';
  open();
};
const ask = (files, numLeftOut = 0) => {
  if (!files.length) {
    say('There is nothing in it that the studio takes.');
    return;
  }
  const [{name}] = files;
  const uses = listUses(files);
  if (!uses.length) {
    const these = files.length === 1 ? name : 'these files together';
    say(`The studio takes images, models, zips and files with settings, but not ${these}.`);
    return;
  }
  if (uses.length === 1 && inView()?.id === `tab-${uses[0].tab}`) {
    use(uses[0], files);
    return;
  }
  const what = files.length === 1 ? name : `${files.length.toLocaleString('en')} files`;
  const others = numLeftOut === 1 ? '1 other is' : `${numLeftOut.toLocaleString('en')} others are`;
  const leftOut = numLeftOut ? ` (${others} left out)` : '';
  title.textContent = `What would you like to do with ${what}${leftOut}?`;
  list.replaceChildren(
    ...uses.map(one => {
      const button = make(
        'button',
        {type: 'button'},
        make('span', {textContent: one.text}),
        make('small', {textContent: one.title}),
      );
      button.addEventListener('click', () => {
        dialog.close();
        use(one, files);
      });
      return button;
    }),
  );
  cancel.textContent = 'Cancel';
  open();
  list.querySelector('button').focus();
};
cancel.addEventListener('click', () => dialog.close());
dialog.addEventListener('click', event => event.target === dialog && dialog.close());
dialog.addEventListener('close', () => before?.isConnected && before.focus?.());
dialog.addEventListener('keydown', event => {
  const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
  const buttons = [...dialog.querySelectorAll('button')];
  if (!step) return;
  const next = (buttons.indexOf(document.activeElement) + step) % buttons.length;
  buttons.at(next).focus();
  event.preventDefault();
});

// ---- images of the page itself
let carried = ''; // the address of the one that is being dragged
const fullAddress = image =>
  new URL(image.closest('[data-full]')?.dataset.full || image.currentSrc, document.baseURI).href
    // A picture of the gallery by its thumbnail; those of datasets and models have no other.
    .replace(/\/thumbs\/(?!datasets\/|models\/)(.+)\.webp$/, '/outputs/$1.png');
const fetchImage = async address => {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${answer.status}`);
  const content = await answer.blob();
  const name = decodeURIComponent(new URL(address).pathname.split('/').pop());
  return new File([content], name, {type: content.type});
};
addEventListener('dragstart', event => {
  const image = event.target.closest?.('img');
  const address = image?.currentSrc ? fullAddress(image) : '';
  carried = address.startsWith(location.origin) ? address : '';
});
const putDown = () => {
  carried = '';
  mark(false);
};
addEventListener('dragend', putDown);
// An image that is drawn anew while it is dragged has no end of that; and nothing moves during it.
addEventListener('pointermove', () => carried && putDown());

// ---- what is dropped and pasted
const mark = isOver => document.documentElement.classList.toggle('is-dropping', isOver);
const hasFiles = event => Boolean(carried) || event.dataTransfer?.types.includes('Files');
const easelOf = target => target.closest?.('.easel')?.querySelector('input[type=file]');
const gradioFieldOf = target =>
  target.closest?.('button:has(> input[type=file])')?.querySelector('input');

const isKnown = file => Object.keys(KINDS).some(kind => isOf(kind, file));
// Of a folder what the studio takes, and no more than so many files.
const readFolder = async (folder, files) => {
  const reader = folder.createReader();
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return;
    for (const entry of entries) {
      if (entry.isDirectory) await readFolder(entry, files);
      else if (!entry.name.startsWith('.'))
        files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    }
  }
};
const readDropped = async transfer => {
  const plain = [...transfer.files]; // both are empty after the event
  const entries = [...transfer.items].map(item => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some(entry => entry.isDirectory)) return plain;
  const files = [];
  for (const entry of entries)
    if (entry.isDirectory) await readFolder(entry, files);
    else files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
  return files;
};

addEventListener(
  'dragover',
  event => {
    if (!hasFiles(event)) return;
    event.preventDefault(); // a browser would leave the page for the file
    mark(!gradioFieldOf(event.target) && !easelOf(event.target));
  },
  true,
);
addEventListener('dragleave', event => event.relatedTarget || mark(false), true);
addEventListener(
  'drop',
  async event => {
    if (!hasFiles(event)) return;
    mark(false);
    const field = easelOf(event.target) || gradioFieldOf(event.target);
    // gradio's fields know what to do with files of their own.
    if (!carried && gradioFieldOf(event.target)) return;
    event.preventDefault();
    event.stopPropagation();
    event.target.dispatchEvent(new DragEvent('dragleave', {bubbles: true}));
    try {
      const address = carried;
      carried = '';
      const files = address ? [await fetchImage(address)] : await readDropped(event.dataTransfer);
      const kept = files.length > 1 ? files.filter(isKnown).slice(0, MOST_FILES) : files;
      if (field) put(field, files);
      else ask(kept.length ? kept : files, kept.length ? files.length - kept.length : 0);
    } catch {
      say('That could not be read: it may be gone, or the studio is closed.');
    }
  },
  true,
);

const typed = 'input:not([type="range"]), textarea, select, [contenteditable]';
addEventListener('paste', event => {
  const files = [...(event.clipboardData?.files || [])];
  const isText = event.clipboardData?.types.includes('text/plain');
  if (!files.length || (isText && event.target.closest?.(typed))) return;
  event.preventDefault();
  const [first] = listUses(files);
  if (first?.pasted && inView()?.id === `tab-${first.tab}`) use(first, files);
  else ask(files);
});
