import { createHash } from "node:crypto";
import type { Identity } from "../shared/config.ts";
import { html, type Markup, trusted } from "../shared/html.ts";
import { type Entry, longest } from "./entries.ts";

const style = `
:root {
  color-scheme: light dark;
  --accent: light-dark(oklch(0.47 0.16 255), oklch(0.8 0.11 255));
  --on-accent: light-dark(#fff, oklch(0.2 0.04 255));
  --paper: light-dark(oklch(0.985 0.005 255), oklch(0.17 0.012 255));
  --card: light-dark(#fff, oklch(0.22 0.014 255));
  --line: light-dark(oklch(0.62 0.02 255), oklch(0.55 0.02 255));
  --ink: light-dark(oklch(0.24 0.02 255), oklch(0.95 0.008 255));
  --soft: light-dark(oklch(0.45 0.02 255), oklch(0.76 0.02 255));
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 44rem; padding: clamp(1rem, 4vw, 3rem) 1rem; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: clamp(2rem, 7vw, 3rem); line-height: 1.1; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 .75rem; }
.by, footer, time { color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
form.new, .entry, .notice { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; }
label { display: block; font-weight: 600; margin: 0 0 .25rem; }
input, textarea { width: 100%; font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--line); border-radius: .35rem; padding: .5rem; margin-bottom: .9rem; }
button { font: inherit; font-weight: 600; color: var(--on-accent); background: var(--accent); border: 0; border-radius: .35rem; padding: .55rem 1.1rem; cursor: pointer; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: .8rem; }
.entry p { margin: .35rem 0 0; white-space: pre-line; overflow-wrap: anywhere; }
.entry form { margin-top: .7rem; }
.notice { border-left: .4rem solid var(--accent); }
a { color: var(--accent); }
footer { margin-top: 2.5rem; }
`;

/** Content Security Policy: no scripts, no external resources, and forms only to this site. */
export const policy = `default-src 'none'; style-src 'sha256-${createHash("sha256").update(style).digest("base64")}'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'`;

function page(title: string, by: Identity, content: Markup, more: Markup = html``): Markup {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<link rel="icon" href="data:,">
<style>${trusted(style)}</style>
</head>
<body>
<main>
${content}
</main>
<footer><p>Answered by ${by.app} ${by.version}, pod <b>${by.pod}</b>${by.node === null ? html`` : html` on node <b>${by.node}</b>`}.${more}</p></footer>
</body>
</html>
`;
}

function entry({ name, text, at }: Entry, more: Markup = html``): Markup {
  return html`<li class="entry"><b>${name}</b> <time datetime="${at}">${at.replace("T", " ").slice(0, 16)} UTC</time><p>${text}</p>${more}</li>`;
}

/** Content of the frontend's page. */
interface GuestBook {
  readonly title: string;
  readonly greeting: string;
  /** The API's answer; undefined if there is none. */
  readonly book: { readonly entries: readonly Entry[]; readonly by: Markup } | undefined;
}

export function renderGuestBook(by: Identity, { title, greeting, book }: GuestBook): Markup {
  const entries =
    book === undefined
      ? html`<p class="notice" role="alert">The entries cannot be read at the moment.</p>`
      : book.entries.length === 0
        ? html`<p>Nobody has written anything yet.</p>`
        : html`<ol>${book.entries.map((one) => entry(one))}</ol>`;
  return page(
    title,
    by,
    html`<h1>${title}</h1>
<p>${greeting}</p>
<h2 id="write">Write an entry</h2>
<form class="new" method="post" action="/api/entries" aria-labelledby="write">
<label for="name">Your name</label>
<input id="name" name="name" required maxlength="${longest.name}" autocomplete="name">
<label for="text">Your text</label>
<textarea id="text" name="text" required maxlength="${longest.text}" rows="3"></textarea>
<button>Write</button>
</form>
<h2>Entries</h2>
${entries}`,
    book?.by ?? html``,
  );
}

/** Who served the entries. */
export const askedOf = (api: {
  readonly pod: string;
  readonly node: string | null;
  readonly database: string;
}): Markup =>
  html` The entries came from the API's pod <b>${api.pod}</b>${api.node === null ? html`` : html` on node <b>${api.node}</b>`}, which asked the database <b>${api.database}</b>.`;

export function renderLogin(by: Identity, problem: string | undefined): Markup {
  return page(
    "Log in",
    by,
    html`<h1>Log in</h1>
${problem === undefined ? html`` : html`<p class="notice" role="alert">${problem}</p>`}
<form class="new" method="post" action="/login">
<label for="password">Password</label>
<input id="password" name="password" type="password" required autocomplete="current-password">
<button>Log in</button>
</form>`,
  );
}

export function renderAdmin(
  by: Identity,
  entries: readonly Entry[],
  database: string,
  formToken: string,
): Markup {
  const token = html`<input type="hidden" name="token" value="${formToken}">`;
  const remove = ({ id, name }: Entry) =>
    html`<form method="post" action="/login/delete">${token}<input type="hidden" name="id" value="${id}"><button aria-label="Delete entry ${id} of ${name}">Delete</button></form>`;
  return page(
    "Guest book: admin",
    by,
    html`<h1>Entries</h1>
<form method="post" action="/login/logout">${token}<p><button>Log out</button></p></form>
${entries.length === 0 ? html`<p>There are none.</p>` : html`<ol>${entries.map((one) => entry(one, remove(one)))}</ol>`}`,
    html` The entries came from the database <b>${database}</b>.`,
  );
}

export function renderProblem(by: Identity, problem: string): Markup {
  return page(
    "That did not work",
    by,
    html`<h1>That did not work</h1>
<p class="notice" role="alert">${problem}.</p>`,
  );
}
