// Tables: sorting by a header, choosing a row, and tables that are built when they are opened.
const sortable = (table) => {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const up = header.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", up ? "ascending" : "descending");
      const values = new Map([...body.rows].map((row) => [row, sortValue(row.cells[column])]));
      body.append(...[...body.rows].sort((a, b) => compareValues(values.get(a), values.get(b), up)));
    });
  });
};

const sortValue = (cell) => {
  if (cell.dataset.value === undefined) return cell.textContent;
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
};

// What was not measured comes last either way.
const compareValues = (a, b, up) => {
  if (a === null || b === null) return (a === null) - (b === null);
  return (up ? 1 : -1) * (typeof a === "string" ? a.localeCompare(b) : a - b);
};

const choosable = (table) => {
  const body = table.tBodies[0];
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) choose(row.dataset.trial, { scroll: true });
  });
  body.addEventListener("keydown", (event) => {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const next = step && event.target.closest("tr")[step];
    if (!next || !next.querySelector(".choose")) return;
    event.preventDefault();
    next.querySelector(".choose").focus();
    choose(next.dataset.trial);
  });
};

// Scrolls the table alone, never the page.
const reveal = (row) => {
  const box = row.closest(".scroll");
  const hidden = row.offsetTop < box.scrollTop + row.offsetHeight || row.offsetTop + row.offsetHeight > box.scrollTop + box.clientHeight;
  if (hidden) box.scrollTop = row.offsetTop - box.clientHeight / 2;
};

const shown = (value, form) => {
  if (value === null) return "";
  if (form === "words") return value;
  if (form === "whole") return value.toLocaleString("en-US", { maximumFractionDigits: 0 });
  if (form === "fraction") return value.toFixed(3);
  const digits = value === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
};

// The first column names the trial; where its plan is in the report, it chooses it.
const built = ({ columns }) => {
  const head = columns.map(({ header }) => make("th", { scope: "col", "aria-sort": "none" }, make("button", { type: "button" }, header)));
  const rows = columns[0].values.map((trial, at) => {
    const cells = columns.map(({ values, form }, column) => {
      const text = shown(values[at], form);
      if (column === 0 && DATA.plans[trial]) return make("td", {}, make("button", { type: "button", class: "choose" }, text));
      return make("td", form === "words" ? {} : { "data-value": values[at] === null ? "" : String(values[at]) }, text);
    });
    return make("tr", { "data-trial": trial }, ...cells);
  });
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
  sortable(table);
  choosable(table);
  return table;
};

const buildWhenOpened = (details) => {
  details.addEventListener("toggle", () => {
    const place = details.querySelector(".scroll");
    if (details.open && !place.firstElementChild) place.append(built(DATA.tables[details.dataset.table]));
  });
};
