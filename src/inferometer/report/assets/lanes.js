// Requests as lanes on one canvas. The work of a frame is bounded by the pixels, not by the tokens: where lanes are
// thinner than a pixel, one of them is drawn for each line of pixels; where tokens are closer than a pixel, a binary
// search jumps to the next pixel. So 5,000 lanes with 2 M tokens are drawn as fast as 50.
"use strict";
const lanes = (() => {
  let d, canvas, context, shown, from, span, top, lane, whole;
  const WAIT = "#9aa3ad", PREFILL = "#e08214", TOKEN = "#3b8ad9", STALL = "#e0433c", FAILED = "#b07cc6", STALL_US = 166667;

  const bytes = async packed => {
    const raw = Uint8Array.from(atob(packed), c => c.charCodeAt(0));
    const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return new Response(stream).arrayBuffer();
  };

  async function unpack(packed) {
    const times = {}, ratio = packed.ratio;
    for (const [name, column] of Object.entries(packed.times)) times[name] = new Float64Array(await bytes(column));
    const sizes = new Int32Array(await bytes(packed.tokens)), steps = new Uint8Array(await bytes(packed.gaps));
    const offset = new Int32Array(packed.n + 1), at = new Float64Array(steps.length);
    const gap = Float64Array.from({ length: 256 }, (_, k) => k ? Math.exp((k - 1) * ratio) : 0);
    for (let r = 0, c = 0; r < packed.n; r++) {
      for (let k = 0, t = times.first[r]; k < sizes[r]; k++, c++) { t += k ? gap[steps[c]] : 0; at[c] = t; }
      offset[r + 1] = offset[r] + sizes[r];
    }
    const coded = async column => ({ names: column.names, codes: new Uint8Array(await bytes(column.codes)) });
    return { n: packed.n, ids: packed.ids, times, offset, at, prompt: new Int32Array(await bytes(packed.prompt)), status: await coded(packed.status), app: await coded(packed.app) };
  }

  function choose() {
    const status = document.getElementById("lanes-status").value, app = document.getElementById("lanes-app").value;
    const order = document.getElementById("lanes-order").value, t = d.times;
    shown = [];
    for (let r = 0; r < d.n; r++) {
      if (status && d.status.names[d.status.codes[r]] !== status) continue;
      if (app && d.app.names[d.app.codes[r]] !== app) continue;
      shown.push(r);
    }
    const key = { intended: r => t.intended[r], ttft: r => t.first[r] < 0 ? Infinity : t.first[r] - t.intended[r], total: r => t.ended[r] - t.intended[r] }[order];
    const keys = new Map(shown.map(r => [r, key(r)]));
    shown.sort((a, b) => keys.get(a) - keys.get(b) || a - b);
    whole_view();
  }

  function whole_view() {
    from = 0; span = whole; top = 0;
    lane = Math.max(canvas.clientHeight / Math.max(shown.length, 1), 1e-3);
    paint();
  }

  let asked = false;
  const paint = () => { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; frame(); }); } };

  function frame() {
    const scale = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
    if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    const thick = Math.max(lane * 0.85, 1), step = Math.max(1, 1 / lane);
    let drawn = 0;
    for (let k = Math.max(0, Math.floor(top / lane)); k < shown.length; k += step) {
      const y = k * lane - top;
      if (y > height) break;
      one(shown[Math.floor(k)], y, thick, width);
      drawn++;
    }
    under(drawn);
  }

  function one(r, y, thick, width) {
    const t = d.times, x = us => (us - from) / span * width;
    const bar = (a, b, colour) => {
      if (a < 0 || b < a || x(b) < 0 || x(a) > width) return;
      context.fillStyle = colour;
      context.fillRect(Math.max(x(a), 0), y, Math.max(Math.min(x(b), width) - Math.max(x(a), 0), 0.7), thick);
    };
    const first = t.first[r], began = t.scheduled[r] >= 0 ? t.scheduled[r] : -1, bad = d.status.names[d.status.codes[r]] !== "ok";
    const until = first >= 0 ? first : t.ended[r];
    bar(t.intended[r], began >= 0 ? Math.min(began, until) : until, bad && first < 0 ? FAILED : WAIT);
    if (began >= 0 && first >= 0) bar(began, first, PREFILL);
    ticks(r, y, thick, width, x);
    if (bad && first >= 0) bar(d.offset[r + 1] > d.offset[r] ? d.at[d.offset[r + 1] - 1] : first, t.ended[r], FAILED);
  }

  function ticks(r, y, thick, width, x) {
    const stop = d.offset[r + 1], pixel = span / width;
    let k = next(d.offset[r], stop, from - pixel);
    if (k > d.offset[r]) k--;
    while (k < stop && d.at[k] <= from + span) {
      const here = d.at[k];
      let last = k;
      const later = next(k, stop, here + pixel);
      last = Math.max(later - 1, k);
      context.fillStyle = TOKEN;
      const wide = Math.max(x(d.at[last]) - x(here), Math.min(0.8, 1));
      if (x(here) + wide >= 0) context.fillRect(x(here), y, wide, thick);
      if (later < stop && d.at[later] - d.at[last] > STALL_US) {
        context.fillStyle = STALL;
        const a = Math.max(x(d.at[last]), 0), b = Math.min(x(d.at[later]), width);
        if (b > a) context.fillRect(a, y + thick * 0.3, b - a, Math.max(thick * 0.4, 0.7));
      }
      k = Math.max(later, k + 1);
    }
  }

  function next(lo, hi, us) {  // the first token at or after a time
    while (lo < hi) { const mid = (lo + hi) >> 1; if (d.at[mid] < us) lo = mid + 1; else hi = mid; }
    return lo;
  }

  function under(drawn) {
    const s = us => (us / 1e6).toFixed(3);
    document.getElementById("lanes-under").textContent = `${shown.length} requests, ${s(from)} s to ${s(from + span)} s${drawn < shown.length && lane < 1 ? `; every ${Math.ceil(1 / lane)}th is drawn, zoom in for all` : ""}`;
  }

  function zoom(factor, fx, fy) {
    const least = 1000, width = Math.min(Math.max(span * factor, least), whole * 1.2);
    from += (span - width) * fx; span = width;
    const tall = Math.min(Math.max(lane / factor, canvas.clientHeight / Math.max(shown.length, 1)), 40);
    top = Math.max(0, (top + fy * canvas.clientHeight) * tall / lane - fy * canvas.clientHeight); lane = tall;
    paint();
  }

  function move(dx, dy) {
    from = Math.min(Math.max(from - dx * span, -span / 2), whole);
    top = Math.max(0, Math.min(top - dy, Math.max(shown.length * lane - canvas.clientHeight, 0)));
    paint();
  }

  function told(event) {
    const box = canvas.getBoundingClientRect(), k = Math.floor((event.clientY - box.top + top) / lane), r = shown[k];
    canvas.title = r === undefined ? "" : describe(r);
  }

  function describe(r) {
    const t = d.times, ms = us => us < 0 ? "–" : `${((us - t.intended[r]) / 1000).toFixed(1)} ms`;
    return `${d.ids[r]} · ${d.app.names[d.app.codes[r]]} · ${d.status.names[d.status.codes[r]]}\ndue ${(t.intended[r] / 1e6).toFixed(3)} s · first token ${ms(t.first[r])} · ended ${ms(t.ended[r])}\n${d.prompt[r]} prompt tokens, ${d.offset[r + 1] - d.offset[r]} chunks`;
  }

  function listen() {
    canvas.addEventListener("wheel", event => {
      event.preventDefault();
      const box = canvas.getBoundingClientRect();
      zoom(event.deltaY > 0 ? 1.25 : 0.8, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    }, { passive: false });
    let held = null;
    canvas.addEventListener("pointerdown", event => { held = event; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointerup", () => { held = null; });
    canvas.addEventListener("pointermove", event => {
      if (!held) { told(event); return; }
      move((event.clientX - held.clientX) / canvas.clientWidth, event.clientY - held.clientY); held = event;
    });
    canvas.addEventListener("keydown", event => {
      const act = { ArrowLeft: () => move(0.1, 0), ArrowRight: () => move(-0.1, 0), ArrowUp: () => move(0, 40), ArrowDown: () => move(0, -40), "+": () => zoom(0.7, 0.5, 0.5), "=": () => zoom(0.7, 0.5, 0.5), "-": () => zoom(1.4, 0.5, 0.5), Home: whole_view }[event.key];
      if (act) { event.preventDefault(); act(); }
    });
    for (const name of ["order", "status", "app"]) document.getElementById(`lanes-${name}`).addEventListener("change", choose);
    document.getElementById("lanes-reset").addEventListener("click", whole_view);
    document.getElementById("lanes-csv").addEventListener("click", () => page.save("requests.csv", page.csv(table()), "text/csv"));
    addEventListener("resize", paint);
    document.addEventListener("theme", paint);
  }

  function table() {
    const out = { request_id: [], app: [], status: [], prompt_tokens: [], chunks: [], intended_s: [], first_token_s: [], ended_s: [] };
    const s = us => us < 0 ? null : us / 1e6;
    for (const r of shown) {
      out.request_id.push(d.ids[r]); out.app.push(d.app.names[d.app.codes[r]]); out.status.push(d.status.names[d.status.codes[r]]);
      out.prompt_tokens.push(d.prompt[r]); out.chunks.push(d.offset[r + 1] - d.offset[r]);
      out.intended_s.push(s(d.times.intended[r])); out.first_token_s.push(s(d.times.first[r])); out.ended_s.push(s(d.times.ended[r]));
    }
    return out;
  }

  async function start(packed) {
    canvas = document.getElementById("lanes-canvas");
    context = canvas.getContext("2d");
    d = await unpack(packed);
    whole = d.times.ended.reduce((a, b) => Math.max(a, b), 1);
    for (const name of ["status", "app"]) for (const option of d[name].names) document.getElementById(`lanes-${name}`).append(new Option(option, option));
    listen();
    choose();
    canvas.dataset.drawn = "yes";
  }

  return { start, frame, zoom, state: () => ({ from, span, lane, shown: shown.length }) };
})();
