package pool

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkFork measures from Fork to the first byte that the worker sends, one worker after the other.
func BenchmarkFork(b *testing.B) {
	r := newRig(b, nil)
	first := r.fork(WorkerSpec{}) // the zygote is up
	zygote := r.zygotePid(first)
	for b.Loop() {
		w := r.fork(WorkerSpec{})
		w.do("reply(1)")
		w.line()
		b.StopTimer()
		w.do("os._exit(0)")
		w.exit()
		b.StartTimer()
	}
	b.StopTimer()
	b.ReportMetric(pss(b, zygote), "zygote-PSS-MB")
	b.ReportMetric(pss(b, first.Pid), "worker-PSS-MB")
}

// BenchmarkForkMany measures forks with many in flight.
func BenchmarkForkMany(b *testing.B) {
	r := newRig(b, nil)
	r.fork(WorkerSpec{})
	done := make(chan *Worker, 100)
	n := 0
	for b.Loop() {
		for range cap(done) {
			n++
			r.pool.Fork(WorkerSpec{ID: fmt.Sprintf("m%d", n)}, func(w *Worker, err error) {
				check(b, err)
				done <- w
			})
		}
		for range cap(done) {
			w := <-done
			w.Kill()
			check(b, w.Close())
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n)/1000, "ms/worker")
}

// BenchmarkStart measures from Start to the first byte of the first worker, beside a bare interpreter.
func BenchmarkStart(b *testing.B) {
	py := python(b)
	dir := sdk(b) // compiled by its first use
	var bare time.Duration
	for b.Loop() {
		b.StopTimer()
		r := newRig(b, func(c *Config) { c.SDKDir = dir; b.StartTimer() })
		w := r.fork(WorkerSpec{})
		w.do("reply(1)")
		w.line()
		b.StopTimer()
		start := time.Now()
		check(b, exec.Command(py, "-c", "pass").Run())
		bare += time.Since(start)
		r.pool.Stop()
		b.StartTimer()
	}
	b.ReportMetric(float64(bare.Microseconds())/float64(b.N)/1000, "bare-python-ms")
}

// BenchmarkSDK is BenchmarkFork with the real SDK imported: what a daemon has.
func BenchmarkSDK(b *testing.B) {
	var took time.Duration
	for b.Loop() {
		var start time.Time
		r := newRig(b, func(c *Config) {
			c.SDKDir = "../../python"
			c.Main = "ray._core.worker:main"
			start = time.Now()
		})
		w := r.fork(WorkerSpec{})
		took += time.Since(start)
		b.StopTimer()
		stat, err := readParent(w.Pid)
		check(b, err)
		b.ReportMetric(pss(b, stat), "zygote-PSS-MB")
		b.ReportMetric(pss(b, w.Pid), "worker-PSS-MB")
		r.pool.Stop()
		b.StartTimer()
	}
	b.ReportMetric(float64(took.Milliseconds())/float64(b.N), "start-ms")
}

func readParent(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.Fields(string(b[bytes.LastIndexByte(b, ')'):]))[2])
}

// pss is the proportional memory of a process, in MB.
func pss(b *testing.B, pid int) float64 {
	b.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	check(b, err)
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); fields[0] == "Pss:" {
			kb, err := strconv.Atoi(fields[1])
			check(b, err)
			return float64(kb) / 1000
		}
	}
	b.Fatal("no Pss")
	return 0
}
