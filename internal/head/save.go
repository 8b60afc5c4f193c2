package head

import (
	"errors"
	"time"

	"gray/internal/core/fault"
	"gray/internal/core/headstate"
)

// storeSayEvery is how often a store that keeps failing is written to the log.
const storeSayEvery = time.Minute

// save gives what has gathered to the store.
func (s *Service) save() {
	if len(s.ops) == 0 {
		return
	}
	s.batch, s.batchSeq, s.ops = encodeOps(s.ops), s.opsSeq, nil
	s.append()
}

func (s *Service) append() {
	s.saving = true
	s.cfg.Store.Append(Batch{Fence: s.fence, Ops: s.batch}, func(err error) { s.saved <- err })
}

// retry tries a refused batch again when its time has come.
func (s *Service) retry() {
	if len(s.batch) > 0 && !s.saving && s.now() >= s.retryAt {
		s.append()
	}
}

// commit takes the store's answer in. It is false if the head must end.
func (s *Service) commit(err error) bool {
	s.saving = false
	now := s.now()
	switch {
	case errors.Is(err, ErrFenced):
		s.err = &fault.Error{Op: "head.Append", Kind: fault.System, Detail: "this head ends; its daemons belong to the other one", Err: err}
		s.cfg.Log.Error(s.err.Error())
		return false
	case err != nil:
		s.storeErr, s.retryAt = err, now+s.cfg.Retry
		if now >= s.toldAt+storeSayEvery {
			s.toldAt = now
			s.cfg.Log.Error("the head's store fails; changes wait for it, and it is tried again every " + s.cfg.Retry.String() + ": " + err.Error())
		}
		return true
	}
	if s.storeErr != nil {
		s.storeErr = nil
		s.toldAt = -storeSayEvery
		s.cfg.Log.Info("the head's store works again")
	}
	s.batch = nil
	s.step(now, headstate.Persisted{Seq: s.batchSeq})
	return true
}

// finish makes safe what is decided, once.
func (s *Service) finish() {
	if s.disarm != nil {
		s.disarm()
	}
	for {
		if s.saving {
			if err := <-s.saved; err != nil {
				s.err = &fault.Error{Op: "head.Close", Kind: fault.System, Detail: "the last changes are not stored", Err: err}
				return
			}
			s.saving = false
			s.batch = nil
			s.step(s.now(), headstate.Persisted{Seq: s.batchSeq}) // the answers; may save more
		} else if len(s.batch) > 0 {
			s.append() // it was refused before: one more try
		}
		if !s.saving {
			s.save()
		}
		if !s.saving {
			return
		}
	}
}
