"use strict";
// Sorting, filtering and the choice of a curve. Everything that it shows is in the page already.
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

  // A cell as a number, null where it is a dash or a text. Units and thousands are the page's own.
  const numberOf = (text) => {
    const plain = text.replace(/[,\u202f]/g, "").replace("−", "-").replace(/\s*%$/, "");
    return plain !== "" && isFinite(plain) ? Number(plain) : null;
  };
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  const sort = (table, index, head) => {
    const isNumber = head.classList.contains("n");
    const current = head.getAttribute("aria-sort");
    // Numbers are first asked for from the largest, names from A.
    const first = isNumber ? "descending" : "ascending";
    const direction = current === "none" ? first : current === "ascending" ? "descending" : "ascending";
    const sign = direction === "ascending" ? 1 : -1;
    const keyed = all("tbody > tr", table).map((row) => {
      const text = row.children[index].textContent.trim();
      return { row, key: isNumber ? numberOf(text) : text };
    });
    keyed.sort((a, b) => {
      if (isNumber) {
        if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
        return sign * (a.key - b.key);
      }
      return sign * collator.compare(a.key, b.key);
    });
    const body = table.tBodies[0];
    keyed.forEach(({ row }) => body.append(row));
    all("thead th", table).forEach((th) => th.setAttribute("aria-sort", th === head ? direction : "none"));
  };
  all("table[data-sort]").forEach((table) => {
    all("thead th", table).forEach((head, index) => {
      head.querySelector("button").addEventListener("click", () => sort(table, index, head));
    });
  });

  const field = document.getElementById("filter");
  const matches = document.getElementById("matches");
  const rows = all("table[data-filter] > tbody > tr").map((row) => ({ row, name: row.cells[0].textContent.toLowerCase() }));
  const pictures = all(".gallery > figure").map((figure) => ({
    figure, names: figure.dataset.classes.toLowerCase().split("\n"), kind: figure.dataset.kind,
  }));
  const STEP = 24;
  const more = document.querySelector(".more");
  const choices = all(".choice button");
  let kind = choices.length ? choices[0].dataset.kind : "";
  let room = STEP;

  const filter = () => {
    const wanted = field ? field.value.toLowerCase().split(",").map((word) => word.trim()).filter(Boolean) : [];
    const fits = (name) => !wanted.length || wanted.some((word) => name.includes(word));
    let shown = 0;
    rows.forEach(({ row, name }) => { row.hidden = !fits(name); shown += !row.hidden; });
    let fitting = 0;
    pictures.forEach((entry) => {
      const chosen = (kind === "" || entry.kind === kind) && (!wanted.length || entry.names.some(fits));
      fitting += chosen;
      entry.figure.hidden = !chosen || fitting > room;
    });
    if (more) more.hidden = fitting <= room;
    if (matches) matches.textContent = wanted.length ? `${shown} of ${rows.length} rows` : "";
  };
  if (field && rows.length) {
    field.closest(".filter").hidden = false;
    field.addEventListener("input", filter);
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { field.value = ""; filter(); }
    });
  }
  choices.forEach((button) => button.addEventListener("click", () => {
    kind = button.dataset.kind;
    room = STEP;
    choices.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    filter();
  }));
  if (more) {
    more.addEventListener("click", () => {
      const firstNew = pictures.filter((entry) => !entry.figure.hidden).length;
      room += STEP;
      filter();
      const next = pictures.filter((entry) => !entry.figure.hidden)[firstNew];
      // The keyboard goes on where the new pictures begin.
      if (next) { next.figure.tabIndex = -1; next.figure.focus({ preventScroll: true }); }
    });
    document.querySelector(".choice").hidden = false;
    filter();
  }

  // The curves of a class are those of its row in the table: only their paths are copied.
  const select = document.getElementById("curve-class");
  if (select) {
    const lines = all("#curve .line");
    const mean = lines.map((line) => line.getAttribute("d"));
    const sparks = new Map();
    all("#classes tbody > tr").forEach((row) => sparks.set(row.cells[0].textContent, row.querySelector(".spark")));
    select.addEventListener("change", () => {
      const spark = sparks.get(select.selectedOptions[0].textContent);
      const paths = select.value && spark ? all(".line", spark).map((line) => line.getAttribute("d")) : mean;
      lines.forEach((line, i) => line.setAttribute("d", paths[i]));
    });
    select.closest(".pick").hidden = false;
  }
})();
