// The playground in the browser. It shows what the kernel says and says what was typed; it decides nothing.
// Texts become nodes with textContent alone: nothing that a model or a table says is ever markup here.

const TAG = /\{#[\s\S]*?(?:#\}|$)|\{%[\s\S]*?(?:%\}|$)|\{\{[\s\S]*?(?:\}\}|$)/g;
const WORD = /("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|\b(and|as|block|call|do|elif|else|endblock|endcall|endfilter|endfor|endif|endmacro|endraw|endset|endwith|extends|filter|for|from|if|import|in|include|is|macro|not|or|raw|set|with)\b|(\|\s*\w+)|\b(\d+(?:\.\d+)?)\b/g;
const KINDS = ["text", "word", "filter", "number"];
const PAUSE = 40; // milliseconds after the last key

function make(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

// Syntax ------------------------------------------------------------------------------------------

function* tokens(source) {
  let at = 0;
  for (const tag of source.matchAll(TAG)) {
    yield ["", source.slice(at, tag.index)];
    at = tag.index + tag[0].length;
    if (tag[0].startsWith("{#")) {
      yield ["comment", tag[0]];
      continue;
    }
    let inner = 0;
    for (const word of tag[0].matchAll(WORD)) {
      yield ["tag", tag[0].slice(inner, word.index)];
      yield [KINDS[word.slice(1).findIndex((part) => part !== undefined)], word[0]];
      inner = word.index + word[0].length;
    }
    yield ["tag", tag[0].slice(inner)];
  }
  yield ["", source.slice(at)];
}

function coloured(source, badLines) {
  let line;
  const lines = [];
  const begin = () => lines.push((line = make("div", { class: badLines.has(lines.length + 1) ? "line bad" : "line" })));
  begin();
  for (const [kind, text] of tokens(source)) {
    text.split("\n").forEach((part, place) => {
      if (place) begin();
      if (part) line.append(kind ? Object.assign(make("span", { class: kind }), { textContent: part }) : part);
    });
  }
  for (const one of lines) if (!one.hasChildNodes()) one.append("\u200b");
  return lines;
}

// The parts ---------------------------------------------------------------------------------------

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, label]) => {
    const option = make("option", { value });
    option.textContent = label;
    return option;
  }));
  select.value = chosen ?? "";
}

function prompts(seen) {
  return seen.prompts.map((prompt, place) => {
    const head = make("summary", {});
    const name = make("b");
    name.textContent = prompt.agents;
    head.append(name, ` ${prompt.figures}`);
    const messages = prompt.messages.flatMap((message) => {
      const role = make("div", { class: "dim" });
      const text = make("pre");
      role.textContent = message.role;
      text.textContent = message.text;
      return [role, text];
    });
    return make("details", { open: place === 0 }, head, ...messages);
  });
}

function pieces(list) {
  const text = make("pre");
  for (const [kind, part] of list) {
    // Said by tags too, for those who do not see colours.
    const node = kind === "same" ? document.createTextNode(part) : make(kind === "added" ? "ins" : "del");
    if (kind !== "same") node.textContent = part;
    text.append(node);
  }
  return text;
}

function labelled(text, ...nodes) {
  const label = make("label", {}, make("span", { class: "dim" }));
  label.firstChild.textContent = text;
  label.append(...nodes);
  return label;
}

function results(shown) {
  const nodes = [];
  const line = (text, kind = "") => {
    const node = make("div", { class: kind });
    node.textContent = text;
    nodes.push(node);
  };
  if (shown.title) line(shown.title, "title");
  for (const remark of shown.remarks ?? []) line(remark, "dim");
  for (const part of shown.parts ?? []) {
    const head = make("summary");
    head.textContent = part.name;
    const text = part.pieces ? pieces(part.pieces) : make("pre");
    if (!part.pieces) text.textContent = part.text;
    nodes.push(make("details", { open: part.open !== false }, head, text));
  }
  if (shown.headers) {
    const row = (cells, tag) => make("tr", {}, ...cells.map((cell) => {
      const node = make(tag);
      if (Array.isArray(cell)) node.append(pieces(cell));
      else node.textContent = cell;
      return node;
    }));
    const table = make("table", {}, make("thead", {}, row(shown.headers, "th")), make("tbody", {}, ...shown.cells.map((cells) => row(cells, "td"))));
    nodes.push(make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "rows side by side" }, table));
  }
  if (shown.code != null) {
    const text = make("textarea", { class: "copied", readonly: true, rows: Math.min(12, shown.code.split("\n").length + 1), "aria-label": shown.title });
    text.value = shown.code;
    nodes.push(text);
  }
  return nodes;
}

