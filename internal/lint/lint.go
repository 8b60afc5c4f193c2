// Package lint holds the project's own rules, those that no linter knows, as tests: which package may import which,
// that the core stays pure, that packages are documented, and which words stay out of the tree.
//
// Each rule says why it is there, and a failure says what to do. The rules look at the files of the checkout, not at
// compiled packages, so they see what a build for another system would.
package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Module is the path of the module, the prefix of all our imports.
const Module = "gray"

// File is one Go file of the tree.
type File struct {
	Path    string // below the root, with slashes
	Test    bool
	AST     *ast.File
	Set     *token.FileSet
	Imports []string
	Lines   int
}

// Dir returns the folder of the file below the root, which is its package's path without the module.
func (f *File) Dir() string {
	dir := f.Path[:max(0, strings.LastIndexByte(f.Path, '/'))]
	return dir
}

// At returns "path:line" of a position.
func (f *File) At(pos token.Pos) string {
	return fmt.Sprintf("%s:%d", f.Path, f.Set.Position(pos).Line)
}

// Generated says whether the file declares that a tool wrote it.
func (f *File) Generated() bool { return ast.IsGenerated(f.AST) }

// Root returns the folder of go.mod, at or above the working directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no go.mod at or above the working directory")
		}
		dir = up
	}
}

// skipped are the folders that hold nothing of ours: what tools made or fetched.
var skipped = []string{"dist", "node_modules", "_bin", "__pycache__", "build"}

// Walk calls visit for each file of the project, with its path below the root. Folders that begin with a dot are left
// out, but for .ci; so is what tools made.
func Walk(root string, visit func(path string) error) error {
	return filepath.WalkDir(root, func(full string, e fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil // gone since its folder was listed: a file that a tool is just replacing
			}
			return err
		}
		path, err := filepath.Rel(root, full)
		if err != nil {
			return err
		}
		if e.IsDir() {
			hidden := strings.HasPrefix(e.Name(), ".") && path != "." && path != ".ci"
			if hidden || slices.Contains(skipped, e.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !e.Type().IsRegular() || path == ".git" { // a file in a linked working tree
			return nil
		}
		return visit(filepath.ToSlash(path))
	})
}

// Load reads all Go files below root.
func Load(root string) ([]*File, error) {
	var files []*File
	set := token.NewFileSet()
	err := Walk(root, func(path string) error {
		if !strings.HasSuffix(path, ".go") || strings.Contains("/"+path, "/testdata/") {
			return nil
		}
		src, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return err
		}
		f, err := Parse(set, path, src)
		if err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	return files, err
}

// Parse makes a File of source text.
func Parse(set *token.FileSet, path string, src []byte) (*File, error) {
	tree, err := parser.ParseFile(set, path, src, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("lint: %w", err)
	}
	f := &File{
		Path:  path,
		Test:  strings.HasSuffix(path, "_test.go"),
		AST:   tree,
		Set:   set,
		Lines: strings.Count(string(src), "\n"),
	}
	for _, spec := range tree.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("lint: %s: import %s: %w", path, spec.Path.Value, err)
		}
		f.Imports = append(f.Imports, name)
	}
	return f, nil
}
