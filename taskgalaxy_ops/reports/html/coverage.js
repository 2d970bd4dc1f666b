"use strict";
(() => {
  const data = JSON.parse(document.getElementById("coverage-data").textContent);
  const element = (id) => document.getElementById(id);
  const number = (value) => value.toLocaleString("en-US");
  const PAGE = 25;
  const FLOOD = data.flood;
  // Red to blue, which colour-blind people can tell apart; the ink is what can be read on each.
  const CLASSES = [
    { name: "no sample", colour: "#b2182b", ink: "#fff", of: (share) => share <= 0 },
    { name: "less than half of the target", colour: "#ef8a62", ink: "#1c1008", of: (share) => share < 0.5 },
    { name: "half of it or more", colour: "#fddbc7", ink: "#1c1008", of: (share) => share < 1 },
    { name: "the target is reached", colour: "#92c5de", ink: "#08141c", of: (share) => share <= FLOOD },
    { name: `floods: more than ${FLOOD} times the target`, colour: "#2166ac", ink: "#fff", of: () => true },
  ];
  const AREAS = { "task types": () => 1, "images near them": (i) => data.matched[i], samples: (i) => data.samples[i] };
  const classOf = (share) => CLASSES.find((each) => each.of(share));
  const shareOf = (i) => data.samples[i] / data.target[i];
  const several = (text, what) => `${text} ${what}${text === "1" ? "" : "s"}`;
  const shown = (path) => path.replaceAll("~", " › ");

  // ECharts empties its own box by innerHTML: that is all that this page lets through.
  if (window.trustedTypes) {
    trustedTypes.createPolicy("default", {
      createHTML: (text) => { if (text === "") return ""; throw new TypeError("no HTML is made here"); },
    });
  }

  function option(select, value, text) {
    const made = document.createElement("option");
    made.value = value;
    made.textContent = text;
    select.append(made);
  }

  // --- the tree

  function grown(area) {
    const root = { path: "", name: "all task types", children: new Map(), rows: [] };
    data.types.forEach((path, i) => {
      let node = root;
      const parts = path.split("~");
      node.rows.push(i);
      parts.forEach((name, depth) => {
        if (!node.children.has(name)) {
          node.children.set(name, { path: parts.slice(0, depth + 1).join("~"), name, children: new Map(), rows: [] });
        }
        node = node.children.get(name);
        node.rows.push(i);
      });
    });
    return [...root.children.values()].map((node) => tile(node, AREAS[area])).filter((each) => each.value > 0);
  }

  function tile(node, size) {
    const leaf = node.children.size === 0;
    // Of a branch: what its task types have of their targets, so that what floods does not hide what starves.
    let share = leaf ? shareOf(node.rows[0]) : 0;
    if (!leaf) {
      let had = 0, wanted = 0;
      for (const i of node.rows) { had += Math.min(data.samples[i], data.target[i]); wanted += data.target[i]; }
      share = had / wanted;
    }
    const of = classOf(share);
    const made = {
      id: node.path, name: node.name, path: node.path, rows: node.rows,
      value: node.rows.reduce((sum, i) => sum + size(i), 0),
      itemStyle: { color: of.colour },
      label: { color: of.ink },
      upperLabel: { color: of.ink, backgroundColor: of.colour },
    };
    if (!leaf) made.children = [...node.children.values()].map((each) => tile(each, size)).filter((each) => each.value > 0);
    return made;
  }

  function told(node) {
    const rows = node.rows;
    const sum = (name) => number(rows.reduce((all, i) => all + data[name][i], 0));
    const head = rows.length === 1 && data.types[rows[0]] === node.path
      ? [`${several(sum("samples"), "sample")}, target ${sum("target")}`, ...(data.why[rows[0]] ? [data.why[rows[0]]] : [])]
      : [`${several(number(rows.length), "task type")}, of which ${number(rows.filter((i) => shareOf(i) < 1).length)} starve`,
         several(sum("samples"), "sample")];
    return [shown(node.path), ...head, `${several(sum("pairs"), "pair")}; ${sum("kept")} of ${several(sum("matched"), "image")} near it fit`].join("\n");
  }

  const chart = echarts.init(element("chart"), null, { renderer: "canvas" });
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const few = data.types.length <= data.few;
  const DEEPEST = 4;  // all levels. Where this is not said, the trail begins with the tile in the middle

  function draw() {
    const [ink, paper, line, soft] = ["--ink", "--paper", "--line", "--soft"].map(css);
    const font = getComputedStyle(document.body).fontFamily;
    const upper = { show: true, height: 22, fontSize: 12, fontWeight: 600, padding: [0, 6], overflow: "truncate" };
    chart.setOption({
      textStyle: { fontFamily: font },
      tooltip: {
        renderMode: "richText", confine: true, backgroundColor: paper, borderColor: line, padding: 10,
        textStyle: { color: ink, fontSize: 12.5, lineHeight: 18, width: 420, overflow: "break", fontFamily: font },
        formatter: (asked) => asked.data && asked.data.path ? told(asked.data) : "",
      },
      series: [{
        type: "treemap", name: "all task types", roam: false, nodeClick: false, leafDepth: few ? DEEPEST : 2,
        drillDownIcon: "", left: 8, right: 8, top: 8, bottom: 44, visibleMin: 4, childrenVisibleMin: 4,
        animationDuration: 0, animationDurationUpdate: 250,
        label: { show: true, fontSize: 11, lineHeight: 13, overflow: "truncate", ellipsis: "…", position: [4, 4] },
        breadcrumb: {
          bottom: 8, left: 8, height: 26,
          itemStyle: { color: paper, borderColor: line, borderWidth: 1, shadowBlur: 0, textStyle: { color: ink } },
          emphasis: { itemStyle: { color: line, textStyle: { color: ink } } },
        },
        itemStyle: { borderColor: paper, gapWidth: 1 },
        levels: [
          { itemStyle: { borderWidth: 0, gapWidth: 5 }, upperLabel: { show: false } },
          { itemStyle: { borderWidth: 3, borderColor: soft, gapWidth: 1 }, upperLabel: upper },
          { itemStyle: { borderWidth: 1, borderColor: paper, gapWidth: 1 }, upperLabel: { ...upper, height: 18, fontSize: 11, fontWeight: 400 } },
          { itemStyle: { borderWidth: 1, borderColor: paper, gapWidth: 0 }, upperLabel: { ...upper, height: 16, fontSize: 10.5, fontWeight: 400 } },
          { itemStyle: { borderWidth: 0.5, borderColor: paper, gapWidth: 0 } },
        ],
        data: grown(element("area").value),
      }],
    }, true);
  }

  // --- the list

  const order = data.types.map((_, i) => i).sort((one, other) =>
    shareOf(one) - shareOf(other) || data.matched[one] - data.matched[other] || data.kept[one] - data.kept[other] || one - other);
  const SHOW = {
    "all": () => true, "starving": (i) => shareOf(i) < 1, "without a sample": (i) => !data.samples[i],
    "flooding": (i) => shareOf(i) > FLOOD,
  };
  let many = PAGE;
  let within = "";

  function list() {
    const words = element("q").value.toLowerCase().split(/\s+/).filter(Boolean);
    const shows = SHOW[element("show").value];
    const found = order.filter((i) => {
      const path = data.types[i];
      return (!within || path === within || path.startsWith(within + "~")) && shows(i)
        && words.every((word) => path.toLowerCase().includes(word));
    });
    element("count").textContent = several(number(found.length), "task type");
    element("rows").replaceChildren(...found.slice(0, many).map(row));
    element("more").hidden = found.length <= many;
  }

  function row(i) {
    const made = document.createElement("tr");
    const head = document.createElement("td");
    const state = document.createElement("span");
    const of = classOf(shareOf(i));
    state.className = "dot";
    state.style.background = of.colour;
    state.title = of.name;
    const parts = data.types[i].split("~");
    const above = document.createElement("span");
    above.className = "above";
    above.textContent = parts.length > 1 ? parts.slice(0, -1).join(" › ") + " › " : "";
    const name = document.createElement("bdi");
    name.textContent = parts.at(-1);
    const why = document.createElement("span");
    why.className = "why";
    why.textContent = data.why[i] ? ` (${data.why[i]})` : "";
    head.append(state, above, name, why);
    made.append(head, ...["samples", "target", "pairs", "kept", "matched"].map((field) => {
      const cell = document.createElement("td");
      cell.textContent = number(data[field][i]);
      return cell;
    }));
    return made;
  }

  function choose(path) {
    within = path;
    many = PAGE;
    const select = element("branch");
    if (![...select.options].some((each) => each.value === path)) option(select, path, shown(path));
    select.value = path;
    list();
  }

  // --- set up

  for (const name of Object.keys(AREAS)) option(element("area"), name, name);
  for (const name of Object.keys(SHOW)) option(element("show"), name, name);
  option(element("branch"), "", "all");
  const branches = new Set();
  for (const path of data.types) {
    const parts = path.split("~");
    if (parts.length > 1) branches.add(parts[0]);
    if (parts.length > 2) branches.add(parts.slice(0, 2).join("~"));
  }
  for (const path of [...branches].sort()) option(element("branch"), path, shown(path));
  for (const each of CLASSES) {
    const made = document.createElement("li");
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = each.colour;
    made.append(swatch, each.name);
    element("legend").append(made);
  }
  element("area").addEventListener("change", draw);
  element("branch").addEventListener("change", () => choose(element("branch").value));
  for (const id of ["q", "show"]) element(id).addEventListener("input", () => { many = PAGE; list(); });
  element("more").addEventListener("click", () => { many += 4 * PAGE; list(); });
  for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
  chart.on("click", (asked) => {
    const node = asked.data || asked.nodeData;  // of a tile, or of the trail below the chart
    const path = node && node.path ? node.path : "";
    if (asked.data && asked.data.children) chart.dispatchAction({ type: "treemapRootToNode", seriesIndex: 0, targetNodeId: path });
    choose(path);
  });
  addEventListener("resize", () => chart.resize());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
  list();
})();
