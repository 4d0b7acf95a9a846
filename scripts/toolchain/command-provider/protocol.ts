/**
 * Pulumi's gRPC definitions, as @pulumi/pulumi ships them. They are CommonJS whose exports Node cannot detect,
 * hence `require`; the grpc package is the one that they were generated for.
 */
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const requireOfPulumi = createRequire(require.resolve("@pulumi/pulumi/package.json"));

export const grpc = requireOfPulumi("@grpc/grpc-js") as typeof import("@grpc/grpc-js");
export const { Empty } = requireOfPulumi(
  "google-protobuf/google/protobuf/empty_pb.js",
) as typeof import("google-protobuf/google/protobuf/empty_pb.js");
export const { Struct } = requireOfPulumi(
  "google-protobuf/google/protobuf/struct_pb.js",
) as typeof import("google-protobuf/google/protobuf/struct_pb.js");
export const messages =
  require("@pulumi/pulumi/proto/provider_pb.js") as typeof import("@pulumi/pulumi/proto/provider_pb.js");
export const plugin =
  require("@pulumi/pulumi/proto/plugin_pb.js") as typeof import("@pulumi/pulumi/proto/plugin_pb.js");
export const services =
  require("@pulumi/pulumi/proto/provider_grpc_pb.js") as typeof import("@pulumi/pulumi/proto/provider_grpc_pb.js");
export const engineMessages =
  require("@pulumi/pulumi/proto/engine_pb.js") as typeof import("@pulumi/pulumi/proto/engine_pb.js");
export const engineServices =
  require("@pulumi/pulumi/proto/engine_grpc_pb.js") as typeof import("@pulumi/pulumi/proto/engine_grpc_pb.js");
