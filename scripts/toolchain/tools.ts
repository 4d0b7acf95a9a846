import { words } from "../../stacks/lib/words.ts";
import { defaultK3sVersion } from "../../stacks/versions.ts";

/** How a tool can be installed; `wayOrder` says what is tried first. */
export type Way = "release" | "module" | "bundled";

/**
 * `release`: the project's official download, its SHA-256 checked. `module`: built here from its Go module.
 * `bundled`: a stand-in that comes with this project.
 */
export const wayOrder: readonly Way[] = ["release", "module", "bundled"];

/** The platforms that the lab runs on, in Go's terms. */
export const platforms = ["linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64"] as const;

/** Such as `linux-amd64`. */
export type Platform = (typeof platforms)[number];

/** Programs of this project that need tools. */
export type StackName = "cluster" | "apps" | "k3d";

/** What needs a tool: a program of this project, or its end-to-end tests. */
export type Needing = StackName | "tests";

/** One file to download. */
export interface Download {
  readonly url: string;
  /** Hex. Default: from `checksums`; if neither has it, nothing is installed. */
  readonly sha256?: string;
  /**
   * Where the release publishes its SHA-256 sums, tried in turn: a list of `hash  name` lines, a bare hash, or the
   * description of a GitHub release, which carries a digest for each file.
   */
  readonly checksums?: readonly string[];
  /** Files to take out of a `.tar.gz`: path in the archive by name in the tool's folder. Default: the download itself. */
  readonly unpack?: Readonly<Record<string, string>>;
  /** The name in the tool's folder of a download that is not an archive. */
  readonly as?: string;
}

interface ReleaseWay {
  readonly version?: string;
  readonly downloads: Readonly<Partial<Record<Platform, readonly Download[]>>>;
}

/** How a tool is built from its Go module. */
export interface ModuleWay {
  readonly version?: string;
  readonly module: string;
  readonly moduleVersion: string;
  /** The module's sums, as in `go.sum`: of its files and of its `go.mod`. */
  readonly sum: string;
  readonly goModSum: string;
  /** Whether Go's checksum database knows the module. Default: true. If not, only the pinned sums vouch for it. */
  readonly inChecksumDatabase?: boolean;
  /** The package to build, or a folder of `scripts/toolchain/go` that holds a `main` of ours. */
  readonly package: string | { readonly recipe: string; readonly copy: readonly string[] };
  readonly tags?: readonly string[];
  readonly ldflags?: string;
  /** `required`: needs a C compiler. `off`: a static binary. Default: Go decides. */
  readonly cgo?: "required" | "off";
  readonly cgoCflags?: string;
  /** Versions of modules for which the module's own requirements are too old, by module path. */
  readonly require?: Readonly<Record<string, string>>;
  /** Replacements beside the module's own. */
  readonly replace?: Readonly<Record<string, string>>;
  /** Name of the built program. Default: the tool's name. */
  readonly binary?: string;
  /** Files of the module itself that belong to the tool, with their SHA-256 in hex. */
  readonly files?: Readonly<Record<string, string>>;
  /** Seconds that the build takes on two cores with nothing cached, as shown to the user. */
  readonly seconds: number;
}

interface BundledWay {
  /** Relative to the checkout. */
  readonly main: string;
  readonly binary: string;
}

/** A tool's entry in the table: its purpose and every way to install it. */
interface Entry {
  readonly about: string;
  /** The version, for each way that does not name its own. */
  readonly version: string;
  /** Who needs it. */
  readonly stacks: readonly Needing[];
  /** A tool that needs this one only if built from its module: K3s releases bring their own. Default: none. */
  readonly besideModule?: "k3s";
  /** `host`: runs on the computer itself. `machine`: runs on the lab's machines, which are Linux. Default: `host`. */
  readonly runsOn?: "host" | "machine";
  /** Names of its files, whichever way it is installed. Default: one with the tool's name. */
  readonly files?: readonly string[];
  readonly ways: {
    readonly release?: ReleaseWay;
    readonly module?: ModuleWay;
    readonly bundled?: BundledWay;
  };
}

