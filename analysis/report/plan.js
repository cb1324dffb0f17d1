// The panel of one plan: what it keeps, how to export it, how it is taught, how it trained, what lies beside it.
const planParts = (trial, plan) => {
  const head = [make("p", { class: "name" }, trial), make("p", { class: "said" }, plan.said)];
  if (plan.why) head.push(make("p", { class: "said why" }, "Not on the front. " + plan.why));
  return [...head, make("div", { class: "halves" }, make("div", {}, ...leftParts(trial, plan)), make("div", {}, ...rightParts(plan)))];
};

const leftParts = (trial, plan) => {
  const missing = "The plan or the signature is missing in the run folder, so its layers cannot be shown.";
  const parts = plan.strip ? stripParts(unpack(plan.strip), trial) : [make("p", { class: "said" }, missing)];
  parts.push(make("h3", {}, "Export its recipe"), command(DATA.command.join(trial)));
  if (plan.near && plan.near.length) parts.push(make("h3", {}, "Neighbours on the front"), make("ul", {}, ...plan.near.map((text) => make("li", {}, text))));
  return parts;
};

const curveParts = (rungs) => {
  if (rungs.length < 2) return [];
  const rows = rungs.map(([step, value]) => make("tr", {}, make("td", {}, String(step)), make("td", {}, value.toFixed(3))));
  const head = make("tr", {}, ...["step", DATA.metric].map((name) => make("th", { scope: "col" }, name)));
  const numbers = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
  return [make("h3", {}, DATA.metric + " while it trained"), curve(rungs), folded("The curve as numbers", numbers)];
};

const rightParts = (plan) => {
  const facts = plan.facts.flatMap((said, index) => (said === null ? [] : [[DATA.factNames[index], said]]));
  const parts = [make("h3", {}, "What it costs"), pairs(facts)];
  if (plan.settings) parts.unshift(make("h3", {}, "How it is taught"), pairs(plan.settings.map((index) => DATA.pairs[index])));
  return [...parts, ...curveParts(plan.rungs)];
};

const folded = (title, content) => make("details", { class: "numbers" }, make("summary", {}, title), content);

const pairs = (rows) =>
  make("dl", { class: "pairs" }, ...rows.map(([name, said]) => make("div", {}, make("dt", {}, name), make("dd", {}, ...breakable(said)))));

// `logits+hidden+attention` may go on in a new line behind a plus.
const breakable = (said) => said.split(/(?<=\+)/).flatMap((part, at) => (at ? [make("wbr"), part] : [part]));

// A strip is the index of its layout, then of each cell: blocks row by row, then wide rows.
const unpack = ([layout, ...cells]) => {
  const [columns, rows, wide] = DATA.layouts[layout];
  const next = () => { const index = cells.shift(); return index < 0 ? null : DATA.cells[index]; };
  return { columns, rows: rows.map((name) => [name, columns.map(next)]), wide: wide.map((name) => [name, next()]) };
};

