import assert from "node:assert/strict";
import { test } from "node:test";
import { networksConfProblem } from "./vbox-networks.ts";

const lab = "192.168.42.0/24";
const problem = (file?: string, version = "7.0.20r163906", platform: NodeJS.Platform = "linux") =>
  networksConfProblem(lab, file, version, platform);

test("a network outside the default range is refused, with the line and the command that keeps the default", () => {
  assert.equal(
    problem(),
    [
      "VirtualBox allows only 192.168.56.0/21 for host-only networks, and the lab's is 192.168.42.0/24: /etc/vbox/networks.conf needs the line",
      "  * 192.168.42.0/24",
      "Add it with:",
      "  sudo mkdir -p /etc/vbox && printf '* 192.168.56.0/21\\n* 192.168.42.0/24\\n' | sudo tee -a /etc/vbox/networks.conf",
    ].join("\n"),
  );
});

test("an existing file replaces the default: the line is added to it", () => {
  const text = problem("# ours\n* 10.0.0.0/8 192.168.56.0/21\n* 2001::/64\n");
  assert.match(text ?? "", /only 10\.0\.0\.0\/8, 192\.168\.56\.0\/21, 2001::\/64/);
  assert.match(text ?? "", /\n {2}echo '\* 192\.168\.42\.0\/24' \| sudo tee -a \/etc\/vbox\/networks\.conf$/);
  assert.match(problem("# * 192.168.42.0/24\n") ?? "", /allows no network at all/);
  assert.match(problem("192.168.42.0/24\n") ?? "", /allows no network at all/);
});

test("a range that contains the whole network allows it; a partial or IPv6 range does not", () => {
  for (const range of [
    "192.168.42.0/24",
    "192.168.0.0/16",
    "0.0.0.0/0 ::/0",
    "  10.0.0.0/8\t192.168.40.0/21 ",
  ])
    assert.equal(problem(`* ${range}\n`), undefined, range);
  for (const range of ["192.168.42.0/25", "192.168.42.1/32", "::/0", "192.168.43.0/24", "nonsense"])
    assert.notEqual(problem(`*${range}\n`), undefined, range);
  assert.equal(networksConfProblem("192.168.60.0/24", undefined, "7.0.20", "linux"), undefined);
});

test("the rule exists since 6.1.28, not on Windows, and on macOS until 7.0", () => {
  for (const version of ["6.1.26r145957", "6.0.24", "5.2.44"])
    assert.equal(problem(undefined, version), undefined);
  for (const version of ["6.1.28", "6.1.50_Debianr161033", "7.1.0", "10.0.0"])
    assert.notEqual(problem(undefined, version), undefined, version);
  assert.equal(problem(undefined, "7.0.20", "win32"), undefined);
  assert.equal(problem(undefined, "7.0.20", "darwin"), undefined);
  assert.notEqual(problem(undefined, "6.1.50", "darwin"), undefined);
});
