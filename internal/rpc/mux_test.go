package rpc

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestMuxFind(t *testing.T) {
	var m Mux
	for _, p := range []string{"/", "GET /api/version", "POST /api/jobs/", "GET /api/jobs/{id}", "GET /api/jobs/{id}/logs", "GET /api/jobs/special", "/static/"} {
		m.HandleFunc(p, Open, func(w http.ResponseWriter, r *http.Request) {})
	}
	for _, tc := range []struct {
		method, path string
		want         string // segments of the route found, "" = none
		value        string // of {id}
	}{
		{"GET", "/", "", ""},
		{"GET", "/api/version", "api/version", ""},
		{"HEAD", "/api/version", "api/version", ""},
		{"POST", "/api/version", "none", ""},
		{"GET", "/api/version/", "none", ""},
		{"GET", "/api//version", "none", ""},
		{"GET", "/api/../api/version", "none", ""},
		{"GET", "/nothing", "none", ""},
		{"GET", "/api/jobs/a%2Fb", "api/jobs/{id}", "a/b"},
		{"GET", "/api/jobs/special", "api/jobs/special", ""},
		{"GET", "/api/jobs/x/logs", "api/jobs/{id}/logs", "x"},
		{"POST", "/api/jobs/", "api/jobs", ""},
		{"GET", "/static/js/a.js", "static", ""},
		{"GET", "/static", "none", ""},
		{"GET", "/static/../../etc/passwd", "none", ""},
	} {
		r := httptest.NewRequest(tc.method, "http://h"+tc.path, nil)
		rt, _ := m.find(r)
		got := "none"
		if rt != nil {
			got = strings.Join(rt.segments, "/")
		}
		if got != tc.want || r.PathValue("id") != tc.value {
			t.Errorf("%s %s: route %q, id %q; want %q, %q", tc.method, tc.path, got, r.PathValue("id"), tc.want, tc.value)
		}
	}
	r := httptest.NewRequest("DELETE", "http://h/api/version", nil)
	if rt, methods := m.find(r); rt != nil || strings.Join(methods, ",") != "GET" {
		t.Errorf("DELETE /api/version: %v, methods %v; want none, GET", rt, methods)
	}
}

func TestMuxRefusesBadRoutes(t *testing.T) {
	h := http.NotFoundHandler()
	for name, add := range map[string]func(*Mux){
		"no role":   func(m *Mux) { m.Handle("GET /x", 0, h) },
		"bad role":  func(m *Mux) { m.Handle("GET /x", Node+1, h) },
		"no slash":  func(m *Mux) { m.Handle("GET x", Open, h) },
		"no func":   func(m *Mux) { m.Handle("GET /x", Open, nil) },
		"two times": func(m *Mux) { m.Handle("GET /y", Open, h); m.Handle("GET /y", Token, h) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("the route was taken")
				}
			}()
			add(&Mux{})
		})
	}
}

func TestGuardBrowser(t *testing.T) {
	for _, tc := range []struct {
		name     string
		method   string
		host     string
		header   [2]string
		mayWrite bool
		read     int // status under BrowsersRead
		none     int // under NoBrowsers
	}{
		{"curl", "POST", "evil.example", [2]string{"User-Agent", "curl/8"}, false, 0, 0},
		{"browser reads", "GET", "127.0.0.1:8265", [2]string{"User-Agent", "Mozilla/5.0"}, false, 0, 403},
		{"browser reads by name", "GET", "localhost:8265", [2]string{"Sec-Fetch-Mode", "navigate"}, false, 0, 403},
		{"ipv6", "GET", "[::1]:8265", [2]string{"Referer", "http://[::1]:8265/"}, false, 0, 403},
		{"known name", "GET", "Ray.Example:8265", [2]string{"Referer", "x"}, false, 0, 403},
		{"rebound name", "GET", "evil.example:8265", [2]string{"User-Agent", "Mozilla/5.0"}, false, 403, 403},
		{"browser writes", "POST", "127.0.0.1:8265", [2]string{"User-Agent", "Mozilla/5.0"}, false, 405, 403},
		{"browser logs in", "POST", "127.0.0.1:8265", [2]string{"Origin", "http://127.0.0.1:8265"}, true, 0, 403},
		{"other origin", "GET", "127.0.0.1:8265", [2]string{"Origin", "http://evil.example"}, true, 403, 403},
		{"null origin", "POST", "127.0.0.1:8265", [2]string{"Origin", "null"}, true, 403, 403},
		{"preflight", "OPTIONS", "127.0.0.1:8265", [2]string{"Access-Control-Request-Method", "PUT"}, false, 0, 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest(tc.method, "http://x/", nil)
			r.Host = tc.host
			r.Header.Set(tc.header[0], tc.header[1])
			if got, _ := guardBrowser(r, BrowsersRead, tc.mayWrite, []string{"ray.example"}); got != tc.read {
				t.Errorf("BrowsersRead: status %d, want %d", got, tc.read)
			}
			if got, _ := guardBrowser(r, NoBrowsers, tc.mayWrite, nil); got != tc.none {
				t.Errorf("NoBrowsers: status %d, want %d", got, tc.none)
			}
		})
	}
}

func TestRequestLine(t *testing.T) {
	const whole = "GET /a?b=%20 HTTP/1.1\r\n"
	for i := range len(whole) {
		want := linePart
		if got := requestLine([]byte(whole[:i])); got != want {
			t.Errorf("%q = %d, want part", whole[:i], got)
		}
	}
	for _, ok := range []string{whole, "POST / HTTP/1.0\n", whole + "Host: x\r\n"} {
		if got := requestLine([]byte(ok)); got != lineWhole {
			t.Errorf("%q = %d, want whole", ok, got)
		}
	}
	for _, bad := range []string{
		"\x16\x03\x01", "PING\r\n", "*1\r\n$4\r\nPING\r\n", "SSH-2.0-x\r\n", "get / HTTP/1.1", "GET x", "GET  /", "GET / HTTP/2.0\r\n",
		"GET / HTTP/1.1x", "GET / HTTP/1.1\rx", "GET / FTP", "PRI * HTTP/2.0", " ", "ABCDEFGHIJKLMNOPQ", "GET /\x00", "GET /\n",
	} {
		if got := requestLine([]byte(bad)); got != lineBad {
			t.Errorf("%q = %d, want bad", bad, got)
		}
	}
}

func FuzzRequestLine(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Add([]byte("\x16\x03\x01\x02"))
	f.Fuzz(func(t *testing.T, b []byte) {
		// A judgement once made stays: more bytes change neither "bad" nor "whole".
		last := linePart
		for i := range len(b) + 1 {
			got := requestLine(b[:i])
			if last != linePart && got != last {
				t.Fatalf("%q: judged %d after %d", b[:i], got, last)
			}
			last = got
		}
	})
}
