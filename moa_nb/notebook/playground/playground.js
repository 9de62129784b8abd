// The playground in the browser. It shows what the kernel says and says what was typed; it decides nothing.
// Texts become nodes with textContent alone: nothing that a model or a table says is ever markup here.

const TAG = /\{#[\s\S]*?(?:#\}|$)|\{%[\s\S]*?(?:%\}|$)|\{\{[\s\S]*?(?:\}\}|$)/g;
const WORD = /("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|\b(and|as|block|call|do|elif|else|endblock|endcall|endfilter|endfor|endif|endmacro|endraw|endset|endwith|extends|filter|for|from|if|import|in|include|is|macro|not|or|raw|set|with)\b|(\|\s*\w+)|\b(\d+(?:\.\d+)?)\b/g;
const KINDS = ["text", "word", "filter", "number"];
const PAUSE = 40; // milliseconds after the last key

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
      if (part) line.append(kind ? make("span", { class: kind, text: part }) : part);
    });
  }
  for (const one of lines) if (!one.hasChildNodes()) one.append("\u200b");
  return lines;
}

// The parts ---------------------------------------------------------------------------------------

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, label]) => {
    return make("option", { value, text: label });
  }));
  select.value = chosen ?? "";
}

function prompts(seen) {
  return seen.prompts.map((prompt, place) => {
    const head = make("summary", { "aria-label": `prompt of ${prompt.agents}, ${prompt.figures}` }, make("b", { text: prompt.agents }), ` ${prompt.figures}`);
    const messages = prompt.messages.flatMap((message) => [
      make("div", { class: "dim", text: message.role }), make("pre", { text: message.text }),
    ]);
    return make("details", { open: place === 0 }, head, ...messages);
  });
}

function pieces(list) {
  const text = make("pre");
  for (const [kind, part] of list) {
    // Said by tags too, for those who do not see colours.
    text.append(kind === "same" ? part : make(kind === "added" ? "ins" : "del", { text: part }));
  }
  return text;
}

function labelled(text, ...nodes) {
  return make("label", {}, make("span", { class: "dim", text }), ...nodes);
}

function results(shown) {
  const nodes = [];
  const line = (text, kind) => nodes.push(make("div", { class: kind, text }));
  if (shown.title) line(shown.title, "title");
  for (const remark of shown.remarks ?? []) line(remark, "dim");
  for (const part of shown.parts ?? []) {
    const text = part.pieces ? pieces(part.pieces) : make("pre", { text: part.text });
    nodes.push(make("details", { open: part.open !== false }, make("summary", { text: part.name }), text));
  }
  if (shown.headers) {
    const row = (cells, tag) => make("tr", {}, ...cells.map((cell) => {
      return Array.isArray(cell) ? make(tag, {}, pieces(cell)) : make(tag, { text: cell });
    }));
    const table = make("table", { "aria-label": shown.title }, make("thead", {}, row(shown.headers, "th")), make("tbody", {}, ...shown.cells.map((cells) => row(cells, "td"))));
    nodes.push(make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "rows side by side" }, table));
  }
  if (shown.code != null) {
    const text = make("textarea", { class: "copied", readonly: true, rows: Math.min(12, shown.code.split("\n").length + 1), "aria-label": shown.title });
    text.value = shown.code;
    nodes.push(text);
  }
  return nodes;
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
    const press = (event) => {
      if (!isDisabled(event.currentTarget)) say(typeof message === "function" ? message() : message);
    };
    return make("button", { type: "button", text, ...options, onclick: press });
  };

  const layer = make("select", { "aria-label": "layer", onchange: () => look(0) });
  const template = make("select", { "aria-label": "template", onchange: () => say({ do: "choose", template: template.value }) });
  const row = make("input", { type: "number", min: "0", "aria-label": "row", oninput: () => look(PAUSE) });
  const rowLabel = make("span", { class: "dim row" });
  const colours = make("div", { class: "colours", "aria-hidden": "true" });
  const source = make("textarea", {
    class: "source", spellcheck: "false", autocapitalize: "off", autocomplete: "off", "aria-label": "template source", "aria-multiline": "true", "aria-description": "Control and Enter run it; Tab leaves the editor", title: "Ctrl+Enter runs it; Tab leaves the editor",
    oninput: () => { colour(); reveal(); look(PAUSE); },
    onkeyup: () => reveal(),
    onkeydown: (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        event.stopPropagation();
        if (!isDisabled(run)) say({ do: "run" });
      }
    },
  });
  const code = make("div", { class: "code" }, colours, source);
  const mistakes = make("div", { class: "mistakes", role: "alert" });
  const figures = make("div", { class: "figures", role: "status", "aria-live": "polite" });
  const prompt = make("div", { class: "prompts", tabindex: "0", role: "region", "aria-label": "rendered prompts" });
  const run = button("Run", { do: "run" }, { class: "main", title: "asks only what is not in the store (Ctrl+Enter)" });
  const stop = button("Stop", { do: "stop" }, { "aria-disabled": "true" });
  const count = make("input", { type: "number", min: "1", max: "50", value: "5", "aria-label": "number of rows" });
  const sample = button("Side by side", () => ({ do: "sample", rows: Number(count.value) || 5, against: before.value }));
  const name = make("input", { type: "text", placeholder: "name", "aria-label": "name of the version" });
  const before = make("select", { "aria-label": "compare from" });
  const after = make("select", { "aria-label": "compare to" });
  const status = make("div", { class: "status", role: "status", "aria-live": "polite" });
  const result = make("div", { class: "result" });
  const title = make("b");

  const root = make("div", { class: "moa-playground moa-fields", role: "group", "aria-label": "playground" },
    make("div", { class: "bar" }, title, labelled("layer", layer), labelled("template", template), labelled("row", row), rowLabel),
    make("div", { class: "panes" },
      make("div", { class: "pane" }, code, mistakes),
      make("div", { class: "pane" }, prompt, figures)),
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
    for (const [select, fallback] of [[before, state.versions?.[0]], [after, "as edited"]]) {
      const chosen = select.value || fallback;
      const known = state.versions ?? [];
      options(select, known.map((one) => [one, one]), known.includes(chosen) ? chosen : fallback);
    }
    for (const node of [row, count]) node.disabled = state.is_text;
    disable(sample, state.is_text || model.get("status").busy);
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
    mistakes.replaceChildren(...wrong.map((one) => make("div", { text: one.text })));
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
      copied(shown.code, result.querySelector(".copied")).then((said) => { status.textContent = said; });
    }
  }

  function showStatus() {
    const { busy, text } = model.get("status");
    status.textContent = text ?? "";
    disable(stop, !busy);
    disable(run, busy);
    disable(sample, busy || model.get("state").is_text);
  }

  const watched = { state: showState, draft: showDraft, seen: showSeen, shown: showResult, status: showStatus };
  for (const [trait, show] of Object.entries(watched)) model.on(`change:${trait}`, show);
  for (const show of Object.values(watched)) show();
  root.addEventListener("focusin", (event) => { focused = event.target; });
  // Later: where the output is drawn again, the editor is mounted anew before that, and has its focus back.
  root.addEventListener("focusout", () => setTimeout(() => { if (!root.contains(document.activeElement)) focused = null; }));

  const freeKeys = keepKeys(root);
  // The notebook takes the line breaks out of what is typed in an output.
  const guard = (event) => { if (root.contains(event.target)) event.stopPropagation(); };
  window.addEventListener("beforeinput", guard, true);

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
      freeKeys();
      window.removeEventListener("beforeinput", guard, true);
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
