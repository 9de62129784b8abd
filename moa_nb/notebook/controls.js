// The buttons of a panel in the browser. They show what the kernel says and say what was pressed; they decide nothing.
// Texts become nodes with textContent alone; the one piece of HTML is a panel, made as safe as all panels are.

function make(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value != null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return "copied";
  } catch {
    // No clipboard on a page without TLS, or none granted: the old way.
    const field = make("textarea", { style: "position:fixed;opacity:0" });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done ? "copied" : "the browser does not let a page copy: select the text";
  }
}

let lists = 0;

function controls(model) {
  const bar = make("div", { class: "bar" });
  const status = make("span", { class: "status", role: "status" });
  const rows = make("div", { class: "rows" });
  const panel = make("div", { class: "panel" });
  const root = make("div", { class: "moa-controls" }, bar, rows, panel);
  const fields = {};
  let focused = null;

  const send = (message) => {
    const values = Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.value]));
    // What is pressed waits where a cell runs that lets nothing through, and for ever where the kernel has ended.
    status.textContent = "waiting for the kernel …";
    model.send({ values, ...message });
  };

  function pressed(act) {
    // The panel around a button may be drawn anew between press and release, and a click is then lost.
    return {
      onpointerdown: (event) => { if (event.button === 0 && !event.currentTarget.disabled) act(event.currentTarget); },
      onclick: (event) => { if (event.detail === 0) act(event.currentTarget); }, // from the keyboard
    };
  }

  function control(one) {
    if (one.kind === "button") {
      const node = make("button", { text: one.label, title: one.hint, ...pressed(() => send({ do: one.do })) });
      node.dataset.when = one.when ?? "idle";
      return node;
    }
    if (one.kind === "copy") {
      return make("button", { text: one.label, title: one.hint, onclick: () => {
        copied(model.get("texts")[one.field] ?? "").then((said) => { status.textContent = said; });
      } });
    }
    const label = make("label", {}, make("span", { class: "dim", text: one.label }));
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
    bar.replaceChildren(...model.get("parts").map(control), status);
    showStatus();
  }

  function showStatus() {
    const { busy, text } = model.get("status");
    status.textContent = text ?? "";
    for (const node of bar.querySelectorAll("button[data-when]")) {
      node.hidden = node.dataset.when === "busy" && !busy;
      node.disabled = node.dataset.when === "idle" && Boolean(busy);
    }
  }

  function showRows() {
    rows.replaceChildren(...model.get("rows").map((row) => make(
      "button",
      { class: `row ${row.state.replaceAll(" ", "-")}`, title: "show its layers", ...pressed(() => send({ do: "row", row: row.position })) },
      make("b", { text: row.label }), " ", make("span", { class: "dim", text: row.state }), " ", make("span", { text: row.text }),
    )));
  }

  function showPanel() {
    panel.innerHTML = model.get("panel");
  }

  // Enter, or a letter, would be a command of the notebook's; with Ctrl it is meant to be one, such as saving.
  const typed = (event) => root.toggleAttribute("data-lm-suppress-shortcuts", !(event.ctrlKey || event.metaKey));
  window.addEventListener("keydown", typed, true);

  const watched = { parts: showParts, status: showStatus, rows: showRows, panel: showPanel };
  for (const [trait, show] of Object.entries(watched)) model.on(`change:${trait}`, show);
  for (const show of [showParts, showRows, showPanel]) show();
  root.addEventListener("focusin", (event) => { focused = event.target; });
  root.addEventListener("focusout", () => { if (root.isConnected) focused = null; });

  return {
    root,
    mount(place) {
      place.replaceChildren(root);
      if (focused) focused.focus({ preventScroll: true });
    },
    end() {
      window.removeEventListener("keydown", typed, true);
      for (const [trait, show] of Object.entries(watched)) model.off(`change:${trait}`, show);
    },
  };
}

// The saved notebook holds a static panel and no widget; while the kernel lives, the buttons stand below it.
function initialize({ model }) {
  const mark = `.${model.get("mark")}`;
  const shown = controls(model);
  const settle = () => {
    const found = document.querySelector(mark);
    if (found && !found.contains(shown.root)) shown.mount(found);
  };
  const watcher = new MutationObserver(settle);
  const leave = () => {
    watcher.disconnect();
    shown.end();
    shown.root.remove();
  };
  watcher.observe(document.body, { childList: true, subtree: true });
  settle();
  model.on("comm_live_update", () => { if (model.comm_live === false) leave(); });
  model.on("destroy", leave);
  return leave;
}

function render({ model, el }) {
  const shown = controls(model);
  el.append(shown.root);
  return () => shown.end();
}

export default { initialize, render };
