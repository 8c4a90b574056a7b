// Axes and colours of the charts, as SVG.

const COLOURS = 10;
const stroke = (i) => `var(--c${i % COLOURS})`;
const dashes = (i) => ["", "5 3", "2 2", "8 3 2 3"][Math.floor(i / COLOURS) % 4] || null;

// Four to eight round numbers from low to high; on a logarithmic axis, in ratios of 2, 5 or 10.
function ticks(low, high, log) {
  if (log && high / low >= 10) {
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
      for (const m of Math.log10(high / low) < 2 ? [1, 2, 5] : [1]) found.push(m * 10 ** e);
    const inside = found.filter((value) => value >= low * 0.999 && value <= high * 1.001);
    const every = Math.ceil(inside.length / 8);
    return inside.length >= 2 ? inside.filter((value, i) => i % every === 0) : [low, high];
  }
  const raw = (high - low) / 5,
    power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((candidate) => candidate >= raw);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
  return found;
}

function tickText(value) {
  if (!isNumber(value)) return String(value);
  const size = Math.abs(value);
  if (size >= 1e4)
    return scaled(value)
      .replace(/(\.\d*?)0+(?= |$)/, "$1")
      .replace(/\.(?= |$)/, "");
  if (size !== 0 && size < 1e-3) return value.toExponential(0);
  return String(Number(value.toPrecision(6)));
}

// [low, high] of the values, never empty, with a margin.
function extent(values, log) {
  let low = Infinity,
    high = -Infinity;
  for (const value of values)
    if (!log || value > 0) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  if (!(low <= high)) return [log ? 1 : 0, log ? 10 : 1];
  if (low === high)
    return log ? [low / 2, high * 2] : [low - (Math.abs(low) / 10 || 1), high + (Math.abs(high) / 10 || 1)];
  if (log) {
    const margin = (high / low) ** 0.04;
    return [low / margin, high * margin];
  }
  const margin = (high - low) * 0.04;
  return [low - margin, high + margin];
}

function scale([low, high], from, to, log) {
  const f = log ? Math.log10 : (value) => value;
  return (value) => from + ((f(value) - f(low)) / (f(high) - f(low))) * (to - from);
}

// An SVG with both axes drawn: what is plotted goes between `axes.x` and `axes.y`.
function frame(place, { x, y, label }) {
  const width = Math.max(280, place.clientWidth || 640),
    height = Math.min(380, Math.max(240, width * 0.5));
  const left = 56,
    right = width - 10,
    top = 12,
    bottom = height - 40;
  const axes = { x: scale(x.domain, left, right, x.log), y: scale(y.domain, bottom, top, y.log) };
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
  for (const value of ticks(...y.domain, y.log)) {
    svg.append(s("line", { class: "grid", x1: left, x2: right, y1: axes.y(value), y2: axes.y(value) }));
    svg.append(s("text", { class: "tick", x: left - 6, y: axes.y(value) + 4, "text-anchor": "end" }, tickText(value)));
  }
  const across = ticks(...x.domain, x.log),
    every = Math.ceil((across.length * 56) / (right - left));
  across
    .filter((value, i) => i % every === 0)
    .forEach((value) => {
      svg.append(s("line", { class: "grid", x1: axes.x(value), x2: axes.x(value), y1: top, y2: bottom }));
      svg.append(
        s("text", { class: "tick", x: axes.x(value), y: bottom + 16, "text-anchor": "middle" }, tickText(value)),
      );
    });
  svg.append(s("text", { class: "label", x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, x.label));
  svg.append(
    s(
      "text",
      { class: "label", x: -(top + bottom) / 2, y: 13, transform: "rotate(-90)", "text-anchor": "middle" },
      y.label,
    ),
  );
  place.replaceChildren(svg);
  return { svg, axes };
}
