import { Command } from "commander";
import { examine, renderFindings, summarizeFindings } from "../doctor.ts";
import { labVariables } from "../environment.ts";
import { currentSettings } from "../recorded.ts";

export const command = new Command("doctor")
  .argument("[stacks...]", "the stacks that are to be brought up", ["cluster", "apps"])
  .option("--json", "print JSON: every finding with its status and what fixes it")
  .addHelpText("after", "\nExit code: 0 when there is no problem, 1 when there is one. Changes nothing.")
  .action(async (stacks: string[], { json }: { json?: boolean }) => {
    Object.assign(process.env, labVariables(await currentSettings()));
    const began = performance.now();
    const findings = await examine(stacks);
    const isWell = findings.every(({ status }) => status !== "problem");
    if (json) process.stdout.write(`${JSON.stringify({ ok: isWell, findings }, null, 2)}\n`);
    else
      process.stdout.write(
        `${renderFindings(findings, process.stdout.isTTY)}\n${summarizeFindings(findings, performance.now() - began)}\n`,
      );
    process.exitCode = isWell ? 0 : 1;
  });
