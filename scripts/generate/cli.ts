import type { Command } from "commander";

/** A Markdown section for each command, in the order of the help. */
export function cliReference(program: Command): string {
  return program
    .createHelp()
    .visibleCommands(program)
    .filter((command) => command.name() !== "help")
    .flatMap((command) => sections(command, program.name()))
    .join("\n\n");
}

function sections(command: Command, before: string): string[] {
  const name = `${before} ${command.name()}`;
  const help = command.createHelp();
  const item = (term: string, description: string) => `| \`${term}\` | ${inCell(description)} |`;
  const rows = [
    ...command.registeredArguments.map((one) => item(help.argumentTerm(one), help.argumentDescription(one))),
    ...command.options.map((one) => item(help.optionTerm(one), help.optionDescription(one))),
  ];
  const own = [
    `### \`${name}${usageOf(command)}\``,
    `${command.description()}.`,
    ...(rows.length ? [["| argument or option | meaning |", "|---|---|", ...rows].join("\n")] : []),
    ...afterHelp(command),
  ];
  return [own.join("\n\n"), ...command.commands.flatMap((one) => sections(one, name))];
}

const usageOf = (command: Command): string => {
  const usage = command.usage().replace(/ ?\[(options|command)\]/g, "");
  return usage === "" ? "" : ` ${usage.trim()}`;
};

function afterHelp(command: Command): string[] {
  let text = "";
  command.configureOutput({ writeOut: (part) => (text += part) });
  command.outputHelp();
  const [, after = ""] = text.split(/ +display help for command\n(?!.*display help for command)/s);
  const [, prose = "", example] = /^(.*?)(?:Example:\n(.*))?$/s.exec(after.trim()) ?? [];
  return [
    ...(prose.trim()
      ? [
          prose
            .trim()
            .replaceAll(/\n(?!Exit codes)/g, " ")
            .replaceAll("\n", "\n\n"),
        ]
      : []),
    ...(example ? [`\`\`\`sh\n${example.replaceAll(/^ +/gm, "").trim()}\n\`\`\``] : []),
  ];
}

const inCell = (text: string): string => text.replaceAll("|", "\\|");
