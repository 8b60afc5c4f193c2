package session

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"gray/internal/core/fault"

	"golang.org/x/sys/unix"
)

// Environment of the token.
const (
	EnvAuthMode  = "RAY_AUTH_MODE"
	EnvToken     = "RAY_AUTH_TOKEN"
	EnvTokenPath = "RAY_AUTH_TOKEN_PATH"
)

// TokenFile is the token's name in a session folder.
const TokenFile = "auth_token"

const maxToken = 4096

// Token is a cluster's secret. It prints as "[token]" whatever the verb; only Reveal gives it away.
type Token struct {
	secret string
	Source string // where it was found: "RAY_AUTH_TOKEN", a path
	Notice string // something the user should know about it, or ""
}

// NewToken makes a token from its text.
func NewToken(text, source string) (Token, error) {
	text = string(trimSpace([]byte(text)))
	fail := func(why string) (Token, error) {
		return Token{}, &fault.Error{Op: "read token", Ref: source, Kind: fault.Auth, Detail: why}
	}
	switch {
	case text == "":
		return fail("it is empty; run `ray get-auth-token --generate`, or copy the head's token")
	case len(text) > maxToken:
		return fail(fmt.Sprintf("it has %d characters; a token has at most %d", len(text), maxToken))
	}
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' { // it must fit into an HTTP header
			return fail("it holds spaces, line breaks or characters that are not ASCII; a token is one word")
		}
	}
	return Token{secret: text, Source: source}, nil
}

// RandomToken makes a token of 256 random bits.
func RandomToken() Token {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process if the system has no randomness
	return Token{secret: hex.EncodeToString(b[:]), Source: "random"}
}

// DisabledToken stands for the token where RAY_AUTH_MODE=disabled switches authentication off: everybody knows it.
func DisabledToken() Token { return Token{secret: "disabled", Source: EnvAuthMode} }

// Reveal is the token's text.
func (t Token) Reveal() string { return t.secret }

// IsZero reports whether there is no token.
func (t Token) IsZero() bool { return t.secret == "" }

// Equal compares with text in a time that does not depend on where they differ.
func (t Token) Equal(text string) bool {
	return t.secret != "" && subtle.ConstantTimeCompare([]byte(t.secret), []byte(text)) == 1
}

func (t Token) String() string               { return "[token]" }
func (t Token) GoString() string             { return "[token]" }
func (t Token) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte("[token]")) } // the caller's writer reports
func (t Token) LogValue() slog.Value         { return slog.StringValue("[token]") }
func (t Token) MarshalJSON() ([]byte, error) { return []byte(`"[token]"`), nil }
func (t Token) MarshalText() ([]byte, error) { return []byte("[token]"), nil }

var _ json.Marshaler = Token{}

// AuthDisabled reads RAY_AUTH_MODE.
func AuthDisabled() (bool, error) {
	switch mode := os.Getenv(EnvAuthMode); mode {
	case "", "token", "k8s":
		return false, nil
	case "disabled":
		return true, nil
	default:
		return false, &fault.Error{Op: "read " + EnvAuthMode, Ref: mode, Kind: fault.Auth, Detail: "use token, k8s or disabled"}
	}
}

// homeTokenPath is ~/.ray/auth_token.
func homeTokenPath() (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", &fault.Error{
			Op: "find token", Kind: fault.Auth, Err: err,
			Detail: "set " + EnvToken + " or " + EnvTokenPath + ", for there is no home directory",
		}
	}
	return filepath.Join(home, ".ray", TokenFile), nil
}

// GivenToken is the token of RAY_AUTH_TOKEN or of the file RAY_AUTH_TOKEN_PATH names.
func GivenToken() (Token, bool, error) {
	if text, ok := os.LookupEnv(EnvToken); ok && text != "" {
		t, err := NewToken(text, EnvToken)
		return t, true, err
	}
	path := os.Getenv(EnvTokenPath)
	if path == "" {
		return Token{}, false, nil
	}
	// A path that the user names may be a symlink and readable by others: mounted Kubernetes secrets are.
	f, err := os.Open(path)
	if err != nil {
		return Token{}, true, &fault.Error{Op: "read token", Ref: path, Kind: fault.Auth, Detail: EnvTokenPath + " names this file", Err: err}
	}
	defer f.Close()
	b := make([]byte, maxToken+64)
	n, err := f.Read(b)
	if err != nil && n == 0 {
		return Token{}, true, &fault.Error{Op: "read token", Ref: path, Kind: fault.Auth, Detail: EnvTokenPath + " names this file", Err: err}
	}
	t, err := NewToken(string(b[:n]), path)
	return t, true, err
}

