package main

import (
	"errors"
	"fmt"

	"gray/internal/session"

	"github.com/spf13/cobra"
)

func (a *app) tokenCommand() *cobra.Command {
	var generate bool
	var tempDir string
	cmd := &cobra.Command{
		Use:   "get-auth-token",
		Short: "Print the token by which nodes and clients join this user's clusters.",
		RunE: func(*cobra.Command, []string) error {
			find := func() (session.Token, error) {
				file := ""
				if address, err := currentAddress(tempDir); err == nil {
					file = localTokenFile(tempDir, address)
				}
				return session.FindToken(file)
			}
			t, err := find()
			if errors.Is(err, session.ErrNoToken) && generate {
				t, err = session.HeadToken()
			}
			if errors.Is(err, session.ErrNoToken) {
				return fmt.Errorf("%w; `ray get-auth-token --generate` makes one", err)
			}
			if err != nil {
				return err
			}
			if t.Notice != "" {
				fmt.Fprintln(a.err, t.Notice)
			}
			fmt.Fprint(a.out, t.Reveal()) // no newline: it is put into variables and files
			return nil
		},
	}
	cmd.Flags().BoolVar(&generate, "generate", false, "make ~/.ray/auth_token if there is no token")
	cmd.Flags().StringVar(&tempDir, "temp-dir", "", "folder of the sessions (default $RAY_TMPDIR/ray or /tmp/ray)")
	return cmd
}
