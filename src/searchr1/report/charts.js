// Curves over the training steps, drawn as SVG: axes, grid, legend with last values, crosshair with all values.

const COLOURS = ["blue", "orange", "green", "purple", "yellow", "grey"];
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "1 2"];

/** What is drawn, in order; a chart without any value is left out. */
function chartList(data) {
  const keys = Object.keys(data.metrics);
  const family = (prefix, name) =>
    keys.filter((key) => key.startsWith(prefix)).map((key) => [key, name(key.slice(prefix.length))]);
  const hopNames = { "hops-1": "one hop", "hops-2": "two hops", "hops-3": "three hops", "hops-4": "four hops" };
  const hops = family("searches/", (rest) => hopNames[rest] ?? rest);
  const stops = family("stop/", (rest) => rest.replaceAll("_", " ")).sort(
    (a, b) => (b[0] === "stop/answered") - (a[0] === "stop/answered"),
  );
  const evaluated = data.evaluations.length ? data.evaluations : null;
  return [
    {
      title: "Exact match",
      note: evaluated ? `training batches; evaluations (${data.decoding}) with 95% interval` : "training batches",
      lines: [["train/exact_match", "training"]],
      points: evaluated,
      format: percent,
      floor: 0,
      wide: true,
    },
    {
      title: "Reward",
      note: "mean of the training batch",
      lines: [["train/reward", "reward"]],
      format: plain,
      floor: 0,
      wide: true,
    },
    {
      title: "Searches per question",
      note: "by what the question needs",
      lines: hops.length ? hops : [["train/searches", "all questions"]],
      format: plain,
      floor: 0,
      wide: true,
    },
    {
      title: "How trajectories end",
      note: "share of the batch",
      lines: stops,
      format: percent,
      floor: 0,
      top: 1,
      stacked: true,
      wide: true,
    },
    {
      title: "Tokens",
      note: "mean of one trajectory",
      lines: [
        ["tokens/policy", "written by the policy"],
        ["tokens/environment", "retrieved"],
      ],
      format: plain,
      floor: 0,
    },
    {
      title: "Entropy",
      note: "of the policy, a token",
      lines: [["train/entropy", "entropy"]],
      format: plain,
      floor: 0,
    },
    {
      title: "Gradient norm",
      note: "of one optimiser step",
      lines: [["train/grad_norm", "norm"]],
      format: plain,
      floor: 0,
    },
    {
      title: "Likelihood of right trajectories",
      note: "log-probability of a token; when it falls, collapse may follow",
      lines: [["train/correct_logprob", "log-probability"]],
      format: plain,
    },
    {
      title: "KL",
      note: "a token, from the policy that sampled (and from the reference)",
      lines: [
        ["train/kl", "sampled"],
        ["train/reference_kl", "reference"],
      ],
      format: plain,
      floor: 0,
    },
    {
      title: "Clip fraction",
      note: "policy tokens whose ratio was clipped",
      lines: [["train/clip_fraction", "clipped"]],
      format: percent,
      floor: 0,
    },
    {
      title: "Time",
      note: "seconds a step",
      lines: [
        ["time/step", "whole step"],
        ["time/rollout", "rollout"],
        ["time/search", "search"],
        ["time/update", "update"],
      ],
      format: seconds,
      floor: 0,
    },
    { title: "Loss", note: "policy loss", lines: [["train/loss", "loss"]], format: plain },
    {
      title: "Groups without contrast",
      note: "all rollouts got the same reward",
      lines: [["train/zero_variance_groups", "share of groups"]],
      format: plain,
      floor: 0,
    },
    {
      title: "Cut observations",
      note: "did not fit their token budget",
      lines: [["train/truncated_observations", "cut"]],
      format: plain,
      floor: 0,
    },
  ];
}

function drawCharts(place, data) {
  const steps = data.metrics.step;
  if (!steps.length) return; // the page says so
  for (const spec of chartList(data)) {
    const lines = spec.lines
      .map(([key, label], index) => ({
        key,
        label,
        values: data.metrics[key] ?? [],
        attempts: data.rolled_back.map((attempt) => ({ ...attempt, values: attempt[key] ?? [] })),
        colour: `var(--${COLOURS[index % 6]})`,
        dash: DASHES[index % 6],
      }))
      .filter((line) => line.values.some(isNumber) && !(spec.stacked && line.values.every((value) => !value)));
    const marks = data.alarms.filter((alarm) => concerns(alarm, spec, lines));
    if (lines.length || spec.points) place.append(chart({ ...spec, lines, marks, steps, every: data.metrics.every }));
  }
}

/** An alarm is marked where its metric is drawn; what was done about it, wherever lines are drawn. */
function concerns(alarm, spec, lines) {
  if (spec.stacked) return false;
  return alarm.to !== null || alarm.kind === "stop" || lines.some((line) => line.key === alarm.metric);
}

/** One figure; it redraws itself when its width changes. */
function chart(spec) {
  const last = (values) => values.findLast(isNumber);
  const swatch = (line) =>
    draw(
      "svg",
      { viewBox: "0 0 20 10", "aria-hidden": "true" },
      spec.stacked
        ? draw("rect", { width: 14, height: 10, x: 3, rx: 2, fill: line.colour })
        : draw("line", {
            x1: 0,
            x2: 20,
            y1: 5,
            y2: 5,
            stroke: line.colour,
            "stroke-width": 2.5,
            "stroke-dasharray": line.dash,
          }),
    );
  const legend = spec.lines.map((line) =>
    make("span", {}, swatch(line), line.label, make("b", {}, spec.format(last(line.values)))),
  );
  if (spec.points) {
    const mark = draw(
      "svg",
      { viewBox: "0 0 20 10", "aria-hidden": "true" },
      draw("rect", { width: 20, height: 10, fill: "var(--green)", opacity: 0.25 }),
      diamond(10, 5),
    );
    legend.push(make("span", {}, mark, "evaluation", make("b", {}, spec.format(spec.points.at(-1).value))));
  }
  if (!spec.stacked && spec.lines.some((line) => line.attempts.some((attempt) => attempt.values.some(isNumber)))) {
    const look = { stroke: "var(--muted)", "stroke-width": 1.5, "stroke-dasharray": "2 2" };
    const faint = draw("line", { x1: 0, x2: 20, y1: 5, y2: 5, ...look });
    legend.push(make("span", {}, draw("svg", { viewBox: "0 0 20 10", "aria-hidden": "true" }, faint), "rolled back"));
  }
  const words = spec.lines.map(
    (line) => `${line.label} from ${spec.format(line.values.find(isNumber))} to ${spec.format(last(line.values))}`,
  );
  if (spec.points)
    words.push(`evaluation from ${spec.format(spec.points[0].value)} to ${spec.format(spec.points.at(-1).value)}`);
  for (const mark of spec.marks) words.push(`${markText(mark)} at step ${mark.step}`);
  const averaged = spec.every > 1 ? `; each point is the mean of ${spec.every} steps` : "";
  const height = spec.wide ? 230 : 170;
  const plot = draw("svg", {
    class: "plot",
    height,
    role: "img",
    tabindex: 0,
    "aria-label": `${spec.title}: ${words.join("; ")}`,
  });
  const figure = make(
    "figure",
    { class: spec.wide ? "chart wide" : "chart" },
    make("figcaption", {}, spec.title, make("small", {}, spec.note + averaged)),
    make("div", { class: "legend" }, legend),
    plot,
  );
  let width = 0;
  new ResizeObserver(() => {
    const now = Math.round(plot.clientWidth);
    if (now && now !== width) paint(plot, spec, (width = now), height);
  }).observe(plot);
  return figure;
}
