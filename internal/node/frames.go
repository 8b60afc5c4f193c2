package node

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
	"gray/internal/wire"
)

// handle takes one frame of a client's stream to the engine; the caller holds the lock. An error ends the session.
func (n *Node) handle(cl *client, f wire.Frame) error {
	e := n.eng
	switch f.Kind {
	case wire.KindSubmit:
		return n.submit(cl, f)
	case wire.KindResult:
		return n.result(cl, f)
	case wire.KindActorCall:
		return n.actorCall(cl, f)
	case wire.KindItem:
		return n.item(cl, f)
	case wire.KindNext:
		m, err := wire.DecodeNext(f.Body)
		if err == nil {
			e.Next(engine.Chan{Session: cl.id, Chan: m.Chan}, m.Req, m.ID, m.From, m.Read, m.Flags&wire.FlagBeside != 0)
		}
		return err
	case wire.KindRelease:
		l, err := wire.DecodeRelease(f.Body)
		for k := range l.Len() {
			id, count := l.At(k)
			e.Release(cl.id, id, count)
		}
		return err
	case wire.KindUnpin:
		l, err := wire.DecodeUnpin(f.Body)
		for k := range l.Len() {
			id, count := l.At(k)
			e.Unpin(cl.id, id, count)
		}
		return err
	case wire.KindGet:
		m, err := wire.DecodeGet(f.Body)
		if err == nil {
			e.Get(engine.Chan{Session: cl.id, Chan: m.Chan}, m.Req, m.IDs)
		}
		return err
	case wire.KindWait:
		m, err := wire.DecodeWait(f.Body)
		if err == nil {
			wait := e.Wait
			if m.Need == 0 {
				wait = e.Look
			}
			wait(engine.Chan{Session: cl.id, Chan: m.Chan}, m.Req, m.Flags&wire.FlagFetch != 0, m.IDs)
		}
		return err
	case wire.KindPut:
		m, err := wire.DecodePut(f.Body)
		if err == nil {
			if len(m.Value) > inlineMax {
				return protocolError("put", fmt.Sprintf("a value of %d bytes; at most %d travel in a frame", len(m.Value), inlineMax))
			}
			e.Put(cl.id, m.ID, uint8(m.Status), cl.withCarry(m.ID, m.Contained), m.Value)
		}
		return err
	}
	return n.handleRare(cl, f)
}

func (n *Node) handleRare(cl *client, f wire.Frame) error {
	e := n.eng
	switch f.Kind {
	case wire.KindTemplate:
		return n.template(cl, f)
	case wire.KindActor:
		return n.actor(cl, f)
	case wire.KindStreamDrop:
		id, err := wire.DecodeStreamDrop(f.Body)
		if err == nil {
			e.DropStream(cl.id, id)
		}
		return err
	case wire.KindTaskError:
		m, err := wire.DecodeTaskError(f.Body)
		if err == nil {
			e.Note(cl.id, m.Unique, string(m.Text))
		}
		return err
	case wire.KindCallSite:
		m, err := wire.DecodeCallSite(f.Body)
		if err == nil {
			e.Site(cl.id, m.Unique, string(m.Text))
		}
		return err
	case wire.KindCancelTask:
		m, err := wire.DecodeCancelTask(f.Body)
		switch {
		case err != nil:
		case m.Flags&wire.CancelHeard != 0:
			e.Heard(cl.id, m.ID.Unique())
		default:
			e.Cancel(cl.id, m.ID, engine.Cancelling{Force: m.Flags&wire.CancelForce != 0, Recursive: m.Flags&wire.CancelRecursive != 0})
		}
		return err
	case wire.KindWithin:
		u, err := wire.DecodeWithin(f.Body)
		cl.within = u
		return err
	case wire.KindTemplateDrop:
		no, err := wire.DecodeTemplateDrop(f.Body)
		if err == nil {
			e.DropTemplate(cl.id, no)
		}
		return err
	case wire.KindCreate:
		m, err := wire.DecodeCreate(f.Body)
		if err == nil {
			e.Create(engine.Chan{Session: cl.id, Chan: m.Chan}, m.Req, m.ID, m.Size)
		}
		return err
	case wire.KindSeal:
		m, err := wire.DecodeSeal(f.Body)
		if err == nil {
			e.Seal(cl.id, m.ID, uint8(m.Status), cl.withCarry(m.ID, m.Contained))
		}
		return err
	case wire.KindAbort:
		id, err := wire.DecodeAbort(f.Body)
		if err == nil {
			e.Abort(cl.id, id)
		}
		return err
	case wire.KindCancelReq:
		m, err := wire.DecodeCancelReq(f.Body)
		if err == nil {
			e.CancelReq(engine.Chan{Session: cl.id, Chan: m.Chan}, m.Req)
		}
		return err
	case wire.KindCredit:
		m, err := wire.DecodeCredit(f.Body)
		if err == nil {
			e.NeedCredit(engine.Chan{Session: cl.id, Chan: m.Chan}, m.Req, m.Total)
		}
		return err
	case wire.KindChannelClose:
		no, err := wire.DecodeChannelClose(f.Body)
		if err == nil {
			delete(cl.chans, no)
			e.CloseChannel(engine.Chan{Session: cl.id, Chan: no})
		}
		return err
	case wire.KindLogs:
		m, err := wire.DecodeLogs(f.Body)
		if err == nil {
			n.wantLogs(cl, m)
		}
		return err
	case wire.KindCall:
		m, err := wire.DecodeCall(f.Body)
		if err == nil {
			err = n.call(cl, m)
		}
		return err
	case wire.KindIDs:
		m, err := wire.DecodeIDs(f.Body)
		if err == nil {
			key := carryOf(m.ID)
			if cl.carried += m.Contained.Len(); cl.carried > maxCarried || len(cl.carry) > maxCarried/256 {
				return protocolError("ids", fmt.Sprintf("lists of more than %d ids, or for more than %d objects, were announced without their objects", maxCarried, maxCarried/256))
			}
			cl.carry[key] = append(cl.carry[key], unpack(nil, m.Contained)...)
		}
		return err
	}
	return protocolError("stream", "a client sends no "+f.Kind.String()+" on its stream")
}

