// Runs in namespaces of its own, see libvirt.e2e.test.ts: starts the lab's libvirt daemon twice, leaves half of the box's disk
// in it as a killed Vagrant does, kills it, ends it, plays another user whose lab made the network, and prints as JSON what
// there was on the way.
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { boxFolder } from "../../scripts/host/box.ts";
import { ensureLibvirt, stopLibvirt } from "../../scripts/host/libvirt.ts";

const [folder = ""] = process.argv.slice(2);
const lines = async (...[file, ...args]: [string, ...string[]]) =>
  (await execa(file, args, { reject: false })).stdout.split("\n").filter(Boolean);
const virsh = (...args: string[]) => lines("virsh", "--connect", "qemu:///system", "--quiet", ...args);
const leftovers = async () => ({
  links: (await lines("ip", "-brief", "link")).map((line) => line.split(" ")[0]),
  rules: (await lines("iptables-save")).filter((line) => line.includes("LIBVIRT")),
  processes: (await lines("ps", "-eo", "stat=,comm=")).filter((line) =>
    /^[^Z].*(libvirtd|dnsmasq)/.test(line),
  ),
  files: await readdir("/run/k3s-lab").catch(() => []),
});
const inLibvirt = async () => {
  const lists = await Promise.all([virsh("net-list"), virsh("pool-list"), virsh("vol-list", "k3s-lab")]);
  return lists.map((list) => list.map((line) => line.trim().split(/\s/)[0]));
};

const box = { name: "k3s-lab/machine-1", version: "1.0.0" };
await mkdir(boxFolder(box), { recursive: true });
await writeFile(join(boxFolder(box), "metadata.json"), '{"virtual_size": 1}');
const image = join(boxFolder(box), "box.img");
await execa("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "preallocation=full", image, "4M"]);
const up = () => ensureLibvirt({ network: "192.168.42.0/24", internet: false, box }, () => {});
const down = () => stopLibvirt(() => {});

const before = await leftovers();
await Promise.all([up(), up()]);
const during = { ...(await inLibvirt()), mode: (await stat("/run/k3s-lab")).mode & 0o777 };
const disk = "k3s-lab-VAGRANTSLASH-machine-1_vagrant_box_image_1.0.0_box.img";
const bytes = async () => {
  const text = (await virsh("vol-dumpxml", "--pool", "k3s-lab", disk)).join("");
  return Number(/<physical unit='bytes'>(\d+)</.exec(text)?.[1]);
};
await virsh("vol-delete", "--pool", "k3s-lab", disk);
await virsh("vol-create-as", "k3s-lab", disk, "1G", "--format", "qcow2", "--allocation", "4M");
await virsh("vol-upload", "--pool", "k3s-lab", "--length", "1048576", disk, image);
const half = await bytes();
await up();
const copied = { half, again: await bytes(), whole: (await stat(image)).size };
const { daemon } = JSON.parse(await readFile("/run/k3s-lab/libvirt.json", "utf8"));
process.kill(daemon.pid, "SIGKILL");
const stopped = [await down(), await down()];
const after = await leftovers();

await up();
await virsh("net-destroy", "k3s-lab");
const theirs = join(folder, "theirs.xml");
const uuid = "6b33732d-6c61-4200-8000-0000000010e1";
const address = '<ip address="192.168.42.1" netmask="255.255.255.0"/>';
await writeFile(theirs, `<network><name>k3s-lab</name><uuid>${uuid}</uuid>${address}</network>`);
await virsh("net-create", theirs);
const refused = await up().catch(({ exitCode, message }) => `${exitCode} ${message}`);
const kept = await down();
console.log(
  JSON.stringify({ before, during, copied, stopped, after, refused, kept, held: await inLibvirt() }),
);
