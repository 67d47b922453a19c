// The annotation form. Every text reaches the page as text, never as HTML; nothing is fetched.
const el = (tag, text = "", attributes = {}) => {
  const node = document.createElement(tag);
  node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};

const STYLE = `
.mma { font: 14px/1.5 system-ui, sans-serif; color: #1d2733; background: #fff; padding: 12px; border: 1px solid #dfe5ec; border-radius: 10px; max-width: 72rem; }
.mma .media img { height: 160px; image-rendering: pixelated; margin-right: 6px; border: 1px solid #dfe5ec; }
.mma .answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 12px; }
.mma .answer { background: #f4f6f9; border-radius: 8px; padding: 10px; } .mma .text { white-space: pre-wrap; overflow-wrap: anywhere; }
.mma fieldset { border: 0; padding: 4px 0; margin: 0; } .mma legend { font-weight: 600; padding: 0; }
.mma label { display: inline-block; margin-right: 8px; } .mma textarea { width: 100%; box-sizing: border-box; }
.mma input[type=number] { width: 4rem; } .mma button { font: inherit; padding: 6px 14px; }
.mma :focus-visible { outline: 2px solid #0b6e6e; outline-offset: 1px; } .mma .soft { color: #5b6876; font-size: 13px; }
.mma .status { font-weight: 600; min-height: 1.5em; }`;

function scale(name, labels, group, fields) {
  const set = el("fieldset");
  set.append(el("legend", name));
  const box = el("div");
  labels.forEach((label, i) => {
    const input = el("input", "", { type: "radio", name: `${group}-${name}`, value: i + 1, title: label });
    const holder = el("label");
    holder.append(input, ` ${i + 1} ${label}`);
    box.append(holder);
  });
  box.addEventListener("keydown", (event) => {
    if (/^[1-5]$/.test(event.key)) {
      const chosen = box.querySelectorAll("input")[Number(event.key) - 1];
      chosen.checked = true;
      chosen.focus();
      event.preventDefault();
    }
  });
  set.append(box);
  fields[name] = () => Number(box.querySelector("input:checked")?.value ?? 0);
  fields[`focus ${name}`] = () => box.querySelector("input").focus();
  return set;
}

function answer(item, position, scales) {
  const fields = {};
  const card = el("section", "", { class: "answer", "aria-label": `Answer ${position + 1}` });
  card.append(el("b", `Answer ${position + 1}`), el("p", item.responses[position], { class: "text" }));
  const group = `${item.token}-${position}`;
  for (const [name, labels] of Object.entries(scales)) card.append(scale(name, labels, group, fields));
  const reason = el("textarea", "", { rows: 2, "aria-label": `Reason ${position + 1}`, placeholder: "Why? What is right, what is wrong?" });
  const rank = el("input", "", { type: "number", min: 1, max: item.responses.length, "aria-label": `Rank ${position + 1}` });
  const holder = el("label", "Rank (1 is best, ties share one): ");
  holder.append(rank);
  card.append(reason, holder);
  return { card, fields, reason, rank };
}

function read(parts, scales, say) {
  const rows = [];
  for (const [position, part] of parts.entries()) {
    const row = { reason: part.reason.value.trim(), rank: Number(part.rank.value) };
    for (const name of Object.keys(scales)) {
      row[name] = part.fields[name]();
      if (!row[name]) { say(`Answer ${position + 1} has no score for ${name}.`); part.fields[`focus ${name}`](); return null; }
    }
    if (!Number.isInteger(row.rank) || row.rank < 1 || row.rank > parts.length) {
      say(`Answer ${position + 1} needs a rank from 1 to ${parts.length}.`); part.rank.focus(); return null;
    }
    rows.push(row);
  }
  return rows;
}

function render({ model, el: root }) {
  root.append(el("style", STYLE));
  const page = el("div", "", { class: "mma", "data-lm-suppress-shortcuts": "true", tabindex: -1 });
  root.append(page);
  for (const kind of ["keydown", "keyup", "keypress"]) page.addEventListener(kind, (event) => event.stopPropagation());
  let save = () => {};
  const waiting = new Map();
  page.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); save(); } }, true);

  function draw() {
    const item = model.get("item"), scales = model.get("scales"), begun = performance.now();
    const had = page.contains(document.activeElement);
    page.replaceChildren();
    page.append(el("p", `${item.done} of ${item.total} done`, { class: "soft count" }));
    const status = el("p", item.note || "", { class: "status", role: "status", "aria-live": "polite" });
    if (!item.query) { page.append(el("b", "All queries are done. Thank you."), status); save = () => {}; return; }
    const media = el("div", "", { class: "media" });
    item.media.forEach((source, i) => media.append(source ? el("img", "", { src: source, alt: `picture ${i + 1}` }) : el("span", `[picture ${i + 1} cannot be shown]`)));
    page.append(media, el("h3", item.prompt));
    const parts = item.responses.map((_, position) => answer(item, position, scales));
    const answers = el("div", "", { class: "answers" });
    parts.forEach((part) => answers.append(part.card));
    const basis = el("textarea", "", { rows: 2, "aria-label": "Basis of the ranking", placeholder: "Why this order?" });
    const button = el("button", "Save and go on (Ctrl+Enter)", { type: "button" });
    page.append(answers, basis, button, status);
    page.append(el("p", "Tab moves on, 1 to 5 or arrows choose a point, Ctrl+Enter saves.", { class: "soft" }));
    const say = (text) => { status.textContent = text; };
    save = () => {
      if (button.disabled) return;
      const rows = read(parts, scales, say);
      if (!rows) return;
      button.disabled = true;
      say("Saving …");
      const patience = setTimeout(() => { button.disabled = false; say("Not saved: the kernel does not answer. Your entries are still here; restart the kernel, or try again."); }, 8000);
      waiting.set(item.token, (problem) => { clearTimeout(patience); button.disabled = false; if (problem) say(problem); });
      model.send({ kind: "save", token: item.token, rows, basis: basis.value.trim(), seconds: (performance.now() - begun) / 1000 });
    };
    button.addEventListener("click", () => save());
    if (had) parts[0].fields[`focus ${Object.keys(scales)[0]}`]();
  }
  const answered = (reply) => waiting.get(reply.token)?.(reply.problem);
  model.on("msg:custom", answered);
  model.on("change:item", draw);
  draw();
  return () => { model.off("msg:custom", answered); model.off("change:item", draw); };
}

export default { render };
