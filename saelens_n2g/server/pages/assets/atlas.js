// What every page has: light and dark, and keys. Pages read without it.
{
  const root = document.documentElement;
  const saved = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
  if (saved === "light" || saved === "dark") root.dataset.theme = saved;

  const button = document.querySelector("button.theme");
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const dark = root.dataset.theme
        ? root.dataset.theme === "dark"
        : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      try { localStorage.setItem("theme", root.dataset.theme); } catch { /* kept for this page alone */ }
    });
  }

  // A key follows the link that says so in `aria-keyshortcuts`; "/" goes to the search.
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inside = event.target instanceof Element && event.target.closest("input, textarea, select");
    if (event.key === "Escape" && inside) { event.target.blur(); return; }
    if (inside) return;
    if (event.key === "/") {
      const field = document.querySelector('.find input, input[type="search"]');
      if (field) { field.focus(); event.preventDefault(); }
      return;
    }
    if (!/^[a-zA-Z?]$|^Arrow(Left|Right)$/.test(event.key)) return;
    const link = document.querySelector(`[aria-keyshortcuts~="${event.key}"]`);
    if (link) { link.click(); event.preventDefault(); }
  });
}
