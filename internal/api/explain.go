package api

import (
	"context"
	"net/http"

	"gray/internal/core/explain"
	"gray/internal/core/fault"
)

// Explainer says why a task, an object or an actor is where it is.
type Explainer func(ctx context.Context, id string) (*explain.Report, error)

// explain answers `ray explain`: the report, and the same in words.
func (s *server) explain(w http.ResponseWriter, r *http.Request) {
	if s.Explain == nil {
		s.refuse(w, http.StatusNotFound, "this daemon explains nothing")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), askWithin)
	defer cancel()
	report, err := s.Explain(ctx, r.PathValue("id"))
	if err != nil {
		status := http.StatusInternalServerError
		if fault.KindOf(err) == fault.NotFound {
			status = http.StatusBadRequest
		}
		s.refuse(w, status, err.Error())
		return
	}
	s.envelope(w, "", object{"report": report, "text": report.Text()})
}
