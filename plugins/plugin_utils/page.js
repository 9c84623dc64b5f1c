// Copyright: the fleet.microcode authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// The table of all hosts: searched, sorted, filled with a page of rows at a time. Values stand in the data in the order in which they sort.
"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const data = JSON.parse(at("data").textContent);
  const step = 100;
  const view = {words: "", pick: null, label: "", key: "kind", down: false, limit: step, found: [], open: new Set()};
  let texts = null;

  function figure(number) {
    return number.toLocaleString("en");
  }

  function value(key, host) {
    return key === "name" ? data.names[host] : data.values[key][data.of[key][host]];
  }

  function said(each) { // the texts of a value; of several they are numbers
    return Array.isArray(each) ? each.map((number) => data.texts[number]) : [each];
  }

  function haystack() { // made at the first search: one text for each host
    const lower = Object.entries(data.values).map(([key, values]) => [data.of[key],
      values.map((each) => (key === "kind" ? data.kinds[each] : said(each).join("\n")).toLowerCase())]);
    return data.names.map((name, host) => name.toLowerCase() + "\n" + lower.map(([of, all]) => all[of[host]]).join("\n"));
  }

  function find() {
    const words = view.words.toLowerCase().split(/\s+/).filter(Boolean);
    texts = words.length && !texts ? haystack() : texts;
    const column = data.of[view.key];
    const sign = view.down ? -1 : 1;
    view.found = [...data.names.keys()].filter((host) => (!view.pick || view.pick(host)) && words.every((word) => texts[host].includes(word)));
    view.found.sort((one, other) => sign * (column ? column[one] - column[other] : one - other) || one - other);
    view.limit = step;
    show();
  }

  function make(tag, content, attributes) {
    const made = document.createElement(tag);
    made.append(...[].concat(content));
    Object.entries(attributes || {}).forEach(([key, text]) => made.setAttribute(key, text));
    return made;
  }

  function sign(kind) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    use.setAttribute("href", "#i-" + kind);
    svg.setAttribute("class", "i " + kind);
    svg.setAttribute("aria-hidden", "true");
    svg.append(use);
    return svg;
  }

  function code(text) {
    return text.startsWith("0x") ? make("code", text) : make("span", text || "\u2013", {class: "word"});
  }

  function cell([key, head], host) {
    const text = value(key, host);
    if (key === "name") {
      const look = text.length < 33 ? "short" : "long";
      return make("th", make("button", text, {type: "button", class: look, "data-host": host, "aria-expanded": view.open.has(host)}), {scope: "row"});
    }
    if (key === "kind") {
      return make("td", [sign(text), data.kinds[text]]);
    }
    if (key === "cpu") {
      const signature = value("signature", host);
      return make("td", signature.startsWith("0x") ? [text, " ", make("small", code(signature))] : code(text));
    }
    return make("td", data.revisions.includes(key) ? code(text) : text || "\u2013", head ? {"data-head": head.toLowerCase()} : {});
  }

  function details(host) {
    const list = make("dl", []);
    data.details.forEach(([key, label]) => {
      const all = said(value(key, host)).filter(Boolean);
      if (all.length) {
        list.append(make("dt", label), make("dd", all.map((text) => make("div", text))));
      }
    });
    return make("tr", make("td", list, {colspan: data.columns.length}), {class: "details"});
  }

  function show() {
    const rows = at("rows");
    rows.replaceChildren();
    view.found.slice(0, view.limit).forEach((host) => {
      rows.append(make("tr", data.columns.map((column) => cell(column, host))));
      if (view.open.has(host)) {
        rows.append(details(host));
      }
    });
    const left = view.found.length - view.limit;
    at("more").hidden = left <= 0;
    at("more").textContent = "Show " + figure(Math.min(left, step)) + " more of " + figure(left);
    const all = data.names.length;
    at("count").textContent = (view.found.length === all ? "" : figure(view.found.length) + " of ") + figure(all) + (all === 1 ? " host" : " hosts");
    at("picked").hidden = !view.label;
    at("picked").textContent = view.label;
    at("picked").setAttribute("aria-label", view.label + ", remove this filter");
    document.querySelectorAll(".hosts thead button").forEach((button) => {
      const sorted = button.dataset.key === view.key;
      button.parentNode.setAttribute("aria-sort", !sorted ? "none" : view.down ? "descending" : "ascending");
    });
  }

  function pick(wanted, label) { // wanted: "column:value,value column:value"
    const columns = wanted.split(" ").filter(Boolean).map((each) => each.split(":"))
      .map(([key, values]) => [data.of[key], new Set(values.split(",").map(Number))]);
    view.pick = columns.length ? (host) => columns.every(([of, values]) => values.has(of[host])) : null;
    at("kind").value = wanted;
    const listed = at("kind").selectedIndex >= 0;
    at("kind").value = listed ? wanted : "";
    view.label = listed ? "" : label;
  }

  function jump() {
    at("words").value = view.words = "";
    find();
    at("hosts").scrollIntoView();
    at("h-hosts").focus({preventScroll: true});
  }

  document.addEventListener("click", (event) => {
    const target = event.target.closest("a[data-pick], a[data-these], button");
    if (!target) {
      return;
    }
    if (target.dataset.pick !== undefined) {
      event.preventDefault();
      pick(target.dataset.pick, target.dataset.label);
      jump();
    } else if (target.dataset.these !== undefined) {
      event.preventDefault();
      const names = new Set([...target.closest("tbody, .said > li").querySelectorAll(".n li")].map((each) => each.textContent));
      pick("", "");
      view.pick = (host) => names.has(data.names[host]);
      view.label = "same reason";
      jump();
    } else if (target.dataset.key) {
      view.down = view.key === target.dataset.key && !view.down;
      view.key = target.dataset.key;
      find();
    } else if (target.dataset.host) {
      const host = Number(target.dataset.host);
      const row = target.closest("tr");
      if (view.open.delete(host)) {
        row.nextSibling.remove();
      } else {
        view.open.add(host);
        row.after(details(host));
      }
      target.setAttribute("aria-expanded", view.open.has(host));
    } else if (target.id === "more") {
      view.limit += step;
      show();
    } else if (target.id === "picked") {
      pick("", "");
      find();
      at("words").focus();
    }
  });
  at("words").addEventListener("input", () => {
    view.words = at("words").value;
    find();
  });
  at("kind").addEventListener("change", () => {
    pick(at("kind").value, "");
    find();
  });
  document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());

  document.documentElement.classList.add("js");
  at("live").hidden = false;
  find();
})();
