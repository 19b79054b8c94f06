// An easel: a picture with a layer over it that is painted on, a mask or a drawing. Run once, as
// the body of a function of element, props, trigger, upload and watch (gradio's js_on_load).
// Python's half is mask_editor.py.
//
// In:  props.value {key, url, width, height, layer, invert}: another key is another picture;
//      `layer` is the address of what lies over it. props.options {extend: [left, top, right,
//      bottom], paint, area}: pixels that are to be added around it; whether it is painted on; what
//      decides which part of it is painted (empty: all of it). props.box {key, at: [left, top,
//      right, bottom]}: that part, of the picture with what is added.
// Out: props.value with `drawn` (the layer as a PNG in a data: address; only once somebody has
//      touched it) and `invert`; events `click` with {action, path, name}, `input` to ask for the
//      part, `focus` once, when it is first seen. A layer in mask mode is its alpha; it goes out as
//      grey, white is what will be repainted.
const root = element.querySelector('.easel'),
  mask = root.dataset.mode === 'mask',
  pad = root.querySelector('.easel-pad');
const screen = pad.querySelector('canvas'),
  pen = screen.getContext('2d'),
  file = root.querySelector('input[type=file]');
const size = root.querySelector('.easel-size'),
  colour = root.querySelector('.easel-colour'),
  foot = root.querySelector('.easel-foot');
const sheet = () => {
  const made = document.createElement('canvas');
  made.pen = made.getContext('2d', {willReadFrequently: true});
  return made;
};
const layer = sheet(),
  ink = sheet(),
  before = sheet(),
  veil = sheet(),
  stripes = sheet();
const MOST = 96 * 2 ** 20; // bytes of pixels kept for undo
let key = null,
  picture = null,
  width = 0,
  height = 0,
  invert = false,
  tool = 'brush',
  wanted = 'picture',
  busy = '';
let scale = 1,
  left = 0,
  top = 0,
  fitted = true,
  fittedTo = [0, 0],
  pointer = null,
  stroke = null,
  last = null,
  held = false;
let past = [],
  future = [];
const fingers = new Map();

// ---- what is seen -------------------------------------------------------------------------------

stripes.width = stripes.height = 12;
for (const [fill, from] of [
  ['#4f46e5', 0],
  ['#818cf8', 1],
]) {
  stripes.pen.strokeStyle = fill;
  stripes.pen.lineWidth = 4.25;
  for (let at = -12 + from * 6; at < 30; at += 12) {
    stripes.pen.beginPath();
    stripes.pen.moveTo(at - 3, 15);
    stripes.pen.lineTo(at + 15, -3);
    stripes.pen.stroke();
  }
}
const around = () =>
  ((props.options && props.options.extend) || [0, 0, 0, 0]).map(one =>
    Math.max(0, Number(one) || 0),
  );
const part = () =>
  (props.options &&
    (props.options.area || []).length &&
    props.box &&
    props.box.key === key &&
    props.box.at) ||
  null;
