package pool

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gray/internal/core/fault"
)

// Minor asks an interpreter for its minor version, such as "3.11", which takes it some milliseconds.
func Minor(ctx context.Context, python string) (string, error) {
	// without its site packages, which take longest to load and have no say in this
	cmd := exec.CommandContext(ctx, python, "-I", "-S", "-c", `import sys; print("%d.%d" % sys.version_info[:2])`)
	// It may be a script that starts the interpreter, which then holds the pipe for longer than the script lives.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	text := strings.TrimSpace(string(out))
	if err == nil && !regexp.MustCompile(`^3\.[0-9]+$`).MatchString(text) {
		err = fmt.Errorf("it answers %.80q, not a version of Python 3", text)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		err = fmt.Errorf("%w: %.200s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("it does not answer: %w", ctx.Err())
	}
	if err != nil {
		return "", &fault.Error{Op: "ask for the version of", Ref: python, Kind: fault.System, Err: err}
	}
	return text, nil
}
