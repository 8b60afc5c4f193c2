package engine

import (
	"bytes"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

func sortedIDs(m map[ids.ObjectID]uint32) []ids.ObjectID {
	return slices.SortedFunc(maps.Keys(m), func(a, b ids.ObjectID) int { return bytes.Compare(a[:], b[:]) })
}

// TestRandomEvents sends an engine of one node random events of a driver and its workers, in any order that the protocol
// allows; after each all invariants must hold (rig.do), and when everything is let go nothing may be left.
func TestRandomEvents(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t, settings{owner: 1, cpus: rapid.IntRange(1, 3).Draw(rt, "cpus"), store: 1 << 20})
		r.quiet = true
		c := r.driver(1)
		var held []ids.ObjectID
		running := map[SessionID][]Execute{}
		streams := map[ids.ObjectID]uint32{} // the next index to be read
		yielded := map[ids.Unique]uint32{}   // by the attempt that runs
		r.onItem = func(v Value) {
			if v.Status == 0 || v.ID.Index() > 1 {
				held = append(held, v.ID)
				held = append(held, v.Contained...)
				gen := v.ID.Task().Object(1)
				streams[gen] = max(streams[gen], v.ID.Index()+1)
			}
		}
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
			task := r.e.tasks.at(r.e.pool.all[w].fifo[0])
			n := task.returns
			raised := task.flags&flagStream != 0 && outcome == OutcomeRaised
			if raised {
				n++
			}
			outs := make([]Output, n)
			if raised {
				outs[n-1] = Output{Status: 1, Value: []byte("!")}
			}
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
			"generate": func(rt *rapid.T) {
				fn := rapid.SampledFrom([]string{"f", "f retries=2", "f bound=1", "f cpu=0 bound=2 retries=-1"}).Draw(rt, "fn")
				gen := c.submitAs(fn, flagStream, 1, some(rt, 1), nil).Object(c.job, 1)
				streams[gen] = 2
				held = append(held, gen)
			},
			"yield": func(rt *rapid.T) {
				w := worker(rt)
				if len(running[w]) == 0 || running[w][0].Flags&flagStream == 0 {
					rt.Skip("runs no generator")
				}
				x := running[w][0]
				index := yielded[x.Unique] + 1
				id := x.Unique.Object(c.job, index)
				switch rapid.IntRange(0, 3).Draw(rt, "how") {
				case 0:
					r.yieldLarge(w, x, id, 200<<10)
				case 1:
					r.do(func(e *Engine) { e.StreamCredit(Chan{w, 0}, 1, id, x.Attempt, index) })
					return
				case 2:
					r.yield(w, x, index, "v", some(rt, 2)...)
				case 3:
					r.yield(w, x, index, "v")
				}
				yielded[x.Unique] = index
			},
			"read": func(rt *rapid.T) {
				if len(streams) == 0 {
					rt.Skip("no stream")
				}
				gen := rapid.SampledFrom(sortedIDs(streams)).Draw(rt, "stream")
				c.req++
				from := streams[gen] - uint32(rapid.IntRange(0, 1).Draw(rt, "again"))
				r.do(func(e *Engine) {
					e.Next(c.ch, c.req, gen, max(from, 2), from, rapid.Bool().Draw(rt, "beside"))
				})
			},
			"stop reading": func(rt *rapid.T) {
				if len(streams) == 0 {
					rt.Skip("no stream")
				}
				gen := rapid.SampledFrom(sortedIDs(streams)).Draw(rt, "stream")
				delete(streams, gen)
				r.do(func(e *Engine) { e.DropStream(c.sid, gen) })
			},
			"cancel": func(rt *rapid.T) {
				req := uint32(rapid.IntRange(1, int(c.req)+1).Draw(rt, "req"))
				r.do(func(e *Engine) { e.CancelReq(c.ch, req) })
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
				x := r.take(w)
				running[w] = append(running[w], x)
				yielded[x.Unique] = x.Returns + 1
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
