package logfile

import (
	"errors"
	"os"
	"slices"
)

// Keeper bounds how many writers that have ended have their files on disk: beyond Most, those of who ended first go, with
// their backups. Not safe for concurrent use.
type Keeper[W comparable] struct {
	Most    int
	Backups int
	Files   func(W) []string

	ended []W // oldest first
}

// Ended notes that a writer has ended, and removes files until there are not too many. Those of writers that needed says are
// still read stay until a later call.
func (k *Keeper[W]) Ended(w W, needed func(W) bool) error {
	k.ended = append(k.ended, w)
	var errs []error
	for at := 0; at < len(k.ended) && len(k.ended) > k.Most; {
		old := k.ended[at]
		if needed != nil && needed(old) {
			at++
			continue
		}
		k.ended = slices.Delete(k.ended, at, at+1)
		for _, path := range k.Files(old) {
			errs = append(errs, remove(path, k.Backups))
		}
	}
	return errors.Join(errs...)
}

// remove removes a file and its backups, as far as they are there.
func remove(path string, backups int) error {
	errs := []error{os.Remove(path)}
	for k := 1; k <= backups; k++ {
		errs = append(errs, os.Remove(name(path, k)))
	}
	errs = slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, os.ErrNotExist) })
	return errors.Join(errs...)
}
