// The trajectory browser: a filtered list of questions, and their trajectories side by side, token by token.

const ANY = "";

function openBrowser(place, packed) {
  const phase = (item) =>
    item.kind === "train" ? "train" : item.step === packed.last && packed.last !== packed.first ? "after" : "before";
  const entries = packed.entries.map((entry) => ({
    ...entry,
    text: searchable(entry),
    items: entry.items.map((item, index) => ({ ...item, phase: phase(item), title: title(item, phase(item), index) })),
  }));
  const state = { kind: ANY, outcome: ANY, dataset: ANY, stop: ANY, text: "", entry: null };
  const list = make("ol"),
    count = make("p", { class: "count", "aria-live": "polite" }),
    detail = make("article", { class: "detail", "aria-live": "off" });
  const refresh = () => {
    const found = entries.filter((entry) => matches(entry, state));
    count.textContent = `${found.length} of ${entries.length} questions`;
    list.replaceChildren(...found.map((entry) => listItem(entry, () => select(entry))));
    select(found.includes(state.entry) ? state.entry : (found[0] ?? null));
  };
  const select = (entry) => {
    if (entry !== state.entry || !entry)
      detail.replaceChildren(
        ...(entry
          ? showEntry(entry, packed.tokens)
          : [make("p", { class: "empty" }, "No trajectory passes these filters.")]),
      );
    state.entry = entry;
    for (const button of list.querySelectorAll("button"))
      button.entry === entry ? button.setAttribute("aria-current", "true") : button.removeAttribute("aria-current");
  };
  place.append(
    filters(entries, state, refresh, detail),
    make("div", { class: "panes" }, make("div", { class: "picker" }, count, list), detail),
  );
  followTokens(detail);
  refresh();
}

const title = (item, phase, index) =>
  phase === "train"
    ? `Rollout ${index + 1}, step ${item.step.toLocaleString("en")}`
    : phase === "before" && item.step === 0
      ? "Before training"
      : `After step ${item.step.toLocaleString("en")}`;

const searchable = (entry) =>
  [
    entry.question.text,
    entry.question.id,
    ...entry.question.answers,
    ...entry.items.flatMap((item) => [item.answer ?? "", ...item.turns.map((turn) => turn.text)]),
  ]
    .join("\n")
    .toLowerCase();

/** An entry passes when one of its trajectories passes all filters. */
function matches(entry, state) {
  if (state.dataset && entry.question.dataset !== state.dataset) return false;
  if (state.text && !entry.text.includes(state.text.toLowerCase())) return false;
  const right = (phase) => entry.items.find((item) => item.phase === phase)?.correct;
  if (state.outcome === "solved" && !(right("before") === false && right("after") === true)) return false;
  if (state.outcome === "lost" && !(right("before") === true && right("after") === false)) return false;
  return entry.items.some(
    (item) =>
      (!state.kind || item.phase === state.kind) &&
      (!state.stop || item.stop === state.stop) &&
      (!["correct", "wrong"].includes(state.outcome) || item.correct === (state.outcome === "correct")),
  );
}

function filters(entries, state, refresh, detail) {
  const all = (pick) => [...new Set(entries.flatMap(pick))].sort().map((value) => [value, value.replaceAll("_", " ")]);
  const choose = (label, key, options) =>
    make(
      "label",
      {},
      label,
      make(
        "select",
        { onchange: (event) => ((state[key] = event.target.value), refresh()) },
        make("option", { value: ANY }, "all"),
        options.map(([value, text]) => make("option", { value }, text)),
      ),
    );
  const heat = make("input", { type: "checkbox", onchange: () => detail.classList.toggle("heat", heat.checked) });
  if (new URLSearchParams(location.search).has("heat")) detail.classList.toggle("heat", (heat.checked = true));
  return make(
    "div",
    { class: "filters" },
    choose("When", "kind", [
      ["before", "before training"],
      ["after", "after training"],
      ["train", "during training"],
    ]),
    choose("Outcome", "outcome", [
      ["correct", "correct"],
      ["wrong", "wrong"],
      ["solved", "wrong before, correct after"],
      ["lost", "correct before, wrong after"],
    ]),
    choose(
      "Dataset",
      "dataset",
      all((entry) => entry.question.dataset),
    ),
    choose(
      "Stop",
      "stop",
      all((entry) => entry.items.map((item) => item.stop)),
    ),
    make(
      "label",
      { class: "grow" },
      "Text",
      make("input", {
        type: "search",
        placeholder: "question, answer or query",
        oninput: (event) => ((state.text = event.target.value), refresh()),
      }),
    ),
    make("label", { class: "check" }, heat, "shade by log-probability"),
  );
}

const verdict = (item) =>
  item.correct === null
    ? make("span", {}, "not scored")
    : item.correct
      ? make("span", { class: "good" }, "✓ correct")
      : make("span", { class: "bad" }, "✗ wrong");

function listItem(entry, onclick) {
  const [before, after] = ["before", "after"].map((phase) => entry.items.find((item) => item.phase === phase));
  const correct = entry.items.filter((item) => item.correct).length;
  const how =
    entry.kind === "train"
      ? [`step ${entry.items[0].step}: ${correct} of ${entry.items.length} correct`]
      : [before, after].filter(Boolean).flatMap((item, i) => [i ? " → " : "", verdict(item)]);
  const button = make(
    "button",
    { type: "button", onclick },
    make("span", { class: "what" }, entry.question.text),
    make("span", { class: "how" }, make("span", {}, how), make("span", {}, entry.question.dataset)),
  );
  button.entry = entry;
  return make("li", {}, button);
}

