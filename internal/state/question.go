package state

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxLimit bounds the rows of one answer.
const MaxLimit = 10_000

// What a question wants.
const (
	List     = ""         // rows
	Summary  = "summary"  // figures
	Timeline = "timeline" // of tasks: events of a Chrome trace
	Usage    = "usage"    // of objects: how full each node's store is
)

// Logs is the kind of questions about log files: no table, the daemon asks the head's HTTP port.
const Logs = "logs"

// Filter is a condition on a column.
type Filter struct {
	Key       string `msgpack:"key"`
	Predicate string `msgpack:"predicate"`
	Value     string `msgpack:"value"`
}

// Question asks for the rows of a table.
type Question struct {
	Kind    string   `msgpack:"kind"`
	Want    string   `msgpack:"want"`
	Limit   int      `msgpack:"limit"`
	Detail  bool     `msgpack:"detail"`
	Drivers bool     `msgpack:"drivers"` // of tasks: those of drivers, too
	Filters []Filter `msgpack:"filters"`
	Job     string   `msgpack:"job"`     // of a timeline: this job's only
	Query   string   `msgpack:"query"`   // of logs: what the HTTP routes take after the question mark
	Seconds float64  `msgpack:"seconds"` // that the answer may take; 0 = 30
}

// Answer is what is known.
type Answer struct {
	Total    int      `msgpack:"total"`    // rows that there are
	Kept     int      `msgpack:"kept"`     // of these, those that could be looked at
	Filtered int      `msgpack:"filtered"` // of these, those that the filters let through
	Rows     []Row    `msgpack:"rows"`
	Missing  string   `msgpack:"missing"` // whose rows are not among them, and why; "" = nobody's
	Notes    []string `msgpack:"notes"`   // what else people should know
	Dropped  uint64   `msgpack:"dropped"` // ended attempts of tasks that are not kept any more
}

// BadQuestion is a question that has no answer; its text says why, in Ray's words where Ray has some.
type BadQuestion struct{ Text string }

func (b *BadQuestion) Error() string { return b.Text }

func bad(format string, a ...any) error { return &BadQuestion{fmt.Sprintf(format, a...)} }

// Match tells whether a row, given by its columns, is asked for.
type Match func(get func(column string) any) bool

// Match checks a question and gives the test of its filters; all must hold. Texts are compared without regard to case.
func (q *Question) Match() (Match, error) {
	t := Find(q.Kind)
	if t == nil {
		return nil, bad("there is no table %q", q.Kind)
	}
	if q.Limit < 0 {
		return nil, bad("the limit %d is not a number of rows", q.Limit)
	}
	if q.Limit > MaxLimit {
		return nil, bad("Given limit %d exceeds the supported limit %d. Use a lower limit.", q.Limit, MaxLimit)
	}
	tests := make([]test, 0, len(q.Filters))
	for _, f := range q.Filters {
		test, err := t.test(f)
		if err != nil {
			return nil, err
		}
		tests = append(tests, test)
	}
	return func(get func(string) any) bool {
		for i := range tests {
			if !tests[i].holds(get(tests[i].column)) {
				return false
			}
		}
		return true
	}, nil
}

type test struct {
	column string
	equal  bool
	text   string
}

func (x *test) holds(v any) bool { return strings.EqualFold(text(v), x.text) == x.equal }

// text is a value as filters compare it.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case int:
		return strconv.Itoa(v)
	}
	return fmt.Sprint(v)
}

func (t *Table) test(f Filter) (test, error) {
	key := strings.ToLower(f.Key)
	c := t.Column(key)
	if c == nil || !c.Filter {
		return test{}, bad("The given filter column %s is not supported. Enter filters with --filter key=value or --filter key!=value Supported filter columns: %s", f.Key, strings.Join(t.Filters(), ", "))
	}
	if f.Predicate != "=" && f.Predicate != "!=" {
		return test{}, bad("Unsupported filter predicate %s is given. Available predicates: =, !=.", f.Predicate)
	}
	x := test{column: key, equal: f.Predicate == "=", text: f.Value}
	switch c.Type {
	case Number:
		n, err := strconv.ParseInt(strings.TrimSpace(f.Value), 10, 64)
		if err != nil {
			return test{}, bad("Failed to convert a value %s of type <class 'str'> to <class 'int'>", f.Value)
		}
		x.text = strconv.FormatInt(n, 10)
	case Truth:
		switch strings.ToLower(strings.TrimSpace(f.Value)) {
		case "true", "1":
			x.text = "true"
		case "false", "0":
			x.text = "false"
		default:
			return test{}, bad("Invalid filter `--filter %s %s`for a boolean type column. Please provide --filter %s=[True|true|1] for True or --filter %s=[False|false|0] for False", f.Key, f.Value, f.Key, f.Key)
		}
	}
	if key == "state" && t.States != nil && !slices.Contains(t.States, strings.ToUpper(f.Value)) {
		return test{}, bad("Invalid %s state for filtering: %s", strings.TrimSuffix(t.Kind, "s"), strings.ToUpper(f.Value))
	}
	return x, nil
}

// Wanted is the value that a row must have in a column to be asked for; false if any will do.
func (q *Question) Wanted(column string) (string, bool) {
	for _, f := range q.Filters {
		if f.Predicate == "=" && strings.EqualFold(f.Key, column) {
			return f.Value, true
		}
	}
	return "", false
}

// Select is the answer to a question about rows that are all at hand.
func (q *Question) Select(rows []Row) (*Answer, error) {
	match, err := q.Match()
	if err != nil {
		return nil, err
	}
	t := Find(q.Kind)
	a := &Answer{Total: len(rows), Kept: len(rows)}
	for _, r := range rows {
		if !match(func(c string) any { return r[c] }) {
			continue
		}
		if a.Filtered++; len(a.Rows) < q.Limit {
			a.Rows = append(a.Rows, t.Build(q.Detail, func(c string) any { return r[c] }))
		}
	}
	return a, nil
}

// Join adds the answer of one more daemon.
func (a *Answer) Join(b *Answer) {
	a.Total += b.Total
	a.Kept += b.Kept
	a.Filtered += b.Filtered
	a.Dropped += b.Dropped
	a.Rows = append(a.Rows, b.Rows...)
	a.Notes = append(a.Notes, b.Notes...)
}

// Sort orders rows by their id, attempts the last one first, as Ray does, and keeps the first of them.
func (a *Answer) Sort(t *Table, limit int) {
	slices.SortStableFunc(a.Rows, func(x, y Row) int {
		if c := cmp.Compare(text(x[t.ID]), text(y[t.ID])); c != 0 || t != Tasks {
			return c
		}
		return cmp.Compare(Int(y["attempt_number"]), Int(x["attempt_number"]))
	})
	if len(a.Rows) > limit {
		a.Rows = a.Rows[:limit]
	}
}

// Int is a number in a row, however it was decoded.
func Int(v any) int64 {
	switch v := v.(type) {
	case int64:
		return v
	case int:
		return int64(v)
	case uint64:
		return int64(v)
	case int8:
		return int64(v)
	case int16:
		return int64(v)
	case int32:
		return int64(v)
	case uint8:
		return int64(v)
	case uint16:
		return int64(v)
	case uint32:
		return int64(v)
	case float64:
		return int64(v)
	}
	return 0
}

// Str is a text in a row.
func Str(v any) string {
	s, _ := v.(string)
	return s
}
