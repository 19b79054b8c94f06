// The rows are drawn from the value: [{name, unet, text_encoder}, …], and from the property
// `options`: {known: {name: {about, words, reads, problem}}}, null for a LoRA that is not there.
// The server is asked about a row of which it has said nothing. All text is set as text, never as
// HTML. Drawing anew while a slider moves would take it away.
const list = element.querySelector('.lora-rows'),
  limits = list.dataset,
  apart = new Set(),
  asked = new Set();
let drawn = '';
const rows = () => (Array.isArray(props.value) ? JSON.parse(JSON.stringify(props.value)) : []);
const known = name =>
  (props.options || {}).known &&
  (Object.entries(props.options.known).find(([key]) => key === name) || [0, 0])[1];
const make = (tag, settings, ...inside) => {
  const made = Object.assign(document.createElement(tag), settings);
  made.append(...inside);
  return made;
};
const put = (changed, again) => {
  drawn = JSON.stringify(changed);
  props.value = changed;
  if (again) draw();
};
const weight = (at, keys, label) => {
  const row = rows()[at],
    value = row[keys[0]] ?? '';
  const number = make('input', {
    type: 'number',
    min: limits.min,
    max: limits.max,
    step: limits.step,
    value,
  });
  const slider = make('input', {
    type: 'range',
    min: Math.min(-1, value),
    max: Math.max(2, value),
    step: limits.step,
    value,
  });
  number.setAttribute('aria-label', `${label} of ${row.name}`);
  slider.setAttribute('aria-label', `${label} of ${row.name}, slider`);
  for (const [from, to] of [
    [number, slider],
    [slider, number],
  ])
    from.addEventListener('input', () => {
      const given = from.value === '' ? null : Number(from.value),
        now = rows();
      to.value = from.value;
      for (const key of keys) now[at][key] = given;
      put(now);
    });
  return make(
    'label',
    {className: 'lora-weight'},
    make('span', {textContent: label}),
    slider,
    number,
  );
};
const drawRow = (row, at) => {
  const lora = known(row.name),
    two = apart.has(row.name) || row.unet !== row.text_encoder;
  const off = make('button', {
    type: 'button',
    className: 'lora-off',
    textContent: '×',
    title: `Remove ${row.name}`,
  });
  off.setAttribute('aria-label', off.title);
  off.addEventListener('click', () => {
    apart.delete(row.name);
    put(
      rows().filter((_, k) => k !== at),
      true,
    );
  });
  const link = make('button', {
    type: 'button',
    className: 'lora-link',
    textContent: two ? 'one weight' : 'separate weights',
    title: two
      ? 'One weight for image and text'
      : 'Separate weights for the image and for reading the prompt',
  });
  link.addEventListener('click', () => {
    const now = rows();
    if (two) {
      apart.delete(row.name);
      now[at].text_encoder = now[at].unet;
    } else apart.add(row.name);
    put(now, true);
  });
  const head = [
    make('b', {textContent: row.name}),
    ...(two || !lora || lora.reads ? [link] : []),
    off,
  ];
  const made = make('div', {className: 'lora'}, make('div', {className: 'lora-head'}, ...head));
  made.dataset.lora = row.name;
  if (lora) made.append(make('small', {textContent: lora.about}));
  const problem = lora
    ? lora.problem
    : lora === null
      ? 'It is not in the library.'
      : '';
  if (problem) made.append(make('p', {className: 'lora-problem', textContent: problem}));
  made.append(
    ...(two
      ? [weight(at, ['unet'], 'Image'), weight(at, ['text_encoder'], 'Text')]
      : [weight(at, ['unet', 'text_encoder'], 'Weight')]),
  );
  if (lora && lora.words.length)
    made.append(
      make(
        'div',
        {className: 'lora-words'},
        ...lora.words.map(word => {
          const chip = make('button', {
            type: 'button',
            className: 'chip',
            textContent: word,
            title: 'Insert into the prompt',
          });
          chip.addEventListener('click', () => trigger('click', {action: 'word', target: word}));
          return chip;
        }),
      ),
    );
  return made;
};
const draw = () => {
  drawn = JSON.stringify(rows());
  list.replaceChildren(...rows().map(drawRow));
  const untold = rows().filter(row => known(row.name) === 0 && !asked.has(row.name));
  if (!props.options || !props.options.known || !untold.length) return;
  for (const row of untold) asked.add(row.name);
  setTimeout(() => trigger('click', {action: 'describe'}));
};
list.addEventListener('put', event => {
  const {name, weight} = event.detail;
  if (!rows().some(row => row.name === name))
    put([...rows(), {name, unet: weight, text_encoder: weight}], true);
});
watch('value', () => {
  if (JSON.stringify(rows()) !== drawn) draw();
});
watch('options', draw);
draw();
