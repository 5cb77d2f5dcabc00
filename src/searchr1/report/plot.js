// How a chart is painted: ticks, lines, bands, areas, crosshair.

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
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++)
    found.push(Number((i * step).toPrecision(12)));
  return found;
}

const diamond = (x, y) =>
  draw("path", { d: `M${x} ${y - 4.5}l4.5 4.5-4.5 4.5-4.5-4.5z`, fill: "var(--green)", class: "halo" });

function paint(plot, spec, width, height) {
  const attempts = spec.stacked ? [] : spec.lines.flatMap((line) => line.attempts);
  const xs = [
    ...spec.steps,
    ...(spec.points ?? []).map((point) => point.step),
    ...attempts.flatMap((attempt) => attempt.step),
    ...spec.marks.map((mark) => mark.step),
  ];
  const [first, final] = [Math.min(...xs), Math.max(...xs)];
  const values = spec.lines
    .flatMap((line) => line.values)
    .concat(attempts.flatMap((attempt) => attempt.values))
    .concat((spec.points ?? []).flatMap((p) => [p.value, p.low, p.high]))
    .filter(isNumber);
  const low = spec.floor ?? Math.min(...values);
  const high = spec.top ?? Math.max(...values, low + 1e-6);
  const yTicks = ticks(low, high + (spec.top ? 0 : (high - low) * 0.06), 5);
  const label = spec.format === percent ? (tick) => `${plain(Number((100 * tick).toPrecision(6)))}%` : spec.format;
  const gutter = 12 + 6.4 * Math.max(...yTicks.map((tick) => label(tick).length));
  const x = (step) =>
    first === final ? (gutter + width) / 2 : gutter + ((step - first) / (final - first)) * (width - gutter - 10);
  const y = (value) =>
    height - 24 - ((value - low) / ((spec.top ? high : high + (high - low) * 0.06) - low)) * (height - 34);
  plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
  plot.replaceChildren(
    ...yTicks.flatMap((tick) => [
      draw("line", { x1: gutter, x2: width, y1: y(tick), y2: y(tick), class: "grid" }),
      draw("text", { x: gutter - 6, y: y(tick) + 4, "text-anchor": "end" }, label(tick)),
    ]),
    ...ticks(first, final, Math.max(2, width / 90), true).map((tick) =>
      draw(
        "text",
        { x: x(tick), y: height - 7, "text-anchor": first !== final && x(tick) > width - 16 ? "end" : "middle" },
        tick.toLocaleString("en"),
      ),
    ),
    ...spec.marks.flatMap((mark) => flag(mark, x(mark.step), height)),
    ...(spec.stacked ? [] : spec.lines.flatMap((line) => line.attempts.map((a) => givenUp(line, a, spec.steps, x, y)))),
    ...(spec.stacked
      ? areas(spec, x, y)
      : [...band(spec.points, x, y), ...spec.lines.flatMap((line) => curve(line, spec.steps, x, y))]),
    ...(spec.points ?? []).map((point) => diamond(x(point.step), y(point.value))),
  );
  crosshair(plot, spec, x, y, width, height);
}

const markText = (mark) => (mark.to === null ? `${mark.name} ${mark.kind}` : `back to step ${mark.to}`);

/** The step at which an alarm began, or at which something was done about one. */
function flag(mark, x, height) {
  const kind = `mark ${mark.kind}`;
  return [
    draw("line", { x1: x, x2: x, y1: 8, y2: height - 24, class: kind, "stroke-dasharray": mark.to === null ? "3 3" : "" }),
    draw("path", { d: `M${x - 4.5} 2h9l-4.5 7z`, class: kind }),
  ];
}

/** A dotted line of an attempt that was rolled back, from the step that it went back to. */
function givenUp(line, attempt, steps, x, y) {
  const start = steps.indexOf(attempt.to);
  const points = attempt.step.map((step, index) => [step, attempt.values[index]]);
  if (start >= 0) points.unshift([attempt.to, line.values[start]]);
  const drawn = points.filter(([, value]) => isNumber(value));
  return draw("path", {
    d: drawn.length ? `M${drawn.map(([step, value]) => `${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("L")}` : "",
    fill: "none",
    stroke: line.colour,
    "stroke-width": 1.5,
    "stroke-dasharray": "2 2",
    opacity: 0.6,
  });
}

/** A faint line of what was measured under a firm one of its trend; dots where there is no line to see. */
function curve(line, steps, x, y) {
  const trace = (values) => {
    let pen = "M";
    return values
      .map((value, index) => {
        if (!isNumber(value)) return (pen = "M") && "";
        const part = `${pen}${x(steps[index]).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = "L";
        return part;
      })
      .join("");
  };
  const firm = {
    fill: "none",
    stroke: line.colour,
    "stroke-width": 2,
    "stroke-dasharray": line.dash,
    "stroke-linejoin": "round",
  };
  const alone = line.values.flatMap((value, i) =>
    isNumber(value) && !isNumber(line.values[i - 1]) && !isNumber(line.values[i + 1]) ? [[steps[i], value]] : [],
  );
  const dots = alone.map(([step, value]) => draw("circle", { cx: x(step), cy: y(value), r: 4, fill: line.colour }));
  if (line.values.length < 24) return [draw("path", { ...firm, d: trace(line.values) }), ...dots];
  return [
    draw("path", { ...firm, d: trace(line.values), "stroke-width": 1, "stroke-dasharray": "", opacity: 0.38 }),
    draw("path", { ...firm, d: trace(smooth(line.values)) }),
    ...dots,
  ];
}

