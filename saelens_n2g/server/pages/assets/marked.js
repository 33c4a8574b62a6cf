// The page of bookmarks: the list that unit pages keep in this browser, under the key "bookmarks".
{
  const KEY = "bookmarks", MOST = 5000;
  const root = document.querySelector(".marked-units");
  const status = root.querySelector('[role="status"]');
  const made = (name, text = "", more = {}) => Object.assign(document.createElement(name), { textContent: text }, more);

  // An address leads to a page of this server, whatever a file says.
  const here = (address) => {
    try { return new URL(address, location.href).origin === location.origin && address.startsWith("/"); } catch { return false; }
  };
  const sound = (one) => one && typeof one.model === "string" && typeof one.basis === "string"
    && Number.isInteger(one.layer) && one.layer >= 0 && Number.isInteger(one.unit) && one.unit >= 0
    && typeof one.title === "string" && typeof one.address === "string" && here(one.address);
  const place = (one) => (one.basis === "neurons" ? `${one.layer}` : `${one.layer}-${one.basis}`) + `/${one.unit}`;
  const same = (a, b) => a.model === b.model && place(a) === place(b);

  const read = () => {
    try {
      const found = JSON.parse(localStorage.getItem(KEY) ?? "[]");
      return Array.isArray(found) ? found.filter(sound) : [];
    } catch { return []; }
  };
  const write = (all) => {
    try { localStorage.setItem(KEY, JSON.stringify(all)); } catch { status.textContent = "The browser keeps nothing for this page."; }
    show();
  };

  const show = () => {
    const all = read(), list = root.querySelector(".marked-list"), groups = Map.groupBy
      ? Map.groupBy(all, (one) => one.model)
      : all.reduce((map, one) => map.set(one.model, [...(map.get(one.model) ?? []), one]), new Map());
    list.replaceChildren();
    if (!all.length) list.append(made("p", "None yet. Every unit's page has a button for it.", { className: "quiet" }));
    for (const [model, units] of groups) {
      const head = made("h2", model), rows = made("ul");
      if (units.length > 1) {
        const query = new URLSearchParams({ units: units.slice(0, 64).map(place).join(","), model });
        head.append(made("a", units.length > 64 ? "Compare the first 64" : "Compare these", { href: `${root.dataset.compare}?${query}` }));
      }
      for (const one of units) {
        const row = made("li"), remove = made("button", "Remove", { type: "button" });
        remove.setAttribute("aria-label", `Remove ${one.title}`);
        remove.addEventListener("click", () => write(read().filter((other) => !same(one, other))));
        row.append(made("a", one.title, { href: one.address }), remove);
        rows.append(row);
      }
      list.append(head, rows);
    }
    for (const act of ["export", "clear"]) root.querySelector(`[data-act="${act}"]`).disabled = !all.length;
  };

  const acts = {
    export() {
      const file = new Blob([JSON.stringify(read(), null, 1)], { type: "application/json" });
      const link = made("a", "", { href: URL.createObjectURL(file), download: "bookmarks.json" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    },
    clear() {
      const all = read();
      write([]);
      const undo = made("button", "Take them back", { type: "button", className: "button" });
      undo.addEventListener("click", () => { status.replaceChildren(); write(all); });
      status.replaceChildren("Removed. ", undo);
    },
  };
  for (const [name, act] of Object.entries(acts)) root.querySelector(`[data-act="${name}"]`).addEventListener("click", act);
  root.querySelector('[data-act="import"]').addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    try {
      const found = JSON.parse(await file.text());
      if (!Array.isArray(found)) throw new TypeError("no list");
      const good = found.filter(sound), all = read(), before = all.length;
      for (const one of good) {
        const { model, basis, layer, unit, title, address } = one;
        if (all.length < MOST && !all.some((other) => same(one, other))) all.push({ model, basis, layer, unit, title, address });
      }
      write(all);
      const passed = found.length - good.length;
      status.textContent = `${all.length - before} added${passed ? `, ${passed} that are no bookmarks of this server passed over` : ""}.`;
    } catch {
      status.textContent = "This is no file of bookmarks.";
    }
    event.target.value = "";
  });
  addEventListener("storage", (event) => { if (event.key === KEY || event.key === null) show(); });
  root.hidden = false;
  show();
}
