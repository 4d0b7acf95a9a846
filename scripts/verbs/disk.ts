import { Command } from "commander";
import { LabError } from "../../stacks/lib/errors.ts";
import { run } from "../host/commands.ts";
import { isPartial } from "../host/libvirt-resources.ts";

export const command = new Command("disk")
  .argument("<name>", "box's name in Vagrant")
  .argument("<version>", "box's version")
  .action(async (name: string, version: string) => {
    if (await isPartial({ name, version }, run))
      throw new LabError(
        `libvirt has only part of the disk of the box ${name}: its upload was interrupted or is still running. Run scripts/lab up, which copies it again.`,
      );
  });
