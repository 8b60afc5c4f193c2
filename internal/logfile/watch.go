package logfile

import (
	"encoding/binary"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Gather is how long changes of files gather before they are told: a file to which a line is written at a time changes a
// million times a second.
const Gather = 5 * time.Millisecond

// Watcher tells which files grow. Where the system has no watch to give (inotify's limits are the user's), it says so, and
// all files are to be looked at from time to time.
type Watcher struct {
	f    *os.File
	done chan struct{}
	stop chan struct{}
}

// Watch starts one. changed is called on a goroutine of it with the numbers of files that have changed, each once; all says
// that there may be others.
func Watch(changed func(files map[int32]bool, all bool)) (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &Watcher{f: os.NewFile(uintptr(fd), "inotify"), done: make(chan struct{}), stop: make(chan struct{})}
	go w.run(changed)
	return w, nil
}

// Add watches a file, whatever it is renamed to, and returns its number.
func (w *Watcher) Add(path string) (file int32, err error) {
	raw, err := w.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	var werr error
	if err := raw.Control(func(fd uintptr) { n, werr = unix.InotifyAddWatch(int(fd), path, unix.IN_MODIFY) }); err != nil {
		return 0, err
	}
	return int32(n), os.NewSyscallError("inotify_add_watch", werr)
}

// Remove ends the watch of a file. A change that was seen before may still be told.
func (w *Watcher) Remove(file int32) {
	raw, err := w.f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(file)) }) // it may have gone with its file
}

// Close ends the watcher; changed is not called any more once it returns.
func (w *Watcher) Close() {
	close(w.stop)
	_ = w.f.Close() // ends the read
	<-w.done
}

func (w *Watcher) run(changed func(map[int32]bool, bool)) {
	defer close(w.done)
	buf := make([]byte, 64<<10)
	pause := time.NewTimer(0)
	<-pause.C
	for {
		n, err := w.f.Read(buf)
		if err != nil {
			return // closed
		}
		files, all := map[int32]bool{}, false
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			file, mask := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])
			all = all || mask&unix.IN_Q_OVERFLOW != 0
			if mask&unix.IN_MODIFY != 0 {
				files[file] = true
			}
			b = b[unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:])):]
		}
		if len(files) == 0 && !all {
			continue
		}
		changed(files, all)
		pause.Reset(Gather)
		select {
		case <-pause.C:
		case <-w.stop:
			return
		}
	}
}

// Size is a file's, by its path.
func Size(path string) (int64, error) {
	st, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if !st.Mode().IsRegular() {
		return 0, errors.New(path + " is no regular file")
	}
	return st.Size(), nil
}
