// The gallery: a page of images to choose, tick and look at, what they are filtered by, a lightbox.
//
// In:  props.options {entries, total, images, offset, size, filter, choices, series, bin, undo,
//      locked}: the page as image_grid.py describes it.
// Out: props.value, the keys of the ticked entries; and events click {action, show, …}, where
//      `show` is the page that is asked for: the filter, `page`, `series`, `bin`.
// All text is set as text, never as HTML. A click chooses an image, Ctrl and Shift tick more, a
// frame drawn from an empty place ticks what it touches; Space or a double click opens the
// lightbox.
const $ = selector => element.querySelector(selector);
const bar = $('.images-bar'),
  head = $('.images-head'),
  list = $('.images-list'),
  pager = $('.images-pager');
element.style.position = 'relative'; // the frame that is drawn lies in it
const make = (tag, settings, ...inside) => {
  const made = Object.assign(document.createElement(tag), settings);
  made.append(...inside.filter(Boolean));
  return made;
};
const options = () => props.options || {};
const entries = () => (Array.isArray(options().entries) ? options().entries : []);
const counted = (count, noun) => `${count.toLocaleString('en')} ${noun}${count === 1 ? '' : 's'}`;
let ticked = new Set(),
  from = null, // where a range begins
  chosen = null; // the key of the image in view

// ---- asking
const shown = changes => ({...(options().show || {}), page: 0, ...changes});
const send = (action, more = {}, changes = null) =>
  trigger('click', {
    action,
    show: changes ? shown(changes) : {...(options().show || {})},
    chosen,
    ...more,
  });
const button = (label, title, act, more = {}) => {
  const made = make('button', {type: 'button', className: 'do', title, ...more});
  made.textContent = label;
  made.addEventListener('click', act);
  return made;
};

// ---- filters
const field = (name, label, empty) => {
  const select = make('select', {name});
  select.setAttribute('aria-label', label);
  select.dataset.empty = empty;
  select.addEventListener('change', () => send('show', {}, {[name]: select.value}));
  return select;
};
const search = make('input', {
  type: 'search',
  placeholder: 'Search prompts, models, samplers, seeds',
  maxLength: 2000,
});
search.setAttribute('aria-label', 'Search');
const query = make('span', {id: 'gallery-search', className: 'images-search'}, search);
let later = 0;
const ask = () => {
  clearTimeout(later);
  if (search.value !== (options().show?.query || '')) send('show', {}, {query: search.value});
};
search.addEventListener('input', () => {
  clearTimeout(later);
  later = setTimeout(ask, 300);
});
search.addEventListener('change', ask);
const selects = {
  kind: field('kind', 'Kind', 'All kinds'),
  day: field('day', 'Day', 'All days'),
  model: field('model', 'Model', 'All models'),
  lora: field('lora', 'LoRA', 'All LoRAs'),
  stars: field('stars', 'Stars', 'Any stars'),
};
const favourites = button('♥', 'Only favourites', () =>
  send('show', {}, {favourites: !options().show?.favourites}),
);
favourites.setAttribute('aria-label', 'Only favourites');
const noFilter = {kind: '', day: '', model: '', lora: ''};
const clear = button('Clear filters', '', () =>
  send('show', {}, {...noFilter, query: '', stars: '', favourites: false}),
);
const bin = button('Bin', 'Images you moved to the bin', () =>
  send('show', {}, {...noFilter, bin: !options().show?.bin, series: ''}),
);
bin.id = 'gallery-bin-open';
bar.append(query, ...Object.values(selects), favourites, clear, bin);
const fill = (select, choices, value) => {
  const wanted = [['', select.dataset.empty], ...choices];
  if (value && !choices.some(([known]) => known === value)) wanted.push([value, value]);
  select.replaceChildren(
    ...wanted.map(([known, label]) => make('option', {value: known, textContent: label})),
  );
  select.value = value || '';
  select.hidden = !choices.length && !value;
};
const paintBar = () => {
  const show = options().show || {},
    choices = options().choices || {};
  if (document.activeElement !== search) search.value = show.query || '';
  for (const [name, select] of Object.entries(selects))
    if (document.activeElement !== select || select.value !== (show[name] || ''))
      fill(select, choices[name] || [], show[name] || '');
  favourites.setAttribute('aria-pressed', Boolean(show.favourites));
  clear.hidden = !(
    show.query ||
    show.favourites ||
    Object.keys(selects).some(name => show[name])
  );
  const {count = 0} = options().bin || {};
  bin.textContent = show.bin ? '← Back to the gallery' : `Bin (${count.toLocaleString('en')})`;
  bin.hidden = !show.bin && !count;
};