// ReadTokenFile reads a token from a file that must be ours and nobody else's to read.
func ReadTokenFile(path string) (Token, error) {
	b, err := readFileAt(unix.AT_FDCWD, path)
	if err != nil {
		return Token{}, &fault.Error{Op: "read token", Ref: path, Kind: fault.Auth, Err: err}
	}
	return NewToken(string(b), path)
}

// ErrNoToken: no place holds a token.
var ErrNoToken = errors.New("no authentication token found: set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token " +
	"(`ray get-auth-token` on the head prints it), or put it into ~/.ray/auth_token with mode 0600")

// FindToken looks for a client's token: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, the node file's token file ("" = none),
// ~/.ray/auth_token. ErrNoToken if there is none.
func FindToken(nodeTokenFile string) (Token, error) {
	if off, err := AuthDisabled(); off || err != nil {
		return DisabledToken(), err
	}
	if t, ok, err := GivenToken(); ok {
		return t, err
	}
	if nodeTokenFile != "" {
		return ReadTokenFile(nodeTokenFile)
	}
	return homeToken()
}

func homeToken() (Token, error) {
	path, err := homeTokenPath()
	if err != nil {
		return Token{}, err
	}
	notice, err := closeHomeToken(path)
	if err != nil {
		return Token{}, &fault.Error{Op: "read token", Ref: path, Kind: fault.Auth, Err: err}
	}
	t, err := ReadTokenFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Token{}, ErrNoToken
	}
	t.Notice = notice
	return t, err
}

// closeHomeToken takes others' right to read the file: Ray itself makes it with mode 0644.
func closeHomeToken(path string) (notice string, err error) {
	f, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return "", err
	}
	defer f.Close()
	st, err := stat(f)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != os.Getuid() || st.Mode&0o022 != 0 || st.Mode&0o055 == 0 {
		return "", err // fine, or for ReadTokenFile to refuse
	}
	if err := f.Chmod(0o600); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s could be read by other users (mode %04o) and has been closed to them; if they may have read it, remove it and restart the cluster",
		path, st.Mode&0o777), nil
}

// HeadToken is the token for a head that starts: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token, which is made
// if it is missing. Heads that start together agree on one.
func HeadToken() (Token, error) {
	t, err := FindToken("")
	if !errors.Is(err, ErrNoToken) {
		return t, err
	}
	path, err := homeTokenPath()
	if err != nil {
		return Token{}, err
	}
	fail := func(err error) (Token, error) {
		return Token{}, &fault.Error{Op: "make token", Ref: path, Kind: fault.Auth, Detail: "or set " + EnvToken, Err: err}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fail(err)
	}
	// Written aside and linked into place: nobody reads half a token, and of several makers the first wins.
	tmp := filepath.Join(filepath.Dir(path), tempName(TokenFile))
	f, err := openat(unix.AT_FDCWD, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return fail(err)
	}
	_, err = f.WriteString(RandomToken().Reveal() + "\n")
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = unix.Linkat(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, 0)
	}
	if rerr := os.Remove(tmp); err == nil {
		err = rerr
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fail(err)
	}
	return homeToken()
}

// WriteToken keeps the token in the session, for local clients, and gives the file's path.
func (d *Dir) WriteToken(t Token) (string, error) {
	return filepath.Join(d.Path, TokenFile), d.WriteFile(TokenFile, []byte(t.Reveal()+"\n"))
}

// HideMemory keeps this process's memory, and so the token, out of core dumps and from debuggers. Programs that it
// starts are not concerned.
func HideMemory() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_DUMPABLE, 0): %w", err)
	}
	return nil
}
