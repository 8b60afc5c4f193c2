package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
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
	}
	return fmt.Sprint(v)
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
		switch v := m[k].(type) {
		case map[string]any:
			if len(v) == 0 {
				b.WriteString(" {}")
				continue
			}
			yamlMap(b, v, slices.Sorted(maps.Keys(v)), indent+"    ")
		case nil:
			b.WriteString(" null")
		case string:
			b.WriteString(" " + yamlText(v))
		default: // numbers and truth values are the same in both; of lists, YAML reads those of JSON
			text, err := json.Marshal(v)
			if err != nil {
				text = []byte("null")
			}
			b.Write(append([]byte(" "), text...))
		}
	}
}

// yamlPlain are texts that YAML reads as themselves; more are, but quotes do no harm.
var (
	yamlPlain = regexp.MustCompile("^[A-Za-z_/(][^\x00-\x1f\x7f-\u00a0\u2028\u2029\ufeff\"]*$|^[0-9a-f]*[a-df][0-9a-f]*$|" +
		"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
	yamlOther = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null|[0-9.]+(e[0-9]+)?|0x[0-9a-f]+)$|: | #|:$|^ | $`)
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
