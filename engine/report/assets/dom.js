"use strict";

// Elements and numbers. Text only ever enters the page as text: there is no innerHTML here.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => h("option", { value }, text)));
  if (entries.some(([value]) => String(value) === String(chosen))) select.value = chosen;
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

// Four significant digits; very large and very small ones in powers of ten.
function format(value) {
  if (!isNumber(value)) return value === null || value === undefined ? "" : String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(2);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return size >= 1000 ? Math.round(value).toLocaleString("en") : value.toPrecision(4);
}

// 4656 -> 4.66 k, 841568 -> 842 k
function scaled(value) {
  if (!isNumber(value)) return "";
  const units = [
    [1e15, " P"],
    [1e12, " T"],
    [1e9, " G"],
    [1e6, " M"],
    [1e3, " k"],
  ];
  const [size, unit] = units.find(([size]) => value >= size) || [1, ""];
  return (size === 1 ? String(value) : (value / size).toPrecision(3)) + unit;
}

const percent = (value) => (isNumber(value) ? `${value > 0 ? "+" : ""}${value.toFixed(1)} %` : "");

// Numbers by size, texts by their letters with numbers inside them by size; what is missing comes last either way.
function compare(a, b, descending) {
  const none = (value) => value === null || value === undefined || value === "";
  if (none(a) || none(b)) return none(a) - none(b);
  const order = isNumber(a) && isNumber(b) ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return descending ? -order : order;
}

// The order of first appearance, without repetition.
const unique = (values) => [...new Set(values)];

// The settings of a run that vary in its task: ["data.horizon=96", "model.depth=2"].
function settings(keys, run) {
  return keys
    .map((key, i) => [key, run.values[i]])
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([key, value]) => `${key}=${value}`);
}

const setUp = (task, run) => settings(task.keys, run).join(" ");

// The same to look at: without what goes before the last dot, unless two keys would then look alike.
function setUpCell(task, run) {
  const last = task.keys.map((key) => key.split(".").pop());
  const keys = task.keys.map((key, i) => (last.filter((name) => name === last[i]).length > 1 ? key : last[i]));
  const shown = { values: run.values.map((value) => (isNumber(value) ? Number(value.toPrecision(4)) : value)) };
  return h("code", { title: setUp(task, run) }, ...settings(keys, shown).flatMap((text) => [h("span", {}, text), " "]));
}

const shortName = (run) => run.name.split("/").pop();
