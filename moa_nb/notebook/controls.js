// The buttons of a panel in the browser. They show what the kernel says and say what was pressed; they decide nothing.
// Texts become nodes with textContent alone; the one piece of HTML is a panel, made as safe as all panels are.

const GONE = "the kernel has gone, and what was running with it; what was answered is in the store";

// A kernel that is started anew by itself is nothing that the page is told.
const QUIET = "no news from the kernel for more than a minute: it may have ended, and the run with it";
const QUIET_AFTER = 90_000, LOOK_EVERY = 5_000; // milliseconds

let lists = 0;

function controls(model) {
  const bar = make("div", { class: "bar" });
  const status = make("span", { class: "status", role: "status" });
  const rows = make("div", { class: "rows", role: "group", "aria-label": "latest rows" });
  const panel = make("div", { class: "panel", role: "region", "aria-label": "layers of a row" });
  const root = make("div", { class: "moa-controls moa-fields", role: "group", "aria-label": "controls of the run above" }, bar, rows, panel);
  const fields = {};
  let focused = null;

  const send = (message) => {
    const values = Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.value]));
    // What is pressed waits where a cell runs that lets nothing through.
    status.textContent = "waiting for the kernel …";
    model.send({ values, ...message });
  };

  function pressed(act) {
    // The panel around a button may be drawn anew between press and release, and a click is then lost.
    const press = ({ currentTarget }) => { if (!isDisabled(currentTarget)) act(); };
    return {
      onpointerdown: (event) => { if (event.button === 0) press(event); },
      onclick: (event) => { if (event.detail === 0) press(event); }, // from the keyboard
    };
  }

  function control(one) {
    if (one.kind === "button") {
      const node = make("button", { type: "button", text: one.label, title: one.hint, ...pressed(() => send({ do: one.do })) });
      node.dataset.when = one.when ?? "idle";
      return node;
    }
    if (one.kind === "copy") {
      return make("button", { type: "button", text: one.label, title: one.hint, onclick: () => {
        copied(model.get("texts")[one.field] ?? "").then((said) => { status.textContent = said; });
      } });
    }
    const label = make("label", { title: one.hint }, make("span", { class: "dim", text: one.label }));
    let field;
    if (one.kind === "choice") {
      field = make("select", {}, ...one.options.map(([value, text]) => make("option", { value, text })));
    } else if (one.kind === "number") {
      field = make("input", { type: "number", min: 0, max: one.max, value: 0 });
    } else {
      const list = `moa-list-${++lists}`;
      field = make("input", { type: "text", list, placeholder: one.hint });
      label.append(make("datalist", { id: list }, ...one.options.map((value) => make("option", { value }))));
    }
    fields[one.name] = field;
    label.append(field);
    return label;
  }

  function showParts() {
    for (const name of Object.keys(fields)) delete fields[name];
    // What a button takes stands beside it, however narrow the page is.
    const groups = [[]];
    for (const one of model.get("parts")) {
      groups.at(-1).push(control(one));
      if (one.kind === "button" || one.kind === "copy") groups.push([]);
    }
    bar.replaceChildren(...groups.filter((group) => group.length).map((group) => make("span", { class: "together" }, ...group)), status);
    showStatus();
  }

  function showStatus() {
    const { busy, text } = model.get("status");
    status.textContent = text ?? "";
    for (const node of bar.querySelectorAll("button[data-when]")) {
      const had = node === document.activeElement;
      node.hidden = node.dataset.when === "busy" && !busy;
      disable(node, node.dataset.when === "idle" && busy);
      if (had && node.hidden) bar.querySelector("button:not([hidden]), select, input")?.focus();
    }
  }

  function row({ position, label, state, text }) {
    const node = make(
      "button",
      { type: "button", class: `row ${state.replaceAll(" ", "-")}`, title: "show its layers", ...pressed(() => send({ do: "row", row: position })) },
      make("b", { text: label }), " ", make("span", { class: "dim", text: state }), " ", make("span", { class: "said", text }),
    );
    node.dataset.position = position;
    return node;
  }

  function showRows() {
    const held = rows.contains(document.activeElement) ? document.activeElement.dataset.position : null;
    rows.replaceChildren(...model.get("rows").map(row));
    // Rows come and go while somebody goes through them.
    if (held !== null) (rows.querySelector(`[data-position="${held}"]`) ?? rows.lastElementChild)?.focus({ preventScroll: true });
    rows.hidden = !rows.hasChildNodes();
  }

  function showPanel() {
    panel.innerHTML = model.get("panel");
    panel.hidden = !panel.hasChildNodes();
  }

  const freeKeys = keepKeys(root);
  const watched = { parts: showParts, status: showStatus, rows: showRows, panel: showPanel };
  for (const [trait, show] of Object.entries(watched)) model.on(`change:${trait}`, show);
  for (const show of [showParts, showRows, showPanel]) show();
  root.addEventListener("focusin", (event) => { focused = event.target; });
  root.addEventListener("focusout", () => { if (root.isConnected) focused = null; });

  return {
    root,
    isHeld: () => focused !== null,
    isBusy: () => Boolean(model.get("status").busy),
    say(text) { status.textContent = text; },
    mount(place) {
      const held = focused; // moving what has the focus takes it away
      place.replaceChildren(root);
      held?.focus({ preventScroll: true });
    },
    end() {
      freeKeys();
      for (const [trait, show] of Object.entries(watched)) model.off(`change:${trait}`, show);
    },
  };
}

// The saved notebook holds a static panel and no widget; while the kernel lives, the buttons stand below it.
function initialize({ model }) {
  const mark = `.${model.get("mark")}`;
  const shown = controls(model);
  let cell = null;
  let heard = Date.now();
  const hear = () => { heard = Date.now(); };
  const settle = () => {
    const found = document.querySelector(mark);
    if (found && !found.contains(shown.root)) {
      cell = found.closest(".jp-Cell");
      shown.mount(found);
      hear();
    }
  };
  const watcher = new MutationObserver(settle);
  const listener = setInterval(() => { if (shown.isBusy() && Date.now() - heard > QUIET_AFTER) shown.say(QUIET); }, LOOK_EVERY);
  const leave = () => {
    watcher.disconnect();
    clearInterval(listener);
    model.off("change:status", hear);
    shown.end();
    const wasHeld = shown.isHeld();
    shown.root.remove();
    if (wasHeld) cell?.focus({ preventScroll: true });
  };
  watcher.observe(document.body, { childList: true, subtree: true });
  settle();
  model.on("change:status", hear);
  model.on("comm_live_update", () => { // the kernel is gone
    const place = shown.root.parentElement;
    leave();
    // What was drawn last still says that it runs.
    if (shown.isBusy()) place?.append(make("div", { class: "moa-fields status", role: "status", text: GONE }));
  });
  model.on("destroy", leave);
  return leave;
}

function render({ model, el }) {
  const shown = controls(model);
  el.append(shown.root);
  return () => shown.end();
}

export default { initialize, render };