func protocolError(op, text string) error {
	return &fault.Error{Op: op, Kind: fault.Protocol, Detail: text}
}

func unpack(to []ids.ObjectID, l ids.List) []ids.ObjectID {
	for k := range l.Len() {
		to = append(to, l.At(k))
	}
	return to
}

// withCarry joins a frame's contained ids with those that went ahead of it.
func (cl *client) withCarry(id ids.ObjectID, l ids.List) []ids.ObjectID {
	ahead, ok := cl.carry[carryOf(id)]
	if !ok {
		if len(l) == 0 {
			return nil
		}
		cl.scratch.ids = unpack(cl.scratch.ids[:0], l)
		return cl.scratch.ids
	}
	cl.dropCarry(carryOf(id))
	return unpack(ahead, l)
}

// takeCarry adds the ids that went ahead of a call.
func (cl *client) takeCarry(u ids.Unique, to []ids.ObjectID) []ids.ObjectID {
	key := carryKey{u, 1}
	if ahead, ok := cl.carry[key]; ok {
		cl.dropCarry(key)
		to = append(to, ahead...)
	}
	return to
}

// maxCarried is how many ids of a client may be here without the frames that they belong to.
const maxCarried = 1 << 24

func (cl *client) dropCarry(key carryKey) {
	cl.carried -= len(cl.carry[key])
	delete(cl.carry, key)
}

func (n *Node) submit(cl *client, f wire.Frame) error {
	m, err := wire.DecodeSubmit(f.Body)
	if err != nil {
		return err
	}
	s := &cl.scratch.sub
	*s = engine.Submission{
		Template: m.Template, Unique: m.Unique, Returns: m.NumReturns, Flags: m.Flags,
		Deps: unpack(s.Deps[:0], m.Deps), Contained: unpack(s.Contained[:0], m.Contained), Args: m.Args, Bytes: uint32(f.Size()),
	}
	s.By, cl.within = cl.within, 0
	s.Contained = cl.takeCarry(m.Unique, s.Contained)
	if len(m.Overrides) > 0 {
		if err := overrides(s, m.Overrides); err != nil {
			return err
		}
	}
	n.eng.Submit(cl.id, s)
	return nil
}

// overrides reads what a call changes of its template.
func overrides(s *engine.Submission, raw []byte) error {
	o, err := wire.DecodeOverrides(raw)
	if err != nil {
		return err
	}
	s.Over.Raw = raw
	if o.MaxRetries != nil {
		r := int32(min(*o.MaxRetries, 1<<30))
		s.Over.MaxRetries = &r
	}
	if o.Strategy != nil {
		st := strategy(*o.Strategy)
		s.Over.Strategy = &st
	}
	s.Over.Events = o.Events
	return nil
}

func strategy(s wire.Strategy) resource.Strategy {
	return resource.Strategy(s)
}

