// The viewer of a sweep. Knows: the data that viewer.py wrote into this page, what is on screen,
// verdicts in localStorage. Does not know: the studio; it asks no host for anything. Only cells in
// sight are in the document, so thousands cost no more than dozens.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const axes = data.axes,
    GAP = 10,
    MOST_STARS = 5,
    BLANK = { verdict: {}, numbers: {} };
  const cells = new Map(data.cells.map((cell) => [cell.at.join(), cell]));
  const numbers = [...new Set(data.cells.flatMap((cell) => Object.keys(cell.numbers)))];
  const phone = innerWidth < 640;
  const view = {
    x: axes.length ? 0 : -1,
    y: axes.length > 1 ? 1 : -1,
    at: axes.map(() => 0),
    hidden: axes.map(() => new Set()),
    size: Math.min(phone ? 150 : 200, Math.max(96, data.edge)),
    under: "",
    pins: [],
    now: axes.map(() => 0),
  };

  const make = (tag, props = {}, ...children) => {
    // text is only ever set as text
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children.filter((child) => child !== null));
    return node;
  };
  const key = (at) => at.join();
  const cellAt = (at) => cells.get(key(at)) || BLANK;
  const shown = (axis) =>
    axis < 0 ? [0] : axes[axis].labels.map((_, k) => k).filter((k) => !view.hidden[axis].has(k));
  const sources = (cell) => [cell.thumb || cell.full, cell.full || cell.thumb];
  const tell = (text) => {
    $("message").textContent = text;
    $("message").classList.add("on");
    clearTimeout(tell.timer);
    tell.timer = setTimeout(() => $("message").classList.remove("on"), 1800);
  };
  const typing = (event) => event.target.matches("textarea, select, input:not([type=range])");

  // ---- verdicts: the table's own, and over them what was given here
  const STORE = `studio-sweep-${data.id}`;
  let own = {},
    kept = true;
  try {
    own = JSON.parse(localStorage.getItem(STORE)) || {};
  } catch {
    kept = false;
  }
  const verdict = (at) => {
    const given = Object.hasOwn(own, key(at)) ? own[key(at)] : cellAt(at).verdict;
    return {
      stars: Math.max(0, Math.min(MOST_STARS, Number(given?.stars) || 0)),
      note: String(given?.note ?? ""),
      best: given?.best === true,
    };
  };
  const judge = (at, change) => {
    if (!cells.has(key(at))) return tell("There is nothing to rate here yet.");
    own[key(at)] = { ...verdict(at), ...change };
    try {
      localStorage.setItem(STORE, JSON.stringify(own));
    } catch {
      kept = false;
      tell("This browser stores nothing here: export your ratings before you close it.");
    }
    repaint(at);
    if ($("detail").open) fillVerdict();
  };
  const exportVerdicts = () => {
    const found = data.cells
      .map((cell) => ({ cell, given: verdict(cell.at) }))
      .filter(({ given }) => given.stars || given.note || given.best);
    const verdicts = found.map(({ cell, given }) => ({
      key: cell.key,
      coordinates: cell.from,
      labels: axes.map((axis, k) => [axis.title, axis.labels[cell.at[k]]]),
      seed: cell.seed,
      ...given,
    }));
    const url = URL.createObjectURL(
      new Blob([JSON.stringify({ sweep: data.id, title: data.title, verdicts }, null, 1)], {
        type: "application/json",
      }),
    );
    make("a", {
      href: url,
      download: `verdicts-${data.id.replace(/[^\w-]+/g, "-").slice(0, 60)}.json`,
    }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    tell(`${verdicts.length} ${verdicts.length === 1 ? "rating" : "ratings"} exported.`);
  };

  // ---- the sheet: which cells are where, and only those in sight
  let plan,
    drawn = new Map(),
    lines = new Map();
  const under = () =>
    (plan.flow ? 1 : 0) + (view.under === "all" ? numbers.length : view.under ? 1 : 0);
  const labelOf = (axis, k) => axes[axis].labels[k];
  const layout = () => {
    const columns = shown(view.x),
      rows = shown(view.y),
      stage = $("stage");
    plan = { columns, rows, flow: view.y < 0 && columns.length > 1 };
    const most = view.y < 0 ? 0 : Math.max(0, ...rows.map((k) => labelOf(view.y, k).length));
    const titles = view.y < 0 ? 0 : Math.max(axes[view.y].title.length, axes[view.x].title.length);
    plan.left =
      view.y < 0
        ? 16
        : innerWidth < 640
          ? Math.min(96, Math.max(72, 30 + most * 8))
          : Math.min(230, Math.max(40 + most * 8, 40 + titles * 7));
    plan.wide = view.size + GAP;
    plan.high = view.size + GAP + (under() ? under() * 17 + 12 : 0);
    plan.across = plan.flow
      ? Math.max(1, Math.min(columns.length, Math.floor((stage.clientWidth - 16) / plan.wide)))
      : columns.length;
    plan.down = plan.flow ? Math.ceil(columns.length / plan.across) : rows.length;
    plan.top = plan.flow || view.x < 0 ? 12 : headHeight(columns);
    $("sheet").style.width = `${plan.left + plan.across * plan.wide}px`;
    $("sheet").style.height = `${plan.top + plan.down * plan.high + GAP}px`;
    stage.setAttribute("aria-rowcount", plan.down);
    stage.setAttribute("aria-colcount", plan.across);
    drawn.clear();
    lines.clear();
    $("sheet").replaceChildren($("heads"));
    drawHeads();
    render();
  };
  const headHeight = (columns) => {
    // as high as the longest label needs, four lines at most
    const longest = columns
      .map((k) => labelOf(view.x, k))
      .sort((a, b) => b.length - a.length)
      .slice(0, 12);
    const probes = longest.map((text) => {
      const probe = make("div", { className: "h", textContent: text });
      probe.style.width = `${view.size}px`;
      return probe;
    });
    $("heads").replaceChildren(...probes);
    return Math.max(34, ...probes.map((probe) => probe.offsetHeight)) + 14;
  };
  const drawHeads = () => {
    const heads = $("heads");
    heads.style.height = `${plan.top}px`;
    heads.hidden = plan.flow || view.x < 0;
    const corner = make("div", { className: "corner" });
    corner.style.width = `${plan.left}px`;
    if (view.y >= 0) corner.append(make("span", { textContent: `${axes[view.y].title} ↓` }));
    if (view.x >= 0) corner.append(make("span", { textContent: `${axes[view.x].title} →` }));
    heads.replaceChildren(corner);
  };
  const span = (from, room, step, count) => [
    Math.max(0, Math.floor(from / step) - 1),
    Math.min(count, Math.ceil((from + room) / step) + 1),
  ];
  const coordinates = (row, column) => {
    const at = [...view.at];
    if (plan.flow) {
      const k = plan.columns[row * plan.across + column];
      if (k === undefined) return null;
      at[view.x] = k;
      return at;
    }
    if (view.x >= 0) at[view.x] = plan.columns[column];
    if (view.y >= 0) at[view.y] = plan.rows[row];
    return at;
  };
  const render = () => {
    const stage = $("stage");
    const [top, bottom] = span(stage.scrollTop, stage.clientHeight, plan.high, plan.down);
    const [left, right] = span(stage.scrollLeft, stage.clientWidth, plan.wide, plan.across);
    for (const [row, line] of lines)
      if (row < top || row >= bottom) {
        line.remove();
        lines.delete(row);
      }
    for (const [name, cell] of drawn)
      if (cell.row < top || cell.row >= bottom || cell.column < left || cell.column >= right) {
        cell.node.remove();
        drawn.delete(name);
      }
    for (let row = top; row < bottom; row++) {
      if (!lines.has(row)) lines.set(row, drawLine(row));
      for (let column = left; column < right; column++) {
        const at = coordinates(row, column);
        if (at && !drawn.has(key(at))) drawCell(at, row, column);
      }
    }
    if (!$("heads").hidden) {
      const corner = $("heads").firstChild;
      const heads = [];
      for (let column = left; column < right; column++) {
        const text = labelOf(view.x, plan.columns[column]),
          head = make("div", { className: "h", textContent: text, title: text });
        head.setAttribute("role", "columnheader");
        head.style.left = `${plan.left + column * plan.wide}px`;
        head.style.width = `${view.size}px`;
        heads.push(head);
      }
      $("heads").replaceChildren(corner, ...heads);
    }
  };
  const drawLine = (row) => {
    const line = make("div", { className: "line" });
    line.setAttribute("role", "row");
    line.setAttribute("aria-rowindex", row + 1);
    line.style.top = `${plan.top + GAP + row * plan.high}px`;
    line.style.height = `${plan.high - GAP}px`;
    line.style.width = `${plan.left + plan.across * plan.wide}px`;
    if (view.y >= 0) {
      const text = labelOf(view.y, plan.rows[row]),
        name = make("div", { className: "name", title: text }, make("span", { textContent: text }));
      name.setAttribute("role", "rowheader");
      name.style.width = `${plan.left - 6}px`;
      name.style.paddingBottom = `${plan.high - GAP - view.size + 4}px`;
      name.style.setProperty("--lines", Math.max(1, Math.floor(view.size / 18)));
      line.append(name);
    }
    $("sheet").append(line);
    return line;
  };
  const drawCell = (at, row, column) => {
    const node = make("div", { className: "cell" });
    node.dataset.at = key(at);
    node.setAttribute("role", "gridcell");
    node.setAttribute("aria-colindex", column + 1);
    node.style.left = `${plan.left + column * plan.wide}px`;
    node.style.width = `${view.size}px`;
    drawn.set(key(at), { node, row, column });
    paint(at, node);
    lines.get(row).append(node);
  };
  const frame = (cell, source, words = true) => {
    // a picture, or why there is none
    if (source && !cell.error) {
      const image = make("img", { alt: "", decoding: "async", draggable: false });
      image.onerror = () =>
        image.replaceWith(make("span", { textContent: "The image file is gone." }));
      image.src = source;
      return make("div", { className: "frame" }, image);
    }
    if (cell.error)
      return make(
        "div",
        { className: "frame bad", title: words ? cell.error : "" },
        make("span", { textContent: `Failed: ${cell.error}` }),
      );
    return make("div", { className: "frame none" }, make("span", { textContent: "not run yet" }));
  };
  const paint = (at, node) => {
    const cell = cellAt(at),
      given = verdict(at),
      [thumb, full] = sources(cell);
    const sharp = view.size * devicePixelRatio > data.edge * 1.1 && cell.full;
    const box = frame(cell, sharp ? full : thumb);
    box.style.width = box.style.height = `${view.size}px`;
    if (cell.width && view.size * devicePixelRatio > 2 * Math.max(cell.width, cell.height))
      box.classList.add("small");
    const marks = make("div", {
      className: "marks",
      textContent: [given.best ? "best" : "", "★".repeat(given.stars), given.note ? "✎" : ""]
        .filter(Boolean)
        .join(" "),
      title: given.note,
    });
    marks.style.top = `${view.size - 26}px`;
    const take = make("button", {
      className: "take",
      tabIndex: -1,
      textContent: view.pins.includes(key(at)) ? "Unpin" : "Pin",
    });
    node.replaceChildren(box, marks, take);
    if (plan.flow)
      node.append(
        make("div", {
          className: "label",
          textContent: labelOf(view.x, at[view.x]),
          title: labelOf(view.x, at[view.x]),
        }),
      );
    for (const name of view.under === "all" ? numbers : view.under ? [view.under] : [])
      node.append(
        make("div", {
          className: "metric",
          textContent: name in cell.numbers ? `${name} ${cell.numbers[name]}` : "–",
          title: name,
        }),
      );
    node.classList.toggle("now", key(at) === key(view.now));
    node.classList.toggle("pinned", view.pins.includes(key(at)));
    node.setAttribute(
      "aria-label",
      axes.map((axis, k) => `${axis.title} ${axis.labels[at[k]]}`).join(", ") +
        (given.stars ? `, ${given.stars} stars` : ""),
    );
  };
  const repaint = (at) => {
    const found = drawn.get(key(at));
    if (found) paint(at, found.node);
  };

  // ---- going about
  const place = () => {
    const column = view.x < 0 ? 0 : plan.columns.indexOf(view.now[view.x]);
    if (plan.flow) return [Math.floor(column / plan.across), column % plan.across];
    return [view.y < 0 ? 0 : plan.rows.indexOf(view.now[view.y]), column];
  };
  const select = (at, scroll = true) => {
    const before = view.now;
    view.now = at;
    repaint(before);
    repaint(at);
    if (!scroll) return;
    const [row, column] = place(),
      stage = $("stage"),
      y = GAP + row * plan.high,
      x = column * plan.wide;
    if (y - GAP < stage.scrollTop) stage.scrollTop = y - GAP;
    if (y + plan.high + plan.top > stage.scrollTop + stage.clientHeight)
      stage.scrollTop = y + plan.high + plan.top - stage.clientHeight;
    if (x < stage.scrollLeft) stage.scrollLeft = x;
    if (x + plan.wide + plan.left > stage.scrollLeft + stage.clientWidth)
      stage.scrollLeft = x + plan.wide + plan.left - stage.clientWidth;
    render();
  };
  const step = (down, right) => {
    let [row, column] = place();
    row = Math.max(0, Math.min(plan.down - 1, row + down));
    column = Math.max(0, Math.min(plan.across - 1, column + right));
    const at = coordinates(row, column);
    if (at) select(at);
    if ($("detail").open) fillDetail();
  };
  const settle = () => {
    // the chosen cell must be on the page that is shown
    view.now = view.now.map((k, axis) =>
      axis === view.x || axis === view.y
        ? shown(axis).includes(k)
          ? k
          : (shown(axis)[0] ?? 0)
        : view.at[axis],
    );
  };
  const refresh = () => {
    settle();
    layout();
    drawTray();
  };
  const turn = (x, y) => {
    view.x = x;
    view.y = y;
    drawBar();
    refresh();
    $("stage").scrollTo(0, 0);
  };
  const choose = (axis, other, value) => {
    // an axis that is taken changes places
    const now = { across: view.x, down: view.y };
    if (value === now[other] && value >= 0) [now.across, now.down] = [now.down, now.across];
    else now[axis] = value;
    if (now.across < 0 && now.down >= 0) [now.across, now.down] = [now.down, -1];
    turn(now.across, now.down);
  };
  const swap = () => {
    if (view.y >= 0) turn(view.y, view.x);
  };
  const page = (axis, way) => {
    const there = shown(axis);
    view.at[axis] =
      there[(Math.max(0, there.indexOf(view.at[axis])) + way + there.length) % there.length];
    drawBar();
    refresh();
  };
  const zoom = (size) => {
    view.size = Math.max(40, Math.min(768, Math.round(size)));
    $("zoom").value = view.size;
    const [row, column] = place(),
      stage = $("stage"),
      before = [stage.scrollTop - row * plan.high, stage.scrollLeft - column * plan.wide];
    layout();
    stage.scrollTo(before[1] + column * plan.wide, before[0] + row * plan.high);
    render();
  };

  // ---- the bar
  const options = (select, list, value) => {
    select.replaceChildren(
      ...list.map(([name, text]) => make("option", { value: name, textContent: text })),
    );
    select.value = value;
  };
  const drawBar = () => {
    const names = axes.map((axis, k) => [k, axis.title]);
    options($("across"), axes.length ? names : [[-1, "–"]], view.x);
    options(
      $("down"),
      [...names.filter(([k]) => axes.length > 1 || k < 0), [-1, "nothing"]],
      view.y,
    );
    $("swap").disabled = view.y < 0;
    options(
      $("under"),
      [
        ["", "nothing"],
        ...numbers.map((name) => [name, name]),
        ...(numbers.length > 1 ? [["all", "all numbers"]] : []),
      ],
      view.under,
    );
    $("under").parentNode.hidden = !numbers.length;
    $("over").replaceChildren(
      ...axes
        .map((axis, k) => (k === view.x || k === view.y ? null : pager(axis, k)))
        .filter(Boolean),
    );
    const gone = view.hidden.reduce((sum, set) => sum + set.size, 0);
    $("hide").textContent = gone ? `Values (${gone} hidden)` : "Values";
    $("hide").hidden = !axes.length;
  };
  const pager = (axis, k) => {
    const there = shown(k),
      select = make("select");
    select.setAttribute("aria-label", axis.title);
    options(
      select,
      there.map((value) => [value, axis.labels[value]]),
      view.at[k],
    );
    select.onchange = () => {
      view.at[k] = Number(select.value);
      drawBar();
      refresh();
    };
    const button = (text, way, name) => {
      const made = make("button", { textContent: text, onclick: () => page(k, way) });
      made.setAttribute("aria-label", name);
      return made;
    };
    const label = make(
      "label",
      {},
      `${axis.title} `,
      button("‹", -1, "Page before"),
      select,
      button("›", 1, "Page after"),
    );
    label.className = "pager";
    label.dataset.axis = k;
    return label;
  };
  const drawValues = () => {
    $("chips").replaceChildren(
      ...axes.flatMap((axis, k) => {
        const all = make("button", {
          textContent: "show all",
          onclick: () => {
            view.hidden[k].clear();
            change();
          },
        });
        const change = () => {
          if (!shown(k).includes(view.at[k])) view.at[k] = shown(k)[0];
          drawValues();
          drawBar();
          refresh();
        };
        const chips = axis.labels.map((text, value) => {
          const chip = make("button", {
            className: "value",
            textContent: text || "(empty)",
            onclick: () => {
              if (!view.hidden[k].delete(value)) {
                if (shown(k).length < 2) return tell("Keep at least one value.");
                view.hidden[k].add(value);
              }
              change();
              $("chips").querySelectorAll("div")[k].children[value].focus();
            },
          });
          chip.setAttribute("aria-pressed", !view.hidden[k].has(value));
          return chip;
        });
        return [
          make("h3", {}, axis.title, view.hidden[k].size ? all : null),
          make("div", {}, ...chips),
        ];
      }),
    );
  };

  // ---- one cell
  const fillVerdict = () => {
    const given = verdict(view.now);
    $("stars").replaceChildren(
      ...Array.from({ length: MOST_STARS }, (_, k) => {
        const star = make("button", {
          textContent: k < given.stars ? "★" : "☆",
          onclick: () => judge(view.now, { stars: given.stars === k + 1 ? 0 : k + 1 }),
        });
        star.setAttribute("aria-label", `${k + 1} stars`);
        return star;
      }),
    );
    $("best").setAttribute("aria-pressed", given.best);
    $("pin").setAttribute("aria-pressed", view.pins.includes(key(view.now)));
    if (document.activeElement !== $("note")) $("note").value = given.note;
  };
  const fillDetail = () => {
    const cell = cellAt(view.now),
      [, full] = sources(cell),
      box = frame(cell, full, false);
    const image = box.querySelector("img");
    if (image) {
      image.alt = "The image of this cell";
      image.onload = () =>
        image.classList.toggle("small", image.naturalWidth * 2 < image.clientWidth);
    }
    $("big").replaceChildren(image || box);
    $("where").textContent =
      axes.map((axis, k) => axis.labels[view.now[k]]).join(" · ") || data.title;
    const facts = [
      ...axes.map((axis, k) => [axis.title, axis.labels[view.now[k]]]),
      ...(cell.seed == null ? [] : [["Seed", cell.seed]]),
      ...Object.entries(cell.numbers),
      ...(cell.width ? [["Size", `${cell.width} × ${cell.height}`]] : []),
    ];
    $("facts").replaceChildren(
      ...facts.map(([name, value]) =>
        make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value })),
      ),
    );
    $("settings").textContent = cell.settings || "";
    $("copy").hidden = !cell.settings;
    $("file").textContent = cell.file || "";
    fillVerdict();
  };
  const open = (dialog) => {
    if (!dialog.open) dialog.showModal();
  };
  const detail = () => {
    fillDetail();
    open($("detail"));
    $("detail").focus();
  };
  const copy = () => {
    const range = document.createRange();
    range.selectNodeContents($("settings"));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    tell(
      document.execCommand("copy")
        ? "Settings copied."
        : "Press Ctrl + C: the settings are selected.",
    ); // works from file://, where navigator.clipboard may not
  };

  // ---- pinned cells and comparing
  const pin = (at) => {
    if (!cells.has(key(at))) return tell("There is nothing to pin here yet.");
    view.pins = view.pins.includes(key(at))
      ? view.pins.filter((other) => other !== key(at))
      : [...view.pins, key(at)];
    repaint(at);
    drawTray();
    if ($("detail").open) fillVerdict();
  };
  const places = () => view.pins.map((name) => cells.get(name).at);
  const drawTray = () => {
    const before = $("tray").hidden;
    $("tray").hidden = !view.pins.length;
    $("compare").textContent = `Compare ${view.pins.length}`;
    $("compare").disabled = view.pins.length < 2;
    $("pinned").replaceChildren(
      ...places().map((at) => {
        const [thumb] = sources(cellAt(at)),
          name = axes.map((axis, k) => axis.labels[at[k]]).join(" · ");
        const button = make(
          "button",
          { title: `${name}: unpin`, onclick: () => pin(at) },
          thumb ? make("img", { src: thumb, alt: "" }) : "✕",
        );
        button.setAttribute("aria-label", `Unpin ${name}`);
        return button;
      }),
    );
    if (before !== $("tray").hidden) render();
  };
  const versus = { slider: false, first: 0, second: 1 };
  const compare = () => {
    if (view.pins.length < 2) return tell("Pin two cells first (P).");
    versus.first = 0;
    versus.second = 1;
    drawVersus();
    open($("versus"));
  };
  const differing = () =>
    axes.map((_, k) => k).filter((k) => new Set(places().map((at) => at[k])).size > 1);
  const caption = (at) =>
    make(
      "figcaption",
      {},
      ...differing().map((k) =>
        make("span", {}, make("i", { textContent: `${axes[k].title} ` }), axes[k].labels[at[k]]),
      ),
      ...(view.under === "all" ? numbers : view.under ? [view.under] : []).map((name) =>
        make("span", {}, make("i", { textContent: `${name} ` }), cellAt(at).numbers[name] ?? "–"),
      ),
    );
  const layer = (at) => {
    const cell = cellAt(at),
      box = frame(cell, sources(cell)[1]),
      found = box.querySelector("img") || box;
    if (found.tagName === "IMG")
      found.onload = () =>
        found.classList.toggle("small", found.naturalWidth * 2 < found.clientWidth);
    return found;
  };
  const drawVersus = () => {
    const all = places(),
      plates = $("plates"),
      name = (at) =>
        differing()
          .map((k) => axes[k].labels[at[k]])
          .join(" · ") || "same";
    $("sides").setAttribute("aria-pressed", !versus.slider);
    $("slider").setAttribute("aria-pressed", versus.slider);
    $("split").hidden = !versus.slider;
    $("pick").hidden = !versus.slider || all.length < 3;
    options(
      $("first"),
      all.map((at, k) => [k, name(at)]),
      versus.first,
    );
    options(
      $("second"),
      all.map((at, k) => [k, name(at)]),
      versus.second,
    );
    if (versus.slider) {
      const [left, right] = [all[versus.first], all[versus.second]];
      plates.style.gridTemplateColumns = "minmax(0, 1fr)";
      plates.style.gridTemplateRows = "minmax(0, 1fr) auto";
      const plate = make(
        "div",
        { className: "plate slide" },
        layer(left),
        make("div", { className: "front" }, layer(right)),
        make("div", { className: "knife" }),
      );
      const cut = (event) => {
        const box = plate.getBoundingClientRect();
        slide(((event.clientX - box.left) / box.width) * 100);
      };
      plate.onpointerdown = (event) => {
        plate.setPointerCapture(event.pointerId);
        cut(event);
      };
      plate.onpointermove = (event) => {
        if (event.buttons) cut(event);
        else aim(event, plate);
      };
      plates.replaceChildren(
        make(
          "figure",
          {},
          plate,
          make("div", { className: "halves" }, caption(left), caption(right)),
        ),
      );
      slide($("split").value);
    } else {
      const columns =
        innerWidth < 640
          ? all.length > 2
            ? 2
            : 1
          : all.length > 4
            ? Math.ceil(all.length / 2)
            : all.length;
      plates.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
      const rows = Math.ceil(all.length / columns);
      plates.style.gridTemplateRows = `repeat(${rows}, minmax(0, 1fr) auto)`;
      plates.replaceChildren(
        ...all.map((at) => {
          const plate = make("div", { className: "plate" }, layer(at));
          plate.onpointermove = (event) => aim(event, plate);
          return make("figure", {}, plate, caption(at));
        }),
      );
    }
  };
  const slide = (value) => {
    $("split").value = value;
    $("plates").style.setProperty("--split", `${Math.max(0, Math.min(100, Number(value)))}%`);
  };
  const aim = (event, plate) => {
    // all pictures are looked at in the same place
    const box = plate.getBoundingClientRect();
    $("plates").style.setProperty("--ox", `${((event.clientX - box.left) / box.width) * 100}%`);
    $("plates").style.setProperty("--oy", `${((event.clientY - box.top) / box.height) * 100}%`);
  };

  // ---- wiring
  const keys = {
    ArrowUp: () => step(-1, 0),
    ArrowDown: () => step(1, 0),
    ArrowLeft: () => step(0, -1),
    ArrowRight: () => step(0, 1),
    Enter: detail,
    p: () => pin(view.now),
    c: compare,
    s: swap,
    b: () => judge(view.now, { best: !verdict(view.now).best }),
    n: () => {
      detail();
      $("note").focus();
    },
    "+": () => zoom(view.size * 1.2),
    "=": () => zoom(view.size * 1.2),
    "-": () => zoom(view.size / 1.2),
    "?": () => open($("help")),
    "[": () => turnPage(-1),
    "]": () => turnPage(1),
  };
  const turnPage = (way) => {
    const axis = axes.findIndex((_, k) => k !== view.x && k !== view.y);
    if (axis >= 0) page(axis, way);
  };
  const AT_CELL = /^(Arrow\w+|[pcb0-5])$/;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event)) return;
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key,
      dialog = document.querySelector("dialog[open]");
    if (dialog === $("versus") && name === "c") {
      event.preventDefault();
      return dialog.close();
    }
    if (dialog && !(dialog === $("detail") && (AT_CELL.test(name) || name === "n"))) return;
    if (event.target.matches("input[type=range]") && name.startsWith("Arrow")) return;
    if (name === "Enter" && event.target.matches("button")) return;
    const act = /^[0-5]$/.test(name)
      ? () => judge(view.now, { stars: Number(name) })
      : Object.hasOwn(keys, name)
        ? keys[name]
        : null;
    if (act) {
      event.preventDefault();
      if (name === "c" && dialog && view.pins.length > 1) dialog.close();
      act();
    }
  });
  $("stage").addEventListener("click", (event) => {
    const node = event.target.closest(".cell");
    if (!node) return;
    const at = node.dataset.at === "" ? [] : node.dataset.at.split(",").map(Number);
    select(at, false);
    if (event.target.closest(".take")) pin(at);
    else detail();
  });
  let asked = false;
  $("stage").addEventListener(
    "scroll",
    () => {
      if (!asked) {
        asked = true;
        requestAnimationFrame(() => {
          asked = false;
          render();
        });
      }
    },
    { passive: true },
  );
  new ResizeObserver(() => {
    if (plan.flow) layout();
    else render();
  }).observe($("stage"));
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector(".close").onclick = () => dialog.close();
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) {
        const box = dialog.getBoundingClientRect();
        if (
          event.clientX < box.left ||
          event.clientX > box.right ||
          event.clientY < box.top ||
          event.clientY > box.bottom
        )
          dialog.close();
      }
    });
    dialog.addEventListener("close", () => $("stage").focus({ preventScroll: true }));
  }
  $("across").onchange = (event) => choose("across", "down", Number(event.target.value));
  $("down").onchange = (event) => choose("down", "across", Number(event.target.value));
  $("under").onchange = (event) => {
    view.under = event.target.value;
    layout();
  };
  $("swap").onclick = swap;
  $("hide").onclick = () => {
    drawValues();
    open($("values"));
  };
  $("zoom").oninput = (event) => zoom(Number(event.target.value));
  $("export").onclick = exportVerdicts;
  $("ask").onclick = () => open($("help"));
  $("best").onclick = () => judge(view.now, { best: !verdict(view.now).best });
  $("pin").onclick = () => pin(view.now);
  $("copy").onclick = copy;
  $("note").oninput = () => judge(view.now, { note: $("note").value });
  for (const button of $("go").children)
    button.onclick = () => step(Number(button.dataset.down), Number(button.dataset.right));
  $("compare").onclick = compare;
  $("unpin").onclick = () => {
    const all = places();
    view.pins = [];
    all.forEach(repaint);
    drawTray();
  };
  $("sides").onclick = () => {
    versus.slider = false;
    drawVersus();
  };
  $("slider").onclick = () => {
    versus.slider = true;
    drawVersus();
  };
  $("first").onchange = (event) => {
    versus.first = Number(event.target.value);
    drawVersus();
  };
  $("second").onchange = (event) => {
    versus.second = Number(event.target.value);
    drawVersus();
  };
  $("split").oninput = (event) => slide(event.target.value);
  $("closer").oninput = (event) => $("plates").style.setProperty("--closer", event.target.value);

  $("title").textContent = data.title;
  $("mode").textContent = data.mode;
  $("fixed").replaceChildren(
    ...data.fixed.map(([name, value]) =>
      make("span", {}, `${name} `, make("b", { textContent: value })),
    ),
  );
  $("kept").textContent = kept
    ? "Ratings are kept in this browser. Export them to use them elsewhere."
    : "This browser stores nothing for this page: export your ratings before you close it.";
  $("zoom").value = view.size;
  drawBar();
  layout();
  $("stage").focus({ preventScroll: true });
})();
