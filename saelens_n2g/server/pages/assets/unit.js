// The page of a unit: values of tokens beside the pointer and by keyboard, and what can be copied. The page reads without it.
{
  // A value stands beside its token while that is pointed at or has the focus. In a text one token can be reached by
  // Tab, the others by the arrow keys from there.
  const value = document.createElement("div");
  value.className = "value";
  value.setAttribute("role", "tooltip");
  value.id = "value";
  value.hidden = true;
  document.body.append(value);
  let token = null;

  const tokenOf = (target) => target instanceof Element ? target.closest(".tokens > span") : null;
  const show = (found) => {
    if (found === token) return;
    if (token) token.removeAttribute("aria-describedby");
    token = found;
    value.hidden = !token;
    if (!token) return;
    if (token.title) { token.dataset.value = token.title; token.removeAttribute("title"); }
    value.textContent = token.dataset.value;
    token.setAttribute("aria-describedby", "value");
    const place = token.getClientRects()[0] ?? token.getBoundingClientRect();
    const left = Math.min(place.left, document.documentElement.clientWidth - value.offsetWidth - 8);
    const above = place.top > value.offsetHeight + 10;
    value.style.left = `${Math.max(left, 8) + scrollX}px`;
    value.style.top = `${scrollY + (above ? place.top - value.offsetHeight - 6 : place.bottom + 6)}px`;
  };
  document.addEventListener("pointerover", (event) => show(tokenOf(event.target) ?? tokenOf(document.activeElement)));
  document.addEventListener("focusin", (event) => show(tokenOf(event.target)));
  document.addEventListener("focusout", () => show(null));

  for (const text of document.querySelectorAll(".tokens")) {
    const strongest = text.querySelector(".hit, .missed, .fires, .extra") ?? text.querySelector(":scope > span[title]");
    if (strongest) strongest.tabIndex = 0;
  }
  document.addEventListener("keydown", (event) => {
    const here = tokenOf(event.target);
    if (!here || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") { here.blur(); return; }
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation(); // these keys lead to other units elsewhere
    const all = [...here.parentElement.querySelectorAll(":scope > span")];
    const next = all[all.indexOf(here) + step];
    if (!next) return;
    here.removeAttribute("tabindex");
    next.tabIndex = 0;
    next.focus();
  }, true);

  // --- what can be copied ---------------------------------------------------------------------------------------

  const whole = (address) => new URL(address, location.href).href;
  for (const box of document.querySelectorAll("[data-embed]")) {
    box.textContent = box.textContent.replace(`src="${box.dataset.embed}"`, `src="${whole(box.dataset.embed)}"`);
  }
  for (const button of document.querySelectorAll("button.copy")) {
    if (!navigator.clipboard) continue;
    button.hidden = false;
    const words = button.textContent;
    button.addEventListener("click", async () => {
      const from = button.dataset.copyFrom;
      const text = from ? document.querySelector(from).textContent : whole(button.dataset.copy);
      try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; }
      catch { button.textContent = "Not allowed"; }
      setTimeout(() => { button.textContent = words; }, 1500);
    });
  }
}
