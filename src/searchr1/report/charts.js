// Curves over the training steps, drawn as SVG: axes, grid, legend with last values, crosshair with all values.

const COLOURS = ["blue", "orange", "green", "purple", "yellow", "grey"];
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "1 2"];
const HOPS = { comparison: "comparison" };

/** What is drawn, in order; a chart without any value is left out. */
function chartList(data) {
  const keys = Object.keys(data.metrics);
  const family = (prefix, name) =>
    keys.filter((key) => key.startsWith(prefix)).map((key) => [key, name(key.slice(prefix.length))]);
  const hops = family("searches/", (rest) => HOPS[rest] ?? rest.replace(/^hops-1$/, "one hop").replace(/^hops-2$/, "two hops").replace(/^hops-/, "hops: "));
  const stops = family("stop/", (rest) => rest.replaceAll("_", " ")).sort((a, b) => (b[0] === "stop/answered") - (a[0] === "stop/answered"));
  const evaluated = data.evaluations.length ? data.evaluations : null;
  return [
    { title: "Exact match", note: evaluated ? `training batches; evaluations (${data.decoding}) with 95% interval` : "training batches", lines: [["train/exact_match", "training"]], points: evaluated, format: percent, floor: 0, wide: true },
    { title: "Reward", note: "mean of the training batch", lines: [["train/reward", "reward"]], format: plain, floor: 0, wide: true },
    { title: "Searches per question", note: "by what the question needs", lines: hops.length ? hops : [["train/searches", "all questions"]], format: plain, floor: 0, wide: true },
    { title: "How trajectories end", note: "share of the batch", lines: stops, format: percent, floor: 0, top: 1, stacked: true, wide: true },
    { title: "Tokens", note: "mean of one trajectory", lines: [["tokens/policy", "written by the policy"], ["tokens/environment", "retrieved"]], format: plain, floor: 0 },
    { title: "Entropy", note: "of the policy, a token", lines: [["train/entropy", "entropy"]], format: plain, floor: 0 },
    { title: "Gradient norm", note: "before clipping", lines: [["train/grad_norm", "norm"]], format: plain, floor: 0 },
    { title: "KL", note: "to the reference policy, a token", lines: [["train/kl", "KL"]], format: plain, floor: 0 },
    { title: "Clip fraction", note: "policy tokens whose ratio was clipped", lines: [["train/clip_fraction", "clipped"]], format: percent, floor: 0 },
    { title: "Time", note: "seconds a step", lines: [["time/step", "whole step"], ["time/rollout", "rollout"], ["time/search", "search"], ["time/update", "update"]], format: seconds, floor: 0 },
    { title: "Loss", note: "policy loss", lines: [["train/loss", "loss"]], format: plain },
    { title: "Groups without contrast", note: "all rollouts got the same reward", lines: [["train/zero_variance_groups", "share of groups"]], format: plain, floor: 0 },
    { title: "Cut observations", note: "did not fit their token budget", lines: [["train/truncated_observations", "cut"]], format: plain, floor: 0 },
  ];
}

function drawCharts(place, data) {
  const steps = data.metrics.step;
  for (const spec of chartList(data)) {
    const lines = spec.lines
      .map(([key, label], index) => ({ label, values: data.metrics[key] ?? [], colour: `var(--${COLOURS[index % 6]})`, dash: DASHES[index % 6] }))
      .filter((line) => line.values.some(isNumber) && !(spec.stacked && line.values.every((value) => !value)));
    if (lines.length || spec.points) place.append(chart({ ...spec, lines, steps, every: data.metrics.every }));
  }
}

/** Moving average over about a twelfth of the run, so that the trend shows through the noise. */
function smooth(values) {
  const half = Math.round(values.length / 24);
  return values.map((value, index) => {
    const near = values.slice(Math.max(0, index - half), index + half + 1).filter(isNumber);
    return isNumber(value) && near.length ? near.reduce((a, b) => a + b) / near.length : null;
  });
}