/** One tool. */
export interface Tool extends Entry {
  readonly name: ToolName;
  readonly files: readonly string[];
}

/** The tools of a lab. */
export type ToolName = keyof typeof table;

const github = "https://github.com";

/** GitHub's API gives a SHA-256 for each file of a release, whatever else the project publishes. */
const githubRelease = (repository: string, tag: string): string =>
  `https://api.github.com/repos/${repository}/releases/tags/${encodeURIComponent(tag)}`;

/** One download for each platform with a hash. */
const onePerPlatform = (
  hashes: Readonly<Partial<Record<Platform, string>>>,
  download: (platform: Platform, sha256: string) => Download,
): ReleaseWay["downloads"] =>
  Object.fromEntries(
    (Object.entries(hashes) as [Platform, string][]).map(([platform, sha256]) => [
      platform,
      [download(platform, sha256)],
    ]),
  );

const pulumiVersion = "v3.259.0";

/** Pulumi's one archive carries the CLI and its language hosts; its name says x64 where Go says amd64. */
const pulumiArchive = (binary: string): ReleaseWay => ({
  version: pulumiVersion,
  downloads: onePerPlatform(
    // From Pulumi's own Homebrew formula of this version.
    {
      "linux-amd64": "94ba357acac23d01474084c4b00098dc0f7bc70ce13f34c777459254a5f718e5",
      "linux-arm64": "edc8327463a72160bb36cf82cf5062da9c8a244290a706d9980988e7bf486853",
      "darwin-amd64": "eaca4c3b8277bfa3ab061fa3b270d1c66358a0b2e613da8c5587a04b7226c534",
      "darwin-arm64": "57c27f179e527e2cf9f62b841a448af72a020e44b2fb4ee0d9bd85556c00c864",
    },
    (platform, sha256) => ({
      url: `https://get.pulumi.com/releases/sdk/pulumi-${pulumiVersion}-${platform.replace("amd64", "x64")}.tar.gz`,
      sha256,
      unpack: { [binary]: `pulumi/${binary}` },
    }),
  ),
});

/** @param hashes by platform. Default: the release's own list of checksums. */
function pulumiPlugin(
  kind: string,
  version: string,
  hashes: Readonly<Partial<Record<Platform, string>>> = Object.fromEntries(
    platforms.map((name) => [name, ""]),
  ),
): ReleaseWay {
  const repository = `pulumi/pulumi-${kind}`;
  const folder = `${github}/${repository}/releases/download/${version}`;
  const binary = `pulumi-resource-${kind}`;
  const checksums = [
    `${folder}/pulumi-${kind}_${version.slice(1)}_checksums.txt`,
    githubRelease(repository, version),
  ];
  return {
    downloads: onePerPlatform(hashes, (platform, sha256) => ({
      url: `${folder}/${binary}-${version}-${platform}.tar.gz`,
      ...(sha256 ? { sha256 } : { checksums }),
      unpack: { [binary]: binary },
    })),
  };
}

const k3sRelease = "v1.34.8+k3s1";

function k3sDownloads(architecture: "amd64" | "arm64"): readonly Download[] {
  const folder = `${github}/k3s-io/k3s/releases/download/${encodeURIComponent(k3sRelease)}`;
  const checksums = [`${folder}/sha256sum-${architecture}.txt`, githubRelease("k3s-io/k3s", k3sRelease)];
  return [
    { url: `${folder}/${architecture === "amd64" ? "k3s" : "k3s-arm64"}`, checksums, as: "k3s" },
    { url: `${folder}/k3s-airgap-images-${architecture}.tar.gz`, checksums, as: "k3s-airgap-images.tar.gz" },
    // Pinned to a commit; it installs any release.
    {
      url: "https://raw.githubusercontent.com/k3s-io/k3s/019b0afdd830e36f5e4b7a5b237e6a4339e6a6be/install.sh",
      sha256: "68ae766b4c4fd2c8032f712cdd346c8f9d1ae60eaeb4736a1155effda44ea23d",
      as: "install.sh",
    },
  ];
}

/** Linker flags: no symbol table or debug information, and these package variables set. */
const linkerFlags = (variables: readonly string[] = []): string =>
  ["-s -w", ...variables.map((variable) => `-X ${variable}`)].join(" ");