// ---- the lines over the images: a sweep's name, the bin, what can be undone, what is ticked
const line = (className, text, ...buttons) =>
  make('p', {className: `images-line ${className}`}, make('span', {textContent: text}), ...buttons);
let isAsked = false; // whether emptying the bin waits for a yes
const binLines = () => {
  const {count = 0, days = 30, fixed = false, mine = false} = options().bin || {};
  const kept = days
    ? `Images are deleted after ${counted(days, 'day')} in the bin.`
    : 'Images stay in the bin until you empty it.';
  if (isAsked)
    return [
      line(
        'question',
        `Delete ${count === 1 ? 'this image' : `all ${counted(count, 'image')}`} for good?`,
        button(
          `Delete ${counted(count, 'image')}`,
          '',
          () => {
            isAsked = false;
            send('empty');
          },
          {id: 'gallery-empty-yes'},
        ),
        button('Keep', '', () => {
          isAsked = false;
          paintHead();
        }),
      ),
    ];
  const number = make('input', {type: 'number', min: 0, max: 3650, value: days});
  number.id = 'gallery-bin-days';
  number.setAttribute(
    'aria-label',
    'Days that images stay in the bin; 0 keeps them until you empty it',
  );
  number.addEventListener('change', () => send('days', {days: number.value}));
  const row = line(
    'bin',
    kept,
    count
      ? button(
          'Empty now',
          'Asks before it deletes',
          () => {
            isAsked = true;
            paintHead();
          },
          {id: 'gallery-empty'},
        )
      : null,
  );
  if (!fixed && !mine) row.append(make('label', {className: 'images-days'}, 'Days: ', number));
  return [row];
};
const keys = () => [...ticked];
const tickedLine = () => {
  const show = options().show || {},
    total = options().images || 0;
  const every = ticked.has('*');
  const ids = entries().filter(entry => ticked.has(entry.key));
  const count = every ? total : ids.reduce((sum, entry) => sum + entry.count, 0);
  return line(
    'ticked',
    `${counted(count, 'image')} selected`,
    show.bin
      ? button('Restore', '', () => send('restore', {keys: keys()}), {id: 'gallery-restore'})
      : button('Move to bin', 'Delete', () => send('bin', {keys: keys()}), {
          id: 'gallery-bin-ticked',
        }),
    show.bin || options().bin?.mine
      ? null
      : button('Download as zip', 'Includes their settings', () =>
          send('export', {keys: keys()}),
        ),
    !every && total > count && total > entries().length
      ? button(`Select all ${total.toLocaleString('en')}`, '', () => tick(['*'], true))
      : null,
    button('Clear selection', 'Esc', () => tickOnly([])),
  );
};
const paintHead = () => {
  const {series, undo, message, show = {}} = options();
  head.replaceChildren(
    ...[
      series &&
        line(
          'series',
          series.title,
          button('← All images', 'Back', () => send('show', {}, {series: ''}), {
            id: 'gallery-series-back',
          }),
        ),
      ...(show.bin ? binLines() : []),
      undo &&
        line(
          'undo',
          undo.text,
          button('Undo', 'Ctrl + Z', () => send('undo', {ids: undo.ids}), {id: 'gallery-undo'}),
        ),
      message && line('message', message),
      ticked.size ? tickedLine() : null,
    ].filter(Boolean),
  );
};

