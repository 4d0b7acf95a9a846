import type { Identity } from "../shared/config.ts";
import { html, type Markup, trusted } from "../shared/html.ts";

/** What a visitor sees: who answered, and how the request got here. JSON and page show the same. */
export interface Answer extends Identity {
  readonly request: {
    readonly method: string;
    readonly host: string | null;
    /** Path and query as sent. */
    readonly path: string;
    readonly protocol: string;
    /**
     * The client's address: from the proxy's header, else the connection's peer. Behind K3s's ServiceLB it is a cluster
     * address, because ServiceLB replaces the visitor's.
     */
    readonly client: string | null;
    /** The connection's peer: the proxy, if there is one. */
    readonly peer: string | null;
    /** The X-Forwarded-* and X-Real-Ip headers that a proxy added, by lower-case name. */
    readonly forwarded: Readonly<Record<string, string>>;
  };
}

const hues = [262, 165, 38, 345, 225, 130, 300, 80] as const;

/** The hue of an app's accent colour, in degrees. Names that differ in one digit differ in colour. */
function accentHue(app: string): number {
  const sum = [...app].reduce((total, character) => total + (character.codePointAt(0) ?? 0), 0);
  return hues[sum % hues.length] ?? hues[0];
}

/** The page's one style sheet; the server allows exactly this text by its hash. */
export function pageStyle(app: string): string {
  return `
:root {
  color-scheme: light dark;
  --hue: ${accentHue(app)};
  --accent: light-dark(oklch(0.52 0.19 var(--hue)), oklch(0.78 0.14 var(--hue)));
  --on-accent: light-dark(#fff, oklch(0.2 0.04 var(--hue)));
  --tint: light-dark(oklch(0.95 0.03 var(--hue)), oklch(0.28 0.05 var(--hue)));
  --paper: light-dark(oklch(0.985 0.004 var(--hue)), oklch(0.16 0.012 var(--hue)));
  --card: light-dark(#fff, oklch(0.205 0.014 var(--hue)));
  --line: light-dark(oklch(0.9 0.012 var(--hue)), oklch(0.32 0.02 var(--hue)));
  --ink: light-dark(oklch(0.24 0.02 var(--hue)), oklch(0.95 0.008 var(--hue)));
  --soft: light-dark(oklch(0.5 0.02 var(--hue)), oklch(0.72 0.02 var(--hue)));
  --mono: ui-monospace, "SF Mono", "Cascadia Code", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
* { box-sizing: border-box; margin: 0; }
body {
  min-height: 100vh; padding: clamp(1rem, 4vw, 3.5rem) clamp(1rem, 4vw, 2rem);
  display: grid; place-content: center; grid-template-columns: minmax(0, 60rem);
  background: radial-gradient(60rem 30rem at 50% -8rem, var(--tint), transparent 70%) no-repeat var(--paper);
  color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
header { display: flex; flex-wrap: wrap; align-items: end; gap: .5rem 1.25rem; margin-bottom: 2rem; }
h1 { font-size: clamp(3rem, 11vw, 5.5rem); line-height: .95; letter-spacing: -.045em; font-weight: 750; color: var(--accent); overflow-wrap: anywhere; }
.version { font: 600 .9rem/1 var(--mono); padding: .5em .85em; border-radius: 99px; background: var(--accent); color: var(--on-accent); margin-bottom: .45rem; }
.by { flex-basis: 100%; margin-top: .35rem; color: var(--soft); font-size: 1.1rem; }
.by b { color: var(--ink); font-weight: 600; overflow-wrap: anywhere; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 1.1rem; padding: 1.5rem; box-shadow: 0 1px 2px #0000000a, 0 12px 32px -18px #00000038; }
h2 { font-size: .78rem; letter-spacing: .09em; text-transform: uppercase; font-weight: 650; color: var(--soft); margin-bottom: 1rem; }
.path { list-style: none; padding: 0; display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); }
.path li { position: relative; text-align: center; padding: 0 .35rem; }
.path li + li::before {
  content: ""; position: absolute; top: 1.5rem; right: calc(50% + 2.1rem); width: calc(100% - 4.2rem); height: 3px; border-radius: 3px;
  background: linear-gradient(90deg, var(--line) 35%, var(--accent) 50%, var(--line) 65%) 50% 0 / 250% 100%;
  animation: flow 2.4s linear infinite;
}
.path li.absent::before, .path li.absent + li::before { animation: none; background: var(--line); }
.path li.absent { opacity: .45; }
@keyframes flow { from { background-position: 125% 0; } to { background-position: -42% 0; } }
.path svg { width: 3rem; height: 3rem; padding: .72rem; border-radius: 1rem; background: var(--tint); color: var(--accent); display: block; margin: 0 auto .7rem; }
.path .here svg { background: var(--accent); color: var(--on-accent); box-shadow: 0 0 0 .35rem var(--tint); }
.path strong { display: block; font-weight: 650; }
.path span { display: block; color: var(--soft); font: .8rem/1.45 var(--mono); overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.1rem; margin-top: 1.1rem; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .55rem 1.25rem; align-items: baseline; }
dt { color: var(--soft); font-size: .92rem; }
dd { font: .88rem/1.45 var(--mono); overflow-wrap: anywhere; }
footer { margin-top: 1.5rem; color: var(--soft); font-size: .88rem; display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; justify-content: space-between; align-items: center; }
code { font: .82rem var(--mono); background: var(--tint); padding: .25em .5em; border-radius: .4em; overflow-wrap: anywhere; }
a { color: var(--accent); font-weight: 600; text-underline-offset: .2em; }
@media (max-width: 36rem) {
  .path { grid-template-columns: 1fr; gap: 1.6rem; }
  .path li { display: grid; grid-template-columns: 3rem 1fr; column-gap: 1rem; text-align: left; align-items: center; }
  .path svg { margin: 0; grid-row: span 2; }
  .path span { align-self: start; }
  .path strong { align-self: end; }
  .path li + li::before { top: -1.6rem; left: 1.5rem; right: auto; width: 2px; height: 1.6rem; background: var(--line); animation: none; }
}
@media (prefers-reduced-motion: reduce) { .path li + li::before { animation: none; background: var(--accent); } }
`;
}

