// The console's own script. A page works without it; with it the page stays current, and can be used by
// keyboard. It evaluates no text, and asks no other server.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const csrf = document.body.dataset.csrf || "";
  document.documentElement.classList.add("script");

  // ---- what has changed is put in place, without losing focus, selection or scroll
  const fragment = (html) => new DOMParser().parseFromString(html, "text/html").body;
  const morph = (node, html, inner) => {
    const next = fragment(html);
    Idiomorph.morph(node, inner ? next.childNodes : next.firstElementChild, {
      morphStyle: inner ? "innerHTML" : "outerHTML",
      ignoreActiveValue: true,
      callbacks: {
        // What a person has opened or is writing in stays so.
        beforeAttributeUpdated: (name, el) => !(name === "open" && el.tagName === "DETAILS") && !(name === "class" && el.classList.contains("here")) && !(name === "checked" && el.matches("[data-keep]")),
        beforeNodeMorphed: (old) => !(old.matches && old.matches("form[data-preview], pre[data-logs]")),
      },
    });
  };

  // ---- how long ago
  const span = (s) => (s < 60 ? `${Math.max(0, s)}s` : s < 3600 ? `${Math.floor(s / 60)}m` : s < 172800 ? `${Math.floor(s / 3600)}h` : `${Math.floor(s / 86400)}d`);
  const tick = () => {
    const now = Date.now();
    for (const t of all("time[datetime]")) {
      const text = span(Math.floor((now - Date.parse(t.dateTime)) / 1000));
      if (t.textContent !== text) t.textContent = text;
    }
  };
  setInterval(tick, 1000);

  // ---- the page stays current
  const page = $("#page");
  const link = $("#link");
  let source = null, lost = false, wait = 1000, beat = 0;
  const say = (state) => {
    if (!link || !page.dataset.live) return;
    link.classList.toggle("on", state === "on");
    link.classList.toggle("off", state === "off");
    page.classList.toggle("stale", state === "off");
    const word = $(".word", link);
    if (state === "off") word.textContent = link.dataset.lost;
    else if (lost) word.textContent = link.dataset.back;
    lost = state === "off";
  };
  const apply = (action) => { action(); tick(); mark(); document.dispatchEvent(new Event("gantry:changed")); };
  const listen = () => {
    if (!page || !page.dataset.live) return;
    source = new EventSource(`${page.dataset.live}&m=${page.dataset.mark}`);
    source.onopen = () => { wait = 1000; say("on"); };
    source.addEventListener("part", (e) => apply(() => {
      const { id, html } = JSON.parse(e.data);
      const node = document.getElementById(id);
      page.dataset.mark = "0";
      if (node) morph(node, html, false);
    }));
    source.addEventListener("main", (e) => apply(() => {
      const { html, title } = JSON.parse(e.data);
      page.dataset.mark = "0";
      morph(page, html, true);
      document.title = `${title} · Gantry`;
    }));
    source.addEventListener("title", (e) => { document.title = `${JSON.parse(e.data)} · Gantry`; });
    source.addEventListener("gone", () => { source.close(); location.reload(); });
    source.addEventListener("login", () => { source.close(); location.reload(); });
    source.onerror = () => {
      say("off");
      source.close();
      setTimeout(listen, wait);
      wait = Math.min(wait * 1.6, 10000);
    };
  };
  window.addEventListener("pagehide", () => source && source.close());
  window.addEventListener("pageshow", (e) => { if (e.persisted) listen(); });
  listen();

  // ---- forms that show what they would do
  const previews = new Map();
  const preview = (form) => {
    clearTimeout(previews.get(form));
    previews.set(form, setTimeout(async () => {
      const body = new URLSearchParams(new FormData(form));
      const into = document.getElementById(form.dataset.into);
      const asked = (form.dataset.asked = String(Number(form.dataset.asked || 0) + 1));
      try {
        const answer = await fetch(form.dataset.preview, { method: "POST", body, headers: { "x-gantry-csrf": csrf } });
        if (answer.ok && form.dataset.asked === asked) morph(into, await answer.text(), true);
      } catch { say("off"); }
    }, 250));
  };
  const shown = () => {
    for (const box of all("[data-shown-by]")) {
      const by = document.getElementById(box.dataset.shownBy);
      box.classList.toggle("hidden", by.value !== box.dataset.shownFor);
    }
  };
  document.addEventListener("input", (e) => {
    const field = e.target;
    const form = field.form;
    if (!form || !form.dataset.preview) return;
    const edited = $("[data-edited]", form);
    if (edited) edited.value = field.dataset.edits || "";
    shown();
    preview(form);
  });
  shown();
  // Buttons that only ask: the answer comes beside the form.
  document.addEventListener("click", async (e) => {
    const button = e.target.closest && e.target.closest("[data-press]");
    if (!button || !button.form) return;
    e.preventDefault();
    const into = document.getElementById(button.dataset.into);
    const body = new URLSearchParams(new FormData(button.form));
    button.disabled = true;
    into.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(button.dataset.press, { method: "POST", body, headers: { "x-gantry-csrf": csrf } });
      if (answer.ok) morph(into, await answer.text(), true);
      else into.textContent = `${answer.status} ${answer.statusText}`;
    } catch { say("off"); }
    into.removeAttribute("aria-busy");
    button.disabled = false;
  });
  for (const button of all("[data-now]")) button.click();
  // A button is pressed once.
  document.addEventListener("submit", (e) => {
    const button = e.submitter;
    if (e.target.dataset.sent) return e.preventDefault();
    if (e.target.method === "post") { e.target.dataset.sent = "1"; setTimeout(() => { delete e.target.dataset.sent; if (button) button.disabled = false; }, 4000); setTimeout(() => { if (button) button.disabled = true; }); }
  });

  // ---- rows by keyboard
  let here = null;
  const rows = () => all("[data-rows] [data-row]").map((a) => a.closest("tr, li"));
  const mark = () => { for (const row of all(".here")) row.classList.remove("here"); if (here !== null) { const row = rows()[here]; if (row) row.classList.add("here"); } };
  const move = (step) => {
    const list = rows();
    if (!list.length) return;
    here = here === null ? (step > 0 ? 0 : list.length - 1) : Math.min(Math.max(here + step, 0), list.length - 1);
    mark();
    list[here].scrollIntoView({ block: "nearest" });
  };

  // ---- the palette
  const palette = $("#palette"), box = $("#palette-input"), list = $("#palette-list");
  let asking = 0, chosen = 0;
  const option = (href, title, place, kind) => {
    const li = document.createElement("li"), a = document.createElement("a"), b = document.createElement("span"), s = document.createElement("small");
    li.setAttribute("role", "option");
    a.href = href; a.tabIndex = -1; b.textContent = place ? `${place}/${title}` : title; s.textContent = kind;
    a.append(b, s); li.append(a);
    return li;
  };
  const choose = (n) => {
    const items = all("li[role=option]", list);
    chosen = Math.min(Math.max(n, 0), items.length - 1);
    items.forEach((li, i) => { li.setAttribute("aria-selected", String(i === chosen)); li.id = `option-${i}`; if (i === chosen) li.scrollIntoView({ block: "nearest" }); });
    box.setAttribute("aria-activedescendant", items.length ? `option-${chosen}` : "");
  };
  const look = async () => {
    const q = box.value.trim(), words = q.toLowerCase();
    const turn = ++asking;
    const pages = all("a", $("#palette-pages").content).filter((a) => a.textContent.trim().toLowerCase().includes(words)).map((a) => option(a.getAttribute("href"), a.textContent.trim(), "", a.dataset.kind));
    let found = [];
    if (q) {
      try {
        const answer = await fetch(`/api/v1/search?q=${encodeURIComponent(q)}`);
        if (answer.ok) found = (await answer.json()).items.map((h) => option(h.href, h.title, h.place, h.kind));
      } catch { /* the line that tells of the connection says so */ }
    }
    if (turn !== asking) return;
    list.replaceChildren(...found, ...pages);
    if (!list.children.length) { const li = document.createElement("li"); li.textContent = list.dataset.empty; list.append(li); }
    choose(0);
  };
  const openPalette = () => { if (!palette.open) { box.value = ""; palette.showModal(); look(); box.focus(); } };
  if (palette) {
    const opener = $("[data-palette]");
    opener.hidden = false;
    opener.addEventListener("click", openPalette);
    box.addEventListener("input", look);
    box.addEventListener("keydown", (e) => {
      if (e.key === "ArrowDown") { e.preventDefault(); choose(chosen + 1); }
      if (e.key === "ArrowUp") { e.preventDefault(); choose(chosen - 1); }
      if (e.key === "Enter") { e.preventDefault(); const a = all("li[role=option] a", list)[chosen]; if (a) location.assign(a.href); }
    });
    palette.addEventListener("click", (e) => { if (e.target === palette) palette.close(); });
  }

  // ---- keys
  const places = { f: "/", s: "/services", r: "/releases", n: "/nodes", p: "/policies", q: "/quotas", h: "/records" };
  let going = 0;
  document.addEventListener("keydown", (e) => {
    if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === "k") { e.preventDefault(); return openPalette(); }
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const typing = e.target.matches("input, textarea, select");
    if (typing) { if (e.key === "Escape") e.target.blur(); return; }
    if (document.querySelector("dialog[open]")) return;
    if (Date.now() - going < 1200 && places[e.key]) { going = 0; return location.assign(places[e.key]); }
    switch (e.key) {
      case "/": { const field = $("[data-search]"); if (field) { e.preventDefault(); field.focus(); field.select(); } break; }
      case "x": { const row = here !== null && rows()[here]; const box = row && $("input[data-keep]", row); if (box) box.checked = !box.checked; break; }
      case "j": move(1); break;
      case "k": move(-1); break;
      case "g": going = Date.now(); break;
      case "Enter": if (here !== null && e.target === document.body || e.target.id === "main") { const row = rows()[here]; if (row) location.assign($("[data-row]", row).href); } break;
      case "?": $("#keys").showModal(); break;
      case "Escape": here = null; mark(); break;
    }
  });

  // ---- the map of nodes
  const tip = document.createElement("div");
  tip.className = "tip"; tip.hidden = true; tip.setAttribute("role", "tooltip");
  document.body.append(tip);
  const names = new Map();
  const at = (svg, e) => {
    const r = svg.getBoundingClientRect(), columns = Number(svg.dataset.columns);
    const side = r.width / columns, x = Math.floor((e.clientX - r.left) / side), y = Math.floor((e.clientY - r.top) / side), n = y * columns + x;
    return x >= 0 && x < columns && n >= 0 && n < Number(svg.dataset.count) ? n : null;
  };
  const node = (svg, n) => {
    const query = `cluster=${encodeURIComponent(svg.dataset.cluster)}&cell=${encodeURIComponent(svg.dataset.cell)}&index=${n}`;
    if (!names.has(query)) { if (names.size > 500) names.clear(); names.set(query, fetch(`/api/v1/nodes/at?${query}`).then((a) => (a.ok ? a.json() : null)).catch(() => null)); }
    return names.get(query);
  };
  document.addEventListener("gantry:changed", () => names.clear());
  let over = "";
  document.addEventListener("pointermove", async (e) => {
    const svg = e.target.closest && e.target.closest("[data-map]");
    const n = svg && at(svg, e);
    if (n === null || n === undefined) { tip.hidden = true; over = ""; return; }
    tip.className = "tip";
    tip.style.left = `${Math.min(e.clientX + 14, innerWidth - 270)}px`;
    tip.style.top = `${e.clientY + 16}px`;
    const key = `${svg.dataset.cluster}/${svg.dataset.cell}/${n}`;
    if (over === key) return;
    over = key;
    await new Promise((go) => setTimeout(go, 60));
    if (over !== key) return;
    const found = await node(svg, n);
    if (over !== key || !found) return;
    const share = (used, has) => (has > 0 ? `${Math.round((used * 100) / has)}%` : "–");
    tip.textContent = `${found.name} · CPU ${share(found.load.cpu, found.cpu)} · RAM ${share(found.load.memory, found.memory)} · ${found.load.instances}${found.problems ? " · " + found.problems.join(", ") : ""}`;
    tip.hidden = false;
  });
  document.addEventListener("click", async (e) => {
    const svg = e.target.closest && e.target.closest("[data-map]");
    const n = svg && at(svg, e);
    if (n === null || n === undefined) return;
    const found = await node(svg, n);
    if (found) location.assign(`/nodes/${found.cluster}/${found.name}`);
  });

  // ---- logs
  const logs = $("pre[data-logs]");
  if (logs) {
    const lines = [], most = 20000, filter = $("[data-log-filter]"), follow = $("[data-log-follow]");
    let open = "";
    const fits = (line) => { const word = filter.value.toLowerCase(); return !word || line.toLowerCase().includes(word); };
    const down = () => { if (follow.checked) logs.scrollTop = logs.scrollHeight; };
    const draw = () => { logs.textContent = lines.filter(fits).join("\n") + (lines.length ? "\n" : ""); down(); };
    const add = (text) => {
      const parts = (open + text).split("\n");
      open = parts.pop();
      lines.push(...parts);
      if (lines.length > most) { lines.splice(0, lines.length - most); draw(); } else { const more = parts.filter(fits).join("\n"); if (more) logs.append(more + "\n"); down(); }
    };
    filter.addEventListener("input", draw);
    const lost = $("[data-log-lost]");
    const read = async () => {
      try {
        const answer = await fetch(logs.dataset.logs);
        if (answer.status >= 500) throw new Error();
        lost.hidden = true;
        lines.length = 0; open = ""; draw();
        if (!answer.ok) { add(`${await answer.text()}\n`); return; }
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        for (;;) { const { value, done } = await reader.read(); if (done) break; add(value); }
      } catch {
        // From its end again, once the server is there.
        lost.hidden = false;
        setTimeout(read, 2000);
      }
    };
    read();
  }
})();