const kubernetesVariables = (values: Readonly<Record<string, string | undefined>>): string[] =>
  ["k8s.io/client-go/pkg/version", "k8s.io/component-base/version"].flatMap((path) =>
    Object.entries(values).map(([name, value]) => `${path}.${name}=${value}`),
  );

/** The version of a K3s built here, set like in its own build script. */
function k3sLdflags(): string {
  const gitCommit = "0dc63334c0db3e7b99244427615e091909fc486e";
  const own = "github.com/k3s-io/k3s/pkg/version";
  return linkerFlags([
    `${own}.Version=${defaultK3sVersion}`,
    `${own}.GitCommit=${gitCommit.slice(0, 8)}`,
    ...kubernetesVariables({
      gitVersion: defaultK3sVersion,
      gitCommit,
      gitTreeState: "clean",
      buildDate: "2022-11-15T21:54:39Z",
    }),
  ]);
}

const kubernetesVersion = "v1.34.4";
const [kubernetesMajor, kubernetesMinor] = kubernetesVersion.slice(1).split(".");

/** The modules in Kubernetes's repository; each is also published separately, as v0 of the same release. */
const kubernetesModules = words(`
  api apiextensions-apiserver apimachinery apiserver cli-runtime client-go cloud-provider cluster-bootstrap
  code-generator component-base component-helpers controller-manager cri-api cri-client csi-translation-lib
  dynamic-resource-allocation endpointslice externaljwt kms kube-aggregator kube-controller-manager kube-proxy
  kube-scheduler kubectl kubelet metrics mount-utils pod-security-admission sample-apiserver sample-cli-plugin
  sample-controller`);

/**
 * A static program of a Go module.
 * @param more.folder of the program in its module. @param more.versionIn the variable of the module that is its version.
 */
function goProgram(
  module: string,
  moduleVersion: string,
  [sum, goModSum]: readonly [sum: string, goModSum: string],
  more: Pick<ModuleWay, "require" | "seconds"> & { readonly folder?: string; readonly versionIn?: string },
): ModuleWay {
  const { folder, versionIn, require, seconds } = more;
  return {
    ...{ module, moduleVersion, sum, goModSum, package: folder ? `${module}/${folder}` : module },
    ...(require ? { require } : {}),
    ldflags: linkerFlags(versionIn ? [`${module}/${versionIn}=${moduleVersion}`] : []),
    cgo: "off",
    seconds,
  };
}

/** A program that a K3s built here needs: a release of K3s brings it. */
const besideK3s = (about: string, module: ModuleWay, release?: ReleaseWay): Entry => ({
  about,
  version: module.moduleVersion,
  stacks: ["cluster", "k3d"],
  besideModule: "k3s",
  runsOn: "machine",
  ways: { ...(release ? { release } : {}), module },
});

const helmVersion = "v3.20.2";
const k3dVersion = "v5.8.3";

