// Keys that go to other pages ("g", then a letter), and a list of all keys ("?").
{
  const WAIT = 1200;
  const links = () => [...document.querySelectorAll("[data-go]")];
  let since = -Infinity;

  document.addEventListener("keydown", (event) => {
    const inside = event.target instanceof Element && event.target.closest("input, textarea, select, dialog");
    if (inside || event.ctrlKey || event.metaKey || event.altKey || event.key === "Shift") return;
    const waiting = event.timeStamp - since < WAIT;
    since = event.key === "g" && !waiting ? event.timeStamp : -Infinity;
    const link = waiting && links().find((one) => one.dataset.go === event.key);
    if (!link && since !== event.timeStamp) return;
    event.preventDefault();
    event.stopImmediatePropagation();  // the letter means nothing else now
    if (link) link.click();
  }, { capture: true });

  const button = document.querySelector("button.keys");
  if (button && typeof HTMLDialogElement === "function") {
    const made = (name, text = "") => Object.assign(document.createElement(name), { textContent: text });
    const named = (key) => ({ ArrowLeft: "←", ArrowRight: "→" })[key] ?? key;
    const said = (one) => one.getAttribute("aria-label") || one.textContent.trim().replace(/\s+/g, " ");

    const dialog = made("dialog");
    dialog.className = "keys-list";
    dialog.setAttribute("aria-label", "Keys");
    document.body.append(dialog);
    const list = () => {
      const rows = [[["/"], "Search"]];
      for (const one of links()) rows.push([["g", one.dataset.go], said(one) === "Atlas" ? "Models" : said(one)]);
      for (const one of document.querySelectorAll("[aria-keyshortcuts]")) {
        if (one !== button) rows.push([one.getAttribute("aria-keyshortcuts").split(" ").map(named), said(one), " or "]);
      }
      rows.push([["Esc"], "Leave a field, close this"]);
      const all = made("dl");
      for (const [keys, what, between = " "] of rows) {
        const row = made("div"), left = made("dt");
        keys.forEach((key, i) => left.append(...(i ? [between] : []), made("kbd", key)));
        row.append(left, made("dd", what));
        all.append(row);
      }
      const close = made("button", "Close");
      close.className = "button";
      close.addEventListener("click", () => dialog.close());
      dialog.replaceChildren(made("h2", "Keys"), all, close);
    };
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    button.hidden = false;
    button.addEventListener("click", () => { list(); dialog.showModal(); });
  }
}
