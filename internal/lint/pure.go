package lint

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// clock are the functions of package time that read the clock or wait for it. Types and arithmetic are welcome.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}

// CheckPure returns what a file of the core does that would make two runs of the same events differ or interleave.
func CheckPure(f *File) []string {
	if f.Test || !within(f.Dir(), "internal/core") {
		return nil
	}
	var bad []string
	report := func(pos token.Pos, what, instead string) {
		bad = append(bad, fmt.Sprintf("%s: %s in the core: %s", f.At(pos), what, instead))
	}
	ast.Inspect(f.AST, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			report(n.Pos(), "a go statement", "return an effect and let the shell run it")
		case *ast.SelectStmt:
			report(n.Pos(), "a select", "events come in as arguments")
		case *ast.SendStmt:
			report(n.Pos(), "a channel send", "return an effect")
		case *ast.ChanType:
			report(n.Pos(), "a channel", "events come in as arguments, effects go out as results")
		case *ast.SelectorExpr:
			pkg, ok := n.X.(*ast.Ident)
			if ok && pkg.Name == "time" && pkg.Obj == nil && slices.Contains(clock, n.Sel.Name) {
				report(n.Pos(), "time."+n.Sel.Name, "take the time as an argument")
			}
		}
		return true
	})
	return bad
}

// CheckSleep returns the sleeps in a Go test that are not in a synctest bubble, where time is made up.
func CheckSleep(f *File) []string {
	if !f.Test || slices.Contains(f.Imports, "testing/synctest") {
		return nil
	}
	var bad []string
	ast.Inspect(f.AST, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
			if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "time" {
				bad = append(bad, f.At(n.Pos())+": time.Sleep in a test: wait for the condition itself, or use testing/synctest")
			}
		}
		return true
	})
	return bad
}

// CheckDocs returns the packages of the files that have no package comment beginning "Package name" or, for a command,
// "Command name".
func CheckDocs(files []*File) []string {
	documented := map[string]bool{}
	var dirs []string
	for _, f := range files {
		if f.Test {
			continue
		}
		dir := f.Dir()
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
		if f.AST.Doc == nil {
			continue
		}
		want := "Package " + f.AST.Name.Name + " "
		if f.AST.Name.Name == "main" {
			want = "Command " + dir[strings.LastIndexByte(dir, '/')+1:] + " "
		}
		if strings.HasPrefix(f.AST.Doc.Text(), want) {
			documented[dir] = true
		}
	}
	var bad []string
	for _, dir := range dirs {
		if !documented[dir] {
			bad = append(bad, fmt.Sprintf("package %q has no comment that begins \"Package name …\" (for a command, \"Command name …\"): say what it owns, its contract and its units", dir))
		}
	}
	return bad
}
