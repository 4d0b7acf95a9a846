import { Command } from "commander";
import { appStacks } from "../change/find-app.ts";
import { findRoute, parseTarget, trace } from "../trace/index.ts";
import { mermaidOf, renderHops } from "../trace/render.ts";

interface Options {
  readonly stack?: string;
  readonly mermaid?: true;
  readonly json?: true;
}

export const command = new Command("trace")
  .argument("<target>", "HOST or HOST/PATH, such as app1.com/")
  .option("--stack <name>", "stack of the app, if apps of several stacks match the request")
  .option("--mermaid", "print only the Mermaid diagram")
  .option("--json", "print JSON: the hops, the answer's status, the diagram")
  .addHelpText(
    "after",
    "\nSends one request and prints each hop: where it is, on which node, and what forwards it from there; first as a table, then as a Mermaid diagram. Reads from the cluster what the answer does not show. Changes nothing.\nExit codes: 0 the app answered, 1 it did not, 2 no app matches the request.\n\nExample:\n  scripts/lab trace app2.com",
  )
  .action(async (text: string, { stack, mermaid, json }: Options) => {
    const target = parseTarget(text);
    const found = await findRoute(target, await appStacks({ stack }));
    const { traced, hops, isAnswered } = await trace(target, found);
    const { host, path, address, answer } = traced;
    const diagram = mermaidOf(hops);
    if (json)
      console.log(
        JSON.stringify(
          { ...{ host, path, address, status: answer.status, hops }, mermaid: diagram },
          null,
          2,
        ),
      );
    else console.log(mermaid ? diagram : `${renderHops(hops)}\n\n\`\`\`mermaid\n${diagram}\n\`\`\``);
    process.exitCode = isAnswered ? 0 : 1;
  });
