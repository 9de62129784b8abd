// What all buttons and fields in the page have in common; it stands before the script of each widget.

function make(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

// A button that is disabled loses the focus, and whoever pressed it by a key their place.
function disable(button, isDisabled) {
  button.setAttribute("aria-disabled", Boolean(isDisabled));
}

function isDisabled(button) {
  return button.getAttribute("aria-disabled") === "true";
}

// Enter, or a letter, would be a command of the notebook's, which listens before everybody else; with Ctrl it is meant
// to be one, such as saving, and Escape leads back to the notebook. Returns what ends it.
function keepKeys(root) {
  const typed = (event) => {
    const { ctrlKey, metaKey, shiftKey, altKey, key, target } = event;
    if (!root.contains(target)) return;
    // On what has the focus: a command of the notebook's is looked for there first, and only then further up.
    target.toggleAttribute("data-lm-suppress-shortcuts", !(ctrlKey || metaKey || key === "Escape"));
    // nbclassic is deaf as long as something in an output has the focus.
    const classic = window.Jupyter?.keyboard_manager;
    if (classic && !classic.enabled && (ctrlKey || metaKey) && !shiftKey && !altKey && key === "s") {
      event.preventDefault();
      classic.actions.call("jupyter-notebook:save-notebook", event);
    }
  };
  window.addEventListener("keydown", typed, true);
  return () => window.removeEventListener("keydown", typed, true);
}

// Returns what was done, in words; `field` holds the text where it has to be copied by hand.
async function copied(text, field = null) {
  try {
    await navigator.clipboard.writeText(text);
    return "copied";
  } catch {
    // No clipboard on a page without TLS, or none granted: the old way, and else by hand.
    const from = field ?? make("textarea", { style: "position:fixed;opacity:0" });
    const before = document.activeElement;
    if (!field) {
      from.value = text;
      document.body.append(from);
    }
    from.focus();
    from.select();
    const done = document.execCommand("copy");
    if (!field) from.remove();
    if (done) before?.focus();
    return done ? "copied" : "the browser does not let a page copy: select the text";
  }
}
