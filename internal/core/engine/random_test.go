package engine

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// TestRandomEvents sends an engine of one node random events of a driver and its workers, in any order that the protocol
// allows; after each all invariants must hold (rig.do), and when everything is let go nothing may be left.
func TestRandomEvents(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t, settings{owner: 1, cpus: rapid.IntRange(1, 3).Draw(rt, "cpus"), store: 1 << 20})
		r.quiet = true
		c := r.driver(1)
		var held []ids.ObjectID
		running := map[SessionID][]Execute{}
		some := func(rt *rapid.T, n int) []ids.ObjectID {
			var l []ids.ObjectID
			for range rapid.IntRange(0, min(n, len(held))).Draw(rt, "refs") {
				l = append(l, rapid.SampledFrom(held).Draw(rt, "ref"))
			}
			return l
		}
		worker := func(rt *rapid.T) SessionID {
			if len(r.e.pool.all) == 0 {
				rt.Skip("no worker")
			}
			return rapid.SampledFrom(sortedKeys(r.e.pool.all)).Draw(rt, "worker")
		}
		die := func(w SessionID) {
			r.do(func(e *Engine) { e.WorkerGone(w, fault.WorkerCrashed, "killed") })
			r.started = slices.DeleteFunc(r.started, func(s SessionID) bool { return s == w })
			delete(running, w)
			delete(r.execs, w)
			delete(r.taken, w)
		}
		end := func(w SessionID, outcome uint8) {
			x := running[w][0]
			running[w] = running[w][1:]
			outs := make([]Output, r.e.tasks.at(r.e.pool.all[w].fifo[0]).returns)
			r.do(func(e *Engine) { e.Result(w, x.Unique, x.Attempt, outcome, outs) })
		}
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) { held = append(held, c.put("v", some(rt, 2)...)) },
			"call": func(rt *rapid.T) {
				fn := rapid.SampledFrom([]string{"f", "f retries=2", "f cpu=2", "f cpu=0 calls=1", "f retries=-1"}).Draw(rt, "fn")
				if r.e.cfg.CPUs == 1 && fn == "f cpu=2" {
					rt.Skip("would wait for ever")
				}
				held = append(held, c.submit(fn, 1, some(rt, 3), some(rt, 2)).Object(c.job, 1))
			},
			"get": func(rt *rapid.T) { c.get(some(rt, 3)...) },
			"wait": func(rt *rapid.T) {
				c.req++
				l := pack(some(rt, 3))
				r.do(func(e *Engine) { e.Wait(c.ch, c.req, rapid.Bool().Draw(rt, "here"), l) })
			},
			"release": func(rt *rapid.T) {
				if len(held) == 0 {
					rt.Skip("no ref")
				}
				k := rapid.IntRange(0, len(held)-1).Draw(rt, "which")
				c.release(held[k])
				held = slices.Delete(held, k, k+1)
			},
			"start": func(*rapid.T) { r.workers() },
			"receive": func(rt *rapid.T) {
				w := worker(rt)
				if r.taken[w] >= len(r.execs[w]) || len(running[w]) > 0 {
					rt.Skip("nothing to receive, or busy")
				}
				running[w] = append(running[w], r.take(w))
			},
			"block": func(rt *rapid.T) {
				w := worker(rt)
				if len(running[w]) == 0 || len(held) == 0 {
					rt.Skip("runs nothing")
				}
				l := pack(some(rt, 2))
				r.do(func(e *Engine) { e.Get(Chan{w, 0}, 1, l) })
			},
			"end": func(rt *rapid.T) {
				w := worker(rt)
				if len(running[w]) == 0 {
					rt.Skip("runs nothing")
				}
				end(w, rapid.SampledFrom([]uint8{OutcomeValues, OutcomeValues, OutcomeRaised, OutcomeRetry, OutcomeLeaving}).Draw(rt, "outcome"))
			},
			"die":  func(rt *rapid.T) { die(worker(rt)) },
			"tick": func(rt *rapid.T) { r.pass(time.Duration(rapid.IntRange(1, 30).Draw(rt, "ms")) * time.Millisecond) },
		})
		r.do(func(e *Engine) { e.SessionGone(c.sid) })
		for _, w := range sortedKeys(r.e.pool.all) {
			die(w)
		}
		if err := r.e.Empty(false); err != nil {
			rt.Fatal(err)
		}
	})
}
