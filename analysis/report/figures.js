// Figures come from the Python side in light colours; here they take the page's own, and stack on narrow screens.
const NARROW = 640;
const DARK = {
  "#0072B2": "#56B4E9", "#D55E00": "#F28E4B", "#009E73": "#34C79A", "#CC79A7": "#E6A3C8",
  "rgba(0,114,178,0.5)": "rgba(86,180,233,0.5)", "rgba(213,94,0,0.45)": "rgba(242,142,75,0.45)",
  "rgba(0,158,115,0.45)": "rgba(52,199,154,0.45)",
};
const dark = matchMedia("(prefers-color-scheme: dark)");
const figures = new Map();

// Plotly lies in the page packed by gzip, a third of its size. Without it (an old browser) the tables still work.
const loadPlotly = async () => {
  const packed = document.getElementById("plotly");
  if (!packed) return false;
  if (typeof DecompressionStream === "undefined") throw new Error("this browser cannot unpack gzip");
  const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  packed.remove();
  return true;
};

// On a dark page the scale of the metric gets brighter instead of darker.
const DARK_SCALE = [[0, "#7A5418"], [0.5, "#8497A8"], [1, "#9BD3F7"]];

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

// The chosen student has a ring in each panel.
const rings = (chosen) =>
  figures.get("front").data.flatMap((trace) => {
    const at = (trace.customdata || []).indexOf(chosen);
    if (at < 0) return [];
    return [{
      x: [trace.x[at]], y: [trace.y[at]], xaxis: trace.xaxis, yaxis: trace.yaxis,
      mode: "markers", hoverinfo: "skip", showlegend: false,
      marker: { size: 19, color: "rgba(0,0,0,0)", line: { width: 2.5, color: variable("--ink") } },
    }];
  });

const draw = (name, chosen) => {
  const node = document.getElementById("figure-" + name);
  const figure = figures.get(name);
  if (!node || !figure) return;
  const data = figure.data.map(recolour);
  if (dark.matches) for (const trace of data) if (trace.type === "parcoords") trace.line = { ...trace.line, colorscale: DARK_SCALE };
  if (name === "front" && chosen) data.push(...rings(chosen));
  const options = { responsive: true, displaylogo: false, displayModeBar: false };
  return Plotly.react(node, data, themed(figure, node.clientWidth || innerWidth), options);
};
