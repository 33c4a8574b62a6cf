(function () {
  "use strict";
  var table = document.getElementById("units"), body = table.tBodies[0], heads = table.tHead.rows[0].cells;
  var rows = Array.prototype.slice.call(body.rows);
  var basis = document.getElementById("basis"), layer = document.getElementById("layer");

  function value(row, column) {
    var cell = row.cells[column], raw = cell.dataset.v;
    return heads[column].className === "w" ? cell.textContent : raw === "" ? null : Number(raw);
  }

  // Undefined values come last either way.
  function sort(column, falling) {
    rows.sort(function (x, y) {
      var a = value(x, column), b = value(y, column);
      if (a === null || b === null) { return (a === null) - (b === null); }
      return (a < b ? -1 : a > b ? 1 : 0) * (falling ? -1 : 1);
    });
    rows.forEach(function (row) { body.appendChild(row); });
    Array.prototype.forEach.call(heads, function (head, i) {
      if (i === column) { head.setAttribute("aria-sort", falling ? "descending" : "ascending"); }
      else { head.removeAttribute("aria-sort"); }
    });
  }

  function filter() {
    var n = 0;
    rows.forEach(function (row) {
      var there = (!basis.value || row.dataset.b === basis.value) && (!layer.value || row.dataset.l === layer.value);
      row.hidden = !there;
      n += there;
    });
    document.getElementById("shown").textContent = n + " of " + rows.length + " units";
  }

  Array.prototype.forEach.call(heads, function (head, i) {
    head.firstChild.addEventListener("click", function () {
      sort(i, head.className === "w" ? head.getAttribute("aria-sort") === "ascending" : head.getAttribute("aria-sort") !== "descending");
    });
  });
  basis.addEventListener("change", filter);
  layer.addEventListener("change", filter);
  filter();
}());