const paints = () => !props.options || props.options.paint !== false;
const fit = () => {
  const [l, t, r, b] = around(),
    w = width + l + r,
    h = height + t + b;
  scale = Math.min(pad.clientWidth / w, pad.clientHeight / h) * 0.96;
  left = (pad.clientWidth - w * scale) / 2 + l * scale;
  top = (pad.clientHeight - h * scale) / 2 + t * scale;
  fitted = true;
  fittedTo = [pad.clientWidth, pad.clientHeight];
};
let asked = false;
const draw = () => {
  if (!asked) {
    asked = true;
    requestAnimationFrame(paint);
  }
};
const paint = () => {
  asked = false;
  const dots = devicePixelRatio || 1,
    w = Math.round(pad.clientWidth * dots),
    h = Math.round(pad.clientHeight * dots);
  if (!w || !h) return;
  if (screen.width !== w || screen.height !== h) {
    screen.width = w;
    screen.height = h;
  }
  // A picture may come while the pad is out of sight and has no size.
  if (fitted && picture && (fittedTo[0] !== pad.clientWidth || fittedTo[1] !== pad.clientHeight))
    fit();
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, w, h);
  if (!picture) return;
  const place = one => one.setTransform(scale * dots, 0, 0, scale * dots, left * dots, top * dots),
    [l, t, r, b] = around();
  place(pen);
  pen.imageSmoothingEnabled = scale * dots < 8;
  pen.drawImage(picture, 0, 0, width, height);
  if (mask) {
    veil.width = w;
    veil.height = h;
    place(veil.pen);
    veil.pen.imageSmoothingEnabled = scale < 1;
    if (invert && paints()) {
      veil.pen.fillRect(0, 0, width, height);
      veil.pen.globalCompositeOperation = 'destination-out';
    }
    if (paints()) veil.pen.drawImage(layer, 0, 0);
    veil.pen.globalCompositeOperation = 'source-over';
    for (const [x, y, a, c] of [
      [-l, -t, width + l + r, t],
      [-l, height, width + l + r, b],
      [-l, 0, l, height],
      [width, 0, r, height],
    ])
      if (a && c) veil.pen.fillRect(x, y, a, c);
    veil.pen.setTransform(1, 0, 0, 1, 0, 0);
    veil.pen.globalCompositeOperation = 'source-in';
    veil.pen.fillStyle = veil.pen.createPattern(stripes, 'repeat');
    veil.pen.fillRect(0, 0, w, h);
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.globalAlpha = 0.58;
    pen.drawImage(veil, 0, 0);
    pen.globalAlpha = 1;
    place(pen);
  } else pen.drawImage(layer, 0, 0);
  const box = part();
  if (box) {
    for (const [tone, dash] of [
      ['#fff', []],
      ['#1e293b', [5 / scale, 4 / scale]],
    ]) {
      pen.strokeStyle = tone;
      pen.lineWidth = 1.5 / scale;
      pen.setLineDash(dash);
      pen.strokeRect(box[0] - l, box[1] - t, box[2] - box[0], box[3] - box[1]);
    }
    pen.setLineDash([]);
  }
  if (pointer && !held && paints()) {
    for (const [tone, wide] of [
      ['#fff', 3],
      ['#1e293b', 1.2],
    ]) {
      pen.strokeStyle = tone;
      pen.lineWidth = wide / scale;
      pen.beginPath();
      pen.arc(pointer.x, pointer.y, Number(size.value) / 2, 0, 7);
      pen.stroke();
    }
  }
};
const say = () => {
  const share = picture && mask && paints() ? counted() : 0,
    percent = width ? (share / (width * height)) * 100 : 0,
    [l, t, r, b] = around();
  root.dataset.state = busy ? 'busy' : picture ? 'there' : 'empty';
  root.dataset.painted = share;
  root.dataset.paint = paints() ? 'yes' : 'no';
  root.dataset.box = (picture && part()) || '';
  for (const button of root.querySelectorAll('[data-act]')) {
    const act = button.dataset.act;
    button.disabled =
      act === 'undo'
        ? !past.length
        : act === 'redo'
          ? !future.length
          : !picture && !['choose', 'blank'].includes(act);
    if (act === 'brush' || act === 'eraser') button.setAttribute('aria-pressed', tool === act);
    if (act === 'invert') button.setAttribute('aria-pressed', invert);
    if (act === 'alpha') button.hidden = !(props.value && props.value.alpha);
  }
  const more = l + r + t + b ? ` → ${width + l + r} × ${height + t + b}` : '';
  const painted = !mask
    ? ''
    : share
      ? ` · ${percent < 1 ? 'under 1' : Math.round(percent)} % will be repainted`
      : paints()
        ? ' · paint over the area to replace'
        : more
          ? ' · the striped area will be added'
          : ' · set how many pixels to add on each side';
  foot.textContent = busy || (picture ? `${width} × ${height}${more}${painted}` : '');
};
const counted = () => {
  const bytes = layer.pen.getImageData(0, 0, width, height).data;
  let many = 0;
  for (let at = 3; at < bytes.length; at += 4) many += bytes[at] >= 128;
  return invert ? width * height - many : many;
};

