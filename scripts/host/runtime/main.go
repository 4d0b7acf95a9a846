// Command oci-runtime stands in front of runc on hosts that lack CAP_SYS_RESOURCE.
//
// There runc cannot grant that capability, raise resource limits or make a process harder to kill than its parent, so
// privileged containers and `exec` fail. This program takes those three wishes out of the container's config.json, or
// out of the process file of `exec`, and then becomes runc. It follows the OCI runtime command line and specification
// (opencontainers/runtime-spec, config.md).
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const dropped = "CAP_SYS_RESOURCE"

func main() {
	if err := relax(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "oci-runtime: %v\n", err)
		os.Exit(1)
	}
	runc, err := realRunc()
	if err == nil {
		err = syscall.Exec(runc, append([]string{"runc"}, os.Args[1:]...), os.Environ())
	}
	fmt.Fprintf(os.Stderr, "oci-runtime: runc cannot be started: %v\n", err)
	os.Exit(1)
}

// globalValues are runc's global options that take their value as the next argument.
var globalValues = map[string]bool{"--log": true, "--log-format": true, "--root": true, "--criu": true}

// relax edits the file that the command line makes runc read, if it makes it read one.
func relax(args []string) error {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		if globalValues[args[0]] && len(args) > 1 {
			args = args[1:]
		}
		args = args[1:]
	}
	if len(args) == 0 {
		return nil
	}
	switch args[0] {
	case "create", "run", "restore":
		bundle := option(args, "--bundle", "-b")
		return edit(filepath.Join(bundle, "config.json"), func(config map[string]any) {
			if process, ok := config["process"].(map[string]any); ok {
				relaxProcess(process)
			}
		})
	case "exec":
		if process := option(args, "--process", "-p"); process != "" {
			return edit(process, relaxProcess)
		}
	}
	return nil
}

// option is the value of an option in either spelling, as one argument or two; empty where it is not given.
func option(args []string, names ...string) string {
	for i, arg := range args {
		for _, name := range names {
			if arg == name && i+1 < len(args) {
				return args[i+1]
			}
			if value, found := strings.CutPrefix(arg, name+"="); found {
				return value
			}
		}
	}
	return ""
}

// edit rewrites a JSON file in place; numbers keep their digits.
func edit(file string, change func(map[string]any)) error {
	input, err := os.Open(file)
	if err != nil {
		return err
	}
	defer input.Close()
	decoder := json.NewDecoder(input)
	decoder.UseNumber()
	var content map[string]any
	if err := decoder.Decode(&content); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	change(content)
	output, err := json.Marshal(content)
	if err != nil {
		return err
	}
	return os.WriteFile(file, output, 0o600)
}

// relaxProcess takes out of an OCI process what needs CAP_SYS_RESOURCE.
func relaxProcess(process map[string]any) {
	delete(process, "rlimits")
	if adjust, ok := process["oomScoreAdj"].(json.Number); ok {
		if value, err := adjust.Int64(); err == nil && value < 0 {
			process["oomScoreAdj"] = 0
		}
	}
	sets, _ := process["capabilities"].(map[string]any)
	for name, set := range sets {
		list, _ := set.([]any)
		kept := make([]any, 0, len(list))
		for _, capability := range list {
			if capability != dropped {
				kept = append(kept, capability)
			}
		}
		sets[name] = kept
	}
}

// realRunc is the runc that this program stands in front of: the first on a fixed path that is not itself.
func realRunc() (string, error) {
	self, _ := os.Executable()
	own, _ := os.Stat(self)
	for _, folder := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"} {
		path := filepath.Join(folder, "runc")
		found, err := os.Stat(path)
		if err == nil && found.Mode()&0o111 != 0 && (own == nil || !os.SameFile(own, found)) {
			return path, nil
		}
	}
	return "", fmt.Errorf("no runc in /usr/sbin, /usr/bin, /usr/local/sbin or /usr/local/bin")
}