/** Every tool of the lab: the only place that says which version is installed, from where and with which hash. */
const table = {
  pulumi: {
    about: "Pulumi's command line and engine",
    version: pulumiVersion,
    stacks: ["cluster", "apps", "k3d"],
    ways: {
      release: pulumiArchive("pulumi"),
      module: {
        module: "github.com/pulumi/pulumi/pkg/v3",
        moduleVersion: "v3.259.0",
        sum: "h1:Zf4wiLmgdhTAyq5dtTVnNY26BjtGrJ85ZQYut2qG6xM=",
        goModSum: "h1:/LDEE76XfaNuOs5GQxc6T9LVPmO3Wm8ZlSbFFfjDMjU=",
        package: "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
        ldflags: linkerFlags([`github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=${pulumiVersion}`]),
        seconds: 180,
      },
    },
  },
  "pulumi-language-nodejs": {
    about: "Runs the stacks' TypeScript for Pulumi",
    version: pulumiVersion,
    stacks: ["cluster", "apps", "k3d"],
    ways: {
      release: pulumiArchive("pulumi-language-nodejs"),
      module: {
        // The last version whose module holds the language host; newer ones keep it in a module that is not published.
        version: "v3.68.0",
        module: "github.com/pulumi/pulumi/sdk/v3",
        moduleVersion: "v3.68.0",
        sum: "h1:JWn3DGJhzoWL8bNbUdyLSSPeKS2F9mv14/EL9QeVT3w=",
        goModSum: "h1:A/WHc5MlxU8GpX/sRmfQ9G0/Bxxl4GNdSP7TQmy4yIw=",
        package: "github.com/pulumi/pulumi/sdk/v3/nodejs/cmd/pulumi-language-nodejs",
        ldflags: linkerFlags(),
        seconds: 37,
      },
    },
  },
  "pulumi-kubernetes": {
    about: "Pulumi's plugin for Kubernetes resources",
    version: "v4.25.0",
    stacks: ["apps"],
    files: ["pulumi-resource-kubernetes"],
    ways: {
      // From nixpkgs (pulumi-bin 3.221.0).
      release: pulumiPlugin("kubernetes", "v4.25.0", {
        "linux-amd64": "6ea3d53c16a00c4d1017c4d109928d8f4801fd7cd978965cd43917561f3774b0",
        "linux-arm64": "e4260240ed14bff6ed1a5a25a362311380ea1c072544fc262532b8197ea0725c",
        "darwin-amd64": "e5dffbef3525bb6f41c2b328afb471149c7396c263d2acd2ef2fab51d63d47f3",
        "darwin-arm64": "566425b7767be7184d59c7ea151812c98426d7dab85f93c9c676c1dc9d488d91",
      }),
      module: {
        // The commit of release v4.25.0.
        module: "github.com/pulumi/pulumi-kubernetes/provider/v4",
        moduleVersion: "v4.0.0-20260115033456-f47bc2d6f199",
        sum: "h1:j2bphCf7c2YhnBrhwht2f3TNRRgcMImltUlAgzxr9H4=",
        goModSum: "h1:61at6ZXhz4COFbTksqENrBzq5VUQ/LV8sdZ7WJt9KT4=",
        inChecksumDatabase: false,
        package: {
          recipe: "pulumi-kubernetes",
          copy: [
            "cmd/pulumi-resource-kubernetes/schema.json",
            "cmd/pulumi-resource-kubernetes/terraform-mapping.json",
          ],
        },
        binary: "pulumi-resource-kubernetes",
        ldflags: linkerFlags([
          "main.version=4.25.0",
          "github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/version.Version=4.25.0",
        ]),
        seconds: 418,
      },
    },
  },
  "pulumi-command": {
    about: "Pulumi's plugin for local commands",
    version: "v1.2.1",
    stacks: ["cluster", "k3d"],
    files: ["pulumi-resource-command"],
    ways: {
      release: pulumiPlugin("command", "v1.2.1"),
      bundled: { main: "scripts/toolchain/command-provider/main.ts", binary: "pulumi-resource-command" },
    },
  },
  k3s: {
    about: "Kubernetes in one program, with its installer",
    version: defaultK3sVersion,
    stacks: ["cluster", "k3d"],
    runsOn: "machine",
    files: ["k3s", "install.sh"],
    ways: {
      release: {
        version: k3sRelease,
        downloads: { "linux-amd64": k3sDownloads("amd64"), "linux-arm64": k3sDownloads("arm64") },
      },
      module: {
        module: "github.com/k3s-io/k3s",
        moduleVersion: "v1.25.5-0.20221115215439-0dc63334c0db",
        sum: "h1:62LPZgwik1d7yQ9xs0iOOIGEF6Ywbjyv4PqVyAaoMBo=",
        goModSum: "h1:bDqCO5RsW7NKzUuVoiRBTdUC3WWvVPDeWF3CmAXRS5g=",
        package: "github.com/k3s-io/k3s/cmd/server",
        tags: ["netcgo", "osusergo", "providerless", "urfave_cli_no_docs"],
        ldflags: k3sLdflags(),
        cgo: "required",
        cgoCflags: "-DSQLITE_ENABLE_DBSTAT_VTAB=1",
        // Its original repository is gone; the project moved here.
        replace: { "inet.af/tcpproxy": "github.com/inetaf/tcpproxy v0.0.0-20240214030015-3ce58045626c" },
        files: { "install.sh": "3f51c04045932cdaa9a7e222130a1744b72f5c3bdd668aa829663a2e578c195a" },
        seconds: 236,
      },
    },
  },
  traefik: besideK3s(
    "K3s's ingress controller, for its image",
    goProgram(
      "github.com/traefik/traefik/v2",
      "v2.11.14",
      ["h1:TxYR6gnMW3xjA3qXHb65A+VrKa0VugH2tZ3BEKXoD1s=", "h1:jZCBQ6ccELy0tp0c19t5KET6UaWLvRetLDrzxzN2t2s="],
      { folder: "cmd/traefik", versionIn: "pkg/version.Version", seconds: 225 },
    ),
  ),
  coredns: besideK3s(
    "K3s's cluster DNS, for its image",
    goProgram(
      "github.com/coredns/coredns",
      "v1.9.4",
      ["h1:SStEod1YmgIX+asjm5qOj17oqL22SmTxkS8Shq9zTeo=", "h1:I5S7QivE50qZVwi5Az8rB8xKFsg10aFn5Yw7+18LEZo="],
      // Its own x/net uses internals of package syscall, which linkers since Go 1.23 refuse.
      { require: { "golang.org/x/net": "v0.38.0", "golang.org/x/sys": "v0.31.0" }, seconds: 96 },
    ),
  ),
  helm: besideK3s(
    "Installs K3s's Traefik chart, for the image of its jobs",
    goProgram(
      "helm.sh/helm/v3",
      helmVersion,
      ["h1:binM4rvPx5DcNsa1sIt7UZi55lRbu3pZUFmQkSoRh48=", "h1:Fl1kBaWCpkUrM6IYXPjQ3bdZQfFrogKArqptvueZ6Ww="],
      { folder: "cmd/helm", versionIn: "internal/version.version", seconds: 57 },
    ),
    {
      downloads: onePerPlatform(
        {
          "linux-amd64": "258e830a9e613c8a7a302d6059b4bb3b9758f2f3e1bb8ea0d707ce10a9a72fea",
          "linux-arm64": "5ea2d6bc2cda3f8edf985e028809f5a9278f404fb8ab24044de9b7cb9b79a691",
        },
        (platform, sha256) => ({
          url: `https://get.helm.sh/helm-${helmVersion}-${platform}.tar.gz`,
          sha256,
          unpack: { helm: `${platform}/helm` },
        }),
      ),
    },
  ),
  "metrics-server": besideK3s(
    "K3s's metrics server, for its image",
    goProgram(
      "sigs.k8s.io/metrics-server",
      "v0.6.1",
      ["h1:XooqhTZu+HltKmPQYkzIarTvAbNvJOVhNLCqsZrznsI=", "h1:n0EsNkwCRklMlcIq4z2MzokErhVzg+Njly0tlWnl3yQ="],
      { folder: "cmd/metrics-server", seconds: 112 },
    ),
  ),
  "local-path-provisioner": besideK3s(
    "K3s's volumes on the nodes' disks, for its image",
    goProgram(
      "github.com/rancher/local-path-provisioner",
      "v0.0.30",
      ["h1:OkiuofkCSscddl7tma/B9Ox1wu+JEVSrP7IcZI65Ggo=", "h1:TqBzH7Qk0qgyzrX/PsG1X99IphVRnPaNWbWUDTxPTsw="],
      { seconds: 56 },
    ),
  ),
  flannel: besideK3s(
    "The CNI plugin of K3s's network, which Debian's package lacks",
    goProgram(
      "github.com/containernetworking/plugins",
      "v0.9.1",
      ["h1:FD1tADPls2EEi3flPc2OegIY1M9pUa9r2Quag7HMLV8=", "h1:xP/idU2ldlzN6m4p5LmGiwRDjeJr6FLK6vuiUwoH7P8="],
      // With its own cni it refuses K3s's configuration, which has cniVersion 1.0.0.
      {
        folder: "plugins/meta/flannel",
        require: { "github.com/containernetworking/cni": "v1.1.2" },
        seconds: 2,
      },
    ),
  ),
  k3d: {
    about: "K3s clusters in Docker",
    version: k3dVersion,
    stacks: ["k3d"],
    ways: {
      release: {
        downloads: onePerPlatform(
          {
            "linux-amd64": "dbaa79a76ace7f4ca230a1ff41dc7d8a5036a8ad0309e9c54f9bf3836dbe853e",
            "linux-arm64": "0b8110f2229631af7402fb828259330985918b08fefd38b7f1b788a1c8687216",
            "darwin-amd64": "fd0f8e9e8ea4d8bc3674572ca6ed0833b639bf57c43c708616d937377324cfea",
            "darwin-arm64": "8da468daa7dc7cf7cdd4735f90a9bb05179fa27858250f62e3d8cdf5b5ca0698",
          },
          (platform, sha256) => ({
            url: `${github}/k3d-io/k3d/releases/download/${k3dVersion}/k3d-${platform}`,
            sha256,
            as: "k3d",
          }),
        ),
      },
      module: goProgram(
        "github.com/k3d-io/k3d/v5",
        k3dVersion,
        [
          "h1:TRgPQNEV48b2PYXfus2F7fPepE7BKub4erNkY17K8Zs=",
          "h1:bFlhRV/R1cPT42ZZzQAHPHUF33CbCT8VSbjtjTr3J1Y=",
        ],
        { versionIn: "version.Version", seconds: 51 },
      ),
    },
  },
  kubernetes: {
    about: "Upstream Kubernetes with etcd, for a cluster that is not K3s",
    version: kubernetesVersion,
    stacks: ["tests"],
    runsOn: "machine",
    ways: {
      module: {
        module: "k8s.io/kubernetes",
        moduleVersion: kubernetesVersion,
        sum: "h1:Yy6R4QB8C9kJPp25GFqEvX5XQwY5qzKeqD0Xx6oAcmk=",
        goModSum: "h1:m6pZk6a179pRo2wsTiCPORJ86iOEQmfIzUvtyEF8BwA=",
        package: { recipe: "kubernetes", copy: [] },
        replace: Object.fromEntries(
          kubernetesModules.map((name) => [
            `k8s.io/${name}`,
            `k8s.io/${name} ${kubernetesVersion.replace("v1", "v0")}`,
          ]),
        ),
        ldflags: linkerFlags(
          kubernetesVariables({
            gitVersion: kubernetesVersion,
            gitMajor: kubernetesMajor,
            gitMinor: kubernetesMinor,
            gitTreeState: "clean",
          }),
        ),
        cgo: "off",
        seconds: 300,
      },
    },
  },
} satisfies Readonly<Record<string, Entry>>;

