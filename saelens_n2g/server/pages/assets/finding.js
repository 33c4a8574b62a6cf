// Search while typing; paths that light up in a text. The pages read without it.
{
  // The page itself is asked again, and its results are put in the place of those that are there.
  const form = document.querySelector("form[data-live]");
  if (form) {
    const place = () => document.getElementById(form.dataset.live);
    let last = new URLSearchParams(new FormData(form)).toString(), timer = 0, request = null;

    const ask = async () => {
      const query = new URLSearchParams(new FormData(form)).toString();
      if (query === last) return;
      last = query;
      request?.abort();
      const own = request = new AbortController();
      place().classList.add("stale");
      try {
        const answer = await fetch(`${form.action}?${query}`, { signal: own.signal, headers: { "x-live": "1" } });
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const found = page.getElementById(form.dataset.live);
        if (own !== request || !found) return;
        place().replaceWith(document.adoptNode(found));
        document.title = page.title;
        history.replaceState(null, "", answer.url);
      } catch (error) {
        if (error.name === "AbortError") return;
        last = null;  // the button asks in the usual way
      }
      place().classList.remove("stale");
    };
    form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(ask, 250); });
  }

  for (const one of document.querySelectorAll("form[data-once]")) {
    one.addEventListener("submit", () => one.classList.add("busy"));
  }
  addEventListener("pageshow", () => {
    for (const one of document.querySelectorAll("form.busy")) one.classList.remove("busy");
  });

  // Pointing at a token shows what its path looks at.
  const light = (event) => {
    const token = event.target instanceof Element ? event.target.closest(".strip [data-path]") : null;
    for (const one of document.querySelectorAll(".strip .on")) one.classList.remove("on");
    if (!token || !token.dataset.path) return;
    const text = token.closest(".strip");
    for (const at of token.dataset.path.split(",")) text.querySelector(`[data-at="${at}"]`)?.classList.add("on");
  };
  document.addEventListener("pointerover", light);
  document.addEventListener("pointerdown", light);
}
