package logs

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"gray/internal/core/ids"
)

func TestCut(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		whole    bool
		want     []Piece
		next     string
		used     int
	}{
		{"nothing", "", false, nil, "x", 0},
		{"a line", "a\n", false, []Piece{{"x", []byte("a\n")}}, "x", 2},
		{"no end yet", "a", false, nil, "x", 0},
		{"as it is", "a", true, []Piece{{"x", []byte("a")}}, "x", 1},
		{"a line and a begin", "a\nb", false, []Piece{{"x", []byte("a\n")}}, "x", 2},
		{"a mark first", ":task_name:f\na\nb\n", false, []Piece{{"f", []byte("a\nb\n")}}, "f", 17},
		{"marks between", "a\n:task_name:f\nb\n:actor_name:A(1)\nc\n", false, []Piece{{"x", []byte("a\n")}, {"f", []byte("b\n")}, {"A(1)", []byte("c\n")}}, "A(1)", 36},
		{"a mark alone", ":task_name:f\n", false, nil, "f", 13},
		{"which task", "a\n:task_id:0000010000000001\nb\n", false, []Piece{{"x", []byte("a\n")}, {"x", []byte("b\n")}}, "x", 30},
		{"half a mark", ":task_name:f", false, nil, "x", 0},
		{"a job's mark", ":job_id:01000000\na\n", false, []Piece{{"x", []byte("a\n")}}, "x", 19},
		{"no mark", ": a\n:b\n", false, []Piece{{"x", []byte(": a\n:b\n")}}, "x", 7},
		{"within a line", "a :task_name:f\n", false, []Piece{{"x", []byte("a :task_name:f\n")}}, "x", 15},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, next, used := Cut("x", []byte(tc.in), tc.whole)
			if !reflect.DeepEqual(got, tc.want) || next != tc.next || used != tc.used {
				t.Errorf("Cut = %q %q %d, want %q %q %d", got, next, used, tc.want, tc.next, tc.used)
			}
		})
	}
}

// show prints lines of processes of a printer at times, and returns what a driver sees.
func show(style Style, lines ...string) string {
	p := NewPrinter(style)
	var b strings.Builder
	out := func(s Stream, text []byte) {
		if len(text) > 0 {
			fmt.Fprintf(&b, "%d|%s", s, text)
		}
	}
	for _, line := range lines {
		var at, pid int
		var text string
		if _, err := fmt.Sscanf(line, "%d %d", &at, &pid); err != nil {
			panic(err)
		}
		text = strings.SplitN(line, " ", 3)[2]
		p.Print(time.Duration(at)*time.Second, &Batch{Pid: pid, IP: "1.1.1.1", Name: "f", Text: []byte(text + "\n")}, out)
	}
	p.Flush(out)
	return b.String()
}

const hint = " (Ray shows lines that are alike once by default. Set RAY_DEDUP_LOGS=0 to see all of them.)"

