// The page's own behaviour: draw a chart when it comes into view, in the theme of the moment; hand out its data.
// Data arrive as columns in the element #data; nothing is fetched. All text is set as text, never as markup.
"use strict";
const page = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const views = new Map(), root = document.documentElement;

  const rows = table => {
    const names = Object.keys(table), size = names.length ? table[names[0]].length : 0;
    return Array.from({ length: size }, (_, k) => Object.fromEntries(names.map(name => [name, table[name][k]])));
  };

  const theme = () => {
    const style = getComputedStyle(root), ink = style.getPropertyValue("--ink").trim();
    const soft = style.getPropertyValue("--soft").trim(), line = style.getPropertyValue("--line").trim();
    const font = "system-ui, sans-serif";
    return {
      background: "transparent", view: { stroke: "transparent" },
      axis: { labelColor: soft, titleColor: soft, gridColor: line, domainColor: line, tickColor: line, labelFont: font, titleFont: font, titleFontWeight: "normal", labelFontSize: 12, titleFontSize: 12 },
      legend: { labelColor: ink, titleColor: soft, labelFont: font, titleFont: font, labelFontSize: 12 },
      title: { color: ink, font }, text: { fill: ink, font },
    };
  };

  function specification(chart) {
    const filled = spec => spec.data.map(one => one.name in chart.tables && !one.source ? { ...one, values: rows(chart.tables[one.name]) } : one);
    return { ...chart.spec, data: filled(chart.spec) };
  }

  function draw(box) {
    const chart = data.charts[box.dataset.chart];
    const options = { mode: "vega", renderer: "svg", actions: false, config: theme(), tooltip: tip, hover: true };
    delete box.dataset.drawn;
    const drawing = (views.get(box) ?? Promise.resolve(null))
      .then(old => { old?.finalize(); return vegaEmbed(box, specification(chart), options); })
      .then(made => { box.dataset.drawn = "yes"; return made.view; });
    views.set(box, drawing);
    return drawing;
  }

  function tip(_, event, item, value) {
    const old = document.getElementById("tip");
    if (value === null || value === undefined || value === "") { old?.remove(); return; }
    const box = old || document.body.appendChild(Object.assign(document.createElement("div"), { id: "tip" }));
    box.textContent = typeof value === "object" ? Object.entries(value).map(([k, v]) => `${k}: ${v}`).join("\n") : String(value);
    box.style.left = Math.max(0, Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 4)) + "px";
    box.style.top = Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 4) + "px";
  }

  const csv = table => {
    const cell = x => x === null ? "" : /[",\n]/.test(String(x)) ? `"${String(x).replaceAll('"', '""')}"` : String(x);
    const names = Object.keys(table);
    return [names.join(","), ...rows(table).map(row => names.map(n => cell(row[n])).join(","))].join("\n") + "\n";
  };

  function save(name, text, type) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function setTheme(dark) {
    root.classList.toggle("dark", dark);
    const button = document.getElementById("theme");
    button.setAttribute("aria-pressed", String(dark));
    for (const box of views.keys()) draw(box);
    document.dispatchEvent(new Event("theme"));
  }

  function start() {
    setTheme(matchMedia("(prefers-color-scheme: dark)").matches);
    const seen = new IntersectionObserver(found => {
      for (const one of found) if (one.isIntersecting) { seen.unobserve(one.target); draw(one.target); }
    }, { rootMargin: "300px" });
    document.querySelectorAll(".chart").forEach(box => seen.observe(box));
    addEventListener("beforeprint", () => {
      setTheme(false);
      document.querySelectorAll(".chart").forEach(box => { if (!views.has(box)) draw(box); });
    });
    document.addEventListener("click", event => {
      const at = event.target.dataset || {};
      if (event.target.id === "theme") setTheme(!root.classList.contains("dark"));
      if (at.csv) save(`${at.csv}-${at.table}.csv`, csv(data.charts[at.csv].tables[at.table]), "text/csv");
      if (at.svg) {
        const box = document.querySelector(`[data-chart="${at.svg}"]`);
        if (!views.has(box)) draw(box);
        views.get(box).then(view => view.toSVG()).then(svg => save(`${at.svg}.svg`, svg, "image/svg+xml"));
      }
    });
    if (data.lanes) lanes.start(data.lanes);
  }

  return { start, save, csv };
})();
