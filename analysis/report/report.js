"use strict";
(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const NARROW = 640;
  const DARK = { "#0072B2": "#56B4E9", "#D55E00": "#F28E4B", "#009E73": "#34C79A", "rgba(0,114,178,0.5)": "rgba(86,180,233,0.5)" };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const figures = new Map();

  // Every text goes through textContent: names in a run are data, never markup.
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };
  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Figures come from the Python side in light colours; here they take the page's own, and stack on narrow screens.
  const recolour = (value) => {
    if (typeof value === "string") {
      if (value === "rgba(138,143,152,0.45)") return variable("--faded");
      return (dark.matches && DARK[value]) || value;
    }
    if (Array.isArray(value)) return value;
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, key === "customdata" ? part : recolour(part)]));
    }
    return value;
  };

  const themed = (figure, width) => {
    const layout = structuredClone(figure.layout);
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { ...layout.font, color: variable("--ink") };
    layout.autosize = true;
    layout.hoverlabel = { ...layout.hoverlabel, bgcolor: variable("--raised"), bordercolor: variable("--line"), font: { color: variable("--ink"), size: 13 } };
    const axes = Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key));
    for (const key of axes) layout[key] = { ...layout[key], gridcolor: variable("--grid"), linecolor: variable("--line"), fixedrange: width < NARROW };
    const columns = axes.filter((key) => key.startsWith("x"));
    if (width < NARROW) layout.margin = { ...layout.margin, l: 48, r: 10, b: 44 };
    if (width < NARROW && columns.length > 1) stack(layout, columns);
    return layout;
  };

  const stack = (layout, columns) => {
    const share = 1 / columns.length;
    columns.forEach((key, row) => {
      const number = key.slice(5);
      layout[key] = { ...layout[key], domain: [0, 1], anchor: "y" + number };
      const top = 1 - row * share;
      layout["yaxis" + number] = {
        ...layout["yaxis1"], ...layout["yaxis"], ...layout["yaxis" + number], showticklabels: true,
        anchor: "x" + number, domain: [top - share + 0.13 * share * 2, top], title: layout.yaxis.title,
      };
    });
    layout.height = 360 * columns.length;
  };

  const draw = (name) => {
    const node = document.getElementById("figure-" + name);
    const figure = figures.get(name);
    if (!node || !figure) return;
    const data = figure.data.map(recolour);
    if (name === "front") data.push(...rings());
    const options = { responsive: true, displaylogo: false, displayModeBar: false };
    return Plotly.react(node, data, themed(figure, node.clientWidth || innerWidth), options);
  };

  const drawAll = () => figures.forEach((_, name) => draw(name));

  // The chosen student has a ring in each panel.
  let chosen = null;
  const rings = () =>
    figures.get("front").data.filter((trace) => trace.name === "front").map((trace) => {
      const at = trace.customdata.indexOf(chosen);
      return {
        x: at < 0 ? [] : [trace.x[at]], y: at < 0 ? [] : [trace.y[at]], xaxis: trace.xaxis, yaxis: trace.yaxis,
        mode: "markers", hoverinfo: "skip", showlegend: false,
        marker: { size: 19, color: "rgba(0,0,0,0)", line: { width: 2.5, color: variable("--ink") } },
      };
    });

  const choose = (trial, { scroll = false } = {}) => {
    if (!DATA.plans[trial]) return;
    chosen = trial;
    document.querySelectorAll("#front-table tbody tr").forEach((row) => {
      const mine = row.dataset.trial === trial;
      row.classList.toggle("chosen", mine);
      row.querySelector(".choose").setAttribute("aria-pressed", String(mine));
      if (mine) reveal(row);
    });
    const panel = document.getElementById("plan");
    panel.replaceChildren(...planParts(trial, DATA.plans[trial]));
    if (figures.has("front")) draw("front");
    if (scroll && innerWidth <= 860) panel.scrollIntoView({ block: "start" });
  };

  // Scrolls the table alone, never the page.
  const reveal = (row) => {
    const box = row.closest(".scroll");
    const hidden = row.offsetTop < box.scrollTop + row.offsetHeight || row.offsetTop + row.offsetHeight > box.scrollTop + box.clientHeight;
    if (hidden) box.scrollTop = row.offsetTop - box.clientHeight / 2;
  };

  const planParts = (trial, plan) => {
    const parts = [make("p", { class: "name" }, trial), make("p", { class: "said" }, plan.said)];
    if (plan.strip) parts.push(...stripParts(plan.strip));
    else parts.push(make("p", { class: "said" }, "The plan or the signature is missing in the run folder, so its layers cannot be shown."));
    parts.push(make("h3", {}, "Export its recipe"), command(plan.command));
    if (plan.settings) parts.push(make("h3", {}, "How it is taught"), pairs(plan.settings));
    if (plan.rungs.length > 1) parts.push(make("h3", {}, DATA.metric + " while it trained"), curve(plan.rungs));
    if (plan.near.length) parts.push(make("h3", {}, "Neighbours"), make("ul", {}, ...plan.near.map((text) => make("li", {}, text))));
    parts.push(folded("More numbers", pairs(plan.facts)));
    return parts;
  };

  const folded = (title, content) => make("details", { class: "numbers" }, make("summary", {}, title), content);

  const pairs = (rows) =>
    make("dl", { class: "pairs" }, ...rows.map(([name, said]) => make("div", {}, make("dt", {}, name), make("dd", {}, said))));

  const stripParts = (strip) => {
    const said = make("p", { class: "strip-said" }, "Point at a cell to read what happens there.");
    const cell = (name, packed, span) => {
      if (!packed) return make("td", { class: "none" });
      const [kept, text, mark, size] = packed;
      const sentence = `${name}: ${DATA.texts[text]}, ${kept}% kept, ${Number(size.toPrecision(3))} MB`;
      const node = make("td", { style: `--kept: ${kept}`, tabindex: "0", "aria-label": sentence }, mark);
      if (span > 1) node.setAttribute("colspan", String(span));
      node.classList.toggle("high", kept > 52);
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
    const numbers = make("table", {}, make("tbody", {}, ...body.flatMap((line) =>
      [...line.querySelectorAll("td[aria-label]")].map((node) => make("tr", {}, make("td", {}, node.getAttribute("aria-label")))))));
    return [
      make("h3", {}, "What it keeps"), make("div", { class: "scroll" }, table), said, legend(table),
      folded("Layers as numbers", make("div", { class: "scroll" }, numbers)),
    ];
  };

  const legend = (table) => {
    const marks = new Set([...table.querySelectorAll("td")].flatMap((node) => [...node.textContent]));
    const used = Object.entries(DATA.letters).filter(([letter]) => marks.has(letter));
    return make("div", { class: "legend" }, make("span", {}, "0%", make("i", { class: "ramp" }), "100% kept"),
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

  const sortable = (table) => {
    const body = table.tBodies[0];
    table.querySelectorAll("thead th").forEach((header, column) => {
      header.querySelector("button").addEventListener("click", () => {
        const up = header.getAttribute("aria-sort") !== "ascending";
        table.querySelectorAll("thead th").forEach((other) => other.setAttribute("aria-sort", "none"));
        header.setAttribute("aria-sort", up ? "ascending" : "descending");
        const value = (row) => row.cells[column].dataset.value === "" ? null : Number(row.cells[column].dataset.value);
        const order = (a, b) => (value(a) === null) - (value(b) === null) || (up ? 1 : -1) * (value(a) - value(b));
        body.append(...[...body.rows].sort(order));
      });
    });
  };

  const wireTable = (table) => {
    sortable(table);
    table.tBodies[0].addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row) choose(row.dataset.trial, { scroll: true });
    });
    table.tBodies[0].addEventListener("keydown", (event) => {
      const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
      const next = step && event.target.closest("tr")[step];
      if (!next) return;
      event.preventDefault();
      next.querySelector(".choose").focus();
      choose(next.dataset.trial);
    });
  };

  const meanStrip = (node) => node.replaceChildren(...stripParts(DATA.mean).slice(1));

  const start = () => {
    for (const [name, figure] of Object.entries(DATA.figures)) if (window.Plotly) figures.set(name, figure);
    const mean = document.getElementById("mean-strip");
    if (mean && DATA.mean) meanStrip(mean);
    drawAll();
    const node = document.getElementById("figure-front");
    if (node && node.on) node.on("plotly_click", (event) => choose(event.points[0].customdata, { scroll: true }));
    const table = document.getElementById("front-table");
    if (table) wireTable(table);
    if (DATA.selected) choose(DATA.selected);
    dark.addEventListener("change", drawAll);
    let narrow = innerWidth < NARROW;
    addEventListener("resize", () => {
      if (narrow !== innerWidth < NARROW) { narrow = !narrow; drawAll(); }
    });
  };

  start();
})();