// ---- ticks
const tickOnly = wanted => {
  ticked = new Set(wanted);
  props.value = keys();
  paintTicks();
};
const tick = (wanted, on) => {
  if (!wanted.includes('*')) ticked.delete('*');
  for (const key of wanted)
    if (on) ticked.add(key);
    else ticked.delete(key);
  props.value = keys();
  paintTicks();
};
const paintTicks = () => {
  for (const root of list.children) {
    const on = ticked.has(root.dataset.key) || ticked.has('*');
    root.dataset.ticked = on ? 'yes' : '';
    root.querySelector('input').checked = on;
    root.classList.toggle('now', root.dataset.key === chosen);
  }
  paintHead();
};
const range = (key, on) => {
  const every = entries().map(entry => entry.key);
  const [one, other] = [every.indexOf(key), every.indexOf(from)].sort((a, b) => a - b);
  tick(one < 0 ? [key] : every.slice(one, other + 1), on);
};

// ---- one entry
const narrow = matchMedia('(max-width: 900px)');
const stars = entry => '★'.repeat(entry.stars) + (entry.favourite ? '♥' : '');
const open = entry => {
  chosen = entry.key;
  from = entry.key;
  paintTicks();
  send('choose', {id: entry.id});
};
const press = (entry, event) => {
  if (event.shiftKey) range(entry.key, true);
  else if (event.ctrlKey || event.metaKey) {
    tick([entry.key], !ticked.has(entry.key));
    from = entry.key;
  } else if (entry.series) send('show', {}, {series: entry.series});
  else if (narrow.matches && event.detail) look(entry.key); // beside the grid there is no room
  else open(entry);
};
const build = entry => {
  const help = 'Shift: select everything since the last one';
  const box = make('input', {type: 'checkbox', title: help});
  box.setAttribute('aria-label', `Select ${entry.title}`);
  box.addEventListener('click', event => {
    if (event.shiftKey) range(entry.key, box.checked);
    else tick([entry.key], box.checked);
    from = entry.key;
  });
  const tile = make(
    'button',
    {type: 'button', className: 'images-tile', title: entry.title},
    make('img', {src: entry.thumb, alt: '', loading: 'lazy', decoding: 'async'}),
  );
  tile.setAttribute('aria-label', entry.label);
  tile.addEventListener('click', event => press(entry, event));
  tile.addEventListener('dblclick', () => !entry.series && look(entry.key));
  const marks = stars(entry);
  const more = make('button', {type: 'button', className: 'images-more', textContent: '…'});
  more.setAttribute('aria-label', `Menu of ${entry.title}`);
  const root = make(
    'li',
    {className: entry.series ? 'images-entry many' : 'images-entry'},
    tile,
    make('label', {className: 'images-tick'}, box),
    entry.series ? null : more, // opens a menu: static/image_menu.js
    marks && make('span', {className: 'images-marks', textContent: marks}),
    entry.series &&
      make(
        'span',
        {className: 'images-caption'},
        make('b', {textContent: entry.title}),
        make('small', {textContent: counted(entry.count, 'image')}),
      ),
  );
  root.dataset.key = entry.key;
  return root;
};
let drawn = '',
  lastShow = null,
  lastScope = '';
const draw = () => {
  const show = options().show;
  if (!show) return;
  if (options().opened && lastShow && JSON.stringify(lastShow) !== JSON.stringify(show)) {
    // the tab was left and is seen again: what was looked at stays
    const kept = lastShow;
    lastShow = show;
    return send('show', {}, kept);
  }
  const scope = JSON.stringify({...show, page: 0});
  if (scope !== lastScope) ticked.clear(); // all that matched is not all that matches now
  lastScope = scope;
  lastShow = show;
  const known = new Set(entries().map(entry => entry.key));
  const kept = keys().filter(key => known.has(key));
  if (kept.length !== ticked.size && !ticked.has('*')) {
    ticked = new Set(kept);
    props.value = kept;
  }
  if (options().clear) {
    ticked.clear();
    props.value = [];
  }
  const wanted = JSON.stringify(entries());
  if (wanted !== drawn) {
    const focused = document.activeElement?.closest?.('.images-entry')?.dataset.key;
    const index = [...list.children].findIndex(root => root.dataset.key === focused);
    drawn = wanted;
    list.replaceChildren(...entries().map(build));
    if (focused !== undefined) {
      const same = [...list.children].find(root => root.dataset.key === focused);
      (same || list.children[Math.min(index, list.children.length - 1)])
        ?.querySelector('.images-tile')
        .focus();
    }
  }
  const {total = 0, images = 0, offset = 0, size = 48, empty = ''} = options();
  const page = Math.floor(offset / size);
  const [from, to, all] = [offset + 1, offset + entries().length, total].map(number =>
    number.toLocaleString('en'),
  );
  $('#gallery-count').textContent = total
    ? `${from}–${to} of ${all}` +
      (images > total ? ` (${counted(images, 'image')})` : '')
    : empty;
  newer.disabled = page === 0;
  older.disabled = offset + size >= total;
  newer.hidden = older.hidden = total <= size;
  paintBar();
  paintTicks();
  follow();
};
const newer = button('← Newer', '', () => send('show', {}, {page: currentPage() - 1}));
const older = button('Older →', '', () => send('show', {}, {page: currentPage() + 1}));
const currentPage = () => Math.floor((options().offset || 0) / (options().size || 48));
pager.prepend(newer);
pager.append(older);

