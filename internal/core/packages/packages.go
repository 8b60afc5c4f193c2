// Package packages decides which packages of runtime environments a node has unpacked, and when an environment is ready.
//
// An environment needs some packages, named by their URIs, and is used from Want to Drop. A package is fetched once,
// however many environments want it, and stays while one of them is in use. What is in use by none stays, too, as long
// as all of them together take no more than the limit; beyond it the one that was used least recently goes first.
//
// State is pure: its methods are events and return what must be done now. It never blocks and reads no clock. One caller
// at a time. Sizes are bytes on disk.
package packages

import (
	"slices"
)

// Effect is one of Fetch, Remove, Ready and Failed.
type Effect interface{ effect() }

type (
	// Fetch asks for a package to be fetched and unpacked; Fetched answers.
	Fetch struct{ URI string }
	// Remove asks for an unpacked package to be removed; Removed answers.
	Remove struct{ URI string }
	// Ready says that all packages of an environment are there.
	Ready struct{ Key string }
	// Failed says that an environment cannot be had, and why; it is forgotten.
	Failed struct{ Key, Why string }
)

func (Fetch) effect()  {}
func (Remove) effect() {}
func (Ready) effect()  {}
func (Failed) effect() {}

// status is where a package stands.
type status uint8

const (
	fetching status = iota // asked for
	unpacked               // there
	removing               // being removed; if somebody wants it, it is fetched anew
)

type pkg struct {
	status status
	size   int64
	wanted map[string]bool // keys of the environments in use that need it
	used   uint64          // when an environment let go of it last
}

type env struct {
	uris  []string
	ready bool
}

// State is what a node has. Its zero value is not ready: use New.
type State struct {
	limit int64
	size  int64 // of what is unpacked
	clock uint64
	pkgs  map[string]*pkg
	envs  map[string]*env
}

// New makes a State that keeps unused packages up to limit bytes of all.
func New(limit int64) *State {
	return &State{limit: limit, pkgs: map[string]*pkg{}, envs: map[string]*env{}}
}

// Want begins the use of an environment, until Drop or Failed. One that is in use must not be wanted again.
func (s *State) Want(key string, uris []string) []Effect {
	e := &env{uris: slices.Clone(uris)}
	s.envs[key] = e
	var out []Effect
	for _, uri := range uris {
		p := s.pkgs[uri]
		if p == nil {
			p = &pkg{wanted: map[string]bool{}}
			s.pkgs[uri] = p
			out = append(out, Fetch{uri})
		}
		p.wanted[key] = true
	}
	return s.look(out, key, e)
}

// look tells whether an environment has become ready.
func (s *State) look(out []Effect, key string, e *env) []Effect {
	for _, uri := range e.uris {
		if s.pkgs[uri].status != unpacked {
			return out
		}
	}
	e.ready = true
	return append(out, Ready{key})
}

// Drop ends the use of an environment, whether it is ready or not. Unknown ones are no error.
func (s *State) Drop(key string) []Effect {
	s.letGo(key)
	return s.evict(nil)
}

func (s *State) letGo(key string) {
	e := s.envs[key]
	if e == nil {
		return
	}
	delete(s.envs, key)
	s.clock++
	for _, uri := range e.uris {
		p := s.pkgs[uri]
		delete(p.wanted, key)
		p.used = s.clock
	}
}

// Fetched says that a package that was asked for is unpacked, or why it is not (then size does not count).
func (s *State) Fetched(uri string, size int64, failure string) []Effect {
	p := s.pkgs[uri]
	if p == nil || p.status != fetching {
		return nil
	}
	var out []Effect
	if failure != "" {
		for _, key := range sorted(p.wanted) {
			s.letGo(key)
			out = append(out, Failed{key, failure})
		}
		delete(s.pkgs, uri)
		return s.evict(out)
	}
	p.status, p.size = unpacked, size
	s.size += size
	if len(p.wanted) == 0 {
		s.clock++
		p.used = s.clock
	}
	for _, key := range sorted(p.wanted) {
		out = s.look(out, key, s.envs[key])
	}
	return s.evict(out)
}

// Removed says that a package is gone from the disk.
func (s *State) Removed(uri string) []Effect {
	p := s.pkgs[uri]
	if p == nil || p.status != removing {
		return nil
	}
	s.size -= p.size
	p.size = 0
	if len(p.wanted) == 0 {
		delete(s.pkgs, uri)
		return nil
	}
	p.status = fetching
	return []Effect{Fetch{uri}}
}

// evict removes what nobody uses while there is too much.
func (s *State) evict(out []Effect) []Effect {
	size := s.size
	for _, p := range s.pkgs {
		if p.status == removing {
			size -= p.size
		}
	}
	for size > s.limit {
		oldest := ""
		for _, uri := range sorted(s.pkgs) {
			p := s.pkgs[uri]
			if p.status == unpacked && len(p.wanted) == 0 && (oldest == "" || p.used < s.pkgs[oldest].used) {
				oldest = uri
			}
		}
		if oldest == "" {
			return out // all of it is in use
		}
		p := s.pkgs[oldest]
		p.status = removing
		size -= p.size
		out = append(out, Remove{oldest})
	}
	return out
}

// Size is how many bytes of packages are unpacked.
func (s *State) Size() int64 { return s.size }

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