const stripParts = (strip, name) => {
  const title = `Layers of ${name} as numbers`;
  const said = make("p", { class: "strip-said" }, "Point at a cell, or go to it with the arrow keys, to read what happens there.");
  const sentences = [];
  const cell = (name, packed, span) => {
    if (!packed) return make("td", { class: "none" });
    const [kept, text, mark, size] = packed;
    const sentence = `${name}: ${DATA.texts[text]}, ${kept}% kept, ${Number(size.toPrecision(3))} MB`;
    sentences.push([name, DATA.texts[text], `${kept}%`, Number(size.toPrecision(3)).toString()]);
    // Most shares are small: the root of the share tells them apart where the share itself would not.
    const heat = 10 * Math.sqrt(Math.min(kept, 100));
    const percent = make("small", {}, ` ${kept < 9.5 ? kept : Math.round(kept)}%`);
    const node = make("td", { style: `--heat: ${heat.toFixed(1)}`, tabindex: "-1", "aria-label": sentence, "data-said": sentence }, make("span", { class: "mark" }, mark), percent);
    if (span > 1) node.setAttribute("colspan", String(span));
    node.classList.toggle("deep", heat > 57.5);
    node.classList.toggle("deepest", heat > 76.5);
    for (const event of ["mouseenter", "focus", "click"]) node.addEventListener(event, () => { said.textContent = sentence; });
    return node;
  };
  const row = (name, cells) => make("tr", {}, make("th", { scope: "row", title: name }, name), ...cells);
  const columns = strip.columns.length || 1;
  const wide = ([name, packed]) => row(name, [cell(name, packed, columns)]);
  const body = [
    ...strip.wide.filter(([name]) => name === "embedding").map(wide),
    ...strip.rows.map(([name, cells]) => row(name, cells.map((packed, i) => cell(`${name} ${strip.columns[i]}`, packed, 1)))),
    ...strip.wide.filter(([name]) => name !== "embedding").map(wide),
  ];
  const head = make("tr", {}, make("td", { class: "none" }), ...strip.columns.map((name) => make("th", { scope: "col", title: name }, name)));
  const table = make("table", { class: "strip" }, make("thead", {}, head), make("tbody", {}, ...body));
  walk(table);
  const titles = make("tr", {}, ...["group", "what", "kept", "MB"].map((name) => make("th", { scope: "col" }, name)));
  const lines = sentences.map((texts) => make("tr", {}, ...texts.map((text) => make("td", {}, text))));
  const numbers = make("table", {}, make("thead", {}, titles), make("tbody", {}, ...lines));
  return [
    make("h3", {}, "What it keeps"), make("div", { class: "scroll" }, table), said, legend(table),
    folded("Layers as numbers", make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, numbers)),
  ];
};

// One stop for Tab; inside, arrow keys go from cell to cell.
const walk = (table) => {
  const lines = [...table.tBodies[0].rows].map((line) => [...line.querySelectorAll("td[data-said]")]).filter((line) => line.length);
  if (!lines.length) return;
  lines[0][0].tabIndex = 0;
  table.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const line = lines.findIndex((cells) => cells.includes(event.target));
    if (!step || line < 0) return;
    event.preventDefault();
    const there = lines[Math.min(Math.max(line + step[0], 0), lines.length - 1)];
    const column = Math.min(Math.max(lines[line].indexOf(event.target) + step[1], 0), there.length - 1);
    event.target.tabIndex = -1;
    there[column].tabIndex = 0;
    there[column].focus();
  });
};

const legend = (table) => {
  const marks = new Set([...table.querySelectorAll(".mark")].flatMap((node) => [...node.textContent]));
  const used = Object.entries(DATA.letters).filter(([letter]) => marks.has(letter));
  return make("div", { class: "legend" }, make("span", {}, "kept 0%", make("i", { class: "ramp low" }), "25%", make("i", { class: "ramp high" }), "100%"),
    ...used.map(([letter, name]) => make("span", {}, make("b", {}, letter), " " + name)));
};

const command = (text) => {
  const code = make("code", { tabindex: "0" }, text);
  const button = make("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // A page from a file has no clipboard in some browsers: select the text and copy the selection.
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  });
  return make("div", { class: "command" }, code, button);
};

const curve = (rungs) => {
  const [width, height, left, bottom] = [420, 130, 44, 20];
  const steps = rungs.map(([step]) => step), values = rungs.map(([, value]) => value);
  const [low, high, last] = [Math.min(...values), Math.max(...values), Math.max(...steps) || 1];
  const x = (step) => left + (width - left - 8) * step / last;
  const y = (value) => 8 + (height - bottom - 16) * (high > low ? (high - value) / (high - low) : 0.5);
  const svg = (tag, attributes, text = "") => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.textContent = text;
    return node;
  };
  const label = rungs.map(([step, value]) => `step ${step}: ${value}`).join(", ");
  const picture = svg("svg", { class: "curve", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const value of new Set([low, high])) {
    picture.append(svg("line", { x1: left, x2: width, y1: y(value), y2: y(value) }));
    picture.append(svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, Number(value.toPrecision(3)).toString()));
  }
  picture.append(svg("text", { x: left, y: height - 3 }, "0"), svg("text", { x: width - 8, y: height - 3, "text-anchor": "end" }, `${last} steps`));
  picture.append(svg("path", { d: rungs.map(([step, value], i) => `${i ? "L" : "M"}${x(step)},${y(value)}`).join("") }));
  picture.append(...rungs.map(([step, value]) => svg("circle", { cx: x(step), cy: y(value), r: 3 })));
  return picture;
};