// What the menu of an image asks for.
list.addEventListener('act', ({detail}) =>
  send(detail.action, {id: Number(detail.id), keys: [`i${detail.id}`]}),
);

// ---- keys
const tiles = () => [...list.querySelectorAll('.images-tile')];
const walk = (event, way) => {
  const every = tiles(),
    tile = event.target.closest('.images-tile'),
    index = every.indexOf(tile);
  if (index < 0) return;
  const columns = getComputedStyle(list).gridTemplateColumns.split(' ').length;
  const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns}[way];
  const next = every[index + step];
  if (!next) return;
  event.preventDefault();
  next.focus();
  if (event.shiftKey) {
    from ??= tile.parentElement.dataset.key;
    range(next.parentElement.dataset.key, true);
  }
};
const byKey = key => entries().find(entry => entry.key === key);
const rate = (entry, key) => {
  if (/^[0-5]$/.test(key)) send('stars', {id: entry.id, stars: Number(key)});
  else if (/^[bf]$/i.test(key)) send('favourite', {id: entry.id});
  else return false;
  return true;
};
list.addEventListener('keydown', event => {
  if (event.altKey) return;
  if (event.key.startsWith('Arrow')) return walk(event, event.key);
  const entry = byKey(event.target.closest('.images-entry')?.dataset.key);
  if (!entry || event.ctrlKey || event.metaKey || event.target.matches('input')) return;
  if (event.key === ' ' && !entry.series) look(entry.key);
  else if (event.key.toLowerCase() === 'x') tick([entry.key], !ticked.has(entry.key));
  else if (event.key === 'Delete')
    options().show?.bin || send('bin', {keys: ticked.size ? keys() : [entry.key]});
  else if (entry.series || !rate(entry, event.key)) return;
  event.preventDefault();
});
document.addEventListener('keydown', event => {
  if (!element.offsetParent || dialog.open || event.altKey) return;
  const typed = 'input:not([type=checkbox]), textarea, select, [contenteditable]';
  if (event.target.closest(typed)) return;
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key === 'a' && entries().length) tickOnly(entries().map(entry => entry.key));
    else if (key === 'z' && !event.shiftKey && options().undo)
      send('undo', {ids: options().undo.ids});
    else return;
  } else if (key === 'escape' && ticked.size) tickOnly([]);
  else if (key === 'delete' && ticked.size && !event.target.closest('.images-entry'))
    options().show?.bin || send('bin', {keys: keys()});
  else return;
  event.preventDefault();
});

