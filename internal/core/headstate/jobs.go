package headstate

import (
	"math"
	"slices"
	"time"

	"gray/internal/core/ids"
)

// JobState is where a job stands, named as Ray names it.
type JobState string

// Job states: RUNNING to one of the others, once.
const (
	JobRunning   JobState = "RUNNING"
	JobSucceeded JobState = "SUCCEEDED"
	JobFailed    JobState = "FAILED"
)

type job struct {
	row   JobRow
	made  uint64 // batch that records it
	ended uint64 // batch that records its end
}

func (s *State) jobStart(now time.Duration, n *node, m *JobStart) {
	// Who asks has not been told: a job that ended since, because no inventory had its driver, is of no use to it.
	if id, ok := s.jobKeys[m.Key]; ok && s.jobs[id].row.State == JobRunning {
		s.sendAfter(s.jobs[id].made, n.id(), &JobStarted{Req: m.Req, Job: id})
		return
	}
	if len(m.Packages) > maxPackages {
		s.fail(n, m, faultLimit, "head.JobStart: its environment has %d packages; at most %d are possible", len(m.Packages), maxPackages)
		return
	}
	if s.meta.NextJob == math.MaxUint32 {
		s.fail(n, m, faultLimit, "head.JobStart: all job ids of this cluster are used up; start a new cluster")
		return
	}
	j := &job{made: s.next, row: JobRow{
		ID: ids.JobFromInt(s.meta.NextJob), Key: m.Key, Node: n.id(), Driver: m.Driver, State: JobRunning, StartMs: s.wallMs(now), Packages: m.Packages,
	}}
	s.meta.NextJob++
	s.jobs[j.row.ID] = j
	s.jobKeys[m.Key] = j.row.ID
	s.putMeta()
	s.putJob(j)
	s.sendAfter(s.next, n.id(), &JobStarted{Req: m.Req, Job: j.row.ID})
}

func (s *State) jobEnd(now time.Duration, n *node, m *JobEnd) {
	j := s.jobs[m.Job]
	if j == nil {
		s.fail(n, m, faultSystem, "head.JobEnd: job %s is not known to this cluster", m.Job)
		return
	}
	if j.row.Virtual {
		s.fail(n, m, faultSystem, "head.JobEnd: job %s is a detached actor's own and ends with it; kill the actor", m.Job)
		return
	}
	if j.row.State == JobRunning {
		s.endJob(now, j, m.Failed, m.Message)
	}
	s.sendAfter(j.ended, n.id(), &Done{Req: m.Req})
}

func (s *State) endJob(now time.Duration, j *job, failed bool, text string) {
	j.row.State, j.row.Message, j.row.EndMs, j.ended = JobSucceeded, text, s.wallMs(now), s.next
	if failed {
		j.row.State = JobFailed
	}
	s.broadcastAfter(s.next, &JobEnded{Job: j.row.ID, Message: text})
	if j.row.Virtual { // nobody is shown it
		delete(s.jobs, j.row.ID)
		s.remove(&JobRow{ID: j.row.ID})
		s.endActorsOf(now, j.row.ID)
		return
	}
	s.putJob(j)
	s.endActorsOf(now, j.row.ID)
	s.ended.PushBack(j.row.ID)
	for s.ended.Len() > s.cfg.MaxEnded {
		old := s.jobs[s.ended.Remove(s.ended.Front()).(ids.Job)]
		delete(s.jobs, old.row.ID)
		if s.jobKeys[old.row.Key] == old.row.ID {
			delete(s.jobKeys, old.row.Key)
		}
		row := old.row
		s.remove(&row)
	}
}

func (s *State) putJob(j *job) {
	row := j.row
	s.put(&row)
}

// maxPackages is how many packages a job's environment may have.
const maxPackages = 1000

// Packages are the names of the packages that running jobs, those of detached actors included, need.
func (s *State) Packages() map[string]bool {
	inUse := map[string]bool{}
	for _, j := range s.jobs {
		if j.row.State != JobRunning {
			continue
		}
		for _, name := range j.row.Packages {
			inUse[name] = true
		}
	}
	return inUse
}

// runningOn are the running jobs whose driver is on a node, by number.
func (s *State) runningOn(id ids.NodeID) []ids.Job {
	var running []ids.Job
	for _, j := range s.jobs {
		if j.row.State == JobRunning && j.row.Node == id {
			running = append(running, j.row.ID)
		}
	}
	slices.SortFunc(running, compareJobs)
	return running
}

// JobRows are all jobs that are kept, by number, without those that detached actors have.
func (s *State) JobRows() []JobRow {
	rows := make([]JobRow, 0, len(s.jobs))
	for _, j := range s.jobs {
		if !j.row.Virtual {
			rows = append(rows, j.row)
		}
	}
	slices.SortFunc(rows, func(a, b JobRow) int { return compareJobs(a.ID, b.ID) })
	return rows
}