func TestPrint(t *testing.T) {
	base := Style{IP: "1.1.1.1", Dedup: true, Window: 5 * time.Second}
	with := func(f func(*Style)) Style { s := base; f(&s); return s }
	for _, tc := range []struct {
		name  string
		style Style
		in    []string
		want  string
	}{
		{"one process repeats itself", base, []string{"0 1 a", "0 1 a"}, "0|(f pid=1) a\n0|(f pid=1) a\n"},
		{"four processes", base, []string{"0 1 a 1", "0 2 a 2", "1 3 a 3", "2 4 a 4"}, "0|(f pid=1) a 1\n0|(f pid=4) a 4 [repeated 3x across cluster]" + hint + "\n"},
		{"two processes, one each", base, []string{"0 1 a", "0 2 a"}, "0|(f pid=1) a\n0|(f pid=2) a\n"},
		{"told when the time is over", base, []string{"0 1 a", "0 2 a", "0 2 a", "6 1 b"}, "0|(f pid=1) a\n0|(f pid=2) a [repeated 2x across cluster]" + hint + "\n0|(f pid=1) b\n"},
		{"the hint comes once", base, []string{"0 1 a", "0 2 a", "0 2 a", "6 1 a", "6 2 a", "6 2 a"}, "0|(f pid=1) a\n0|(f pid=2) a [repeated 2x across cluster]" + hint + "\n0|(f pid=1) a\n0|(f pid=2) a [repeated 2x across cluster]\n"},
		{"lines of numbers are not alike", base, []string{"0 1 1", "0 2 2"}, "0|(f pid=1) 1\n0|(f pid=2) 2\n"},
		{"other words are not alike", base, []string{"0 1 a b", "0 2 b a"}, "0|(f pid=1) a b\n0|(f pid=2) b a\n"},
		{"off", with(func(s *Style) { s.Dedup = false }), []string{"0 1 a", "0 2 a"}, "0|(f pid=1) a\n0|(f pid=2) a\n"},
		{"allowed", with(func(s *Style) { s.Allow = func(b []byte) bool { return b[0] == 'a' } }), []string{"0 1 a", "0 2 a", "0 3 a"}, "0|(f pid=1) a\n0|(f pid=2) a\n0|(f pid=3) a\n"},
		{"skipped", with(func(s *Style) { s.Skip = func(b []byte) bool { return b[0] == 'a' } }), []string{"0 1 a", "0 1 b"}, "0|(f pid=1) b\n"},
		{"plain", with(func(s *Style) { s.Plain = true }), []string{"0 1 a"}, "0|a\n"},
		{"colour", with(func(s *Style) { s.Color[0] = OneColor }), []string{"0 1 a"}, "0|\x1b[36m(f pid=1)\x1b[0m a\n"},
		{"colour by process", with(func(s *Style) { s.Color[0] = ColorByPid }), []string{"0 1 a", "0 6 b"}, "0|\x1b[35m(f pid=1)\x1b[0m a\n0|\x1b[36m(f pid=6)\x1b[0m b\n"},
		{"from elsewhere", with(func(s *Style) { s.IP = "2.2.2.2" }), []string{"0 1 a"}, "0|(f pid=1, ip=1.1.1.1) a\n"},
		{"a bar", base, []string{`0 1 {"__magic_token__": "__ray_tqdm_magic_token__", "x": 1}`}, "2|{\"__magic_token__\": \"__ray_tqdm_magic_token__\", \"x\": 1}\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := show(tc.style, tc.in...); got != tc.want {
				t.Errorf("shown:\n%s\nwant:\n%s", got, tc.want)
			}
		})
	}
}

func TestPrinterIsBounded(t *testing.T) {
	p := NewPrinter(Style{Dedup: true, Window: time.Hour})
	n := 0
	out := func(_ Stream, text []byte) { n += strings.Count(string(text), "\n") }
	const kinds = 3 * maxAlike
	for k := range kinds {
		word := strings.Repeat("x", k%97+1) + string(rune('a'+k%26)) + strings.Repeat("y", k/97)
		for pid := range 2 {
			p.Print(0, &Batch{Pid: pid, Text: []byte(word + "\n")}, out)
		}
		if len(p.alike[0]) > maxAlike+1 || len(p.oldest[0]) > maxAlike+1 {
			t.Fatalf("after %d kinds of lines, %d are remembered", k, len(p.alike[0]))
		}
	}
	if p.Flush(out); n != 2*kinds {
		t.Errorf("%d lines shown, want %d", n, 2*kinds)
	}
}

func node(k int) (n ids.NodeID) { n[0] = byte(k); return n }

// machine is a node with files, for the random test: what its processes print, and what its Source sends.
type machine struct {
	id    ids.NodeID
	src   *Source
	files map[FileID][]byte
	lines map[FileID]int // printed
	n     int            // of files, numbered from 1
}

