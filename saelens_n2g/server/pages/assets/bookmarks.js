// Bookmarks: units that a reader has marked, kept in this browser alone.
//   bookmarks.list() -> [{model, basis, layer, unit, title, address}]; bookmarks.has(one); bookmarks.toggle(one) -> whether it is marked now
{
  const KEY = "bookmarks";
  const same = (a, b) => a.model === b.model && a.basis === b.basis && a.layer === b.layer && a.unit === b.unit;
  const sound = (one) => one && typeof one.model === "string" && typeof one.basis === "string"
    && Number.isInteger(one.layer) && Number.isInteger(one.unit)
    && typeof one.title === "string" && typeof one.address === "string" && !/^\s*[a-z]+:/i.test(one.address);

  const list = () => {
    try {
      const found = JSON.parse(localStorage.getItem(KEY) ?? "[]");
      return Array.isArray(found) ? found.filter(sound) : [];
    } catch { return []; }
  };
  const save = (all) => {
    try { localStorage.setItem(KEY, JSON.stringify(all)); return true; } catch { return false; }
  };
  const has = (one) => list().some((other) => same(one, other));
  const remove = (one) => save(list().filter((other) => !same(one, other)));
  const toggle = (one) => {
    if (has(one)) { remove(one); return has(one); }
    save([...list(), one]);
    return has(one);
  };
  globalThis.bookmarks = { list, has, remove, toggle };

  for (const button of document.querySelectorAll("button[data-bookmark]")) {
    const one = JSON.parse(button.dataset.bookmark);
    const show = () => {
      const marked = has(one);
      button.setAttribute("aria-pressed", String(marked));
      button.querySelector("span").textContent = marked ? "★" : "☆";
    };
    button.hidden = false;
    button.addEventListener("click", () => { toggle(one); show(); });
    addEventListener("storage", (event) => { if (event.key === KEY || event.key === null) show(); });
    show();
  }
}