/** Round tick positions that cover low..high. */
function ticks(low, high, count, whole = false) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  if (whole) step = Math.max(1, Math.round(step));
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** One figure; it redraws itself when its width changes. */
function chart(spec) {
  const last = (values) => values.findLast(isNumber);
  const swatch = (line) => draw("svg", { viewBox: "0 0 20 10", "aria-hidden": "true" },
    spec.stacked ? draw("rect", { width: 14, height: 10, x: 3, rx: 2, fill: line.colour })
      : draw("line", { x1: 0, x2: 20, y1: 5, y2: 5, stroke: line.colour, "stroke-width": 2.5, "stroke-dasharray": line.dash }));
  const legend = spec.lines.map((line) => make("span", {}, swatch(line), line.label, make("b", {}, spec.format(last(line.values)))));
  if (spec.points) {
    const mark = draw("svg", { viewBox: "0 0 20 10", "aria-hidden": "true" }, draw("rect", { width: 20, height: 10, fill: "var(--green)", opacity: 0.25 }), diamond(10, 5));
    legend.push(make("span", {}, mark, "evaluation", make("b", {}, spec.format(spec.points.at(-1).value))));
  }
  const words = spec.lines.map((line) => `${line.label} from ${spec.format(line.values.find(isNumber))} to ${spec.format(last(line.values))}`);
  if (spec.points) words.push(`evaluation from ${spec.format(spec.points[0].value)} to ${spec.format(spec.points.at(-1).value)}`);
  const averaged = spec.every > 1 ? `; each point is the mean of ${spec.every} steps` : "";
  const plot = draw("svg", { class: "plot", role: "img", tabindex: 0, "aria-label": `${spec.title}: ${words.join("; ")}` });
  const figure = make("figure", { class: spec.wide ? "chart wide" : "chart" },
    make("figcaption", {}, spec.title, make("small", {}, spec.note + averaged)), make("div", { class: "legend" }, legend), plot);
  let width = 0;
  new ResizeObserver(() => {
    const now = Math.round(plot.clientWidth);
    if (now && now !== width) paint(plot, spec, (width = now), spec.wide ? 230 : 170);
  }).observe(plot);
  return figure;
}

const diamond = (x, y) => draw("path", { d: `M${x} ${y - 4.5}l4.5 4.5-4.5 4.5-4.5-4.5z`, fill: "var(--green)", class: "halo" });

function paint(plot, spec, width, height) {
  const xs = [...spec.steps, ...(spec.points ?? []).map((point) => point.step)];
  const [first, final] = [Math.min(...xs), Math.max(...xs)];
  const values = spec.lines.flatMap((line) => line.values).concat((spec.points ?? []).flatMap((p) => [p.value, p.low, p.high])).filter(isNumber);
  const low = spec.floor ?? Math.min(...values);
  const high = spec.top ?? Math.max(...values, low + 1e-6);
  const yTicks = ticks(low, high + (spec.top ? 0 : (high - low) * 0.06), 4);
  const gutter = 12 + 6.4 * Math.max(...yTicks.map((tick) => spec.format(tick).length));
  const x = (step) => (first === final ? (gutter + width) / 2 : gutter + ((step - first) / (final - first)) * (width - gutter - 10));
  const y = (value) => height - 24 - ((value - low) / ((spec.top ? high : high + (high - low) * 0.06) - low)) * (height - 34);
  plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
  plot.setAttribute("height", height);
  plot.replaceChildren(
    ...yTicks.flatMap((tick) => [
      draw("line", { x1: gutter, x2: width, y1: y(tick), y2: y(tick), class: "grid" }),
      draw("text", { x: gutter - 6, y: y(tick) + 4, "text-anchor": "end" }, spec.format(tick)),
    ]),
    ...ticks(first, final, Math.max(2, width / 90), true).map((tick) =>
      draw("text", { x: x(tick), y: height - 7, "text-anchor": first !== final && x(tick) > width - 16 ? "end" : "middle" }, tick.toLocaleString("en"))),
    ...(spec.stacked ? areas(spec, x, y) : [...band(spec.points, x, y), ...spec.lines.flatMap((line) => curve(line, spec.steps, x, y))]),
    ...(spec.points ?? []).map((point) => diamond(x(point.step), y(point.value))),
  );
  crosshair(plot, spec, x, y, width, height);
}

