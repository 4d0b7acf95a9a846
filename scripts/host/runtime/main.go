// Command oci-runtime wraps runc on hosts that lack CAP_SYS_RESOURCE.
//
// There, runc cannot grant that capability, raise resource limits or lower a process's OOM score below its parent's, so
// privileged containers and `exec` fail. This program removes these three requests from the container's config.json, or
// from the process file of `exec`, and then replaces itself with runc. It follows the OCI runtime command line and
// specification (opencontainers/runtime-spec, config.md).
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

// globalValues are runc's global options that take a value as the next argument.
var globalValues = map[string]bool{"--log": true, "--log-format": true, "--root": true, "--criu": true}

// relax edits the file that runc will read for this command line, if there is one.
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

// option returns the value of an option, given as `--name value` or `--name=value`; empty if it is missing.
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

// edit rewrites a JSON file in place; numbers keep all their digits.
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

// relaxProcess removes everything that needs CAP_SYS_RESOURCE from an OCI process.
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

// realRunc finds the runc to wrap: the first one on a fixed path that is not this program.
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
