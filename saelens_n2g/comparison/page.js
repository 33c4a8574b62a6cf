(function () {
  "use strict";

  function element(tag, name, text) {
    var made = document.createElement(tag);
    if (name) { made.className = name; }
    if (text !== undefined) { made.textContent = text; }
    return made;
  }

  function describe(token) {
    return "\u201c" + token.textContent + "\u201d  activation " + token.dataset.a + ", predicted " + token.dataset.p;
  }

  // One window of text. Numbers are shares of the unit's maximum; the threshold is the protocol's.
  function exemplar(window_, threshold) {
    var line = element("p", "ex");
    line.dir = "auto";
    window_.tokens.forEach(function (text, i) {
      var a = window_.activations[i], p = window_.predicted[i];
      var token = element("span", "t" + (a >= threshold ? " fires" : "") + (p >= threshold ? " hit" : ""), text);
      token.style.setProperty("--a", Math.max(0, Math.min(1, a)));
      token.dataset.a = a.toFixed(2);
      token.dataset.p = p.toFixed(2);
      token.title = "activation " + a.toFixed(2) + ", predicted " + p.toFixed(2);
      line.append(token);
    });
    return line;
  }

  function fill(details) {
    var template = details.querySelector(":scope > template");
    if (!template) { return; }
    var body = template.content.cloneNode(true);
    var graph = body.querySelector(".graph");
    if (graph) {
      // A shadow root keeps ids and styles of this drawing away from those of the others.
      var drawing = Array.from(graph.childNodes);
      // At its own size: a wide graph scrolls in its frame, where scaled down it could not be read.
      var size = element("style", "", "svg { display: block; max-width: none !important } @media print { svg { max-width: 100% !important } }");
      graph.attachShadow({mode: "open"}).append(size, ...drawing);
    }
    var data = body.querySelector("script[type='application/json']");
    if (data) {
      var read = element("p", "readout", "Point at or tap a token for its numbers.");
      read.setAttribute("aria-live", "polite");
      var box = element("div", "windows");
      var value = JSON.parse(data.textContent);
      value.windows.forEach(function (w) { box.append(exemplar(w, value.threshold)); });
      ["pointerover", "click"].forEach(function (kind) {
        box.addEventListener(kind, function (event) {
          if (event.target.classList.contains("t")) { read.textContent = describe(event.target); }
        });
      });
      data.replaceWith(box, read);
    }
    template.remove();
    details.append(body);
  }

  // `toggle` does not bubble, so it is caught on the way down.
  document.addEventListener("toggle", function (event) {
    if (event.target.matches("details.unit") && event.target.open) { fill(event.target); }
  }, true);

  function openTarget() {
    var target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.matches("details.unit")) { target.open = true; target.scrollIntoView(); }
  }
  window.addEventListener("hashchange", openTarget);

  function value(item, column) {
    var text = item.dataset.values.split(",")[column];
    return text === "" ? null : Number(text);
  }

  // Units without a value stay last, whichever way the others run.
  function sort(list, column, down) {
    Array.from(list.children).map(function (item) { return [value(item, column), item]; }).sort(function (a, b) {
      if (a[0] === null || b[0] === null) { return (a[0] === null) - (b[0] === null); }
      return down ? b[0] - a[0] : a[0] - b[0];
    }).forEach(function (pair) { list.append(pair[1]); });
  }

  function haystack(item) {
    if (item.searchText === undefined) {
      var template = item.querySelector("template");
      var paths = (template ? template.content : item).querySelector(".paths");
      item.searchText = (item.querySelector("summary").textContent + " " + paths.textContent).toLowerCase();
    }
    return item.searchText;
  }

  document.querySelectorAll(".browser").forEach(function (browser) {
    var list = browser.querySelector(".units"), count = browser.querySelector("output");
    var buttons = Array.from(browser.querySelectorAll("[data-column]"));
    buttons.forEach(function (button) {
      button.addEventListener("click", function () {
        var down = button.dataset.order ? button.dataset.order !== "down" : button.dataset.column !== "0";
        buttons.forEach(function (b) { delete b.dataset.order; b.removeAttribute("aria-pressed"); });
        button.dataset.order = down ? "down" : "up";
        button.setAttribute("aria-pressed", "true");
        sort(list, Number(button.dataset.column), down);
        count.value = "Sorted by " + button.dataset.name + (down ? ", largest first" : ", smallest first");
      });
    });
    browser.querySelector("input").addEventListener("input", function (event) {
      var wanted = event.target.value.toLowerCase(), shown = 0;
      Array.from(list.children).forEach(function (item) {
        item.hidden = wanted !== "" && !haystack(item).includes(wanted);
        shown += item.hidden ? 0 : 1;
      });
      count.value = shown + " of " + list.children.length + " units";
    });
    browser.querySelector(".tools").hidden = false;
  });
  openTarget();
})();
