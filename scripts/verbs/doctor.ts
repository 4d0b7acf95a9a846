import { Command } from "commander";
import { currentSettings } from "../../stacks/observe/recorded.ts";
import { examine, renderFindings, summarizeFindings } from "../doctor.ts";
import { labVariables } from "../environment.ts";

export const command = new Command("doctor")
  .argument("[stacks...]", "stacks that you want to bring up", ["cluster", "apps"])
  .option("--json", "print JSON: every finding with its status and its fix")
  .addHelpText("after", "\nExit codes: 0 no problem found, 1 a problem would stop `lab up`. Changes nothing.")
  .action(async (stacks: string[], { json }: { json?: boolean }) => {
    Object.assign(process.env, labVariables(await currentSettings()));
    const began = performance.now();
    const findings = await examine([...new Set(stacks)]);
    const isWell = findings.every(({ status }) => status !== "problem");
    if (json) process.stdout.write(`${JSON.stringify({ ok: isWell, findings }, null, 2)}\n`);
    else
      process.stdout.write(
        `${renderFindings(findings, process.stdout.isTTY)}\n${summarizeFindings(findings, performance.now() - began)}\n`,
      );
    process.exitCode = isWell ? 0 : 1;
  });
