package lint

import (
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The tree itself.

func tree(t *testing.T) (root string, files []*File) {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err = Load(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("found %d Go files below %s: the rules looked at the wrong place", len(files), root)
	}
	return root, files
}

func report(t *testing.T, bad []string) {
	t.Helper()
	for _, b := range bad {
		t.Error(b)
	}
}

func TestImportsPointDown(t *testing.T) {
	_, files := tree(t)
	for _, f := range files {
		report(t, CheckImports(f))
	}
}

func TestCoreIsPure(t *testing.T) {
	_, files := tree(t)
	for _, f := range files {
		report(t, CheckPure(f))
	}
}

func TestTestsDoNotSleep(t *testing.T) {
	_, files := tree(t)
	for _, f := range files {
		report(t, CheckSleep(f))
	}
}

func TestPackagesAreDocumented(t *testing.T) {
	_, files := tree(t)
	report(t, CheckDocs(files))
}

func TestWordsAndLengths(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	err = Walk(root, func(path string) error {
		text, err := os.ReadFile(filepath.Join(root, path))
		if os.IsNotExist(err) {
			return nil // a file that a tool is just replacing
		}
		if err != nil {
			return err
		}
		seen++
		report(t, CheckWords(path, text))
		report(t, CheckLength(path, text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 10 {
		t.Fatalf("read %d files below %s: the rules looked at the wrong place", seen, root)
	}
}

// The rules, on texts that break them.

func parse(t *testing.T, path, src string) *File {
	t.Helper()
	f, err := Parse(token.NewFileSet(), path, []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCheckImports(t *testing.T) {
	for _, tc := range []struct {
		name, path, imports, want string
	}{
		{"core takes core", "internal/core/engine/e.go", `"gray/internal/core/ids"; "slices"; "time"`, ""},
		{"core takes no socket", "internal/core/engine/e.go", `"net"`, "the core decides"},
		{"core takes no dependency", "internal/core/engine/e.go", `"golang.org/x/sys/unix"`, "the core decides"},
		{"core takes no lock", "internal/core/engine/e.go", `"sync"`, "the core decides"},
		{"core takes no shell", "internal/core/engine/e.go", `"gray/internal/wire"`, "may not"},
		{"a test of the core takes test libraries", "internal/core/engine/e_test.go", `"testing"; "pgregory.net/rapid"`, ""},
		{"wire takes plain values of the core", "internal/wire/w.go", `"gray/internal/core/ids"; "gray/internal/core/fault"`, ""},
		{"wire takes no more of it", "internal/wire/w.go", `"gray/internal/core/engine"`, "may not"},
		{"a name that only begins alike", "internal/wire/w.go", `"gray/internal/core/idsx"`, "may not"},
		{"the shell takes parts", "internal/node/n.go", `"gray/internal/arena"; "net"`, ""},
		{"the shell takes no command", "internal/node/n.go", `"gray/cmd/ray"`, "may not"},
		{"the shell takes no face", "internal/node/n.go", `"gray/internal/api"`, "faces lie over"},
		{"the command takes the shell", "cmd/ray/main.go", `"gray/internal/node"`, ""},
		{"an external test takes its package", "internal/lint/l_test.go", `"gray/internal/lint"`, ""},
		{"a folder nobody placed", "internal/util/u.go", `"fmt"`, "is not in"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src := "package p\n"
			for _, imp := range strings.Split(tc.imports, "; ") {
				src += "import _ " + imp + "\n"
			}
			got := strings.Join(CheckImports(parse(t, tc.path, src)), "\n")
			if tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
				t.Errorf("CheckImports = %q, want %q in it", got, tc.want)
			}
		})
	}
}

func TestCheckPure(t *testing.T) {
	for _, tc := range []struct {
		name, path, body, want string
	}{
		{"reads the clock", "internal/core/x/x.go", `_ = time.Now()`, "time.Now"},
		{"passes the clock on", "internal/core/x/x.go", `f := time.Now; _ = f`, "time.Now"},
		{"waits", "internal/core/x/x.go", `<-time.After(time.Second)`, "time.After"},
		{"starts a goroutine", "internal/core/x/x.go", `go func() {}()`, "go statement"},
		{"has a channel", "internal/core/x/x.go", `_ = make(chan int)`, "a channel"},
		{"selects", "internal/core/x/x.go", `select {}`, "a select"},
		{"computes with time", "internal/core/x/x.go", `_ = time.Unix(1, 0).Add(time.Second)`, ""},
		{"a test may", "internal/core/x/x_test.go", `_ = time.Now()`, ""},
		{"a shell may", "internal/node/x.go", `_ = time.Now()`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src := "package x\nimport \"time\"\nvar _ time.Time\nfunc f() { " + tc.body + " }\n"
			got := strings.Join(CheckPure(parse(t, tc.path, src)), "\n")
			if tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
				t.Errorf("CheckPure = %q, want %q in it", got, tc.want)
			}
		})
	}
}

func TestCheckSleep(t *testing.T) {
	src := "package x\nimport \"time\"\nfunc f() { time.Sleep(1) }\n"
	if got := CheckSleep(parse(t, "internal/node/x_test.go", src)); len(got) != 1 {
		t.Errorf("a sleep in a test: %q, want one line", got)
	}
	if got := CheckSleep(parse(t, "internal/node/x.go", src)); len(got) != 0 {
		t.Errorf("a sleep outside tests: %q, want none", got)
	}
	bubble := "package x\nimport \"testing/synctest\"\nimport \"time\"\nvar _ = synctest.Wait\nfunc f() { time.Sleep(1) }\n"
	if got := CheckSleep(parse(t, "internal/node/x_test.go", bubble)); len(got) != 0 {
		t.Errorf("a sleep where time is made up: %q, want none", got)
	}
}

func TestCheckDocs(t *testing.T) {
	for _, tc := range []struct {
		name, path, src string
		ok              bool
	}{
		{"documented", "internal/a/a.go", "// Package a owns a.\npackage a\n", true},
		{"silent", "internal/a/a.go", "package a\n", false},
		{"about something else", "internal/a/a.go", "// Some words.\npackage a\n", false},
		{"command", "cmd/ray/main.go", "// Command ray starts nodes.\npackage main\n", true},
		{"command called a package", "cmd/ray/main.go", "// Package main starts nodes.\npackage main\n", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := CheckDocs([]*File{parse(t, tc.path, tc.src)}); (len(got) == 0) != tc.ok {
				t.Errorf("CheckDocs = %q, want fine = %t", got, tc.ok)
			}
		})
	}
}

func TestCheckWords(t *testing.T) {
	for _, tc := range []struct {
		path, text string
		bad        bool
	}{
		{"a.md", "fetch it from py" + "pi.org", true},
		{"a.md", "see /wo" + "rk/main", true},
		{"a.md", "the frame/work/flow", false},
		{"a.sh", "p" + "kill ray", true},
		{"a.go", "// see Iss" + "ue #12", true},
		{"a.go", "// an issue of time", false},
		{"a.py", "open('../sha" + "red/x')", true},
		{"Makefile", "KIT ?= ../sha" + "red/kit", false},
		{"go.sum", "py" + "pi.org", false},
		{"binary", "\x00 py" + "pi.org", false},
	} {
		if got := CheckWords(tc.path, []byte(tc.text)); (len(got) > 0) != tc.bad {
			t.Errorf("CheckWords(%q, %q) = %q, want bad = %t", tc.path, tc.text, got, tc.bad)
		}
	}
}

func TestCheckLength(t *testing.T) {
	long := []byte(strings.Repeat("x\n", MaxLines+1))
	if len(CheckLength("a.go", long)) == 0 {
		t.Error("a file of more than MaxLines lines passed")
	}
	if got := CheckLength("a.go", long[2:]); len(got) != 0 {
		t.Errorf("a file of MaxLines lines did not pass: %q", got)
	}
	if got := CheckLength("a.go", append([]byte("// Code generated by x. DO NOT EDIT.\n"), long...)); len(got) != 0 {
		t.Errorf("a generated file did not pass: %q", got)
	}
}