// TestFlow runs sources and a desk with random steps: nothing is lost, nothing comes twice, each process's lines come in
// order, and no more is on the way or unread than the windows allow.
func TestFlow(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 1))
		job := ids.JobFromInt(1)
		desk := NewDesk(Style{Plain: true})
		var shown strings.Builder
		var machines []*machine
		for k := range 1 + r.IntN(3) {
			m := &machine{id: node(k + 1), src: NewSource(), files: map[FileID][]byte{}, lines: map[FileID]int{}}
			for p := range 1 + r.IntN(3) {
				id, first := m.src.Open(job, p, false, true)
				if first != (p == 0) {
					t.Fatalf("seed %d: first = %v of file %d", seed, first, p)
				}
				m.n = int(id)
			}
			desk.From(m.id)
			machines = append(machines, m)
		}
		onWay := map[ids.NodeID]int{} // sent, and no credit came back
		taken, sent := uint64(0), uint64(0)
		pump := func(m *machine) {
			for {
				q, ok := m.src.Next()
				if !ok {
					return
				}
				b := m.files[q.File][q.Off:]
				_, out, done := m.src.Took(q.File, append([]byte(nil), b[:min(len(b), q.Max)]...))
				for _, x := range out {
					onWay[m.id] += len(x.Text)
					desk.Take(m.id, x)
				}
				for range done {
					desk.Flushed(m.id)
				}
				if onWay[m.id] > Window+MaxRead {
					t.Fatalf("seed %d: %d bytes without credit", seed, onWay[m.id])
				}
			}
		}
		flushed := false
		pull := func() {
			frames, done := desk.Pull(0)
			for _, f := range frames {
				shown.Write(f.Text)
				sent += uint64(len(f.Text))
			}
			flushed = flushed || done
			for _, x := range desk.Returns() {
				onWay[x.Node] -= x.N
				for _, m := range machines {
					if m.id == x.Node {
						m.src.Credit(job, x.N)
					}
				}
			}
			if sent-taken > Unread+2*Window {
				t.Fatalf("seed %d: %d bytes unread", seed, sent-taken)
			}
		}
		step := func() {
			m := machines[r.IntN(len(machines))]
			switch r.IntN(6) {
			case 0, 1:
				id := FileID(1 + r.IntN(m.n))
				for range 1 + r.IntN(2000) {
					m.lines[id]++
					m.files[id] = fmt.Appendf(m.files[id], "%s/%d/%d %s\n", m.id.String()[:2], id, m.lines[id], strings.Repeat("x", r.IntN(40)))
				}
				m.src.Grew(id, int64(len(m.files[id])))
			case 2, 3:
				pump(m)
			case 4:
				pull()
			case 5:
				taken += uint64(r.Int64N(int64(sent-taken) + 1))
				desk.Taken(taken)
			}
		}
		for range 100 {
			step()
		}
		if ask := desk.Flush(); len(ask) != len(machines) {
			t.Fatalf("seed %d: %d of %d nodes are asked", seed, len(ask), len(machines))
		}
		for _, m := range machines {
			for range m.src.Flush(job, 1) {
				desk.Flushed(m.id)
			}
		}
		for k := 0; !flushed; k++ {
			for _, m := range machines {
				pump(m)
			}
			pull()
			taken = sent
			desk.Taken(taken)
			if k > 10000 {
				t.Fatalf("seed %d: a flush does not end", seed)
			}
		}
		want := 0
		for _, m := range machines {
			for _, n := range m.lines {
				want += n
			}
		}
		seen := map[string]int{}
		lines := strings.Split(strings.TrimSuffix(shown.String(), "\n"), "\n")
		if want == 0 {
			lines = nil
		}
		if len(lines) != want {
			t.Fatalf("seed %d: %d lines shown, want %d", seed, len(lines), want)
		}
		for _, line := range lines {
			var k int
			who := line[:strings.LastIndexByte(strings.SplitN(line, " ", 2)[0], '/')]
			if _, err := fmt.Sscanf(line[len(who)+1:], "%d", &k); err != nil {
				t.Fatalf("seed %d: line %q: %v", seed, line, err)
			}
			if seen[who]++; seen[who] != k {
				t.Fatalf("seed %d: line %d of %s comes as number %d", seed, k, who, seen[who])
			}
		}
	}
}

// sends are the texts that a source sends now.
func sends(s *Source, files map[FileID]string) (out []string) {
	for {
		q, ok := s.Next()
		if !ok {
			return out
		}
		b := files[q.File][q.Off:]
		_, batches, _ := s.Took(q.File, []byte(b[:min(len(b), q.Max)]))
		for _, x := range batches {
			text := string(x.Text)
			if x.Dropped > 0 {
				text += fmt.Sprintf("(%d dropped, %s)", x.Dropped, x.Where)
			}
			out = append(out, text)
		}
	}
}

