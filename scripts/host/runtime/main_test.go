package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

const process = `{
	"args": ["sh"],
	"oomScoreAdj": -999,
	"rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1048576, "soft": 1048576}],
	"capabilities": {"bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE"], "effective": ["CAP_SYS_RESOURCE"]}
}`

const relaxed = `{
	"args": ["sh"],
	"oomScoreAdj": 0,
	"capabilities": {"bounding": ["CAP_CHOWN"], "effective": []}
}`

func write(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func same(t *testing.T, file, want string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var found, expected any
	if err := json.Unmarshal(text, &found); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(want), &expected); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(found, expected) {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestRelaxesTheConfigurationOfANewContainer(t *testing.T) {
	for _, arguments := range [][]string{
		{"--root", "/run/x", "create", "--bundle", "", "--pid-file", "p", "id"},
		{"run", "-b", "", "id"},
		{"--log=x", "create", "--bundle=", "id"},
	} {
		config := write(t, "config.json", `{"ociVersion": "1.0.2", "process": `+process+`}`)
		for i, argument := range arguments {
			switch {
			case argument == "":
				arguments[i] = filepath.Dir(config)
			case argument == "--bundle=":
				arguments[i] += filepath.Dir(config)
			}
		}
		if err := relax(arguments); err != nil {
			t.Fatal(err)
		}
		same(t, config, `{"ociVersion": "1.0.2", "process": `+relaxed+`}`)
	}
}

func TestRelaxesTheProcessOfAnExec(t *testing.T) {
	file := write(t, "process.json", process)
	if err := relax([]string{"--root", "/run/x", "exec", "--process", file, "--detach", "id"}); err != nil {
		t.Fatal(err)
	}
	same(t, file, relaxed)
}

func TestKeepsWhatNeedsNoCapability(t *testing.T) {
	file := write(t, "process.json", `{"oomScoreAdj": 1000, "user": {"uid": 18446744073709551615}}`)
	if err := relax([]string{"exec", "-p", file, "id"}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"oomScoreAdj":1000,"user":{"uid":18446744073709551615}}`; string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
}

func TestLeavesOtherCommandsAlone(t *testing.T) {
	for _, arguments := range [][]string{{}, {"--version"}, {"kill", "run", "9"}, {"delete", "create"}, {"exec", "id", "sh"}} {
		if err := relax(arguments); err != nil {
			t.Errorf("%q: %v", arguments, err)
		}
	}
}

func TestNamesTheFileThatIsNotJSON(t *testing.T) {
	file := write(t, "process.json", "{")
	if err := relax([]string{"exec", "--process", file, "id"}); err == nil {
		t.Error("a broken file was accepted")
	}
}