function band(points, x, y) {
  const bars = (points ?? []).filter((point) => isNumber(point.low) && isNumber(point.high));
  const corner = (point, value) => `${x(point.step).toFixed(1)} ${y(value).toFixed(1)}`;
  const outline = [
    ...bars.map((point) => corner(point, point.high)),
    ...bars.map((point) => corner(point, point.low)).reverse(),
  ];
  const path = {
    fill: "none",
    stroke: "var(--green)",
    "stroke-width": 1.5,
    d: `M${(points ?? []).map((p) => corner(p, p.value)).join("L")}`,
  };
  return [
    ...(bars.length > 1 ? [draw("path", { d: `M${outline.join("L")}Z`, fill: "var(--green)", opacity: 0.16 })] : []),
    ...((points ?? []).length > 1 ? [draw("path", path)] : []),
    ...bars.map((p) =>
      draw("line", {
        x1: x(p.step),
        x2: x(p.step),
        y1: y(p.low),
        y2: y(p.high),
        stroke: "var(--green)",
        "stroke-width": 1.5,
      }),
    ),
  ];
}

/** Shares on top of one another; one step alone is a bar. */
function areas(spec, x, y) {
  const below = spec.steps.map(() => 0);
  const single = spec.steps.length === 1 ? [-20, 20] : null;
  return spec.lines.map((line) => {
    const floor = [...below];
    line.values.forEach((value, i) => (below[i] += value ?? 0));
    const at = (heights) =>
      single
        ? single.map((dx) => `${x(spec.steps[0]) + dx} ${y(heights[0])}`)
        : heights.map((h, i) => `${x(spec.steps[i]).toFixed(1)} ${y(h).toFixed(1)}`);
    return draw("path", {
      d: `M${[...at(below), ...at(floor).reverse()].join("L")}Z`,
      fill: line.colour,
      opacity: 0.85,
      class: "halo",
    });
  });
}

/** Pointer or arrow keys choose a step; the tooltip lists every value there. */
function crosshair(plot, spec, x, y, width, height) {
  const marked = spec.marks.map((mark) => mark.step);
  const steps = [...new Set([...(spec.points ?? []).map((point) => point.step), ...spec.steps, ...marked])].sort(
    (a, b) => a - b,
  );
  const cross = draw("line", { class: "cross", y1: 8, y2: height - 24, visibility: "hidden" });
  const dots = draw("g");
  plot.append(cross, dots);
  let chosen = steps.length - 1;
  const show = (index, left, top) => {
    chosen = Math.max(0, Math.min(steps.length - 1, index));
    const step = steps[chosen],
      at = spec.steps.indexOf(step);
    const point = (spec.points ?? []).find((candidate) => candidate.step === step);
    const row = (colour, text) => make("span", {}, make("i", { style: `background:${colour}` }), text);
    const rows = spec.lines
      .filter((line) => isNumber(line.values[at]))
      .map((line) => row(line.colour, `${line.label}: ${spec.format(line.values[at])}`));
    if (point)
      rows.push(
        row(
          "var(--green)",
          `evaluation: ${spec.format(point.value)}${isNumber(point.low) ? ` [${spec.format(point.low)}, ${spec.format(point.high)}]` : ""}`,
        ),
      );
    for (const mark of spec.marks.filter((candidate) => candidate.step === step))
      rows.push(row("var(--orange)", markText(mark)));
    cross.setAttribute("x1", x(step));
    cross.setAttribute("x2", x(step));
    cross.setAttribute("visibility", "visible");
    const shown = spec.stacked ? [] : spec.lines.filter((line) => isNumber(line.values[at]));
    dots.replaceChildren(
      ...shown.map((line) =>
        draw("circle", { cx: x(step), cy: y(line.values[at]), r: 4, fill: line.colour, class: "halo" }),
      ),
    );
    const box = plot.getBoundingClientRect();
    tip.show(left ?? box.left + x(step), top ?? box.top + 20, [
      make("strong", {}, `Step ${step.toLocaleString("en")}`),
      ...rows,
    ]);
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