func TestSource(t *testing.T) {
	job := ids.JobFromInt(1)
	type step struct {
		do   func(s *Source, files map[FileID]string)
		want []string
	}
	grow := func(text string) func(s *Source, files map[FileID]string) {
		return func(s *Source, files map[FileID]string) {
			files[1] += text
			s.Grew(1, int64(len(files[1])))
		}
	}
	tick := func(s *Source, _ map[FileID]string) { s.Tick() }
	for _, tc := range []struct {
		name  string
		steps []step
	}{
		{"a begin of a line waits for its end", []step{{grow("a\nb"), []string{"a\n"}}, {tick, nil}, {grow("c\n"), []string{"bc\n"}}}},
		{"but not for ever", []step{{grow("a"), nil}, {tick, nil}, {tick, []string{"a"}}, {grow("b\n"), []string{"b\n"}}}},
		{"nor while it grows", []step{{grow("a"), nil}, {tick, nil}, {grow("b"), nil}, {tick, []string{"ab"}}, {tick, nil}, {grow("c"), nil}, {tick, nil}, {tick, []string{"c"}}}},
		{"nor when the worker ends", []step{{grow("a"), nil}, {func(s *Source, _ map[FileID]string) { s.Ended(1, 1) }, []string{"a"}}}},
		{"nor when all is wanted", []step{{grow("a"), nil}, {func(s *Source, _ map[FileID]string) { s.Flush(job, 1) }, []string{"a"}}}},
		{"a line that is too long is cut", []step{{grow(strings.Repeat("x", MaxRead+5)), []string{strings.Repeat("x", MaxRead)}}, {grow("\n"), []string{"xxxxx\n"}}}},
		{"what is cut off unread is told", []step{{func(s *Source, files map[FileID]string) {
			files[1] = "aaaa\nbbbb\ncccc\n"
			s.Grew(1, 15)
			files[1] = files[1][8:]
			s.Cut(1, 8, true, "w.out.1")
		}, []string{"(10 dropped, w.out.1)", "cccc\n"}}}},
		{"a hole is passed over", []step{{func(s *Source, files map[FileID]string) {
			files[1] = "\x00\x00\x00\x00\x00\x00\x00\x00b\ncccc\n"
			s.Grew(1, 15)
			s.Cut(1, 8, false, "w.out.1")
		}, []string{"(10 dropped, w.out.1)", "cccc\n"}}}},
		{"nobody wants it", []step{{func(s *Source, files map[FileID]string) {
			files[1] = "a\n"
			s.Grew(1, 2)
			s.Stop(job)
		}, nil}, {grow("b\n"), nil}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, files := NewSource(), map[FileID]string{}
			s.Open(job, 7, false, true)
			for k, st := range tc.steps {
				st.do(s, files)
				if got := sends(s, files); !reflect.DeepEqual(got, st.want) {
					t.Fatalf("step %d sends %q, want %q", k, got, st.want)
				}
			}
		})
	}
}

func TestSourceForgets(t *testing.T) {
	s, job := NewSource(), ids.JobFromInt(1)
	id, _ := s.Open(job, 1, false, true)
	s.Grew(id, 2)
	if s.Ended(id, 2); !s.Known(id) {
		t.Fatal("a dead worker's file is forgotten before it is read")
	}
	if sends(s, map[FileID]string{id: "a\n"}); s.Known(id) {
		t.Error("a dead worker's file is kept after it is read")
	}
	silent, _ := s.Open(job, 2, false, true)
	if s.Ended(silent, 0); s.Known(silent) {
		t.Error("a dead worker's empty file is kept")
	}
	if s.Over(job); len(s.files)+len(s.flows)+s.opens != 0 {
		t.Errorf("after the job, %d files and %d flows are kept", len(s.files), len(s.flows))
	}
}

func TestDeskOfADeadNode(t *testing.T) {
	d := NewDesk(Style{Plain: true})
	d.From(node(1))
	d.From(node(2))
	if ask := d.Flush(); len(ask) != 2 {
		t.Fatalf("asks %d nodes", len(ask))
	}
	d.Flushed(node(1))
	if _, done := d.Pull(0); done {
		t.Fatal("done without the second node")
	}
	d.Gone(node(2))
	if _, done := d.Pull(0); !done {
		t.Error("waits for a dead node")
	}
	if _, done := d.Pull(0); done {
		t.Error("told twice")
	}
}

func TestDeskNotes(t *testing.T) {
	d := NewDesk(Style{Plain: true})
	d.Take(node(1), Batch{Pid: 1, Text: []byte("printed\n")})
	d.Note("first")
	d.Note("second")
	frames, _ := d.Pull(0)
	if len(frames) != 2 || frames[0].Stream != Stderr || string(frames[0].Text) != "(ray) first\n(ray) second\n" || string(frames[1].Text) != "printed\n" {
		t.Errorf("frames %+v", frames)
	}
	if frames, _ := d.Pull(0); len(frames) != 0 {
		t.Errorf("told again: %+v", frames)
	}
}

func BenchmarkPrint(b *testing.B) {
	p := NewPrinter(Style{Dedup: true, Window: 5 * time.Second})
	text := []byte(strings.Repeat("epoch 17 of 100: the loss is 0.12345 now\n", 1000))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		p.Print(0, &Batch{Pid: 1, Name: "f", Text: text}, func(Stream, []byte) {})
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "lines/s")
}
