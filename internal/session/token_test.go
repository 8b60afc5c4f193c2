package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// noToken makes an environment without any token, with an empty home.
func noToken(t *testing.T) (home string) {
	t.Helper()
	home = t.TempDir()
	t.Setenv("HOME", home)
	for _, k := range []string{EnvToken, EnvTokenPath, EnvAuthMode} {
		t.Setenv(k, "")
	}
	return home
}

func TestTokenNeverPrints(t *testing.T) {
	tok := RandomToken()
	secret := tok.Reveal()
	if len(secret) != 64 {
		t.Errorf("%d characters, want 64", len(secret))
	}
	b, err := json.Marshal(map[string]any{"t": tok, "p": &tok})
	check(t, err)
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "token", tok, "in", struct{ T Token }{tok})
	for _, out := range []string{
		fmt.Sprint(tok), fmt.Sprintf("%v %+v %#v %s %q %x %d", tok, tok, tok, tok, tok, tok, tok),
		fmt.Sprintf("%+v %#v", struct{ T Token }{tok}, &struct{ T *Token }{&tok}), string(b), log.String(),
	} {
		if strings.Contains(out, secret) || strings.Contains(out, fmt.Sprintf("%x", secret)) {
			t.Errorf("the token shows: %s", out)
		}
	}
	if !tok.Equal(secret) || tok.Equal(secret[1:]) || tok.Equal("") || (Token{}).Equal("") {
		t.Error("Equal is wrong")
	}
}

func TestNewToken(t *testing.T) {
	for _, bad := range []string{"", " \n", "a b", "a\nb", "a\x00", "ä", strings.Repeat("x", maxToken+1)} {
		if _, err := NewToken(bad, "here"); err == nil {
			t.Errorf("NewToken(%q) succeeded", bad)
		} else if bad != "" && len(bad) > 3 && strings.Contains(err.Error(), bad) {
			t.Errorf("the error tells the token: %v", err)
		}
	}
	tok, err := NewToken(" abc\n", "here")
	check(t, err)
	if tok.Reveal() != "abc" {
		t.Errorf("token = %q, want it without white space", tok.Reveal())
	}
}

func TestFindToken(t *testing.T) {
	home := noToken(t)
	if _, err := FindToken(""); !errors.Is(err, ErrNoToken) {
		t.Fatalf("err = %v, want ErrNoToken", err)
	}
	find := func(nodeFile, want string) {
		t.Helper()
		tok, err := FindToken(nodeFile)
		check(t, err)
		if tok.Reveal() != want {
			t.Errorf("found %q in %s, want %q", tok.Reveal(), tok.Source, want)
		}
	}
	// Each place outdoes those that were set before it.
	check(t, os.Mkdir(filepath.Join(home, ".ray"), 0o700))
	homeFile := filepath.Join(home, ".ray", "auth_token")
	check(t, os.WriteFile(homeFile, []byte("of-home\n"), 0o600))
	find("", "of-home")
	r := root(t)
	d := mustCreate(t, r)
	inSession, err := d.WriteToken(Token{secret: "of-session"})
	check(t, err)
	find(inSession, "of-session")
	mounted := filepath.Join(t.TempDir(), "mounted")
	check(t, os.WriteFile(mounted, []byte("of-path\n"), 0o644))
	link := mounted + ".link"
	check(t, os.Symlink(mounted, link)) // as Kubernetes mounts secrets
	t.Setenv(EnvTokenPath, link)
	find(inSession, "of-path")
	t.Setenv(EnvToken, "of-env")
	find(inSession, "of-env")
	t.Setenv(EnvAuthMode, "disabled")
	find(inSession, "disabled")
	t.Setenv(EnvAuthMode, "magic")
	_, err = FindToken("")
	wantError(t, err, "magic")
	t.Setenv(EnvAuthMode, "")
	t.Setenv(EnvToken, "")
	t.Setenv(EnvTokenPath, mounted+".missing")
	_, err = FindToken("")
	wantError(t, err, EnvTokenPath, "missing")
	t.Setenv(EnvTokenPath, "")

	check(t, os.Chmod(homeFile, 0o644)) // as Ray leaves it
	tok, err := FindToken("")
	check(t, err)
	if st, err := os.Stat(homeFile); err != nil || st.Mode().Perm() != 0o600 || !strings.Contains(tok.Notice, homeFile) {
		t.Errorf("mode = %v, %v, notice %q; want 0600 and a word about it", st.Mode(), err, tok.Notice)
	}
	check(t, os.Chmod(homeFile, 0o622)) // others may have put theirs there
	_, err = FindToken("")
	wantError(t, err, "chmod 600", homeFile)
	check(t, os.Remove(homeFile))
	check(t, os.Symlink(mounted, homeFile))
	if _, err = FindToken(""); err == nil {
		t.Error("a symlinked ~/.ray/auth_token was followed")
	}
}

func TestHeadTokenMadeOnce(t *testing.T) {
	home := noToken(t)
	got := make([]string, 20)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			tok, err := HeadToken()
			if err != nil {
				t.Error(err)
			}
			got[i] = tok.Reveal()
		})
	}
	wg.Wait()
	for _, g := range got {
		if g != got[0] || len(g) != 64 {
			t.Fatalf("heads that start together disagree: %q and %q", g, got[0])
		}
	}
	st, err := os.Stat(filepath.Join(home, ".ray", "auth_token"))
	check(t, err)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, want 0600", st.Mode())
	}
	left, err := os.ReadDir(filepath.Join(home, ".ray"))
	check(t, err)
	if len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}
