package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gray/internal/state"
)

// stateTable is rows as the state commands print them: a number, then the columns.
func stateTable(columns []string, rows []map[string]any) string {
	header := []string{""}
	for _, c := range columns {
		header = append(header, strings.ToUpper(c))
	}
	cells := make([][]string, len(rows))
	for i, row := range rows {
		cells[i] = []string{strconv.Itoa(i)}
		for _, c := range columns {
			cells[i] = append(cells[i], cellText(row[c]))
		}
	}
	return plainTable(header, cells)
}

// plainTable aligns cells under their headers, numbers to the right and texts to the left, as Ray's tables are. A cell
// may have several lines.
func plainTable(header []string, rows [][]string) string {
	width := make([]int, len(header))
	right := make([]bool, len(header))
	lines := make([][][]string, len(rows)) // row, column, line
	for c, h := range header {
		width[c] = utf8.RuneCountInString(h) + 2
		right[c] = len(rows) > 0
	}
	for i, row := range rows {
		for c, cell := range row {
			if _, err := strconv.ParseFloat(cell, 64); cell != "" && err != nil {
				right[c] = false
			}
			split := strings.Split(cell, "\n")
			lines[i] = append(lines[i], split)
			for _, l := range split {
				width[c] = max(width[c], utf8.RuneCountInString(l))
			}
		}
	}
	for c := range right {
		if !slices.ContainsFunc(rows, func(row []string) bool { return row[c] != "" }) {
			right[c] = false
		}
	}
	var b strings.Builder
	write := func(cells []string) {
		var l strings.Builder
		for c, cell := range cells {
			pad := strings.Repeat(" ", width[c]-utf8.RuneCountInString(cell))
			if right[c] {
				cell = pad + cell
			} else {
				cell += pad
			}
			if c > 0 {
				l.WriteString("  ")
			}
			l.WriteString(cell)
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	write(header)
	for _, row := range lines {
		for i := 0; ; i++ {
			cells, more := make([]string, len(row)), false
			for c, split := range row {
				if i < len(split) {
					cells[c], more = split[i], true
				}
			}
			if !more {
				break
			}
			write(cells)
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func cellText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		if v {
			return "True"
		}
		return "False"
	case string:
		return v
	case map[string]any:
		if len(v) > 0 {
			var b strings.Builder
			yamlMap(&b, v, slices.Sorted(maps.Keys(v)), "")
			return strings.Trim(b.String(), "\n")
		}
		return "{}"
	case []any:
		var b strings.Builder
		yamlValue(&b, v, "")
		return strings.TrimSpace(b.String())
	}
	return fmt.Sprint(v)
}

// humanify makes a row's values readable: times, sizes.
func humanify(t *state.Table, row map[string]any) {
	for _, c := range t.Columns {
		if m, ok := row[c.Name].(map[string]any); ok && c.Name == "required_resources" {
			for name, q := range m {
				m[name] = floatText(q)
			}
		}
		switch v := row[c.Name]; c.Shape {
		case state.Moment:
			if n, ok := v.(json.Number); ok {
				row[c.Name] = momentText(n)
			}
		case state.Size:
			if n, ok := v.(json.Number); ok {
				row[c.Name] = sizeText(n)
			}
		case state.Amounts:
			m, _ := v.(map[string]any)
			for name, q := range m {
				m[name] = floatText(q)
			}
			for _, name := range []string{"memory", "object_store_memory"} {
				if n, ok := m[name].(json.Number); ok {
					m[name] = sizeText(n)
				}
			}
		case state.Stations:
			list, _ := v.([]any)
			for _, e := range list {
				m, _ := e.(map[string]any)
				if n, ok := m["created_ms"].(json.Number); ok {
					m["created_ms"] = momentText(n)
				}
			}
		}
	}
}

// floatText is a number as Python writes a float.
func floatText(v any) any {
	if n, ok := v.(json.Number); ok && !strings.ContainsAny(n.String(), ".eE") {
		return json.Number(n.String() + ".0")
	}
	return v
}

// momentText is milliseconds since 1970 as Python writes a datetime.
func momentText(n json.Number) string {
	ms, err := n.Float64()
	if err != nil {
		return n.String()
	}
	at := time.UnixMilli(int64(ms))
	if at.Nanosecond() == 0 {
		return at.Format("2006-01-02 15:04:05")
	}
	return at.Format(stateTime)
}

// sizeText is a number of bytes as Ray's tables write it.
func sizeText(n json.Number) string {
	v, err := n.Float64()
	if err != nil {
		return n.String()
	}
	for _, u := range []string{"B", "KiB", "MiB", "GiB"} {
		if v < 1024 || u == "GiB" {
			return fmt.Sprintf("%.3f %s", v, u)
		}
		v /= 1024
	}
	return ""
}

// yamlRows is a YAML document with a list of rows, in the layout of Ray's commands.
func yamlRows(rows []map[string]any, columns []string) string {
	if len(rows) == 0 {
		return "---\n[]\n...\n"
	}
	var b strings.Builder
	b.WriteString("---")
	for _, row := range rows {
		var m strings.Builder
		yamlMap(&m, row, columns, "    ")
		b.WriteString("\n-" + strings.TrimPrefix(m.String(), "\n ")) // its first key stands beside the dash
	}
	b.WriteString("\n...\n")
	return b.String()
}

// yamlMap writes each key on a line of its own, a newline before it.
func yamlMap(b *strings.Builder, m map[string]any, keys []string, indent string) {
	for _, k := range keys {
		b.WriteString("\n" + indent + yamlText(k) + ":")
		yamlValue(b, m[k], indent)
	}
}

// yamlValue writes what stands behind a key: on the same line, or on lines below it.
func yamlValue(b *strings.Builder, v any, indent string) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			b.WriteString(" {}")
			return
		}
		yamlMap(b, v, slices.Sorted(maps.Keys(v)), indent+"    ")
	case []any:
		if len(v) == 0 {
			b.WriteString(" []")
			return
		}
		for _, e := range v {
			b.WriteString("\n" + indent + "-")
			m, ok := e.(map[string]any)
			if !ok || len(m) == 0 {
				yamlValue(b, e, indent+"    ")
				continue
			}
			var inner strings.Builder
			yamlMap(&inner, m, slices.Sorted(maps.Keys(m)), indent+"    ")
			b.WriteString("   " + strings.TrimPrefix(inner.String(), "\n"+indent+"    ")) // its first key stands beside the dash
		}
	case nil:
		b.WriteString(" null")
	case string:
		b.WriteString(" " + yamlText(v))
	default: // numbers and truth values are the same in both
		text, err := json.Marshal(v)
		if err != nil {
			text = []byte("null")
		}
		b.Write(append([]byte(" "), text...))
	}
}

// yamlPlain are texts that YAML reads as themselves; more are, but quotes do no harm.
var (
	yamlPlain = regexp.MustCompile("^[A-Za-z_/(][^\x00-\x1f\x7f-\u00a0\u2028\u2029\ufeff\"]*$|^[0-9a-f]*[a-df][0-9a-f]*$|" +
		"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$|^[0-9]+(\\.[0-9]+){3}$|^-?[0-9]+\\.[0-9]{3} [KMG]?i?B$")
	yamlOther = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null|[0-9]*\.?[0-9]*(e[0-9]+)?|0x[0-9a-f]+)$|: | #|:$|^ | $`)
)

func yamlText(s string) string {
	switch {
	case yamlPlain.MatchString(s) && !yamlOther.MatchString(s):
		return s
	case !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f }):
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	}
	b, err := json.Marshal(s) // YAML reads JSON's texts
	if err != nil {
		return "''"
	}
	return string(b)
}
