import * as pulumi from "@pulumi/pulumi";
import { programOf } from "./config.ts";

/** Runs the program of the stack: `cluster` and `cluster-ha` run `cluster.ts`; what it returns are the outputs. */
export default async (): Promise<Record<string, unknown>> => {
  const { default: program } = await import(`./${programOf(pulumi.getStack())}.ts`);
  return program();
};
