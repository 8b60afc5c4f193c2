package wire

// Logs asks for what the job's workers print, and says how much of it was taken. It is answered by LOG frames, for as long
// as the channel lives.
type Logs struct {
	Chan, Req uint32
	Taken     uint64 // bytes of text in all
	Flags     uint8  // FlagFlush
}

// DecodeLogs reads LOGS's body.
func DecodeLogs(body []byte) (Logs, error) {
	c := cursor{b: body}
	m := Logs{Chan: c.u32("chan"), Req: c.u32("req"), Taken: c.u64("taken"), Flags: c.u8("flags")}
	return m, c.done(KindLogs)
}

// AppendLogs appends the frame.
func AppendLogs(b []byte, m Logs) []byte {
	at := len(b)
	return fixed(append(le64(le32(le32(begin(b, KindLogs), m.Chan), m.Req), m.Taken), m.Flags), at)
}

// Log is text of workers, for the driver to show.
type Log struct {
	Req    uint32
	Stream uint8 // LogOut, LogErr or LogBars
	Text   []byte
}

// Where the text of a LOG goes.
const (
	LogOut  uint8 = 0
	LogErr  uint8 = 1
	LogBars uint8 = 2 // states of progress bars, a line of JSON each
)

// DecodeLog reads LOG's body.
func DecodeLog(body []byte) (Log, error) {
	c := cursor{b: body}
	m := Log{Req: c.u32("req"), Stream: c.enum(LogBars, "stream")}
	m.Text = c.take(uint64(len(c.b)), "text")
	return m, c.done(KindLog)
}

// AppendLog appends the frame.
func AppendLog(b []byte, m *Log) ([]byte, error) {
	at := len(b)
	b = append(le32(begin(b, KindLog), m.Req), m.Stream)
	return finish(append(b, m.Text...), at, 0)
}

// DecodeLogsFlushed reads LOGS_FLUSHED's body: the number of the request.
func DecodeLogsFlushed(body []byte) (uint32, error) {
	c := cursor{b: body}
	req := c.u32("req")
	return req, c.done(KindLogsFlushed)
}

// AppendLogsFlushed appends the frame.
func AppendLogsFlushed(b []byte, req uint32) []byte {
	at := len(b)
	return fixed(le32(begin(b, KindLogsFlushed), req), at)
}