func (n *Node) result(cl *client, f wire.Frame) error {
	m, err := wire.DecodeResult(f.Body)
	if err != nil {
		return err
	}
	outs := cl.scratch.outs[:0]
	for k, o := range m.Outputs.All() {
		var inner []ids.ObjectID
		if len(o.Contained) > 0 || len(cl.carry) > 0 {
			inner = append(inner, cl.withCarry(m.Unique.Object(cl.job, uint32(k+1)), o.Contained)...)
		}
		outs = append(outs, engine.Output{Status: uint8(o.Status), Arena: o.Where == wire.Arena, Size: o.Size, Contained: inner, Value: o.Value})
	}
	cl.scratch.outs = outs
	n.eng.Result(cl.id, m.Unique, m.Attempt, uint8(m.Outcome), outs)
	return nil
}

// item takes what a generator yielded.
func (n *Node) item(cl *client, f wire.Frame) error {
	m, err := wire.DecodeItem(f.Body)
	if err != nil {
		return err
	}
	o := &m.Output
	if len(o.Value) > inlineMax {
		return protocolError("item", fmt.Sprintf("a value of %d bytes; at most %d travel in a frame", len(o.Value), inlineMax))
	}
	out := &cl.scratch.item
	*out = engine.Output{Status: uint8(o.Status), Arena: o.Where == wire.Arena, Size: o.Size, Value: o.Value}
	if len(o.Contained) > 0 || len(cl.carry) > 0 {
		out.Contained = cl.withCarry(m.Unique.Object(cl.job, m.Index), o.Contained)
	}
	n.eng.Item(cl.id, m.Unique, m.Attempt, m.Index, out)
	return nil
}

func (n *Node) template(cl *client, f wire.Frame) error {
	m, err := wire.DecodeTemplate(f.Body)
	if err != nil {
		return err
	}
	spec, err := n.spec(cl.job, m.Map)
	if err != nil {
		return err
	}
	n.eng.RegisterTemplate(cl.id, m.No, spec)
	return nil
}

// spec reads a template's content for the engine.
func (n *Node) spec(job ids.Job, raw []byte) (engine.TemplateSpec, error) {
	m, err := wire.DecodeSpec(raw)
	if err != nil {
		return engine.TemplateSpec{}, err
	}
	res, err := n.names.Set(m.Resources)
	if err != nil {
		return engine.TemplateSpec{}, err
	}
	labels, err := resource.ParseSelector(m.Labels)
	if err != nil {
		return engine.TemplateSpec{}, err
	}
	if len(m.Env) > maxEnv {
		return engine.TemplateSpec{}, protocolError("template", fmt.Sprintf("an environment of %d bytes; at most %d are possible", len(m.Env), maxEnv))
	}
	env, err := readEnv(m.Env)
	if err != nil {
		return engine.TemplateSpec{}, err
	}
	var fallback []resource.Selector
	for _, f := range m.Fallback {
		l, err := resource.ParseSelector(f)
		if err != nil {
			return engine.TemplateSpec{}, err
		}
		fallback = append(fallback, l)
	}
	needed, err := env.packagesKey()
	if err != nil {
		return engine.TemplateSpec{}, err
	}
	limits, err := n.limits(m.Actor)
	if err != nil {
		return engine.TemplateSpec{}, err
	}
	return engine.TemplateSpec{
		Preload: env.forkedWith(), Packages: needed, Method: m.Method, Group: m.Group, Ordered: m.Ordered, Actor: limits,
		Raw: raw, Job: job, Fn: m.Fn, Name: m.Name, Func: functionName(&m), Resources: res, MaxRetries: int32(min(m.MaxRetries, 1<<30)),
		Strategy: strategy(m.Strategy), Labels: labels, Env: string(m.Env), MaxCalls: uint32(min(m.MaxCalls, 1<<30)),
		Backpressure: uint32(min(m.Backpressure, 1<<30)), NoEvents: m.NoEvents, Fallback: fallback,
	}, nil
}

// functionName is what a function is called where it is defined; a method with its class.
func functionName(m *wire.Spec) string {
	if m.Method != "" || m.Actor != nil {
		return m.Name
	}
	return m.Qualname[strings.LastIndexByte(m.Qualname, '.')+1:]
}

// limits reads what a creation's template says of the actor.
func (n *Node) limits(m *wire.ActorLimits) (*engine.ActorLimits, error) {
	if m == nil {
		return nil, nil
	}
	held, err := n.names.Set(m.Held)
	if err != nil {
		return nil, err
	}
	l := &engine.ActorLimits{Held: held, MaxConcurrency: int(min(m.MaxConcurrency, 1<<20)), Groups: map[string]int{}, Async: m.IsAsync, Class: m.ClassName}
	for name, k := range m.Groups {
		l.Groups[name] = int(min(k, 1<<20))
	}
	return l, nil
}

// isClosedErr tells errors of connections that were closed here from those that matter.
func isClosedErr(err error) bool { return errors.Is(err, os.ErrClosed) }
