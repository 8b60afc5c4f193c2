package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"gray/internal/core/explain"

	"github.com/spf13/cobra"
)

func (a *app) explainCommand() *cobra.Command {
	var w where
	format := choice{"text", []string{"text", "json"}}
	var timeout float64
	cmd := &cobra.Command{
		Use:         "explain",
		Short:       "Say why a task, an object or an actor is where it is: what it waits for, who holds it.",
		Annotations: map[string]string{usageNote: "ID"},
		Args:        cobra.ArbitraryArgs,
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return &usageError{cmd, "Missing argument 'ID': the id of a task, an object or an actor."}
		case len(args) > 1:
			return &usageError{cmd, fmt.Sprintf("Got unexpected extra argument (%s)", strings.Join(args[1:], " "))}
		}
		if _, err := explain.Parse(args[0]); err != nil {
			return &usageError{cmd, fmt.Sprintf("Invalid value for 'ID': %v.", err)}
		}
		return a.explain(&w, args[0], format.value, time.Duration(timeout*float64(time.Second)))
	}
	w.register(cmd)
	cmd.Flags().Var(&format, "format", "how to print it")
	cmd.Flags().Float64Var(&timeout, "timeout", 30, "seconds to wait for the head")
	return cmd
}

// explanation is the part of the head's answer that is printed.
type explanation struct {
	Result bool   `json:"result"`
	Msg    string `json:"msg"`
	Data   struct {
		Report json.RawMessage `json:"report"`
		Text   string          `json:"text"`
	} `json:"data"`
}

func (a *app) explain(w *where, id, format string, timeout time.Duration) error {
	address, d, err := w.find(true)
	if err != nil {
		return err
	}
	status, body, err := fetch(d, address, "/api/v0/explain/"+url.PathEscape(id), true, timeout)
	if err != nil {
		return err
	}
	var answer explanation
	switch err := json.Unmarshal(body, &answer); {
	case err == nil && !answer.Result && answer.Msg != "":
		return fmt.Errorf("the head at %s: %s", address, answer.Msg)
	case status != http.StatusOK:
		return fmt.Errorf("the head at %s answers with HTTP status %d: %s", address, status, strings.TrimSpace(string(body)))
	case err != nil:
		return fmt.Errorf("the head at %s answers with something else than a report: %w", address, err)
	}
	if format == "text" {
		fmt.Fprint(a.out, answer.Data.Text)
		return nil
	}
	var out bytes.Buffer
	if err := json.Indent(&out, answer.Data.Report, "", "  "); err != nil {
		return err
	}
	fmt.Fprintln(a.out, out.String())
	return nil
}
