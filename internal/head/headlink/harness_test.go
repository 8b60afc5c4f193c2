package headlink_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gray/internal/core/actor"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
	"gray/internal/head"
	"gray/internal/head/headlink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// events is a Handler that keeps what it is told.
type events struct {
	mu      sync.Mutex
	list    []string
	view    map[ids.NodeID]headstate.NodeView
	jobs    []ids.Job // the inventory's
	drivers []ids.Job
	actors  []actor.Row
}

func (e *events) add(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, fmt.Sprintf(format, args...))
}

func (e *events) take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := e.list
	e.list = nil
	return list
}

func (e *events) nodes() map[byte]int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	cpus := map[byte]int64{}
	for id, n := range e.view {
		cpus[id[0]] = n.Available["CPU"]
	}
	return cpus
}

func (e *events) Inventory(reply func(headstate.Inventory)) {
	e.mu.Lock()
	inv := headstate.Inventory{Jobs: e.jobs, Drivers: e.drivers, Actors: e.actors}
	e.mu.Unlock()
	go reply(inv) // a daemon answers from its own goroutine
}

func (e *events) Registered(first bool, r *headstate.Registered) {
	e.add("registered %d %v ended %d dead %d", r.Owner, first, len(r.EndedJobs), len(r.DeadPeers))
}
func (e *events) LeaseLost(string)             { e.add("lease lost") }
func (e *events) LeaseBack()                   { e.add("lease back") }
func (e *events) Refused(r *headstate.Refused) { e.add("refused %s", r.Reason) }
func (e *events) NodeDead(d *headstate.NodeDead) {
	e.add("dead %d %v %d", d.Node[0], d.Owners, d.Reason)
}
func (e *events) StateAsked(a *headstate.StateAsk) { e.add("asked %s", a.Question) }
func (e *events) JobEnded(j *headstate.JobEnded)   { e.add("ended %s", j.Job) }
func (e *events) ActorChanged(row actor.Row)       { e.add("actor %d %s", row.ID[0], row.State) }
func (e *events) ActorDo(id ids.ActorID, no bool)  { e.add("kill actor %d %v", id[0], no) }
func (e *events) ActorAdopt(row actor.Row, spec []byte) {
	e.add("adopt actor %d %s", row.ID[0], spec)
}
func (e *events) ViewDrop(id ids.NodeID) { e.mu.Lock(); delete(e.view, id); e.mu.Unlock() }
func (e *events) ViewPut(n headstate.NodeView) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.view == nil {
		e.view = map[ids.NodeID]headstate.NodeView{}
	}
	e.view[n.ID] = n
}

// faultyStore is a store that fails as it is told.
type faultyStore struct {
	*head.MemStore
	mu      sync.Mutex
	appends int
	fail    func(n int) (apply bool, err error) // n counts appends from 1
}

func (s *faultyStore) Append(b head.Batch, done func(error)) {
	s.mu.Lock()
	s.appends++
	n := s.appends
	s.mu.Unlock()
	apply, err := s.fail(n)
	if !apply {
		done(err)
		return
	}
	s.MemStore.Append(b, func(stored error) { done(errors.Join(stored, err)) })
}

// logs keeps a log's lines.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.b.Bytes(), []byte(s))
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

type daemon struct {
	*headlink.Client
	*events
	id  ids.NodeID
	log *logs
}

func info(n byte) headstate.NodeInfo {
	return headstate.NodeInfo{ID: ids.NodeID{n}, Epoch: 1, IP: fmt.Sprintf("10.0.0.%d", n), Total: headstate.Resources{"CPU": 40000}}
}

func newDaemon(t *testing.T, n byte) *daemon {
	t.Helper()
	d := &daemon{events: &events{}, id: ids.NodeID{n}, log: &logs{}}
	d.Client = headlink.Start(headlink.Config{Node: info(n), Head: "head:1", Handler: d.events, Log: d.log.logger()})
	t.Cleanup(d.Close)
	return d
}

func startHead(t *testing.T, s head.Store, log *logs) *head.Service {
	t.Helper()
	h, err := head.Start(head.Config{Store: s, State: headstate.Config{SessionName: "session_x"}, Log: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func link(t *testing.T, h *head.Service, d *daemon) {
	t.Helper()
	if err := headlink.Local(h, d.id, d.Client); err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// valve is a link to a head that can be stopped up; what is sent then waits, in order.
type valve struct {
	mu       sync.Mutex
	closed   bool
	draining bool
	wait     []func()
}

func (v *valve) do(f func()) {
	v.mu.Lock()
	v.wait = append(v.wait, f)
	v.mu.Unlock()
	v.drain()
}

func (v *valve) set(closed bool) {
	v.mu.Lock()
	v.closed = closed
	v.mu.Unlock()
	v.drain()
}

func (v *valve) drain() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.draining {
		return
	}
	v.draining = true
	for !v.closed && len(v.wait) > 0 {
		f := v.wait[0]
		v.wait = v.wait[1:]
		v.mu.Unlock()
		f()
		v.mu.Lock()
	}
	v.draining = false
}

type funcConn func([]byte)

func (f funcConn) Send(b []byte) { f(b) }
func (funcConn) Close()          {}

// linkThrough links a daemon by way of a valve.
func linkThrough(t *testing.T, h *head.Service, d *daemon, v *valve) {
	t.Helper()
	report := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	if err := h.Connect(d.id, connect(func(b []byte) { v.do(func() { report(d.Receive(b)) }) })); err != nil {
		t.Fatal(err)
	}
	d.Up(connect(func(b []byte) { v.do(func() { report(h.Receive(d.id, b)) }) }))
}

func connect(f func([]byte)) head.Conn { c := funcConn(f); return &struct{ head.Conn }{c} }