/** A faint line of what was measured under a firm one of its trend; dots where there is no line to see. */
function curve(line, steps, x, y) {
  const trace = (values) => {
    let pen = "M";
    return values.map((value, index) => {
      if (!isNumber(value)) return (pen = "M") && "";
      const part = `${pen}${x(steps[index]).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = "L";
      return part;
    }).join("");
  };
  const firm = { fill: "none", stroke: line.colour, "stroke-width": 2, "stroke-dasharray": line.dash, "stroke-linejoin": "round" };
  const alone = line.values.flatMap((value, i) => (isNumber(value) && !isNumber(line.values[i - 1]) && !isNumber(line.values[i + 1]) ? [[steps[i], value]] : []));
  const dots = alone.map(([step, value]) => draw("circle", { cx: x(step), cy: y(value), r: 4, fill: line.colour }));
  if (line.values.length < 24) return [draw("path", { ...firm, d: trace(line.values) }), ...dots];
  return [draw("path", { ...firm, d: trace(line.values), "stroke-width": 1, "stroke-dasharray": "", opacity: 0.38 }), draw("path", { ...firm, d: trace(smooth(line.values)) }), ...dots];
}

function band(points, x, y) {
  const bars = (points ?? []).filter((point) => isNumber(point.low) && isNumber(point.high));
  const corner = (point, value) => `${x(point.step).toFixed(1)} ${y(value).toFixed(1)}`;
  const outline = [...bars.map((point) => corner(point, point.high)), ...bars.map((point) => corner(point, point.low)).reverse()];
  const path = { fill: "none", stroke: "var(--green)", "stroke-width": 1.5, d: `M${(points ?? []).map((p) => corner(p, p.value)).join("L")}` };
  return [
    ...(bars.length > 1 ? [draw("path", { d: `M${outline.join("L")}Z`, fill: "var(--green)", opacity: 0.16 })] : []),
    ...((points ?? []).length > 1 ? [draw("path", path)] : []),
    ...bars.map((p) => draw("line", { x1: x(p.step), x2: x(p.step), y1: y(p.low), y2: y(p.high), stroke: "var(--green)", "stroke-width": 1.5 })),
  ];
}

/** Shares on top of one another; one step alone is a bar. */
function areas(spec, x, y) {
  const below = spec.steps.map(() => 0);
  const single = spec.steps.length === 1 ? [-20, 20] : null;
  return spec.lines.map((line) => {
    const floor = [...below];
    line.values.forEach((value, i) => (below[i] += value ?? 0));
    const at = (heights) => (single ? single.map((dx) => `${x(spec.steps[0]) + dx} ${y(heights[0])}`) : heights.map((h, i) => `${x(spec.steps[i]).toFixed(1)} ${y(h).toFixed(1)}`));
    return draw("path", { d: `M${[...at(below), ...at(floor).reverse()].join("L")}Z`, fill: line.colour, opacity: 0.85, class: "halo" });
  });
}

/** Pointer or arrow keys choose a step; the tooltip lists every value there. */
function crosshair(plot, spec, x, y, width, height) {
  const steps = [...new Set([...(spec.points ?? []).map((point) => point.step), ...spec.steps])].sort((a, b) => a - b);
  const cross = draw("line", { class: "cross", y1: 8, y2: height - 24, visibility: "hidden" });
  const dots = draw("g");
  plot.append(cross, dots);
  let chosen = steps.length - 1;
  const show = (index, left, top) => {
    chosen = Math.max(0, Math.min(steps.length - 1, index));
    const step = steps[chosen], at = spec.steps.indexOf(step);
    const point = (spec.points ?? []).find((candidate) => candidate.step === step);
    const row = (colour, text) => make("span", {}, make("i", { style: `background:${colour}` }), text);
    const rows = spec.lines.filter((line) => isNumber(line.values[at])).map((line) => row(line.colour, `${line.label}: ${spec.format(line.values[at])}`));
    if (point) rows.push(row("var(--green)", `evaluation: ${spec.format(point.value)}${isNumber(point.low) ? ` [${spec.format(point.low)}, ${spec.format(point.high)}]` : ""}`));
    cross.setAttribute("x1", x(step));
    cross.setAttribute("x2", x(step));
    cross.setAttribute("visibility", "visible");
    const marked = spec.stacked ? [] : spec.lines.filter((line) => isNumber(line.values[at]));
    dots.replaceChildren(...marked.map((line) => draw("circle", { cx: x(step), cy: y(line.values[at]), r: 4, fill: line.colour, class: "halo" })));
    const box = plot.getBoundingClientRect();
    tip.show(left ?? box.left + x(step), top ?? box.top + 20, [make("strong", {}, `Step ${step.toLocaleString("en")}`), ...rows]);
  };
  const hide = () => {
    cross.setAttribute("visibility", "hidden");
    dots.replaceChildren();
    tip.hide();
  };
  plot.onpointermove = plot.onpointerdown = (event) => {
    const left = event.clientX - plot.getBoundingClientRect().left;
    const distance = steps.map((step) => Math.abs(x(step) - left));
    show(distance.indexOf(Math.min(...distance)), event.clientX, event.clientY);
  };
  plot.onpointerleave = plot.onblur = hide;
  plot.onkeydown = (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) show(chosen + move);
    if (move) event.preventDefault();
  };
}
