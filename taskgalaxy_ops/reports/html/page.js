"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const items = JSON.parse(byId("items-data").textContent);
  const BATCH = 36; // cards appended at a time
  const number = (n) => n.toLocaleString("en");

  let pictures = null; // base64 by image id; parsed when the first card needs one
  const picture = (id) => {
    pictures ??= new Map(Object.entries(JSON.parse(byId("images-data").textContent)));
    return pictures.get(id);
  };

  /** An element; children are elements or text, never markup. */
  const make = (tag, className, ...children) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children);
    return element;
  };

  // Characters that hide, or that turn the reading direction of what follows, are shown by name.
  const HIDDEN = /([\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u202a-\u202e\u2060-\u2069\ufeff])/u;
  const written = (tag, className, text) => {
    const element = make(tag, className);
    element.dir = "auto";
    for (const part of text.split(HIDDEN)) {
      if (!part) continue;
      const code = HIDDEN.test(part) && part.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      element.append(code ? make("span", "hidden-char", `U+${code}`) : part);
    }
    return element;
  };

  // Filters: one state, kept in the page's address, so that a view can be passed on and Back works.

  const disagree = (item) => new Set(item.votes.map((vote) => vote[1]).filter((vote) => vote !== null)).size > 1;
  const VOTES = {
    disagree: ["disagree", disagree],
    agree: ["all agree", (item) => item.votes.some((vote) => vote[1] !== null) && !disagree(item)],
    abstained: ["one abstained", (item) => item.votes.some((vote) => vote[1] === null)],
  };
  const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);
  const TESTS = {
    outcome: (item, value) => item.outcome === value,
    stage: (item, value) => item.stage === value,
    reason: (item, value) => item.reason === value,
    type: (item, value) => item.type === value || item.type.startsWith(`${value}~`),
    source: (item, value) => item.sources.includes(value),
    variant: (item, value) => item.variant === value,
    votes: (item, value) => VOTES[value]?.[1](item) ?? false,
    image: (item, value) => item.images.some((image) => image.startsWith(value)),
    q: (item, value) => words(value).every((word) => item.text.includes(word)),
  };
  const ORDERS = { image: (item) => item.image ?? "", type: (item) => item.type };
  const KEYS = [...Object.keys(TESTS), "sort"];

  items.forEach((item, place) => {
    item.place = place;
    item.text = [item.type, item.question, item.answer, item.reasoning, ...item.turns.flat(), item.stage, item.reason,
      item.detail, item.pair, ...item.images, item.variant, item.licence, item.attribution, ...item.sources,
      ...item.votes.flatMap((vote) => [vote[0], vote[2]])].join("\n").toLowerCase();
  });

  let state = {};
  const read = (hash) => {
    const given = new URLSearchParams(hash.replace(/^#/, ""));
    return Object.fromEntries(KEYS.filter((key) => given.get(key)).map((key) => [key, given.get(key)]));
  };
  const passing = (without = []) =>
    items.filter((item) =>
      Object.entries(state).every(([key, value]) => without.includes(key) || !TESTS[key] || TESTS[key](item, value)));

  /** Changes the state; an empty value takes a key out. */
  const change = (changes, { replace = false } = {}) => {
    const next = { ...state, ...changes };
    state = Object.fromEntries(KEYS.filter((key) => next[key]).map((key) => [key, next[key]]));
    const hash = `#${new URLSearchParams(state)}`;
    try {
      history[replace ? "replaceState" : "pushState"](null, "", hash);
    } catch {
      // A sandboxed frame may not write its address; the filters work all the same.
    }
    show();
  };

  const tally = (found, values) => {
    const counts = new Map();
    for (const item of found) for (const value of values(item)) counts.set(value, (counts.get(value) ?? 0) + 1);
    return counts;
  };

  /** Fills a select with every value there is and how many items each would show; marks the chosen one. */
  const fill = (id, { keys, values, chosen, name = (value) => value, every = "all" }) => {
    const counts = tally(passing(keys), values);
    const all = [...new Set([...tally(items, values).keys(), ...(chosen ? [chosen] : [])])].sort();
    const options = [new Option(every, "", false, !chosen)];
    for (const value of all) {
      const shown = values.partial && value === chosen ? "" : ` (${number(counts.get(value) ?? 0)})`;
      options.push(new Option(name(value) + shown, value, false, value === chosen));
    }
    byId(id).replaceChildren(...options);
    byId(id).closest("label").hidden = all.length < 1 || (id === "variant" && all.length < 2);
    byId(id).classList.toggle("set", Boolean(chosen));
  };

  const rejectValue = (stage, reason) => String(new URLSearchParams(reason ? { stage, reason } : { stage }));
  const pathName = (path) => path.split("~").join(" › ");
  const variantName = (variant) => variant.replaceAll("_", " ");

  const outcomes = () => {
    const counts = tally(passing(["outcome"]), (item) => [item.outcome, ""]);
    const focused = document.activeElement?.name === "outcome";
    byId("outcomes").replaceChildren(byId("outcomes").firstElementChild,
      ...[["", "All"], ["sample", "Samples"], ["reject", "Rejects"]].map(([value, label]) => {
        const input = make("input");
        Object.assign(input, { type: "radio", name: "outcome", value, checked: (state.outcome ?? "") === value });
        return make("label", "", input, make("span", "", `${label} `, make("b", "", number(counts.get(value) ?? 0))));
      }));
    if (focused) byId("outcomes").querySelector(":checked")?.focus();
  };

  const controls = () => {
    outcomes();
    fill("reject", {
      keys: ["stage", "reason"],
      values: (item) => (item.stage ? [rejectValue(item.stage), rejectValue(item.stage, item.reason)] : []),
      chosen: state.stage ? rejectValue(state.stage, state.reason) : "",
      name: (value) => {
        const { stage, reason } = Object.fromEntries(new URLSearchParams(value));
        return reason ? `\u2003${reason}` : stage;
      },
      every: "any stage",
    });
    fill("type", {
      keys: ["type"],
      values: (item) => {
        const root = item.type.split("~")[0];
        const within = state.type?.includes("~") && TESTS.type(item, state.type) ? [state.type] : [];
        return item.type ? [...new Set([root, ...within])] : [];
      },
      chosen: state.type,
      name: pathName,
    });
    fill("source", { keys: ["source"], values: (item) => [...new Set(item.sources)], chosen: state.source });
    fill("variant", {
      keys: ["variant"], values: (item) => (item.variant ? [item.variant] : []), chosen: state.variant,
      name: variantName,
    });
    fill("votes", {
      keys: ["votes"], values: (item) => Object.keys(VOTES).filter((key) => VOTES[key][1](item)), chosen: state.votes,
      name: (value) => VOTES[value]?.[0] ?? value, every: "any votes",
    });
    byId("sort").replaceChildren(...[["", "mixed"], ["image", "by image"], ["type", "by task type"]].map(
      ([value, label]) => new Option(label, value, false, (state.sort ?? "") === value)));
    if (byId("q").value.trim() !== (state.q ?? "")) byId("q").value = state.q ?? "";
  };

  const chip = (label, changes) => {
    const button = written("button", "chip", `✕ ${label}`);
    button.type = "button";
    button.setAttribute("aria-label", `Remove the filter ${label}`);
    button.addEventListener("click", () => change(changes));
    return button;
  };
  const chips = () => {
    const drawn = [];
    if (state.type?.includes("~")) drawn.push(chip(pathName(state.type), { type: "" }));
    if (state.image) drawn.push(chip(`image ${state.image.slice(0, 10)}`, { image: "" }));
    const set = Object.keys(state).filter((key) => key !== "sort");
    if (set.length) drawn.push(chip("Clear all", Object.fromEntries(set.map((key) => [key, ""]))));
    byId("chips").replaceChildren(...drawn);
  };

  // Cards.

  const link = (className, changes, ...children) => {
    const anchor = make("a", className, ...children);
    anchor.href = `#${new URLSearchParams(changes)}`;
    return anchor;
  };

  const MARKS = { 1: ["yes", "✓", "approves"], 0: ["no", "✕", "rejects"], null: ["abstained", "–", "abstains"] };
  const ballot = ([judge, vote, reason, audit]) => {
    const [className, mark, spoken] = MARKS[vote];
    const sign = make("span", "mark", mark);
    sign.setAttribute("role", "img");
    sign.setAttribute("aria-label", spoken);
    const said = make("span", "said", written("b", "", judge));
    if (audit) {
      const tag = make("span", "audit", "audit");
      tag.title = "Asked for statistics alone; it did not change the verdict";
      said.append(" ", tag);
    }
    if (reason) said.append(" ", written("bdi", "", reason));
    return make("li", className, sign, make("span", "clamp two", said));
  };

  const labelled = (label, className, text) =>
    make("div", `line ${className}`, make("span", "label", label), written("p", "clamp", text));

  const face = (id) => {
    const base64 = id && picture(id);
    if (!base64) return make("div", "face missing", id ? "The image is gone" : "No image");
    const image = make("img");
    image.alt = `Image ${id.slice(0, 10)}`;
    image.decoding = "async";
    image.src = `data:image/jpeg;base64,${base64}`;
    const anchor = link("face", { image: id }, image);
    anchor.title = "Show only this image's items";
    return anchor;
  };

  /** The pictures of an item, in the order of its question. */
  const faces = (item) => (item.images.length > 1 ? make("div", "faces", ...item.images.map(face)) : face(item.image));

  const crumbs = (path) => {
    const line = make("p", "path clamp");
    const parts = path.split("~");
    parts.forEach((part, level) => {
      if (level) line.append(make("span", "sep", " › "));
      const anchor = link("", { type: parts.slice(0, level + 1).join("~") }, written("bdi", "", part));
      line.append(anchor);
    });
    return line;
  };

  const card = (item) => {
    const body = make("div", "body");
    const badge = item.stage ? `✕ ${item.stage}: ${item.reason}` : "✓ Sample";
    body.append(make("p", "outcome", written("span", "badge clamp two", badge),
      written("span", "variant clamp two", variantName(item.variant))));
    if (item.type) body.append(crumbs(item.type));
    if (item.question) body.append(labelled("Q", "question", item.question));
    if (item.answer) body.append(labelled("A", "answer", item.answer));
    if (item.reasoning) {
      body.append(make("details", "", make("summary", "", "Reasoning"), written("p", "", item.reasoning)));
    }
    item.turns.forEach(([question, answer]) => {
      body.append(labelled("Q", "question", question), labelled("A", "answer", answer));
    });
    // A verdict's detail only repeats the votes.
    if (item.detail && !(item.stage === "vote" && item.votes.length)) body.append(labelled("Why", "why", item.detail));
    if (item.votes.length) body.append(make("ul", "votes", ...item.votes.map(ballot)));
    const foot = [item.sources.join(", "), item.licence, item.attribution].filter(Boolean).join(" · ");
    const id = make("span", "id", (item.pair || item.image || "").slice(0, 10));
    id.title = [item.pair && `pair ${item.pair}`, ...item.images.map((image) => `image ${image}`)]
      .filter(Boolean).join("\n");
    body.append(make("p", "foot", written("span", "clamp two", foot), id));
    return make("li", `card ${item.outcome}`, faces(item), body);
  };

  /** Gives a card whose text does not fit a button that opens it. */
  const openable = (element) => {
    if (![...element.querySelectorAll(".clamp")].some((text) => text.scrollHeight > text.clientHeight + 1)) return;
    const button = make("button", "open-card", "Show all");
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    button.addEventListener("click", () => {
      const open = element.classList.toggle("open");
      button.textContent = open ? "Show less" : "Show all";
      button.setAttribute("aria-expanded", String(open));
    });
    element.querySelector(".foot").before(button);
  };

  let shown = [];
  let drawn = 0;
  const more = (most = BATCH) => {
    const cards = shown.slice(drawn, drawn + most).map(card);
    byId("cards").append(...cards);
    cards.forEach(openable);
    drawn += cards.length;
    byId("more").hidden = drawn >= shown.length;
  };

  const show = () => {
    shown = passing();
    const key = ORDERS[state.sort];
    if (key) shown.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : a.place - b.place));
    controls();
    chips();
    byId("count").textContent = `${number(shown.length)} of ${number(items.length)} match`;
    byId("none").hidden = shown.length > 0;
    byId("cards").replaceChildren();
    drawn = 0;
    more();
    watch();
    for (const anchor of document.querySelectorAll("svg a")) {
      const wanted = Object.entries(read(anchor.getAttribute("href")));
      anchor.classList.toggle("chosen", wanted.every(([name, value]) => state[name] === value));
    }
  };

  // Cards are made as they come near. The watcher is set anew each time, since it only tells of changes.
  const watcher = new IntersectionObserver((seen) => {
    if (!seen.some((entry) => entry.isIntersecting) || drawn >= shown.length) return;
    more();
    watch();
  }, { rootMargin: "1500px" });
  const watch = () => {
    watcher.disconnect();
    if (drawn < shown.length) watcher.observe(byId("more"));
  };

  // What people do.

  const form = byId("filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", ({ target }) => {
    if (target.id === "q") return;
    if (target.id === "reject") {
      const picked = new URLSearchParams(target.value);
      change({ stage: picked.get("stage"), reason: picked.get("reason") });
    } else {
      change({ [target.name || target.id]: target.value });
    }
  });
  let typing;
  byId("q").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => change({ q: byId("q").value.trim() }, { replace: true }), 150);
  });
  byId("more").addEventListener("click", () => more());
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input, select, textarea")) return;
    event.preventDefault();
    byId("q").focus();
  });
  document.addEventListener("click", (event) => {
    const anchor = event.target.closest('a[href^="#"]');
    if (!anchor || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const wanted = read(anchor.getAttribute("href"));
    const again = Object.entries(wanted).every(([key, value]) => state[key] === value);
    change(again ? Object.fromEntries(Object.keys(wanted).map((key) => [key, ""])) : wanted);
    byId("gallery").scrollIntoView();
  });
  const idle = byId("readout").textContent;
  const tell = (event) => {
    const anchor = event.target.closest?.(".treemap a");
    byId("readout").textContent = anchor ? anchor.getAttribute("aria-label") : idle;
  };
  document.addEventListener("pointerover", tell);
  document.addEventListener("focusin", tell);
  window.addEventListener("popstate", () => {
    state = read(location.hash);
    show();
  });
  window.addEventListener("beforeprint", () => {
    more(shown.length);
    for (const details of document.querySelectorAll("details")) details.open = true;
  });

  state = read(location.hash);
  show();
  if (Object.keys(state).length) byId("gallery").scrollIntoView();
})();