// ---- what comes in and goes out -----------------------------------------------------------------

const load = async address => {
  const made = new Image();
  made.src = address;
  await made.decode();
  return made;
};
const take = async () => {
  const given = props.value || {};
  if ((given.key || '') === key) return;
  const now = (key = given.key || '');
  const [found, over] = await Promise.all([
    given.url && load(given.url),
    (given.drawn || given.layer) && load(given.drawn || given.layer),
  ]).catch(() => [null, null]);
  if (now !== key) return; // another came meanwhile
  past = [];
  future = [];
  last = stroke = null;
  busy = '';
  picture = found || null;
  width = picture ? given.width : 0;
  height = picture ? given.height : 0;
  invert = Boolean(given.invert);
  for (const one of [layer, ink, before]) {
    one.width = width;
    one.height = height;
  }
  if (picture && over) {
    layer.pen.drawImage(over, 0, 0, width, height);
    if (mask) {
      const pixels = layer.pen.getImageData(0, 0, width, height);
      for (let at = 0; at < pixels.data.length; at += 4) pixels.data[at + 3] = pixels.data[at];
      layer.pen.putImageData(pixels, 0, 0);
    }
  }
  size.max = Math.max(16, Math.round(Math.min(width, height) / 1.5));
  size.value = Math.max(2, Math.round(Math.min(width, height) / (mask ? 6 : 24)));
  if (picture) fit();
  say();
  draw();
  ask();
};
const keep = () => {
  // at once, not later: whoever presses Generate next means what is seen now
  let out = layer;
  if (mask) {
    const pixels = layer.pen.getImageData(0, 0, width, height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      pixels.data[at] = pixels.data[at + 1] = pixels.data[at + 2] = pixels.data[at + 3];
      pixels.data[at + 3] = 255;
    }
    out = sheet();
    out.width = width;
    out.height = height;
    out.pen.putImageData(pixels, 0, 0);
  }
  props.value = {...props.value, drawn: out.toDataURL('image/png'), invert};
  say();
  draw();
  ask();
};
let asking = 0;
const ask = () => {
  // which part is painted only Python knows
  clearTimeout(asking);
  if (picture && props.options && (props.options.area || []).length)
    asking = setTimeout(() => trigger('input'), 150);
};
const send = async (action, chosen) => {
  if (!chosen) return;
  busy = `Loading ${chosen.name || 'the image'} …`;
  say();
  try {
    const sent = await upload(chosen);
    trigger('click', {action, path: sent.path, name: chosen.name || ''});
    busy = '';
  } catch (error) {
    const name = chosen.name || 'The file';
    busy = `${name} could not be sent: it may be too large, or the studio is closed.`;
  }
  say();
};

// ---- what is done -------------------------------------------------------------------------------