/** Heading, one chip a trajectory, and the chosen ones in columns: before and after, or the best and the worst rollout. */
function showEntry(entry, tokens) {
  const items = entry.items;
  const order = [...items].sort((a, b) => (b.advantage ?? b.reward ?? 0) - (a.advantage ?? a.reward ?? 0));
  const wanted =
    entry.kind === "train"
      ? [order[0], order.at(-1)]
      : [items.find((item) => item.phase === "before"), items.find((item) => item.phase === "after")];
  const chosen = new Set(wanted.filter(Boolean).length ? wanted.filter(Boolean) : items.slice(0, 1));
  const columns = make("div", { class: "columns" });
  const refresh = () =>
    columns.replaceChildren(...items.filter((item) => chosen.has(item)).map((item) => showItem(item, tokens)));
  const chip = (item, index) =>
    make(
      "button",
      {
        type: "button",
        "aria-pressed": String(chosen.has(item)),
        onclick: (event) => {
          chosen.has(item) ? chosen.delete(item) : chosen.add(item);
          event.currentTarget.setAttribute("aria-pressed", String(chosen.has(item)));
          refresh();
        },
      },
      entry.kind === "train" ? `rollout ${index + 1} ` : `${item.title} `,
      item.correct === null ? "" : item.correct ? "✓" : "✗",
      isNumber(item.advantage) ? ` ${signed(item.advantage)}` : "",
    );
  refresh();
  const question = entry.question;
  const answers = question.answers.flatMap((answer, index) => [index ? " or " : "", make("b", {}, answer)]);
  return [
    make("h3", {}, question.text),
    make("p", { class: "gold" }, "Gold answer: ", answers, ` · ${question.dataset} · ${question.id}`),
    items.length > 1
      ? make("div", { class: "chips", role: "group", "aria-label": "Trajectories shown" }, items.map(chip))
      : null,
    legendRow(),
    columns,
  ].filter(Boolean);
}

function legendRow() {
  const block = (name) =>
    make("span", {}, make("i", { class: `segment ${name}`, style: "margin:0" }), SOURCES[name].toLowerCase());
  return make(
    "div",
    { class: "key-row" },
    ["prompt", "policy", "environment"].map(block),
    make(
      "span",
      { class: "ramp-key" },
      "log-probability: certain",
      make("i", { class: "ramp" }),
      "surprising (5% or less)",
    ),
  );
}

const signed = (value) =>
  isNumber(value) ? `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(value).toFixed(2)}` : "–";

function showItem(item, tokens) {
  const number = (name, value, long) =>
    make("div", { class: long ? "long" : null }, make("dt", {}, name), make("dd", {}, value));
  const parts = Object.entries(item.components)
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${plain(value)}`)
    .join(", ");
  const total = (source) =>
    item.segments
      .filter((segment) => segment.source === source)
      .reduce((sum, segment) => sum + segment.tokens.length, 0);
  const searches = item.turns.filter((turn) => ["found", "empty"].includes(turn.search)).length;
  return make(
    "section",
    { class: "column" },
    make("h4", {}, item.title, verdict(item)),
    make(
      "dl",
      { class: "numbers" },
      number(
        "Answer",
        item.answer === null ? make("span", { class: "muted" }, "none") : make("strong", {}, item.answer),
        true,
      ),
      number("Stop", item.stop.replaceAll("_", " ")),
      number("Searches", plain(searches)),
      number("Reward", plain(item.reward)),
      isNumber(item.advantage) ? number("Advantage", signed(item.advantage)) : null,
      number("Tokens written", plain(total("policy"))),
      number("Retrieved", plain(total("environment"))),
      number("Weights", `version ${item.version}`),
      number("Seed", item.seed),
      parts ? number("Reward parts", parts, true) : null,
    ),
    item.segments.map((segment) => showSegment(segment, tokens)),
    turnTable(item.turns),
  );
}

function turnTable(turns) {
  if (!turns.length) return null;
  const clock = (value) => (value ? `${plain(value)} s` : null);
  const row = (turn, index) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, `${index + 1} ${turn.action}`),
      make(
        "td",
        {},
        turn.text,
        turn.search === "none" || turn.search === "found" ? null : make("small", {}, `search: ${turn.search}`),
        turn.truncated ? make("small", {}, "observation cut to its budget") : null,
        make(
          "ol",
          {},
          turn.passages.map((passage, i) =>
            make(
              "li",
              {},
              `${i + 1}. ${passage.title}`,
              isNumber(passage.score) ? ` (${passage.score.toFixed(2)})` : "",
            ),
          ),
        ),
      ),
      make(
        "td",
        {},
        `${turn.policy_tokens} + ${turn.environment_tokens}`,
        make("small", {}, turn.seconds.map(clock).filter(Boolean).join(" + ")),
      ),
    );
  return make(
    "table",
    { class: "turns" },
    make("caption", {}, "Turns: what was asked and found; tokens and seconds of policy + search"),
    make("tbody", {}, turns.map(row)),
  );
}
