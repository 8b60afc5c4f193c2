package rpc

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
)

// Mux is a table of routes. Unlike http.ServeMux it never redirects, and a path that is not in it looks to a stranger
// like one that is.
type Mux struct {
	routes []route
}

type route struct {
	method   string // "" = any
	segments []string
	prefix   bool // the last segment was "/": everything below
	role     Role
	browser  bool
	handler  http.Handler
}

// RouteOption changes a route.
type RouteOption func(*route)

// BrowserMayWrite lets browsers use the route with any method: the log-in.
func BrowserMayWrite(r *route) { r.browser = true }

// Handle adds a route: "METHOD /path/{name}", or without the method for all, or with "/" at the end for everything below.
// {name} is one segment, read by Request.PathValue. GET serves HEAD, too. It panics on a bad pattern, a missing role, or a
// route that is there already: that is a bug in the caller.
func (m *Mux) Handle(pattern string, role Role, h http.Handler, options ...RouteOption) {
	if role < Open || role > Node {
		panic(fmt.Sprintf("rpc: route %q has no role", pattern))
	}
	method, p, found := strings.Cut(pattern, " ")
	if !found {
		method, p = "", pattern
	}
	if !strings.HasPrefix(p, "/") || h == nil {
		panic(fmt.Sprintf("rpc: bad route %q", pattern))
	}
	r := route{method: method, role: role, handler: h}
	r.segments = strings.Split(p[1:], "/")
	if n := len(r.segments); n > 1 && r.segments[n-1] == "" {
		r.segments, r.prefix = r.segments[:n-1], true
	}
	for _, old := range m.routes {
		if old.method == method && old.prefix == r.prefix && slices.Equal(old.segments, r.segments) {
			panic(fmt.Sprintf("rpc: route %q is there already", pattern))
		}
	}
	for _, o := range options {
		o(&r)
	}
	m.routes = append(m.routes, r)
}

// HandleFunc is Handle for a function.
func (m *Mux) HandleFunc(pattern string, role Role, h func(http.ResponseWriter, *http.Request), options ...RouteOption) {
	m.Handle(pattern, role, http.HandlerFunc(h), options...)
}

// Routes lists the patterns of a role, for tests.
func (m *Mux) Routes(role Role) (patterns []string) {
	for _, r := range m.routes {
		if r.role == role {
			p := "/" + strings.Join(r.segments, "/")
			if r.prefix {
				p += "/"
			}
			patterns = append(patterns, strings.TrimSpace(r.method+" "+p))
		}
	}
	return patterns
}

// find gives the most specific route, or the methods that the path has.
func (m *Mux) find(r *http.Request) (best *route, methods []string) {
	p := r.URL.EscapedPath()
	if p == "" || p[0] != '/' || path.Clean(p) != strings.TrimSuffix(p, "/") && p != "/" {
		return nil, nil
	}
	parts := strings.Split(p[1:], "/")
	for i := range m.routes {
		rt := &m.routes[i]
		if !rt.match(parts) {
			continue
		}
		if rt.method != "" && rt.method != r.Method && (rt.method != http.MethodGet || r.Method != http.MethodHead) {
			methods = append(methods, rt.method)
			continue
		}
		if best == nil || rt.moreSpecific(best) {
			best = rt
		}
	}
	if best != nil {
		for i, s := range best.segments {
			if name, ok := wildcard(s); ok {
				v, err := url.PathUnescape(parts[i])
				if err != nil {
					return nil, nil
				}
				r.SetPathValue(name, v)
			}
		}
	}
	return best, methods
}

func wildcard(segment string) (name string, ok bool) {
	if strings.HasPrefix(segment, "{") && strings.HasSuffix(segment, "}") {
		return segment[1 : len(segment)-1], true
	}
	return "", false
}

func (r *route) match(parts []string) bool {
	if r.prefix && len(parts) <= len(r.segments) || !r.prefix && len(parts) != len(r.segments) {
		return false
	}
	for i, s := range r.segments {
		if _, wild := wildcard(s); wild {
			if parts[i] == "" {
				return false
			}
		} else if s != parts[i] {
			return false
		}
	}
	return true
}

func (r *route) moreSpecific(than *route) bool {
	if r.prefix != than.prefix {
		return !r.prefix
	}
	if len(r.segments) != len(than.segments) {
		return len(r.segments) > len(than.segments)
	}
	for i, s := range r.segments {
		_, a := wildcard(s)
		_, b := wildcard(than.segments[i])
		if a != b {
			return !a
		}
	}
	return r.method != "" && than.method == ""
}

// BrowserPolicy says what a port lets browsers do. A page from anywhere may make a user's browser call loopback ports.
type BrowserPolicy uint8

const (
	NoBrowsers   BrowserPolicy = iota // refuse whatever looks like a browser
	BrowsersRead                      // GET, HEAD, OPTIONS of same-origin pages
)

// browserLike knows a browser by what browsers always send and a page's script cannot leave out.
func browserLike(h http.Header) bool {
	if strings.HasPrefix(h.Get("User-Agent"), "Mozilla") || h.Get("Origin") != "" || h.Get("Referer") != "" {
		return true
	}
	for k := range h {
		if strings.HasPrefix(k, "Sec-Fetch-") || strings.HasPrefix(k, "Access-Control-Request-") {
			return true
		}
	}
	return false
}

// guardBrowser gives the status and text with which to refuse a browser's request, or 0.
func guardBrowser(r *http.Request, policy BrowserPolicy, mayWrite bool, hosts []string) (int, string) {
	if !browserLike(r.Header) {
		return 0, ""
	}
	if policy == NoBrowsers {
		return http.StatusForbidden, "Browser requests not allowed."
	}
	if !knownHost(r.Host, hosts) {
		return http.StatusForbidden, "Forbidden: this server is not known by the name in the Host header."
	}
	if o := r.Header.Get("Origin"); o != "" {
		if u, err := url.Parse(o); err != nil || !strings.EqualFold(u.Host, r.Host) {
			return http.StatusForbidden, "Forbidden: requests from pages of another origin are not allowed."
		}
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return 0, ""
	}
	if mayWrite {
		return 0, ""
	}
	return http.StatusMethodNotAllowed, "Method Not Allowed for browsers."
}

// knownHost: a name that an attacker's DNS points at us is neither an address nor one of our names.
func knownHost(host string, hosts []string) bool {
	name := host
	if i := strings.LastIndexByte(name, ':'); i >= 0 && !strings.HasSuffix(name, "]") {
		name = name[:i]
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return true
	}
	if name == "localhost" || strings.HasSuffix(name, ".localhost") || slices.Contains(hosts, name) {
		return true
	}
	own, err := os.Hostname()
	return err == nil && name == strings.ToLower(own)
}
