package sim

import (
	"fmt"
	"hash/crc32"
	"strings"

	"gray/internal/core/ids"
)

// digest is a number for a value of a script, the same as that of test/metamorphic/programs.py: the CRC-32 of bytes, of a
// list of the digests of its items as Python writes it, or of how Python writes anything else.
func digest(value any) int64 {
	switch v := value.(type) {
	case []byte:
		return int64(crc32.ChecksumIEEE(v))
	case []any:
		words := make([]string, len(v))
		for k, x := range v {
			words[k] = fmt.Sprint(digest(x))
		}
		return int64(crc32.ChecksumIEEE([]byte("[" + strings.Join(words, ", ") + "]")))
	case string:
		return int64(crc32.ChecksumIEEE([]byte("'" + v + "'")))
	case nil:
		return int64(crc32.ChecksumIEEE([]byte("None")))
	default:
		return int64(crc32.ChecksumIEEE([]byte(fmt.Sprint(v))))
	}
}

// digestPlain is the digest of a value in which refs count as such.
func digestPlain(value any) int64 {
	switch v := value.(type) {
	case ids.ObjectID:
		return 1
	case []any:
		list := make([]any, len(v))
		for k, x := range v {
			list[k] = digestPlain(x)
		}
		return digest(list)
	default:
		return digest(value)
	}
}