const spot = event => {
  const box = screen.getBoundingClientRect();
  return {x: (event.clientX - box.left - left) / scale, y: (event.clientY - box.top - top) / scale};
};
const copy = (to, from) => {
  to.pen.globalCompositeOperation = 'copy';
  to.pen.drawImage(from, 0, 0);
  to.pen.globalCompositeOperation = 'source-over';
};
const begin = from => {
  copy(before, layer);
  ink.pen.clearRect(0, 0, width, height);
  stroke = {
    wide: Number(size.value),
    erase: tool === 'eraser',
    box: [Infinity, Infinity, -Infinity, -Infinity],
    at: from,
  };
};
const line = to => {
  const {at, wide, box, erase} = stroke,
    reach = wide / 2 + 2;
  ink.pen.strokeStyle = mask ? '#000' : colour.value;
  ink.pen.lineWidth = wide;
  ink.pen.lineCap = ink.pen.lineJoin = 'round';
  ink.pen.beginPath();
  ink.pen.moveTo(at.x, at.y);
  ink.pen.lineTo(to.x + 0.001, to.y);
  ink.pen.stroke();
  for (const one of [at, to]) {
    box[0] = Math.min(box[0], one.x - reach);
    box[1] = Math.min(box[1], one.y - reach);
    box[2] = Math.max(box[2], one.x + reach);
    box[3] = Math.max(box[3], one.y + reach);
  }
  stroke.at = to;
  copy(layer, before);
  layer.pen.globalCompositeOperation =
    erase !== (mask && invert) ? 'destination-out' : 'source-over';
  layer.pen.drawImage(ink, 0, 0);
  layer.pen.globalCompositeOperation = 'source-over';
  draw();
};
const end = () => {
  const {box, erase} = stroke;
  const x = Math.max(0, Math.floor(box[0])),
    y = Math.max(0, Math.floor(box[1]));
  const w = Math.min(width, Math.ceil(box[2])) - x,
    h = Math.min(height, Math.ceil(box[3])) - y;
  last = stroke.at;
  stroke = null;
  if (w <= 0 || h <= 0) return draw();
  const was = before.pen.getImageData(x, y, w, h),
    now = layer.pen.getImageData(x, y, w, h);
  if (mask) {
    // no half-painted rims: what was erased again along the same line would leave a ring that
    // nobody sees
    const inked = ink.pen.getImageData(x, y, w, h).data,
      to = erase !== invert ? 0 : 255;
    for (let at = 3; at < inked.length; at += 4)
      now.data[at] = inked[at] >= 128 ? to : was.data[at];
    layer.pen.putImageData(now, x, y);
  }
  done(x, y, was, now);
};
const done = (x, y, was, now) => {
  past.push({x, y, was, now});
  future = [];
  while (
    past.length > 1 &&
    past.reduce((sum, one) => sum + 8 * one.was.width * one.was.height, 0) > MOST
  )
    past.shift();
  keep();
};
const step = (from, to, which) => {
  const one = from.pop();
  if (!one || stroke) return;
  to.push(one);
  layer.pen.putImageData(one[which], one.x, one.y);
  keep();
};
const zoom = (by, x = pad.clientWidth / 2, y = pad.clientHeight / 2) => {
  const now = Math.min(64, Math.max(0.02, scale * by));
  left = x - ((x - left) * now) / scale;
  top = y - ((y - top) * now) / scale;
  scale = now;
  fitted = false;
  draw();
};
const larger = by => {
  size.value = Math.max(1, Math.round(Number(size.value) * by + (by > 1 ? 1 : -1) * 0.5));
  draw();
};
const acts = {
  brush: () => {
    tool = 'brush';
    say();
  },
  eraser: () => {
    tool = 'eraser';
    say();
  },
  undo: () => step(past, future, 'was'),
  redo: () => step(future, past, 'now'),
  nearer: () => zoom(1.4),
  farther: () => zoom(1 / 1.4),
  fit: () => {
    fit();
    draw();
  },
  invert: () => {
    invert = !invert;
    keep();
  },
  clear: () => {
    const was = layer.pen.getImageData(0, 0, width, height);
    layer.pen.clearRect(0, 0, width, height);
    if (mask && invert) layer.pen.fillRect(0, 0, width, height);
    done(0, 0, was, layer.pen.getImageData(0, 0, width, height));
  },
  choose: () => {
    wanted = 'picture';
    file.click();
  },
  mask: () => {
    wanted = 'mask';
    file.click();
  },
  alpha: () => trigger('click', {action: 'alpha'}),
  blank: () => trigger('click', {action: 'blank'}),
  remove: () => trigger('click', {action: 'remove'}),
};
root.addEventListener('click', event => {
  const button = event.target.closest('[data-act]');
  if (button && !button.disabled) acts[button.dataset.act]();
});
file.addEventListener('change', () => {
  send(wanted, file.files[0]);
  file.value = '';
  wanted = 'picture';
});
file.addEventListener('cancel', () => (wanted = 'picture'));
size.addEventListener('input', draw);
// What is dropped or pasted comes by the field: static/incoming.js.
pad.addEventListener('dragover', () => root.classList.add('over'));
pad.addEventListener('dragleave', () => root.classList.remove('over'));
const typing = event => event.target.closest?.('input:not([type=range]), textarea, select');
screen.addEventListener('pointerdown', event => {
  if (!picture) return;
  screen.focus({preventScroll: true});
  screen.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, event);
  if (fingers.size > 1 || event.button === 1 || held) {
    // the hand: the first finger's stroke was none
    if (stroke) {
      copy(layer, before);
      stroke = null;
      draw();
    }
    return event.preventDefault();
  }
  if (event.button || !paints()) return;
  const at = spot(event);
  begin(event.shiftKey && last ? last : at);
  line(at);
});
screen.addEventListener('pointermove', event => {
  const was = fingers.get(event.pointerId);
  pointer = event.pointerType === 'touch' ? null : spot(event);
  if (was && !stroke) {
    const box = screen.getBoundingClientRect(),
      other = [...fingers.values()].find(one => one.pointerId !== event.pointerId);
    left += (event.clientX - was.clientX) / fingers.size;
    top += (event.clientY - was.clientY) / fingers.size;
    fitted = false;
    if (other) {
      const far = one => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
      zoom(
        far(event) / far(was),
        (event.clientX + other.clientX) / 2 - box.left,
        (event.clientY + other.clientY) / 2 - box.top,
      );
    }
  } else if (stroke)
    for (const one of event.getCoalescedEvents && event.getCoalescedEvents().length
      ? event.getCoalescedEvents()
      : [event])
      line(spot(one));
  if (was) fingers.set(event.pointerId, event);
  draw();
});
const up = event => {
  fingers.delete(event.pointerId);
  if (stroke) end();
};
screen.addEventListener('pointerup', up);
screen.addEventListener('pointercancel', up);
screen.addEventListener('pointerleave', () => {
  pointer = null;
  draw();
});
screen.addEventListener(
  'wheel',
  event => {
    if (!picture || !(event.ctrlKey || event.metaKey)) return; // else the page scrolls
    event.preventDefault();
    const box = screen.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
  },
  {passive: false},
);
const keys = {
  b: 'brush',
  e: 'eraser',
  i: mask && 'invert',
  '+': 'nearer',
  '=': 'nearer',
  '-': 'farther',
  0: 'fit',
};
const pans = {ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40]};
document.addEventListener('keydown', event => {
  if (!picture || !root.offsetParent || typing(event) || !(root.contains(event.target) || pointer))
    return;
  const key = event.key.toLowerCase(),
    strong = event.ctrlKey || event.metaKey;
  let did = true;
  if (strong && key === 'z') acts[event.shiftKey ? 'redo' : 'undo']();
  else if (strong && key === 'y') acts.redo();
  else if (strong || event.altKey) return;
  else if (keys[key]) acts[keys[key]]();
  else if (key === '[' || key === ']') larger(key === ']' ? 1.25 : 0.8);
  else if (key === ' ' && event.target === screen) {
    held = true;
    draw();
  } else if (pans[event.key] && event.target === screen) {
    left += pans[event.key][0];
    top += pans[event.key][1];
    fitted = false;
    draw();
  } else did = false;
  if (did) event.preventDefault();
});
document.addEventListener('keyup', event => {
  if (event.key === ' ' && held) {
    held = false;
    draw();
  }
});
new ResizeObserver(draw).observe(pad);
watch('value', take);
watch('options', () => {
  if (fitted && picture) fit();
  say();
  draw();
  ask();
});
watch('box', () => {
  say();
  draw();
});
say();
take();
trigger('focus'); // seen for the first time: its tab is drawn only now
