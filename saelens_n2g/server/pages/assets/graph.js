// A graph that can be looked around in: wheel, pinch, drag, buttons and keys move the picture; a node that is pointed at
// or has the focus shows the paths through it. Without this it is a picture with links.
{
  const MOST = 4, LARGEST = 1.3, READABLE = 0.75; // px a unit: at most, at first at most, at first at least
  const STEP = 1.25, DRAGGED = 4, ROOM = 10, TALL = 0.72; // of zoom; px of a drag; px around; of the window's height

  const start = (canvas) => {
    const svg = canvas.querySelector("svg.drawing");
    if (!svg) return;
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    let x = 0, y = 0, scale = 1; // of the upper left corner, in the picture's units; px on the screen per unit

    // --- looking around -----------------------------------------------------------------------------------------

    const size = () => [canvas.clientWidth, canvas.clientHeight];
    const whole = () => Math.min((size()[0] - 2 * ROOM) / width, (size()[1] - 2 * ROOM) / height, LARGEST);
    const inside = (at, room, length) => length <= room ? (length - room) / 2 : Math.min(Math.max(at, -ROOM), length - room + ROOM);
    const draw = () => {
      const [w, h] = size();
      x = inside(x, w / scale, width);
      y = inside(y, h / scale, height);
      svg.setAttribute("viewBox", `${x} ${y} ${w / scale} ${h / scale}`);
    };
    // Changes the scale so that the point (px, py) of the canvas stays where it is; whether it could.
    const zoom = (factor, px = size()[0] / 2, py = size()[1] / 2) => {
      const next = Math.min(Math.max(scale * factor, Math.min(whole(), 1)), MOST);
      if (next === scale) return false;
      x += px / scale - px / next;
      y += py / scale - py / next;
      scale = next;
      draw();
      return true;
    };
    const fit = () => { scale = whole(); draw(); };
    // At first all of it; but no smaller than can be read, and then its right end, where it fires.
    const first = () => {
      const wide = Math.max(Math.min((canvas.clientWidth - 2 * ROOM) / width, LARGEST), READABLE);
      canvas.style.height = `${Math.round(Math.max(Math.min(height * wide + 2 * ROOM, innerHeight * TALL), 120))}px`;
      scale = Math.max(whole(), READABLE);
      x = width;
      y = -ROOM;
      draw();
    };
    const move = (dx, dy) => { x -= dx / scale; y -= dy / scale; draw(); };

    canvas.addEventListener("wheel", (event) => {
      // The page scrolls on unless Ctrl is held or the graph has been clicked into.
      if (!event.ctrlKey && !event.metaKey && !canvas.contains(document.activeElement)) return;
      const box = canvas.getBoundingClientRect();
      const lines = event.deltaMode === 1 ? 16 : 1;
      if (zoom(Math.exp(-event.deltaY * lines * 0.002), event.clientX - box.left, event.clientY - box.top)) event.preventDefault();
    }, { passive: false });

    const pointers = new Map();
    let moved = false;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      if (!pointers.size) moved = false;
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, x0: event.clientX, y0: event.clientY });
    });
    const middle = () => {
      const all = [...pointers.values()];
      const mx = all.reduce((sum, p) => sum + p.x, 0) / all.length, my = all.reduce((sum, p) => sum + p.y, 0) / all.length;
      return [mx, my, all.length > 1 ? Math.hypot(all[0].x - all[1].x, all[0].y - all[1].y) : 0];
    };
    canvas.addEventListener("pointermove", (event) => {
      const pointer = pointers.get(event.pointerId);
      if (!pointer) return;
      if (!moved && pointers.size === 1 && Math.hypot(event.clientX - pointer.x0, event.clientY - pointer.y0) < DRAGGED) return;
      if (!moved) { moved = true; canvas.classList.add("moving"); }
      if (!canvas.hasPointerCapture(event.pointerId)) canvas.setPointerCapture(event.pointerId);
      const before = middle();
      pointer.x = event.clientX;
      pointer.y = event.clientY;
      const after = middle();
      move(after[0] - before[0], after[1] - before[1]);
      if (before[2] && after[2]) {
        const box = canvas.getBoundingClientRect();
        zoom(after[2] / before[2], after[0] - box.left, after[1] - box.top);
      }
    });
    for (const name of ["pointerup", "pointercancel"]) {
      addEventListener(name, (event) => {
        pointers.delete(event.pointerId);
        if (!pointers.size) canvas.classList.remove("moving");
      });
    }
    canvas.addEventListener("dragstart", (event) => event.preventDefault());
    // A drag that ends on a node is no click on it.
    canvas.addEventListener("click", (event) => {
      if (moved) { event.preventDefault(); event.stopPropagation(); moved = false; }
      else if (!event.target.closest("[data-node]")) canvas.focus({ preventScroll: true });
    }, true);

    const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "+" || event.key === "=") zoom(STEP);
      else if (event.key === "-") zoom(1 / STEP);
      else if (event.key === "0") fit();
      else if (moves[event.key]) move(...moves[event.key]);
      else if (event.key === "Escape") { document.activeElement.blur(); return; }
      else return;
      event.preventDefault();
      event.stopPropagation(); // arrow keys lead to other units elsewhere
    });
    const buttons = canvas.parentElement.querySelector(".zoom");
    if (buttons) {
      buttons.hidden = false;
      buttons.addEventListener("click", (event) => {
        const what = event.target.closest("button")?.dataset.zoom;
        if (what === "in") zoom(STEP);
        if (what === "out") zoom(1 / STEP);
        if (what === "fit") fit();
      });
    }

    // --- paths --------------------------------------------------------------------------------------------------

    const nodes = new Map([...svg.querySelectorAll("[data-node]")].map((node) => [node.dataset.node, node]));
    const joins = [...svg.querySelectorAll("[data-source], [data-target]")];
    const back = new Map(), on = new Map(); // node -> what stands before it, what comes after it
    const join = (map, from, to) => map.set(from, [...(map.get(from) ?? []), to]);
    for (const { dataset: { source, target } } of svg.querySelectorAll("path[data-source]")) {
      join(back, target, source);
      join(on, source, target);
    }
    const reach = (map, from) => {
      const found = new Set([from]), open = [from];
      while (open.length) {
        for (const next of map.get(open.pop()) ?? []) if (!found.has(next)) { found.add(next); open.push(next); }
      }
      return found;
    };
    const said = canvas.parentElement.querySelector(".of-node");
    const follow = (node) => {
      svg.classList.toggle("following", Boolean(node));
      for (const one of svg.querySelectorAll(".lit")) one.classList.remove("lit");
      if (said) said.textContent = node?.querySelector("title")?.textContent ?? "";
      if (!node) return;
      const lit = new Set([...reach(back, node.dataset.node), ...reach(on, node.dataset.node)]);
      for (const name of lit) nodes.get(name)?.classList.add("lit");
      for (const one of joins) {
        const { source, target } = one.dataset;
        if ((!source || lit.has(source)) && (!target || lit.has(target))) one.classList.add("lit");
      }
    };
    const nodeOf = (target) => target instanceof Element ? target.closest("[data-node]") : null;
    svg.addEventListener("pointerover", (event) => { if (!canvas.classList.contains("moving")) follow(nodeOf(event.target) ?? nodeOf(document.activeElement)); });
    svg.addEventListener("pointerleave", () => follow(nodeOf(document.activeElement)));
    svg.addEventListener("focusin", (event) => {
      const node = nodeOf(event.target);
      follow(node);
      if (!node || pointers.size) return;
      // What Tab leads to is brought into view.
      const box = node.getBoundingClientRect(), frame = canvas.getBoundingClientRect();
      const over = (a, b, low, high) => a < low ? low - a : b > high ? high - b : 0;
      move(over(box.left, box.right, frame.left + 8, frame.right - 8), over(box.top, box.bottom, frame.top + 8, frame.bottom - 8));
      canvas.scrollTo(0, 0); // browsers scroll to it too
    });
    svg.addEventListener("focusout", () => follow(null));

    canvas.classList.add("live");
    svg.removeAttribute("width");
    svg.removeAttribute("height");
    first();
    let known = canvas.clientWidth;
    new ResizeObserver(() => { if (canvas.clientWidth !== known) { known = canvas.clientWidth; first(); } }).observe(canvas);
  };

  for (const canvas of document.querySelectorAll(".canvas")) start(canvas);
}
