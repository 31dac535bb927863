// The live page: a tile with a line for every figure, a table that is replaced, and the report at the end.
"use strict";
(() => {
  const MOST = 1200, history = new Map(), $ = id => document.getElementById(id);
  const told = x => x === null ? "–" : Math.abs(x) >= 1000 || Number.isInteger(x) ? Math.round(x).toLocaleString("en") : x.toPrecision(3);

  function tile(name) {
    const item = document.createElement("li"), label = document.createElement("span"), value = document.createElement("b");
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), line = document.createElementNS(svg.namespaceURI, "polyline");
    label.textContent = name;
    svg.setAttribute("viewBox", "0 0 100 30");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    svg.append(line);
    item.append(label, value, svg);
    $("tiles").append(item);
    return { value, line, points: [] };
  }

  function add(name, at, x) {
    if (!history.has(name)) history.set(name, tile(name));
    const one = history.get(name);
    one.value.textContent = told(x);
    if (x === null) return;
    one.points.push([at, x]);
    if (one.points.length > MOST) one.points.shift();
    const first = one.points[0][0], span = Math.max(at - first, 1e-9), high = Math.max(...one.points.map(p => p[1]), 1e-12);
    one.line.setAttribute("points", one.points.map(([t, v]) => `${(100 * (t - first) / span).toFixed(2)},${(29 - 28 * v / high).toFixed(2)}`).join(" "));
  }

  function row(cells, kind) {
    const line = document.createElement("tr");
    for (const text of cells) { const cell = document.createElement(kind); cell.textContent = text; line.append(cell); }
    return line;
  }

  const source = new EventSource("/events");
  source.addEventListener("figures", event => {
    const said = JSON.parse(event.data);
    if (said.words) $("words").textContent = said.words;
    $("done").hidden = said.done === null;
    if (said.done !== null) $("done").value = said.done;
    for (const [name, x] of Object.entries(said.figures)) add(name, said.at, x);
  });
  source.addEventListener("table", event => {
    const said = JSON.parse(event.data), table = $("table");
    table.hidden = false;
    table.tHead.replaceChildren(row(said.columns, "th"));
    table.tBodies[0].replaceChildren(...said.rows.map(cells => row(cells, "td")));
  });
  source.addEventListener("report", event => { source.close(); location.assign(JSON.parse(event.data).path); });
  source.onerror = () => { if (source.readyState === EventSource.CLOSED) $("words").textContent = "The run is over; its server is gone."; };
})();
