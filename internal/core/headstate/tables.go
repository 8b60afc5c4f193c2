package headstate

import "gray/internal/core/ids"

// Questions about tables go past the head's decisions: they change nothing. What they say is opaque here.
const (
	KindStateQuery  Kind = 0xb0 // a daemon asks the head for its clients
	KindStateTold   Kind = 0xb1 // a daemon's part of an answer
	KindStateAnswer Kind = 0xf0
	KindStateAsk    Kind = 0xf1 // the head asks a daemon for its part
)

// StateQuery asks for rows of a table; answered by StateAnswer.
type StateQuery struct {
	Req      uint64
	Question []byte
}

// StateAnswer answers StateQuery.
type StateAnswer struct {
	Req    uint64
	Answer []byte
	Error  string // why there is none; then Bad tells whether the question was wrong
	Bad    bool
}

// StateAsk asks a daemon for its rows of a table.
type StateAsk struct {
	Seq      uint64
	Question []byte
}

// StateTold answers StateAsk.
type StateTold struct {
	Seq    uint64
	Node   ids.NodeID
	Answer []byte
	Error  string
}

func (*StateQuery) Kind() Kind  { return KindStateQuery }
func (*StateTold) Kind() Kind   { return KindStateTold }
func (*StateAnswer) Kind() Kind { return KindStateAnswer }
func (*StateAsk) Kind() Kind    { return KindStateAsk }

func (m *StateQuery) Number() uint64           { return m.Req }
func (m *StateAnswer) Number() uint64          { return m.Req }
func (m *StateQuery) Numbered(req uint64) Call { c := *m; c.Req = req; return &c }
