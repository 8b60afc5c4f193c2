package pool

import (
	"sort"
	"strings"
)

// message is a packet between pool and zygote: NUL-separated "key=value" texts, as in an environment block.
type message map[string]string

func (m message) pack() []byte {
	fields := make([]string, 0, len(m))
	for k, v := range m {
		fields = append(fields, k+"="+v)
	}
	sort.Strings(fields)
	return []byte(strings.Join(fields, "\x00"))
}

func unpack(b []byte) message {
	m := message{}
	for field := range strings.SplitSeq(string(b), "\x00") {
		if k, v, ok := strings.Cut(field, "="); ok {
			m[k] = v
		}
	}
	return m
}
