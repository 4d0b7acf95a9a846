import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { test } from "node:test";
import { cookie, Sessions } from "./session.ts";

const request = (headers: Readonly<Record<string, string>>) => ({ headers }) as unknown as IncomingMessage;
const tokenOf = (header: string) => header.split(";")[0]?.split("=")[1] ?? "";

test("every pod with the same password accepts a session until it expires or the password changes", () => {
  let now = 1_000_000;
  const sessions = new Sessions("secret", () => now);
  const { token, formToken } = sessions.begin();
  const another = new Sessions("secret", () => now);
  assert.deepEqual(another.of(token), { token, formToken });
  assert.equal(new Sessions("changed", () => now).of(token), undefined);
  now += 3_599_000;
  assert.ok(sessions.of(token));
  now += 2000;
  assert.equal(sessions.of(token), undefined);
});

test("a session without a valid signature is rejected", () => {
  const sessions = new Sessions("secret");
  const { token, formToken } = sessions.begin();
  const [ends, nonce, signature] = token.split(".");
  for (const forged of [
    "",
    "a",
    "..",
    `${Number(ends) + 1}.${nonce}.${signature}`,
    `${ends}.${nonce}.`,
    `${token}x`,
  ])
    assert.equal(sessions.of(forged), undefined, forged);
  assert.equal(
    sessions.of(`${ends}.${nonce}.${formToken}`),
    undefined,
    "one signature is not good for the other",
  );
  assert.notEqual(sessions.begin().formToken, formToken);
});

test("only the exact password is accepted", async () => {
  const sessions = new Sessions("secret");
  assert.equal(await sessions.isPassword("secret"), true);
  for (const other of ["", "Secret", "secret ", "x".repeat(10_000)])
    assert.equal(await sessions.isPassword(other), false);
});

test("the cookie is limited to same-site admin pages, and to https behind TLS", () => {
  const sessions = new Sessions("secret");
  const session = sessions.begin();
  const header = cookie(request({ "x-forwarded-proto": "https" }), session);
  assert.match(
    header,
    /^my-app-session=[^;]+; Path=\/login; Max-Age=3600; HttpOnly; SameSite=Strict; Secure$/,
  );
  assert.doesNotMatch(cookie(request({}), session), /Secure/);
  assert.match(cookie(request({}), undefined), /^my-app-session=; .*Max-Age=0/);
  const back = request({ cookie: `other=1; my-app-session=old; my-app-session=${tokenOf(header)}` });
  assert.deepEqual(sessions.ofCookie(back), session);
  assert.equal(sessions.ofCookie(request({})), undefined);
  assert.deepEqual(sessions.ofBearer(request({ authorization: `Bearer ${session.token}` })), session);
  assert.equal(sessions.ofBearer(request({ authorization: `Basic ${session.token}` })), undefined);
});