// ---- a frame drawn with the mouse
let frame = null;
list.addEventListener('pointerdown', event => {
  if (event.target !== list || event.button || event.pointerType === 'touch') return;
  const box = list.getBoundingClientRect();
  frame = {
    x: event.clientX - box.x,
    y: event.clientY - box.y,
    before: event.ctrlKey || event.metaKey || event.shiftKey ? keys() : [],
    root: make('i', {className: 'images-frame'}),
  };
  list.setPointerCapture(event.pointerId);
  event.preventDefault();
});
list.addEventListener('pointermove', event => {
  if (!frame) return;
  const box = list.getBoundingClientRect();
  const x = event.clientX - box.x,
    y = event.clientY - box.y;
  if (!frame.root.isConnected) {
    if (Math.hypot(x - frame.x, y - frame.y) < 6) return;
    element.append(frame.root); // not into the list, whose children are the images
  }
  const left = Math.min(x, frame.x),
    top = Math.min(y, frame.y),
    width = Math.abs(x - frame.x),
    height = Math.abs(y - frame.y);
  const home = element.getBoundingClientRect();
  Object.assign(frame.root.style, {
    left: `${left + box.x - home.x}px`,
    top: `${top + box.y - home.y}px`,
    width: `${width}px`,
    height: `${height}px`,
  });
  const touched = [...list.children]
    .filter(root => {
      const tile = root.getBoundingClientRect();
      return (
        tile.right - box.x > left &&
        tile.left - box.x < left + width &&
        tile.bottom - box.y > top &&
        tile.top - box.y < top + height
      );
    })
    .map(root => root.dataset.key);
  tickOnly([...frame.before, ...touched]);
});
const endFrame = () => {
  if (frame && !frame.root.isConnected && !frame.before.length) tickOnly([]);
  frame?.root.remove();
  frame = null;
};
list.addEventListener('pointerup', endFrame);
list.addEventListener('pointercancel', endFrame);

// ---- the lightbox: one image as large as the window, its own size, or any
const dialog = $('dialog'),
  sheet = $('.lightbox-sheet'),
  picture = $('.lightbox-sheet img'),
  about = $('.lightbox-about');
let looked = null, // the key of the image in it
  edge = '', // the image to show when another page has come
  scale = 0, // 0 fits the window
  shift = [0, 0];
