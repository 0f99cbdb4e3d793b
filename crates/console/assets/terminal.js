// A terminal: a screen of cells that understands what shells, editors and pagers send (a subset of xterm's
// control sequences), and a WebSocket that speaks Kubernetes' channels. Text is only ever put in as text.
"use strict";
(() => {
  const pane = document.querySelector("[data-terminal]");
  if (!pane) return;
  const keys = pane.querySelector("textarea"), says = document.querySelector("[data-terminal-says]");
  const HISTORY = 2000;
  const PLAIN = { fg: null, bg: null, bold: false, dim: false, italic: false, under: false, inverse: false };
  const screen = document.createElement("pre");
  screen.setAttribute("aria-hidden", "true");
  pane.prepend(screen);

  // ---- cells
  let cols = 80, rows = 24;
  let pen = { ...PLAIN };
  const blank = () => ({ c: " ", p: pen.bg === null ? PLAIN : { ...PLAIN, bg: pen.bg } });
  const line = () => Array.from({ length: cols }, blank);
  const page = () => Array.from({ length: rows }, line);
  let main = page(), other = null, past = [];
  let x = 0, y = 0, top = 0, bottom = rows - 1, saved = null, shown = true, wrap = true, pending = false, paste = false, application = false;
  let dirty = true;
  const clamp = (n, low, high) => Math.min(Math.max(n, low), high);
  const scrollUp = () => {
    const gone = main.splice(top, 1)[0];
    if (!other && top === 0) { past.push(gone); if (past.length > HISTORY) past.shift(); }
    main.splice(bottom, 0, line());
  };
  const scrollDown = () => { main.splice(bottom, 1); main.splice(top, 0, line()); };
  const down = () => { if (y === bottom) scrollUp(); else if (y < rows - 1) y++; };
  const up = () => { if (y === top) scrollDown(); else if (y > 0) y--; };
  // East Asian wide and fullwidth, and emoji: two cells.
  const wide = (c) => (c >= 0x1100 && (c <= 0x115f || (c >= 0x2e80 && c <= 0xa4cf) || (c >= 0xac00 && c <= 0xd7a3) || (c >= 0xf900 && c <= 0xfaff) || (c >= 0xfe30 && c <= 0xfe6f) || (c >= 0xff00 && c <= 0xff60) || (c >= 0xffe0 && c <= 0xffe6) || (c >= 0x1f300 && c <= 0x1faff) || (c >= 0x20000 && c <= 0x3fffd)));
  const put = (char) => {
    const code = char.codePointAt(0), size = wide(code) ? 2 : 1;
    // What combines goes to the cell before it.
    if (/\p{M}|\u200d|\ufe0f/u.test(char)) { const cell = main[y][Math.max(0, x - 1)]; if (cell) main[y][Math.max(0, x - 1)] = { c: cell.c + char, p: cell.p }; return; }
    if (pending || x + size > cols) { if (wrap) { x = 0; down(); } else x = cols - size; pending = false; }
    main[y][x] = { c: char, p: pen };
    if (size === 2 && x + 1 < cols) main[y][x + 1] = { c: "", p: pen };
    if (x + size >= cols) { pending = true; x = cols - 1; } else x += size;
  };
  const fill = (row, from, to) => { for (let i = from; i < to; i++) main[row][i] = blank(); };
  const style = (list) => {
    pen = { ...pen };
    if (!list.length) list = [0];
    for (let i = 0; i < list.length; i++) {
      const n = list[i] || 0;
      if (n === 0) pen = { ...PLAIN };
      else if (n === 1) pen.bold = true;
      else if (n === 2) pen.dim = true;
      else if (n === 3) pen.italic = true;
      else if (n === 4) pen.under = true;
      else if (n === 7) pen.inverse = true;
      else if (n === 22) pen.bold = pen.dim = false;
      else if (n === 23) pen.italic = false;
      else if (n === 24) pen.under = false;
      else if (n === 27) pen.inverse = false;
      else if (n >= 30 && n <= 37) pen.fg = n - 30;
      else if (n === 39) pen.fg = null;
      else if (n >= 40 && n <= 47) pen.bg = n - 40;
      else if (n === 49) pen.bg = null;
      else if (n >= 90 && n <= 97) pen.fg = n - 82;
      else if (n >= 100 && n <= 107) pen.bg = n - 92;
      else if (n === 38 || n === 48) {
        let color = null;
        if (list[i + 1] === 5) { color = list[i + 2] || 0; i += 2; }
        else if (list[i + 1] === 2) { color = [2, 3, 4].map((k) => clamp(list[i + k] || 0, 0, 255)); i += 4; }
        pen[n === 38 ? "fg" : "bg"] = color;
      }
    }
  };
  const alternate = (on) => {
    if (on && !other) { other = { main, x, y }; main = page(); x = y = 0; }
    if (!on && other) { ({ main, x, y } = other); other = null; }
    top = 0; bottom = rows - 1;
  };
  const mode = (list, on) => {
    for (const n of list) {
      if (n === 1) application = on;
      else if (n === 7) wrap = on;
      else if (n === 25) shown = on;
      else if (n === 47 || n === 1047 || n === 1049) alternate(on);
      else if (n === 2004) paste = on;
    }
  };
  const reset = () => { pen = { ...PLAIN }; other = null; main = page(); x = y = 0; top = 0; bottom = rows - 1; shown = wrap = true; pending = paste = application = false; };
  const control = (mark, list, final) => {
    const n = Math.max(1, list[0] || 1);
    if (mark === "?") { if (final === "h" || final === "l") mode(list, final === "h"); return; }
    if (mark) { if (mark === ">" && final === "c") type("\x1b[>0;1;0c"); return; }
    if (final !== "m") pending = false;
    switch (final) {
      case "A": y = clamp(y - n, y >= top ? top : 0, rows - 1); break;
      case "B": case "e": y = clamp(y + n, 0, y <= bottom ? bottom : rows - 1); break;
      case "C": case "a": x = clamp(x + n, 0, cols - 1); break;
      case "D": x = clamp(x - n, 0, cols - 1); break;
      case "E": x = 0; y = clamp(y + n, 0, rows - 1); break;
      case "F": x = 0; y = clamp(y - n, 0, rows - 1); break;
      case "G": case "`": x = clamp(n - 1, 0, cols - 1); break;
      case "d": y = clamp(n - 1, 0, rows - 1); break;
      case "H": case "f": y = clamp(n - 1, 0, rows - 1); x = clamp((list[1] || 1) - 1, 0, cols - 1); break;
      case "J":
        if ((list[0] || 0) === 0) { fill(y, x, cols); for (let i = y + 1; i < rows; i++) fill(i, 0, cols); }
        else if (list[0] === 1) { for (let i = 0; i < y; i++) fill(i, 0, cols); fill(y, 0, x + 1); }
        else { for (let i = 0; i < rows; i++) fill(i, 0, cols); if (list[0] === 3) past = []; }
        break;
      case "K": fill(y, list[0] === 1 || list[0] === 2 ? 0 : x, list[0] === 1 ? x + 1 : cols); break;
      case "L": if (y >= top && y <= bottom) for (let i = 0; i < Math.min(n, bottom - y + 1); i++) { main.splice(bottom, 1); main.splice(y, 0, line()); } break;
      case "M": if (y >= top && y <= bottom) for (let i = 0; i < Math.min(n, bottom - y + 1); i++) { main.splice(y, 1); main.splice(bottom, 0, line()); } break;
      case "P": { const row = main[y]; row.splice(x, n); while (row.length < cols) row.push(blank()); break; }
      case "@": { const row = main[y]; for (let i = 0; i < Math.min(n, cols); i++) row.splice(x, 0, blank()); row.length = cols; break; }
      case "X": fill(y, x, Math.min(cols, x + n)); break;
      case "S": for (let i = 0; i < Math.min(n, rows); i++) scrollUp(); break;
      case "T": for (let i = 0; i < Math.min(n, rows); i++) scrollDown(); break;
      case "m": style(list); break;
      case "r": top = clamp((list[0] || 1) - 1, 0, rows - 1); bottom = clamp((list[1] || rows) - 1, 0, rows - 1); if (top >= bottom) { top = 0; bottom = rows - 1; } x = y = 0; break;
      case "s": saved = { x, y, pen }; break;
      case "u": if (saved) ({ x, y, pen } = saved); break;
      case "n": if (list[0] === 6) type(`\x1b[${y + 1};${x + 1}R`); else if (list[0] === 5) type("\x1b[0n"); break;
      case "c": type("\x1b[?1;2c"); break;
    }
  };

  // ---- what comes, a character at a time
  let state = "text", buffer = "";
  const take = (char) => {
    const code = char.codePointAt(0);
    if (state === "text" || (code < 0x20 && code !== 0x1b && state !== "string")) {
      if (code === 0x1b) { state = "escape"; return; }
      if (code >= 0x20 && code !== 0x7f) return put(char);
      switch (char) {
        case "\r": x = 0; pending = false; break;
        case "\n": case "\v": case "\f": pending = false; down(); break;
        case "\b": x = Math.max(0, x - 1); pending = false; break;
        case "\t": x = Math.min(cols - 1, (Math.floor(x / 8) + 1) * 8); break;
      }
      return;
    }
    switch (state) {
      case "escape":
        state = "text";
        if (char === "[") { state = "control"; buffer = ""; }
        else if ("]PX^_".includes(char)) { state = "string"; buffer = ""; }
        else if ("()*+#%".includes(char)) state = "skip";
        else if (char === "7") saved = { x, y, pen };
        else if (char === "8") { if (saved) ({ x, y, pen } = saved); }
        else if (char === "M") up();
        else if (char === "D") down();
        else if (char === "E") { x = 0; down(); }
        else if (char === "c") reset();
        break;
      case "skip": state = "text"; break;
      case "control":
        if (code === 0x1b) { state = "escape"; break; }
        if (code >= 0x40 && code <= 0x7e) {
          state = "text";
          const [, mark, numbers] = /^([<=>?]?)([\d;:]*)/.exec(buffer);
          control(mark, numbers ? numbers.split(/[;:]/).map((n) => Math.min(Number(n) || 0, 9999)) : [], char);
        } else if (buffer.length < 256) buffer += char;
        break;
      case "string":
        // Titles, colours, clipboards: not taken. It ends with BEL or ST.
        if (char === "\x07") state = "text";
        else if (char === "\\" && buffer.endsWith("\x1b")) state = "text";
        else buffer = (buffer + char).slice(-1);
        break;
    }
  };
  const write = (text) => { for (const char of text) take(char); dirty = true; };

  // ---- the picture
  const cube = (n) => { if (n < 16) return n; if (n >= 232) { const v = 8 + (n - 232) * 10; return [v, v, v]; } const v = n - 16, level = (k) => (k ? 55 + k * 40 : 0); return [level(Math.floor(v / 36)), level(Math.floor(v / 6) % 6), level(v % 6)]; };
  const paint = (span, p, cursor) => {
    let { fg, bg } = p;
    const names = [];
    if (p.inverse !== cursor) { [fg, bg] = [bg === null ? "bg" : bg, fg === null ? "fg" : fg]; }
    const color = (value, kind) => {
      if (value === null) return;
      if (value === "bg" || value === "fg") { names.push(`${kind}-${value}`); return; }
      const is = Array.isArray(value) ? value : cube(value);
      if (Array.isArray(is)) span.style[kind === "f" ? "color" : "backgroundColor"] = `rgb(${is.join(",")})`;
      else names.push(`${kind}${is}`);
    };
    color(fg, "f"); color(bg, "b");
    if (p.bold) names.push("bold");
    if (p.dim) names.push("faint");
    if (p.italic) names.push("slant");
    if (p.under) names.push("under");
    if (cursor) names.push("cursor");
    span.className = names.join(" ");
  };
  const same = (a, b) => a === b || (a.fg === b.fg && a.bg === b.bg && a.bold === b.bold && a.dim === b.dim && a.italic === b.italic && a.under === b.under && a.inverse === b.inverse);
  const drawn = (cells, at) => {
    const row = document.createElement("div");
    let run = "", pen = null;
    const flush = (cursor) => { if (!run) return; const span = document.createElement("span"); span.textContent = run; paint(span, pen, cursor); row.append(span); run = ""; };
    cells.forEach((cell, i) => {
      if (i === at) { flush(false); run = cell.c || " "; pen = cell.p; flush(true); pen = null; return; }
      if (pen === null || !same(pen, cell.p)) { flush(false); pen = cell.p; }
      run += cell.c;
    });
    flush(false);
    if (!row.firstChild) row.append("\n");
    return row;
  };
  let pastDrawn = 0;
  const draw = () => {
    if (dirty) {
      dirty = false;
      const low = pane.scrollTop + pane.clientHeight >= pane.scrollHeight - 30;
      const all = other ? [] : past;
      while (screen.children.length > pastDrawn) screen.lastChild.remove();
      if (pastDrawn > all.length || all.length >= HISTORY) { screen.replaceChildren(); pastDrawn = 0; }
      for (; pastDrawn < all.length; pastDrawn++) screen.append(drawn(all[pastDrawn], -1));
      main.forEach((cells, i) => screen.append(drawn(cells, shown && i === y ? x : -1)));
      pane.dataset.text = main.map((cells) => cells.map((c) => c.c).join("").trimEnd()).join("\n").trimEnd();
      if (low) pane.scrollTop = pane.scrollHeight;
    }
    requestAnimationFrame(draw);
  };

  // ---- the connection
  const encoder = new TextEncoder(), decoder = new TextDecoder();
  let socket = null;
  const send = (channel, bytes) => {
    if (!socket || socket.readyState !== WebSocket.OPEN) return;
    const whole = new Uint8Array(bytes.length + 1);
    whole[0] = channel; whole.set(bytes, 1);
    socket.send(whole);
  };
  const type = (text) => send(0, encoder.encode(text));
  const tell = (text) => { says.textContent = text; write(`\r\n\x1b[7m ${text} \x1b[0m\r\n`); };
  const fit = () => {
    // A line as it is drawn: its height is that of its box, its width that of its letters.
    const probe = document.createElement("div"), letters = document.createElement("span");
    letters.textContent = "MMMMMMMMMM";
    probe.append(letters);
    screen.append(probe);
    const box = { width: letters.getBoundingClientRect().width, height: probe.getBoundingClientRect().height };
    probe.remove();
    if (!box.width) return;
    const c = clamp(Math.floor((pane.clientWidth - 20) / (box.width / 10)), 20, 400), r = clamp(Math.floor((pane.clientHeight - 16) / box.height), 6, 200);
    if (c !== cols || r !== rows) {
      const shape = (all) => { for (const row of all) { while (row.length < c) row.push({ c: " ", p: PLAIN }); row.length = c; } };
      cols = c;
      for (const set of [main, other && other.main].filter(Boolean)) {
        shape(set);
        while (set.length < r) set.push(line());
        while (set.length > r) { if (set === main && y < set.length - 1) set.pop(); else { const gone = set.shift(); if (!other && set === main) past.push(gone); if (set === main) y = Math.max(0, y - 1); } }
      }
      rows = r; top = 0; bottom = rows - 1; x = clamp(x, 0, cols - 1); y = clamp(y, 0, rows - 1); pending = false;
      dirty = true;
    }
    pane.dataset.size = `${cols}x${rows}`;
    send(4, encoder.encode(JSON.stringify({ Width: cols, Height: rows })));
  };
  const open = () => {
    socket = new WebSocket(`wss://${location.host}${pane.dataset.terminal}`, ["v5.channel.k8s.io", "v4.channel.k8s.io", document.body.dataset.csrf]);
    socket.binaryType = "arraybuffer";
    let opened = false, end = "";
    socket.onopen = () => { opened = true; fit(); keys.focus({ preventScroll: true }); };
    socket.onmessage = (e) => {
      const bytes = new Uint8Array(e.data), rest = bytes.subarray(1);
      if (bytes[0] === 1 || bytes[0] === 2) write(decoder.decode(rest, { stream: true }));
      if (bytes[0] === 3) { try { const status = JSON.parse(new TextDecoder().decode(rest)); if (status.status !== "Success") end = status.message || ""; } catch { /* not told why */ } }
    };
    socket.onclose = () => { socket = null; tell(opened ? `${pane.dataset.ended}${end ? `: ${end}` : ""}` : pane.dataset.failed); };
  };

  // ---- keys
  const arrows = { ArrowUp: "A", ArrowDown: "B", ArrowRight: "C", ArrowLeft: "D", Home: "H", End: "F" };
  const others = { Delete: "3~", Insert: "2~", PageUp: "5~", PageDown: "6~", F5: "15~", F6: "17~", F7: "18~", F8: "19~", F9: "20~", F10: "21~", F11: "23~", F12: "24~" };
  const firsts = { F1: "P", F2: "Q", F3: "R", F4: "S" };
  keys.addEventListener("keydown", (e) => {
    e.stopPropagation();
    if (e.isComposing) return;
    // Out of the terminal, for who has no mouse.
    if (e.key === "Escape" && e.shiftKey) { e.preventDefault(); keys.blur(); document.getElementById("main").focus(); return; }
    if (e.metaKey || (e.ctrlKey && e.shiftKey)) return;
    let out = null;
    const mods = 1 + (e.shiftKey ? 1 : 0) + (e.altKey ? 2 : 0) + (e.ctrlKey ? 4 : 0);
    if (arrows[e.key]) out = mods > 1 ? `\x1b[1;${mods}${arrows[e.key]}` : `\x1b${application ? "O" : "["}${arrows[e.key]}`;
    else if (others[e.key]) out = `\x1b[${others[e.key]}`;
    else if (firsts[e.key]) out = `\x1bO${firsts[e.key]}`;
    else if (e.key === "Enter") out = "\r";
    else if (e.key === "Backspace") out = e.altKey ? "\x1b\x7f" : "\x7f";
    else if (e.key === "Tab") out = e.shiftKey ? "\x1b[Z" : "\t";
    else if (e.key === "Escape") out = "\x1b";
    else if (e.ctrlKey && !e.altKey && e.key.length === 1) {
      const code = e.key.toUpperCase().charCodeAt(0);
      if (code >= 0x40 && code <= 0x5f) out = String.fromCharCode(code & 0x1f);
      else if (e.key === " ") out = "\x00";
    } else if (e.altKey && !e.ctrlKey && e.key.length === 1) out = `\x1b${e.key}`;
    if (out === null) return;
    // What is marked is copied, as everywhere.
    if (e.ctrlKey && e.key === "c" && String(getSelection())) return;
    if (e.ctrlKey && e.key === "v") return;
    e.preventDefault();
    type(out);
    pane.scrollTop = pane.scrollHeight;
  });
  const typed = () => { const text = keys.value; keys.value = ""; if (text) type(text.replace(/\n/g, "\r")); };
  keys.addEventListener("input", (e) => { if (!e.isComposing) typed(); });
  keys.addEventListener("compositionend", typed);
  keys.addEventListener("paste", (e) => {
    e.preventDefault();
    const text = (e.clipboardData.getData("text") || "").replace(/\r?\n/g, "\r");
    // What is pasted cannot end the paste.
    type(paste ? `\x1b[200~${text.replaceAll("\x1b", "")}\x1b[201~` : text);
  });
  pane.addEventListener("mouseup", () => { if (!String(getSelection())) keys.focus({ preventScroll: true }); });
  new ResizeObserver(() => fit()).observe(pane);
  fit();
  draw();
  open();
})();