export const tools = Object.fromEntries(
  Object.entries<Entry>(table).map(([name, entry]) => [name, { name, files: [name], ...entry }]),
) as unknown as Readonly<Record<ToolName, Tool>>;

export const toolNames = Object.keys(tools) as ToolName[];

/** Whether a text names a tool. */
export const isToolName = (text: string): text is ToolName => Object.hasOwn(tools, text);

/** The platform on which a tool runs if the lab is on this one: machines are Linux, of the same architecture. */
export const platformOf = (tool: Tool, platform: Platform): Platform =>
  tool.runsOn === "machine" ? (platform.replace(/^[a-z]+/, "linux") as Platform) : platform;

/** A tool's version if it is installed this way. */
export const versionOf = (tool: Tool, way: Way): string =>
  (way === "bundled" ? undefined : tool.ways[way]?.version) ?? tool.version;

/** The ways in which a tool can be installed, in order of preference. */
export const waysOf = (tool: Tool): readonly Way[] => wayOrder.filter((way) => tool.ways[way] !== undefined);

/**
 * The tools that these stacks, or the tests, need.
 * @param way how K3s is installed: a release brings the images whose programs are otherwise built here.
 */
export const toolsOf = (stacks: readonly Needing[], way: Way): ToolName[] =>
  toolNames.filter((name) => {
    const { stacks: needing, besideModule } = tools[name];
    return (
      needing.some((stack) => stacks.includes(stack)) && (besideModule === undefined || way === "module")
    );
  });
