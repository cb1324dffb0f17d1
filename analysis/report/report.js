// Everything comes together: the chosen trial, the pictures, the tables and the keyboard.
let chosen = null;

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
  document.getElementById("chosen").textContent = `${trial}: ${DATA.plans[trial].said}`;
  if (figures.has("front")) draw("front", chosen);
  if (scroll && innerWidth <= 860) panel.scrollIntoView({ block: "start" });
};

const drawAll = () => figures.forEach((_, name) => draw(name, chosen));

// The front comes first; the pictures below it are drawn between whatever the reader does.
const whenIdle = window.requestIdleCallback || ((call) => setTimeout(call, 30));
const drawRest = ([name, ...rest]) => {
  if (name) whenIdle(() => { draw(name, chosen); drawRest(rest); });
};

// The picture of the front takes the focus once; arrow keys go along the front, cheapest first.
const frontKeys = (node) => {
  node.addEventListener("keydown", (event) => {
    const at = DATA.front.indexOf(chosen), last = DATA.front.length - 1;
    const next = { ArrowRight: Math.min(at + 1, last), ArrowLeft: Math.max(at - 1, 0), Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    choose(DATA.front[next]);
  });
};

const drawFigures = async () => {
  let ready = false;
  try {
    ready = await loadPlotly();
  } catch (error) {
    for (const name of Object.keys(DATA.figures)) {
      const node = document.getElementById("figure-" + name);
      if (node) node.replaceChildren(make("p", { class: "quiet" }, `This picture cannot be drawn: ${error.message}. Its numbers are in the tables.`));
    }
  }
  if (!ready) return;
  for (const [name, figure] of Object.entries(DATA.figures)) figures.set(name, figure);
  draw("front", chosen);
  drawRest([...figures.keys()].filter((name) => name !== "front"));
  const node = document.getElementById("figure-front");
  if (node && node.on) node.on("plotly_click", (event) => choose(event.points[0].customdata, { scroll: true }));
};

const start = () => {
  const mean = document.getElementById("mean-strip");
  if (mean && DATA.mean) mean.replaceChildren(...stripParts(unpack(DATA.mean), "the front on average").slice(1));
  const table = document.getElementById("front-table");
  if (table) { sortable(table); choosable(table); }
  document.querySelectorAll("details[data-table]").forEach(buildWhenOpened);
  const picture = document.getElementById("figure-front");
  if (picture) frontKeys(picture);
  if (DATA.selected) choose(DATA.selected);
  dark.addEventListener("change", drawAll);
  let narrow = innerWidth < NARROW;
  addEventListener("resize", () => {
    if (narrow !== innerWidth < NARROW) { narrow = !narrow; drawAll(); }
  });
  drawFigures();
};

start();