const single = () => entries().filter(entry => !entry.series);
const place = () => {
  const fit = Math.min(
    1,
    sheet.clientWidth / (picture.naturalWidth || 1),
    sheet.clientHeight / (picture.naturalHeight || 1),
  );
  const now = scale || fit;
  const room = [
    Math.max(0, (picture.naturalWidth * now - sheet.clientWidth) / 2),
    Math.max(0, (picture.naturalHeight * now - sheet.clientHeight) / 2),
  ];
  shift = shift.map((value, axis) => Math.max(-room[axis], Math.min(room[axis], value)));
  const [right, down] = shift;
  picture.style.transform = `translate(-50%, -50%) translate(${right}px, ${down}px) scale(${now})`;
  picture.style.imageRendering = now >= 3 ? 'pixelated' : 'auto';
  sheet.dataset.zoomed = room[0] || room[1] ? 'yes' : '';
  $('[data-do=fit]').setAttribute('aria-pressed', !scale);
  $('[data-do=full]').setAttribute('aria-pressed', scale === 1);
  $('.lightbox-scale').textContent = `${Math.round(now * 100)} %`;
  return now;
};
const zoom = (factor, point = null) => {
  const before = place();
  scale = Math.max(0.05, Math.min(16, before * factor));
  if (point) {
    const box = sheet.getBoundingClientRect();
    const centre = [box.x + box.width / 2, box.y + box.height / 2];
    shift = shift.map(
      (value, axis) =>
        point[axis] - centre[axis] - ((point[axis] - centre[axis] - value) * scale) / before,
    );
  }
  place();
};
const setScale = value => {
  scale = value;
  shift = [0, 0];
  place();
};
const paintLook = () => {
  const entry = byKey(looked);
  if (!entry) return dialog.close();
  if (picture.dataset.key !== `${entry.key} ${entry.url}`) {
    picture.dataset.key = `${entry.key} ${entry.url}`;
    picture.src = entry.url;
    scale = 0;
    shift = [0, 0];
  }
  picture.alt = entry.title;
  about.textContent = [entry.title, stars(entry)].filter(Boolean).join('  ');
  $('[data-do=favourite]').setAttribute('aria-pressed', entry.favourite);
  $('[data-do=bin]').hidden = Boolean(options().show?.bin);
  const every = single(),
    index = every.findIndex(other => other.key === looked);
  $('[data-do=previous]').disabled = index === 0 && currentPage() === 0;
  $('[data-do=next]').disabled =
    index === every.length - 1 &&
    (options().offset || 0) + (options().size || 48) >= (options().total || 0);
};
const look = key => {
  looked = key;
  if (!dialog.open) dialog.showModal();
  paintLook();
  place();
};
const step = by => {
  const every = single(),
    index = every.findIndex(entry => entry.key === looked);
  const next = every[index + by];
  if (next) return look(next.key);
  const page = currentPage() + by;
  if (page < 0 || page * (options().size || 48) >= (options().total || 0)) return;
  edge = by > 0 ? 'first' : 'last';
  send('show', {}, {page});
};
const follow = () => {
  if (!dialog.open) return;
  const every = single();
  if (edge && every.length) looked = every.at(edge === 'first' ? 0 : -1).key;
  else if (!byKey(looked)) looked = every[Math.min(place.index || 0, every.length - 1)]?.key;
  edge = '';
  paintLook();
};
const acts = {
  previous: () => step(-1),
  next: () => step(1),
  fit: () => setScale(0),
  full: () => setScale(1),
  in: () => zoom(1.4),
  out: () => zoom(1 / 1.4),
  favourite: () => send('favourite', {id: byKey(looked)?.id}),
  bin: () => {
    place.index = single().findIndex(entry => entry.key === looked);
    send('bin', {keys: [looked]});
  },
  details: () => {
    dialog.close();
    document.querySelector('#gallery-about').scrollIntoView({block: 'start'});
  },
  close: () => dialog.close(),
};
dialog.addEventListener('click', event => {
  const name = event.target.closest('[data-do]')?.dataset.do;
  if (name) acts[name]();
});
dialog.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const name = {
    ArrowLeft: 'previous',
    ArrowRight: 'next',
    '+': 'in',
    '=': 'in',
    '-': 'out',
    Delete: 'bin',
    z: scale === 1 ? 'fit' : 'full',
  }[event.key];
  const entry = byKey(looked);
  if (name === 'bin' && options().show?.bin) return;
  if (name) acts[name]();
  else if (!entry || !rate(entry, event.key)) return;
  event.preventDefault();
});
dialog.addEventListener('close', () => {
  const root = [...list.children].find(one => one.dataset.key === looked);
  root?.querySelector('.images-tile').focus();
  if (root && looked !== chosen) open(byKey(looked));
});
picture.addEventListener('load', place);
addEventListener('resize', () => dialog.open && place());
sheet.addEventListener(
  'wheel',
  event => {
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15, [event.clientX, event.clientY]);
  },
  {passive: false},
);
sheet.addEventListener('dblclick', event => {
  if (scale) setScale(0);
  else zoom(1 / place(), [event.clientX, event.clientY]);
});
// One pointer pans, or goes on by a swipe where nothing is to pan; two zoom.
const pointers = new Map();
let swipe = null;
sheet.addEventListener('pointerdown', event => {
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  swipe = pointers.size === 1 ? event.clientX : null;
  sheet.setPointerCapture(event.pointerId);
});
sheet.addEventListener('pointermove', event => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const point = [event.clientX, event.clientY];
  if (pointers.size === 2) {
    const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const far = at => Math.hypot(at[0] - other[0], at[1] - other[1]) || 1;
    zoom(far(point) / far(before), [(point[0] + other[0]) / 2, (point[1] + other[1]) / 2]);
  } else if (sheet.dataset.zoomed) {
    shift = shift.map((value, axis) => value + point[axis] - before[axis]);
    place();
  }
  pointers.set(event.pointerId, point);
});
const lift = event => {
  if (event.pointerType === 'touch' && swipe !== null && !sheet.dataset.zoomed) {
    const far = event.clientX - swipe;
    if (Math.abs(far) > 60) step(far < 0 ? 1 : -1);
  }
  pointers.delete(event.pointerId);
  swipe = null;
};
sheet.addEventListener('pointerup', lift);
sheet.addEventListener('pointercancel', event => pointers.delete(event.pointerId));
// The image beside the grid: it opens large, and its buttons are sent with the page that is open.
document.addEventListener('click', event => {
  const pressed = event.target.closest('#gallery-about [data-action]');
  if (event.target.closest('#gallery-view img') && byKey(chosen)) look(chosen);
  if (!pressed) return;
  const [action, number] = pressed.dataset.action.split(':'),
    id = Number(pressed.dataset.target);
  send(action, {id, keys: [`i${id}`], stars: Number(number)});
});

watch('options', draw);
watch('value', () => {
  ticked = new Set(Array.isArray(props.value) ? props.value : []);
  paintTicks();
});
draw();
