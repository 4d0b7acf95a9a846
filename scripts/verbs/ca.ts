import { Command } from "commander";
import { type AuthorityFacts, caFile, caKeyFile, dayOf, labAuthority } from "../../stacks/observe/lab-ca.ts";
import { prepareLabDir } from "../environment.ts";
import { quoted } from "../shell.ts";

export const command = new Command("ca")
  .option("--json", "print JSON")
  .addHelpText(
    "after",
    '\nThe authority signs the certificates of apps with https. It is created on first use, one for each checkout, in .lab/ca, and `lab down` keeps it. Trust it only on this computer: whoever has its key can sign for any host.\n\nExample:\n  curl --cacert "$(scripts/lab ca --json | jq -r .file)" https://my-app.com/',
  )
  .action(async ({ json }: { json?: true }) => {
    await prepareLabDir();
    const facts = await labAuthority();
    console.log(json ? JSON.stringify(asJson(facts), null, 2) : howToTrust(facts, caFile(), caKeyFile()));
  });

const asJson = ({ name, until, fingerprint, certificate }: AuthorityFacts) => ({
  ...{ file: caFile(), name, until: until.toISOString(), fingerprint, certificate },
});

/** Where the CA certificate is, and the commands that add it to clients' trust stores and remove it. */
export function howToTrust({ name, until, fingerprint }: AuthorityFacts, file: string, key: string): string {
  const own = `/usr/local/share/ca-certificates/${name.toLowerCase().replaceAll(" ", "-")}.crt`;
  const [path, label] = [quoted(file), quoted(name)];
  const nss = "-d sql:$HOME/.pki/nssdb";
  return `${name}, the certificate authority of this checkout
  certificate  ${file}
  valid until  ${dayOf(until)}
  SHA-256      ${fingerprint}

curl, for one request
  curl --cacert ${path} https://HOST/

Debian and Ubuntu, for curl and other programs
  sudo cp ${path} ${own} && sudo update-ca-certificates
  to undo: sudo rm ${own} && sudo update-ca-certificates --fresh

Chromium and Chrome on Linux (certutil is in libnss3-tools)
  mkdir -p $HOME/.pki/nssdb && certutil ${nss} -A -t C,, -n ${label} -i ${path}
  to undo: certutil ${nss} -D -n ${label}

Firefox
  Settings, Privacy & Security, View Certificates, Authorities, Import: ${file}

Whoever has ${key} can sign for any host: keep it here, and trust the authority on this computer alone.`;
}
