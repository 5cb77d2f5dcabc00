// Helpers shared by the other scripts. Text from the run is only ever set as text, never parsed as markup.

/** make("p", {class: "note", onclick: f}, "text", child) */
function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG elements. */
function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name === "style") element.style.cssText = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** A number as people write it: 0.0031, 0.72, 1.98, 209, 12,400. */
function plain(value) {
  if (!isNumber(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size === 0 || size >= 100) return String(Math.round(value));
  return String(Number(value.toPrecision(size >= 10 ? 3 : size >= 0.01 ? 2 + (size >= 1) : 2)));
}

const percent = (value) => (isNumber(value) ? `${(100 * value).toFixed(1)}%` : "–");
const seconds = (value) => (isNumber(value) ? `${plain(value)} s` : "–");

const tip = {
  /** Show lines (strings or elements) near a point of the window. */
  show(x, y, lines) {
    const box = document.getElementById("tip");
    box.replaceChildren(...lines.flatMap((line, index) => (index ? ["\n", line] : [line])));
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    const right = x + 16 + width > innerWidth - 8;
    box.style.left = `${Math.max(8, right ? x - 16 - width : x + 16)}px`;
    box.style.top = `${y + 18 + height > innerHeight - 8 ? Math.max(8, y - 14 - height) : y + 18}px`;
  },
  hide() {
    document.getElementById("tip").hidden = true;
  },
};

/** The button goes through: as the system, light, dark. `?theme=dark` in the address does the same. */
function themeButton() {
  const looks = { auto: ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };
  const names = Object.keys(looks);
  const button = document.getElementById("theme");
  const set = (name) => {
    document.documentElement.dataset.theme = name;
    button.textContent = looks[name][0];
    button.title = `Colours: ${looks[name][1]}`;
    button.setAttribute("aria-label", button.title);
  };
  const asked = new URLSearchParams(location.search).get("theme");
  set(names.includes(asked) ? asked : "auto");
  button.addEventListener("click", () => {
    set(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]);
  });
}

function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  themeButton();
  drawCharts(document.getElementById("charts"), data);
  if (data.trajectories.entries.length) openBrowser(document.getElementById("browser"), data.trajectories);
  addEventListener("scroll", tip.hide, { passive: true });
  addEventListener("keydown", (event) => event.key === "Escape" && tip.hide());
}
