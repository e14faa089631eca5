// Keeps a page current. Without this script every page works, and shows what
// was true when it was loaded.
//
// <main data-events="URL" data-live="replace|warn">: URL is a stream of
// server-sent events; each says only that something moved. "replace" fetches
// the page again and exchanges the parts of <main> that differ; "warn" shows
// the hidden #stale line if what is under review is no longer what it was.
"use strict";
(() => {
  const main = document.getElementById("main");
  const connection = document.getElementById("connection");
  const announce = document.getElementById("announce");
  let source, timer, cost = 0, running = false, again = false;

  // The same steps as ago() in words.go.
  const ago = (iso) => {
    const s = (Date.now() - Date.parse(iso)) / 1000;
    const words = (n, noun) => Math.floor(n) + " " + noun + (Math.floor(n) === 1 ? "" : "s") + " ago";
    if (s < 10) return "just now";
    if (s < 60) return Math.floor(s / 10) * 10 + " seconds ago";
    if (s < 3600) return words(s / 60, "minute");
    if (s < 86400) return words(s / 3600, "hour");
    return words(s / 86400, "day");
  };
  const tick = (root) => root.querySelectorAll("time[datetime]").forEach((t) => {
    const text = ago(t.dateTime);
    if (t.textContent !== text) t.textContent = text;
  });

  // What a part shows, apart from what the person did to it; without times, it
  // is what deserves attention when it changes.
  const markup = (node, times = true) => {
    const copy = node.cloneNode(true);
    if (!times) copy.querySelectorAll("time").forEach((t) => t.remove());
    copy.querySelectorAll("details[open]").forEach((d) => d.removeAttribute("open"));
    copy.querySelectorAll(".fresh").forEach((n) => n.classList.remove("fresh"));
    copy.querySelectorAll("[class='']").forEach((n) => n.removeAttribute("class"));
    tick(copy);
    return copy.innerHTML;
  };

  const replace = (next) => {
    if (markup(main) === markup(next)) return;
    const open = [...main.querySelectorAll("details[open][id]")].map((d) => d.id);
    const focus = main.contains(document.activeElement) ? document.activeElement.id : "";
    const before = new Map([...main.querySelectorAll("li[id]")].map((n) => [n.id, markup(n, false)]));
    const newest = main.querySelector("#moves > li")?.textContent;
    main.replaceChildren(...next.childNodes);
    open.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
    if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
    main.querySelectorAll("li[id]").forEach((n) => {
      if (before.get(n.id) !== markup(n, false)) n.classList.add("fresh");
    });
    const line = main.querySelector("#moves > li")?.textContent;
    if (line && line !== newest) announce.textContent = line.replace(/\s+/g, " ").trim();
  };

  const warn = (next) => {
    const reviewed = (root) => root.querySelector("[data-reviewed]")?.dataset.reviewed;
    const stale = document.getElementById("stale");
    if (stale && reviewed(main) !== reviewed(next)) stale.hidden = false;
  };

  // One fetch at a time; an event meanwhile causes one more.
  const refresh = async () => {
    if (running) { again = true; return; }
    running = true;
    const began = performance.now();
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.status === 401) { location.reload(); return; }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = page.getElementById("main");
      if (answer.ok && next) {
        tick(next);
        (main.dataset.live === "warn" ? warn : replace)(next);
      }
    } catch {
      // The stream reports the lost connection and asks again when it is back.
    } finally {
      cost = performance.now() - began;
      running = false;
      if (again) { again = false; soon(); }
    }
  };
  // Events of a large fleet never stop: the page is fetched a moment after the
  // first, and the longer that takes the longer is the pause before the next.
  const soon = () => {
    timer ??= setTimeout(() => { timer = undefined; refresh(); }, Math.max(150, 4 * cost));
  };

  const show = (state, text) => {
    connection.hidden = false;
    connection.className = "connection " + state;
    connection.textContent = text;
  };
  const listen = () => {
    source = new EventSource(main.dataset.events);
    source.onopen = () => { show("on", "Live"); soon(); };
    source.onerror = () => show("off", "Reconnecting…");
    source.addEventListener("moved", soon);
  };

  setInterval(() => tick(document), 5000);
  if (!main.dataset.events) return;
  listen();
  // A device that says the same again is no event, but was seen.
  setInterval(() => { if (!document.hidden) soon(); }, 30000);
  // A hidden tab holds no connection: a browser has few for one server.
  document.addEventListener("visibilitychange", () => {
    source.close();
    if (!document.hidden) listen();
  });
})();