async function copy(text, field) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // No clipboard on a page without TLS, or none granted: the old way, and else by hand.
    field.focus();
    field.select();
    if (!document.execCommand("copy")) return "select it and copy";
  }
  return "copied";
}

// One playground ----------------------------------------------------------------------------------

function playground(model) {
  let serial = 0;
  let asked = 0;
  let timer = null;
  let focused = null;

  const say = (message) => {
    if (timer !== null) tell(); // what was typed comes first
    model.send(message);
  };
  const button = (text, message, options = {}) => {
    const node = make("button", { type: "button", ...options, onclick: () => say(typeof message === "function" ? message() : message) });
    node.textContent = text;
    return node;
  };

  const layer = make("select", { "aria-label": "layer", onchange: () => look(0) });
  const template = make("select", { "aria-label": "template", onchange: () => say({ do: "choose", template: template.value }) });
  const row = make("input", { type: "number", min: "0", "aria-label": "row", oninput: () => look(PAUSE) });
  const rowLabel = make("span", { class: "dim row" });
  const colours = make("div", { class: "colours", "aria-hidden": "true" });
  const source = make("textarea", {
    class: "source", spellcheck: "false", autocapitalize: "off", autocomplete: "off", "aria-label": "template source", "aria-multiline": "true",
    oninput: () => { colour(); reveal(); look(PAUSE); },
    onkeyup: () => reveal(),
    onkeydown: (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        event.stopPropagation();
        if (!run.disabled) say({ do: "run" });
      }
    },
  });
  const code = make("div", { class: "code" }, colours, source);
  const mistakes = make("div", { class: "mistakes", role: "alert" });
  const figures = make("div", { class: "figures", role: "status", "aria-live": "polite" });
  const prompt = make("div", { class: "prompts", tabindex: "0", role: "region", "aria-label": "rendered prompts" });
  const run = button("Run", { do: "run" }, { class: "main", title: "asks only what is not in the store (Ctrl+Enter)" });
  const stop = button("Stop", { do: "stop" }, { disabled: true });
  const count = make("input", { type: "number", min: "1", max: "50", value: "5", "aria-label": "number of rows" });
  const sample = button("Side by side", () => ({ do: "sample", rows: Number(count.value) || 5, against: before.value }));
  const name = make("input", { type: "text", placeholder: "name", "aria-label": "name of the version" });
  const before = make("select", { "aria-label": "compare from" });
  const after = make("select", { "aria-label": "compare to" });
  const status = make("div", { class: "status", role: "status", "aria-live": "polite" });
  const result = make("div", { class: "result" });
  const title = make("b");

  const root = make("div", { class: "moa-playground", role: "group", "aria-label": "playground" },
    make("div", { class: "bar" }, title, labelled("layer", layer), labelled("template", template), labelled("row", row), rowLabel),
    make("div", { class: "panes" },
      make("div", { class: "pane" }, code, mistakes),
      make("div", { class: "pane" }, figures, prompt)),
    make("div", { class: "bar" }, run, stop, labelled("rows", count), sample, make("span", { class: "gap" }),
      button("Save as file", () => ({ do: "save", name: name.value })), button("Copy as cell", { do: "copy", form: "cell" }),
      button("Copy as Python", { do: "copy", form: "python" }), button("Reset", { do: "reset" }, { title: "as the files have them" })),
    make("div", { class: "bar" }, labelled("version", name), button("Keep", () => ({ do: "keep", name: name.value })),
      labelled("from", before), labelled("to", after), button("Compare", () => ({ do: "compare", before: before.value, after: after.value })),
      button("Restore", () => ({ do: "restore", version: before.value }), { title: "edit what stands under 'from'" })),
    status, result);

  function colour() {
    const bad = new Set((model.get("seen").mistakes ?? []).filter((one) => one.template === template.value).map((one) => one.line));
    const { scrollTop } = code;
    colours.replaceChildren(...coloured(source.value, bad));
    code.scrollTop = scrollTop;
  }

  function reveal() {
    const line = colours.children[source.value.slice(0, source.selectionEnd).split("\n").length - 1];
    const bottom = line.offsetTop + line.offsetHeight - code.clientHeight;
    code.scrollTop = Math.min(Math.max(code.scrollTop, bottom + 6), line.offsetTop);
  }

  function look(pause) {
    clearTimeout(timer);
    serial += 1;
    asked = performance.now();
    timer = setTimeout(tell, pause);
  }

  function tell() {
    clearTimeout(timer);
    timer = null;
    model.send({
      do: "look", serial, template: template.value, source: source.value, layer: layer.value, row: Number(row.value) || 0,
    });
  }

  function showState() {
    const state = model.get("state");
    title.textContent = state.pipeline ?? "";
    options(template, (state.templates ?? []).map(([one, edited]) => [one, edited ? `${one} •` : one]), state.template);
    for (const [select, fallback] of [[before, "as saved"], [after, "as edited"]]) {
      const chosen = select.value || fallback;
      const known = state.versions ?? [];
      options(select, known.map((one) => [one, one]), known.includes(chosen) ? chosen : fallback);
    }
    for (const node of [row, count, sample]) node.disabled = state.is_text;
    row.max = Math.max(0, (state.n_rows ?? 1) - 1);
    source.disabled = state.template == null;
  }

  function showDraft() {
    const draft = model.get("draft");
    row.value = draft.row ?? 0;
    source.value = draft.source ?? "";
    colour();
  }

  function showSeen() {
    const seen = model.get("seen");
    if (seen.serial && seen.serial !== serial) return; // of an earlier edit
    if (seen.serial) root.dataset.milliseconds = Math.round(performance.now() - asked);
    const wrong = seen.mistakes ?? [];
    mistakes.replaceChildren(...wrong.map((one) => Object.assign(make("div"), { textContent: one.text })));
    source.setAttribute("aria-invalid", wrong.length > 0);
    root.classList.toggle("stale", wrong.length > 0);
    colour();
    if (wrong.length) return; // the last good prompt stays, dimmed
    options(layer, (seen.layers ?? []).map((one) => [one, one]), seen.layer);
    rowLabel.textContent = seen.row ?? "";
    figures.textContent = seen.figures ?? "";
    prompt.replaceChildren(...prompts({ prompts: seen.prompts ?? [] }));
  }

  function showResult() {
    const shown = model.get("shown");
    result.replaceChildren(...results(shown));
    if (shown.copy && shown.code != null) {
      copy(shown.code, result.querySelector(".copied")).then((said) => { status.textContent = said; });
    }
  }

  function showStatus() {
    const { busy, text } = model.get("status");
    status.textContent = text ?? "";
    stop.disabled = !busy;
    run.disabled = sample.disabled = busy || false;
    if (!busy) sample.disabled = model.get("state").is_text;
  }

  const watched = { state: showState, draft: showDraft, seen: showSeen, shown: showResult, status: showStatus };
  for (const [trait, show] of Object.entries(watched)) model.on(`change:${trait}`, show);
  for (const show of Object.values(watched)) show();
  root.addEventListener("focusin", (event) => { focused = event.target; });
  // Later: where the output is drawn again, the editor is mounted anew before that, and has its focus back.
  root.addEventListener("focusout", () => setTimeout(() => { if (!root.contains(document.activeElement)) focused = null; }));

  // On a button Enter, or a letter, would be a command of the notebook's, which listens before everybody else; and it
  // takes the line breaks out of what is typed in an output.
  const guard = (event) => {
    const isCommand = event.ctrlKey || event.metaKey || event.altKey || event.key === "Escape";
    const isTyping = event.type === "keydown" && event.target.matches?.("textarea, input");
    if (!isCommand && !isTyping && root.contains(event.target)) event.stopPropagation();
  };
  for (const type of ["keydown", "beforeinput"]) window.addEventListener(type, guard, true);

  // What is taken out of the page forgets how far it was scrolled.
  const scrolled = new Map([[code, 0], [prompt, 0]]);
  for (const one of scrolled.keys()) one.addEventListener("scroll", () => scrolled.set(one, one.scrollTop));

  return {
    root,
    mount(place) {
      place.replaceChildren(root);
      for (const [one, top] of scrolled) one.scrollTop = top;
      if (focused) focused.focus({ preventScroll: true });
    },
    end() {
      for (const type of ["keydown", "beforeinput"]) window.removeEventListener(type, guard, true);
      for (const [trait, show] of Object.entries(watched)) model.off(`change:${trait}`, show);
    },
  };
}

// In the page -------------------------------------------------------------------------------------

// The saved notebook holds a static form and no widget; while the kernel lives, the editor stands in its place.
function initialize({ model }) {
  const mark = `.${model.get("mark")}`;
  const editor = playground(model);
  let place = null;
  let still = [];

  const settle = () => {
    const found = document.querySelector(mark);
    if (!found || found === place || found.contains(editor.root)) return;
    place = found;
    still = [...found.childNodes];
    editor.mount(found);
  };
  const watcher = new MutationObserver(settle);
  const leave = () => {
    watcher.disconnect();
    editor.end();
    if (place?.contains(editor.root)) place.replaceChildren(...still);
  };
  watcher.observe(document.body, { childList: true, subtree: true });
  settle();
  model.on("comm_live_update", leave); // the kernel is gone
  model.on("destroy", leave);
  return leave;
}

function render({ model, el }) {
  const editor = playground(model);
  el.append(editor.root);
  return () => editor.end();
}

export default { initialize, render };
