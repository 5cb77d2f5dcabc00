// Trajectories token by token: who wrote each, tags and what is inside them, log-probability, tooltip.

const TAGS = /<\/?(think|search|answer|information)>/g;
const SOURCES = { prompt: "Prompt", policy: "Written by the policy", environment: "Retrieved" };

function showSegment(segment, tokens) {
  const pairs = segment.tokens.map((index) => tokens[index]);
  const text = pairs.map((pair) => pair[1]).join("");
  const roles = rolesOf(text);
  const spans = [];
  let at = 0;
  pairs.forEach(([id, piece], index) => {
    const span = make("span", { class: "t" }, pieceParts(piece, roles, at, text));
    span.facts = { id, piece, logprob: segment.logprobs?.[index], source: segment.source };
    if (isNumber(segment.logprobs?.[index]))
      span.style.setProperty("--p", (0.6 * Math.min(1, -segment.logprobs[index] / 3)).toFixed(2));
    at += piece.length;
    spans.push(span);
  });
  return make(
    "details",
    { class: `segment ${segment.source}`, open: segment.source !== "prompt" || pairs.length < 12 },
    make(
      "summary",
      {},
      make("b", {}, SOURCES[segment.source] ?? segment.source),
      ` · ${pairs.length} token${pairs.length === 1 ? "" : "s"}`,
    ),
    make(
      "div",
      {
        class: "tokens",
        tabindex: 0,
        role: "group",
        "aria-label": `${SOURCES[segment.source]}; arrow keys go from token to token`,
      },
      spans,
    ),
  );
}

/** For every character of a segment the class it is shown with: a tag, or inside of think, search or answer. */
function rolesOf(text) {
  const roles = new Array(text.length).fill("");
  let inside = "",
    from = 0;
  const paintTo = (end) => inside && roles.fill(inside, from, end);
  for (const match of text.matchAll(TAGS)) {
    const end = match.index + match[0].length;
    paintTo(match.index);
    roles.fill(`tag ${match[1]}`, match.index, end);
    inside = match[0].startsWith("</") || match[1] === "information" ? "" : `in-${match[1]}`;
    from = end;
  }
  paintTo(text.length);
  return roles;
}

/** One token's text, cut where its role changes. */
function pieceParts(piece, roles, at, text) {
  if (piece === "") return [make("span", { class: "ghost" }, "·")]; // a part of the next token's character
  if (/^\n+$/.test(piece)) {
    const atAnEdge = !text.slice(0, at).trim() || !text.slice(at).trim(); // no empty lines at the edges of a block
    return [make("span", { class: "ghost" }, "↵".repeat(piece.length)), atAnEdge ? "" : "\n"];
  }
  const parts = [];
  for (let from = 0, to = 1; to <= piece.length; to++) {
    if (to < piece.length && roles[at + to] === roles[at + from]) continue;
    const role = roles[at + from],
      part = piece.slice(from, to);
    parts.push(role ? make("span", { class: role }, part) : part);
    from = to;
  }
  return parts;
}

/** The tooltip of tokens: pointer, tap, or arrow keys inside a segment. */
function followTokens(detail) {
  let current = null;
  const show = (token, x, y) => {
    current?.classList.remove("on");
    current = token;
    if (!token) return tip.hide();
    token.classList.add("on");
    const { id, piece, logprob, source } = token.facts;
    const chance =
      source !== "policy"
        ? "not sampled: no log-probability, not trained"
        : logprob === 0
          ? "log-probability 0 (greedy, or the only choice)"
          : `log-probability ${logprob?.toFixed(3) ?? "–"}\nprobability ${isNumber(logprob) ? percent(Math.exp(logprob)) : "–"}`;
    const box = token.getBoundingClientRect();
    tip.show(x ?? box.left, y ?? box.bottom, [
      make("strong", {}, piece === "" ? "part of the next character" : JSON.stringify(piece)),
      `token ${id}`,
      chance,
    ]);
  };
  const under = (event) => event.target.closest?.(".t") ?? null;
  detail.addEventListener("pointerover", (event) => show(under(event), event.clientX, event.clientY));
  detail.addEventListener("pointerdown", (event) => show(under(event), event.clientX, event.clientY));
  detail.addEventListener("pointerleave", () => show(null));
  detail.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key],
      box = event.target.closest?.(".tokens");
    if (!move || !box) return;
    const all = [...box.querySelectorAll(".t")];
    show(all[Math.max(0, Math.min(all.length - 1, all.indexOf(current) + move))] ?? null);
    event.preventDefault();
  });
}
