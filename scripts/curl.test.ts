import assert from "node:assert/strict";
import { test } from "node:test";
import { caFile } from "../stacks/observe/lab-ca.ts";
import { curl, curlSecurely } from "./curl.ts";

test("requests an app by host and path", () => {
  assert.equal(
    curl("192.168.42.110", "app.com", "/api"),
    "curl -H 'Host: app.com' http://192.168.42.110/api",
  );
  assert.equal(curl("127.0.0.1:8081", "*.app.localhost", "/"), "curl http://any.app.localhost:8081/");
  assert.equal(curl("192.168.42.110", undefined, "/"), "curl http://192.168.42.110/");
});

test("uses the host name over https and trusts the authority that signed its certificate", () => {
  const at = ["--connect-to", "::127.0.0.1:8444", "https://app.com/api"];
  assert.equal(
    curlSecurely({ host: "app.com", tls: {} }, "127.0.0.1:8444", "/api"),
    ["curl", "--cacert", caFile(), ...at].join(" "),
  );
  const tls = { certificate: "a.crt", key: "a.key" };
  assert.equal(curlSecurely({ host: "app.com", tls }, "127.0.0.1:8444", "/api"), ["curl", ...at].join(" "));
});