const icons = {
  browser: html`<path d="M3 5.5h18v13H3zM3 9.5h18M6 7.5h.01M8.5 7.5h.01"/>`,
  traefik: html`<path d="M12 3v5M12 8 5 13v5M12 8l7 5v5M12 8v10"/><circle cx="12" cy="8" r="2"/>`,
  service: html`<circle cx="12" cy="12" r="3"/><path d="M12 3v6M12 15v6M3 12h6M15 12h6"/>`,
  pod: html`<path d="m12 3 8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9"/>`,
} as const;

interface Hop {
  readonly icon: keyof typeof icons;
  readonly name: string;
  readonly detail: string;
  readonly kind: "" | "here" | "absent";
}

/** The hops between the visitor and this pod. Without a proxy's headers there was no proxy. */
function hops(answer: Answer): readonly Hop[] {
  const proxied = Object.keys(answer.request.forwarded).length > 0;
  return [
    {
      icon: "browser",
      name: "Browser",
      detail: `seen from ${answer.request.client ?? "nowhere known"}`,
      kind: "",
    },
    {
      icon: "traefik",
      name: "Traefik",
      detail: proxied ? (answer.request.host ?? "no Host header") : "not on the way",
      kind: proxied ? "" : "absent",
    },
    {
      icon: "service",
      name: "Service",
      detail: answer.namespace === null ? answer.app : `${answer.namespace}/${answer.app}`,
      kind: proxied ? "" : "absent",
    },
    { icon: "pod", name: "This pod", detail: answer.podIp ?? answer.pod, kind: "here" },
  ];
}

function icon(paths: Markup): Markup {
  return html`<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">${paths}</svg>`;
}

function facts(rows: readonly (readonly [string, string | null])[]): Markup {
  return html`<dl>${rows.map(([name, value]) => html`<dt>${name}</dt><dd>${value ?? "—"}</dd>`)}</dl>`;
}

/** The page. Self-contained: no script, no font, no image from elsewhere. */
export function renderPage(answer: Answer): string {
  const { request } = answer;
  const favicon = `data:image/svg+xml,${encodeURIComponent(
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="8" fill="hsl(${accentHue(answer.app)} 70% 45%)"/></svg>`,
  )}`;
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${answer.app} ${answer.version}</title>
<link rel="icon" href="${favicon}">
<style>${trusted(pageStyle(answer.app))}</style>
</head>
<body>
<main>
<header>
<h1>${answer.app}</h1><span class="version">${answer.version}</span>
<p class="by">Answered by pod <b>${answer.pod}</b>${answer.node === null ? "" : html` on node <b>${answer.node}</b>`}</p>
</header>
<section class="card">
<h2>The way of this request</h2>
<ol class="path">${hops(answer).map(
    (hop) =>
      html`<li class="${hop.kind}">${icon(icons[hop.icon])}<strong>${hop.name}</strong><span>${hop.detail}</span></li>`,
  )}</ol>
</section>
<div class="facts">
<section class="card"><h2>This pod</h2>${facts([
    ["App", answer.app],
    ["Version", answer.version],
    ["Pod", answer.pod],
    ["Node", answer.node],
    ["Namespace", answer.namespace],
    ["Pod IP", answer.podIp],
  ])}</section>
<section class="card"><h2>This request</h2>${facts([
    ["Host", request.host],
    ["Path", `${request.method} ${request.path}`],
    ["Seen from", request.client],
    ["Peer", request.peer],
    ...Object.entries(request.forwarded),
  ])}</section>
</div>
<footer><span>As JSON: <code>curl -H 'Host: ${request.host ?? "any"}' -H 'Accept: application/json' …</code></span><a href="">Ask again</a></footer>
</main>
</body>
</html>
`.text;
}

/** One line for scripts and terminals (`Accept: text/plain`). */
export function renderText(answer: Answer): string {
  return `${answer.app} ${answer.version} pod=${answer.pod} node=${answer.node ?? "-"} host=${answer.request.host ?? "-"}\n`;
}
