package client

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Options are what a user may choose besides the kubeconfig itself.
type Options struct {
	Kubeconfig string // file; "" = $KUBECONFIG, ~/.kube/config, then this pod's ServiceAccount
	Context    string // "" = the current one
	Namespace  string // "" = the context's, else "default"
}

// Where a pod finds its ServiceAccount. A variable, so that tests have one of their own.
var accountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// file is what a kubeconfig says. Unknown fields are left alone.
type file struct {
	CurrentContext string `yaml:"current-context"`
	Clusters       []struct {
		Name    string
		Cluster clusterEntry
	}
	Users []struct {
		Name string
		User userEntry
	}
	Contexts []struct {
		Name    string
		Context contextEntry
	}
}

type clusterEntry struct {
	Server     string
	CAFile     string `yaml:"certificate-authority"`
	CAData     string `yaml:"certificate-authority-data"`
	Insecure   bool   `yaml:"insecure-skip-tls-verify"`
	ServerName string `yaml:"tls-server-name"`
	Proxy      string `yaml:"proxy-url"`
}

type contextEntry struct{ Cluster, User, Namespace string }

type userEntry struct {
	CertFile     string `yaml:"client-certificate"`
	CertData     string `yaml:"client-certificate-data"`
	KeyFile      string `yaml:"client-key"`
	KeyData      string `yaml:"client-key-data"`
	Token        string
	TokenFile    string `yaml:"tokenFile"`
	Username     string
	Password     string
	Exec         *execEntry
	AuthProvider *struct{ Name string } `yaml:"auth-provider"`
	As           string                 `yaml:"as"`
	AsUID        string                 `yaml:"as-uid"`
	AsGroups     []string               `yaml:"as-groups"`
	AsExtra      map[string]([]string)  `yaml:"as-user-extra"`
}

// Load finds the API server and the user's credentials, as kubectl does.
func Load(o Options) (*Client, error) {
	files, named, err := configFiles(o)
	if err != nil {
		return nil, err
	}
	merged := &file{}
	var read []string
	for _, path := range files {
		f, err := readConfig(path)
		if errors.Is(err, fs.ErrNotExist) && o.Kubeconfig == "" {
			continue // a file of $KUBECONFIG that is not there yet is none, as for kubectl
		}
		if err != nil {
			return nil, err
		}
		merged.merge(f)
		read = append(read, path)
	}
	if len(merged.Contexts) == 0 && len(merged.Clusters) == 0 {
		if o.Context == "" && o.Kubeconfig == "" && len(read) == 0 {
			if c, err := inCluster(o); c != nil || err != nil {
				return c, err
			}
		}
		return nil, fmt.Errorf("no Kubernetes cluster is configured: %s, and this is no pod with a ServiceAccount token; put the kubeconfig that you were given there, or name it by KUBECONFIG=FILE", none(files, read, named))
	}
	return merged.client(o, strings.Join(read, ":"))
}

// none says where was looked in vain.
func none(files, read []string, named bool) string {
	if len(read) > 0 {
		return strings.Join(read, ", ") + " names no cluster"
	}
	if named {
		return "$KUBECONFIG names " + strings.Join(files, ", ") + ", which does not exist"
	}
	return "$KUBECONFIG is not set, " + strings.Join(files, ", ") + " does not exist"
}

func configFiles(o Options) (files []string, named bool, err error) {
	if o.Kubeconfig != "" {
		return []string{o.Kubeconfig}, true, nil
	}
	for _, f := range filepath.SplitList(os.Getenv("KUBECONFIG")) {
		if f != "" {
			files = append(files, f)
		}
	}
	if len(files) > 0 {
		return files, true, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return []string{"~/.kube/config"}, false, nil //nolint:nilerr // no home: a pod's account may do
	}
	return []string{filepath.Join(home, ".kube", "config")}, false, nil
}

func readConfig(path string) (*file, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("can't read the kubeconfig: %w", err)
	}
	f := &file{}
	if err := yaml.Unmarshal(text, f); err != nil {
		return nil, fmt.Errorf("the kubeconfig %s is no valid YAML: %s", path, oneLine(err.Error()))
	}
	dir := filepath.Dir(path)
	beside := func(p *string) { // files named in a kubeconfig lie beside it
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	for i := range f.Clusters {
		beside(&f.Clusters[i].Cluster.CAFile)
	}
	for i := range f.Users {
		u := &f.Users[i].User
		beside(&u.CertFile)
		beside(&u.KeyFile)
		beside(&u.TokenFile)
		if u.Exec != nil && strings.ContainsRune(u.Exec.Command, filepath.Separator) {
			beside(&u.Exec.Command)
		}
	}
	return f, nil
}

// merge adds what f has and the receiver has not: of two files the first wins, name by name.
func (m *file) merge(f *file) {
	if m.CurrentContext == "" {
		m.CurrentContext = f.CurrentContext
	}
	for _, c := range f.Clusters {
		if _, ok := m.cluster(c.Name); !ok {
			m.Clusters = append(m.Clusters, c)
		}
	}
	for _, u := range f.Users {
		if _, ok := m.user(u.Name); !ok {
			m.Users = append(m.Users, u)
		}
	}
	for _, c := range f.Contexts {
		if _, ok := m.context(c.Name); !ok {
			m.Contexts = append(m.Contexts, c)
		}
	}
}

func (m *file) cluster(name string) (clusterEntry, bool) {
	for _, c := range m.Clusters {
		if c.Name == name {
			return c.Cluster, true
		}
	}
	return clusterEntry{}, false
}

