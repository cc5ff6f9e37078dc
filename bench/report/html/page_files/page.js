"use strict";
// Sorting, filtering, printing and charts. Without it the page still shows every number.
(() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const announce = (text) => { document.getElementById("announce").textContent = text; };

  // --- sorting -------------------------------------------------------------------------------------------------
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  function sort(table, th) {
    const direction = th.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    const sign = direction === "ascending" ? 1 : -1;
    const place = th.cellIndex;
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => [row.cells[place].dataset.v, row]);
    const numeric = keyed.every(([key]) => key === "" || Number.isFinite(Number(key)));
    const compare = numeric ? (one, two) => Number(one) - Number(two) : collator.compare;
    // What is not known comes last either way.
    keyed.sort(([one], [two]) => (one === "") - (two === "") || (one === "" ? 0 : sign * compare(one, two)));
    body.append(...keyed.map(([, row]) => row));
    for (const other of table.tHead.rows[0].cells) {
      other.setAttribute("aria-sort", other === th ? direction : "none");
      other.querySelector(".arrow").textContent = other !== th ? "" : sign > 0 ? "↑" : "↓";
    }
    announce(`sorted by ${th.dataset.name}, ${direction}`);
  }

  for (const table of all("table.sortable")) {
    for (const th of table.tHead.rows[0].cells) {
      th.dataset.name = th.firstChild.textContent.trim();
      const button = document.createElement("button");
      const arrow = document.createElement("span");
      button.type = "button";
      arrow.className = "arrow";
      arrow.setAttribute("aria-hidden", "true");
      const [label, ...below] = th.childNodes;
      button.append(label, arrow, ...below);
      th.append(button);
      th.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sort(table, th));
    }
  }

  // --- filtering -----------------------------------------------------------------------------------------------
  const form = document.querySelector(".filter");
  if (form) {
    const [text, scenario, status] = ["text", "scenario", "status"].map((name) => document.getElementById(`filter-${name}`));
    const count = document.getElementById("filter-count");
    const said = new Map();
    const rows = all(".rows tbody tr");
    for (const row of rows) {
      const { case: id, scenario: name, status: state } = row.dataset;
      said.set(id, `${row.textContent} ${id} ${name} ${state}`.toLowerCase());
    }
    const proofs = all(".proof");

    const filter = () => {
      const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
      const keep = ({ dataset }) => (!scenario.value || dataset.scenario === scenario.value)
        && (!status.value || dataset.status === status.value)
        && words.every((word) => (said.get(dataset.case) || "").includes(word));
      for (const item of [...rows, ...proofs]) item.hidden = !keep(item);
      for (const section of all(".rows")) section.hidden = !section.querySelector("tbody tr:not([hidden])");
      const shown = rows.filter((row) => !row.hidden).length;
      count.textContent = `${shown} of ${rows.length} Cases`;
    };
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(filter));
    form.hidden = false;
    filter();
  }

  // --- a row's proof -------------------------------------------------------------------------------------------
  const openTarget = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) {
      target.open = true;
      target.scrollIntoView();
      target.querySelector("summary").focus({ preventScroll: true });
    }
  };
  addEventListener("hashchange", openTarget);

  // --- charts --------------------------------------------------------------------------------------------------
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const print = matchMedia("print");
  const specs = JSON.parse(document.getElementById("chart-specs").textContent);
  const drawn = new Map();
  let printing = false;

  function specification(plot, night) {
    const { spec, dark: changed } = specs[plot.dataset.chart];
    const whole = structuredClone({ ...spec, ...(night ? changed : {}) });
    // As many entries of the legend beside each other as there is room for: 30 px for the symbol, 6 px a letter.
    const letters = whole.usermeta?.legend_characters ?? 0;
    if (letters && whole.config?.legend) {
      whole.config.legend.columns = Math.max(1, Math.floor((plot.clientWidth - 60) / (30 + 6 * letters)));
    }
    return whole;
  }

  async function draw(plot) {
    const night = dark.matches && !printing && !print.matches;
    const mode = night ? "dark" : "light";
    if (plot.dataset.mode === mode) return;
    plot.dataset.mode = mode;
    drawn.get(plot)?.finalize();
    try {
      // "ast": expressions are interpreted, so that the page can forbid eval.
      drawn.set(plot, await vegaEmbed(plot.firstElementChild, specification(plot, night), {
        actions: false, ast: true, renderer: "svg", mode: "vega-lite", tooltip: { theme: mode },
      }));
      plot.dataset.drawn = "";
    } catch (error) {
      plot.textContent = `This chart could not be drawn (${error.message}); its data stand below.`;
      console.error(error);
    }
  }

  const plots = all(".plot");
  const redraw = () => Promise.all(plots.filter((plot) => "mode" in plot.dataset).map(draw));
  const drawAll = () => Promise.all(plots.map(draw));

  // --- printing ------------------------------------------------------------------------------------------------
  let opened = [];
  function startPrint() {
    printing = true;
    opened.push(...all('details:not([open]):not([data-print="closed"])'));
    for (const details of opened) details.open = true;
    drawAll();
  }
  function endPrint() {
    printing = false;
    for (const details of opened) details.open = false;
    opened = [];
    redraw();
  }

  document.addEventListener("DOMContentLoaded", () => {
    openTarget();
    addEventListener("beforeprint", startPrint);
    addEventListener("afterprint", endPrint);
    print.addEventListener("change", ({ matches }) => (matches ? startPrint() : endPrint()));
    dark.addEventListener("change", redraw);
    // Those in sight first; the others when the reader comes near, so that the page opens at once.
    const near = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (isIntersecting) {
          near.unobserve(target);
          draw(target);
        }
      }
    }, { rootMargin: "800px" });
    plots.forEach((plot) => near.observe(plot));
  });
})();