func (m *file) user(name string) (userEntry, bool) {
	for _, u := range m.Users {
		if u.Name == name {
			return u.User, true
		}
	}
	return userEntry{}, false
}

func (m *file) context(name string) (contextEntry, bool) {
	for _, c := range m.Contexts {
		if c.Name == name {
			return c.Context, true
		}
	}
	return contextEntry{}, false
}

func (m *file) client(o Options, source string) (*Client, error) {
	name := o.Context
	if name == "" {
		name = m.CurrentContext
	}
	var names []string
	for _, c := range m.Contexts {
		names = append(names, c.Name)
	}
	list := strings.Join(names, ", ")
	if name == "" {
		return nil, fmt.Errorf("%s has no current context; choose one by --context: %s", source, list)
	}
	ctx, ok := m.context(name)
	if !ok {
		return nil, fmt.Errorf("%s has no context %q; it has: %s", source, name, list)
	}
	entry, ok := m.cluster(ctx.Cluster)
	if !ok || entry.Server == "" {
		return nil, fmt.Errorf("context %q of %s is of cluster %q, which has no server there; choose another by --context, or repair the file", name, source, ctx.Cluster)
	}
	user, ok := m.user(ctx.User)
	if !ok && ctx.User != "" {
		return nil, fmt.Errorf("context %q of %s is of user %q, who is not in that file; choose another by --context, or repair the file", name, source, ctx.User)
	}
	c := &Client{Context: name, User: ctx.User, Source: source, Namespace: first(o.Namespace, ctx.Namespace, "default")}
	return c, c.set(entry, user)
}

// inCluster is the client of a pod's own ServiceAccount; nil if this is no pod.
func inCluster(o Options) (*Client, error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	tokenFile := filepath.Join(accountDir, "token")
	if host == "" || port == "" {
		return nil, nil
	}
	if _, err := os.Stat(tokenFile); err != nil {
		return nil, fmt.Errorf("this pod has no kubeconfig and no ServiceAccount token (%s); start it with automountServiceAccountToken: true and a ServiceAccount that has the ClusterRole edit in its namespace", tokenFile)
	}
	own, err := os.ReadFile(filepath.Join(accountDir, "namespace"))
	if err != nil && o.Namespace == "" {
		return nil, fmt.Errorf("can't find this pod's namespace; name it by -n: %w", err)
	}
	c := &Client{Context: "this pod", User: "this pod's ServiceAccount", Source: accountDir, Namespace: first(o.Namespace, strings.TrimSpace(string(own)), "default")}
	return c, c.set(clusterEntry{Server: "https://" + net.JoinHostPort(host, port), CAFile: filepath.Join(accountDir, "ca.crt")}, userEntry{TokenFile: tokenFile})
}

// set makes the transport.
func (c *Client) set(entry clusterEntry, user userEntry) error {
	base, err := url.Parse(entry.Server)
	if err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" {
		return fmt.Errorf("the server %q of context %q in %s is no http(s) address; repair that file", entry.Server, c.Context, c.Source)
	}
	c.base, c.user = base, user
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: entry.ServerName, InsecureSkipVerify: entry.Insecure} // the user's own choice, in his file
	pem, err := data(entry.CAData, entry.CAFile)
	if err != nil {
		return c.broken("the cluster's certificate authority", err)
	}
	if pem != nil {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return c.broken("the cluster's certificate authority", errors.New("no certificate in it"))
		}
	}
	cert, err := data(user.CertData, user.CertFile)
	if err != nil {
		return c.broken("the client certificate", err)
	}
	key, err := data(user.KeyData, user.KeyFile)
	if err != nil {
		return c.broken("the client key", err)
	}
	if cert != nil {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return c.broken("the client certificate", err)
		}
		if pair.Leaf != nil && time.Now().After(pair.Leaf.NotAfter) {
			return fmt.Errorf("the credentials of %q in %s expired at %s; get a new kubeconfig, or log in again", c.User, c.Source, pair.Leaf.NotAfter.Format(time.RFC3339))
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	if user.Exec != nil {
		c.plugin = &plugin{entry: *user.Exec, cluster: entry, ca: pem, source: c.Source, user: c.User}
		conf.GetClientCertificate = c.plugin.certificate
	}
	if user.AuthProvider != nil {
		return fmt.Errorf("user %q of %s logs in by auth-provider %q, which Kubernetes has given up since 1.26; make a kubeconfig anew that has exec in its place", c.User, c.Source, user.AuthProvider.Name)
	}
	c.proxy = http.ProxyFromEnvironment
	if entry.Proxy != "" {
		u, err := url.Parse(entry.Proxy)
		if err != nil {
			return c.broken("proxy-url", err)
		}
		c.proxy = http.ProxyURL(u)
	}
	c.tls = conf
	dial := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	c.dial = dial.DialContext
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy: c.proxy, DialContext: c.dial, TLSClientConfig: conf.Clone(), TLSHandshakeTimeout: dialTimeout,
			ForceAttemptHTTP2: true, MaxIdleConns: 4, IdleConnTimeout: time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // credentials go nowhere else
	}
	return nil
}

func (c *Client) broken(what string, err error) error {
	return fmt.Errorf("%s of context %q in %s can't be used: %w; repair that file, or get a new one", what, c.Context, c.Source, err)
}

// data is what a field in base64 or a file holds; nil if neither is given. The field wins.
func data(field, path string) ([]byte, error) {
	if field != "" {
		return base64.StdEncoding.DecodeString(field)
	}
	if path == "" {
		return nil, nil
	}
	return os.ReadFile(path)
}

func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}

// oneLine makes a text of several lines one.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
