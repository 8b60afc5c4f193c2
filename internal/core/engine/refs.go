package engine

import (
	"cmp"
	"slices"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// Refs between daemons. The rule that keeps every count above zero in flight: whoever receives a ref registers with its
// owner before the sender lets go. A task's refs are covered by its owner until TaskDone; what an output or a value
// contains is held by its sender until the receiver's claim is known to be registered. Links keep order, so a claim sent
// to the same node before the message that lets go needs no acknowledgement.

// foreign is what we keep of an object that another daemon owns.
type foreign struct {
	claimed    bool        // our claim is registered, or on its way
	subscribed bool        // the owner will tell when it is ready
	cover      uint32      // running tasks here whose owner keeps it alive
	unsettled  uint32      // claims on what it contains that third nodes have not acknowledged
	cancel     *Cancelling // to be passed on once it is known where the owner is
}

// spread is what the owner keeps of an object that other daemons know.
type spread struct {
	borrowers map[NodeNo]bool
	sources   []source
}

// source is a node that has an object's bytes, or is getting them.
type source struct {
	node     NodeNo
	from     NodeNo // whom it was told to copy from, while it is not complete
	complete bool
	primary  bool // it may not evict them: they are the copy that we count on
	children int  // nodes that were told to copy from it
}

// keep is refs held for another node until it says that they are settled.
type keep struct {
	node NodeNo
	refs []uint32
}

// settle is a set of claims sent to third nodes; with the last acknowledgement, the node that waits is told, or objects are let go.
type settle struct {
	left   int
	with   map[uint64]NodeNo // seq → who must acknowledge
	node   NodeNo            // to be told; 0 = none
	msg    Msg
	object uint32 // whose contents these are
}

// learn takes what another daemon says of a ready object that a task of its brings along.
func (e *Engine) learn(p *peer, d *ObjInfo, t *task) uint32 {
	i := e.cover(d.ID, t)
	e.tell1(p, i, d, t)
	return i
}

// cover notes that a foreign task brought the ref: its owner keeps it alive until we answer.
func (e *Engine) cover(id ids.ObjectID, t *task) uint32 {
	i := e.know(id)
	if f := e.foreign[i]; f != nil {
		f.cover++
		ti := e.remoteRun[runKey{t.unique}]
		e.covered[ti] = append(e.covered[ti], i)
	}
	return i
}

// tell1 gives an object that is unknown here the state that its owner, or who keeps it for us, knows. Refs inside are
// covered by the task t that brought them, or claimed.
func (e *Engine) tell1(p *peer, i uint32, d *ObjInfo, t *task) {
	o := e.objs.at(i)
	if o.state != objUnknown {
		return
	}
	var inner []uint32
	var far []ids.ObjectID // owned by neither us nor the sender
	for _, id := range d.Contained {
		var c uint32
		if t != nil {
			c = e.cover(id, t)
		} else {
			c = e.know(id)
		}
		e.hold(c)
		inner = append(inner, c)
		if f := e.foreign[c]; f != nil && !f.claimed && t == nil {
			far = append(far, id)
		}
	}
	if len(far) > 0 {
		if left := e.claimAll(far, p.no); left != nil {
			left.object = i
			e.foreign[i].unsettled++
		}
	}
	o.status, o.size = d.Status, d.Size
	if d.Arena {
		e.setContained(i, inner)
		e.to(i, o, objElsewhere)
		e.wake(i)
		return
	}
	e.setInline(i, d.Status, d.Value, inner)
}

// dueClaim is a claim to an owner that is not known yet.
type dueClaim struct {
	seq uint64
	ids []ids.ObjectID
}

// claimAll registers us with the owners of ids. Claims to the node via need no acknowledgement, as what follows them on
// its link comes later; for the others a settle is returned, or nil when there are none. An owner that this node has not
// heard of yet, because one of both has just joined, is told when it is known where it is.
func (e *Engine) claimAll(list []ids.ObjectID, via NodeNo) *settle {
	byNode := map[NodeNo][]ids.ObjectID{}
	var unknown map[ids.Owner][]ids.ObjectID
	for _, id := range list {
		i := e.find(id)
		f := e.foreign[i]
		if f == nil || f.claimed {
			continue
		}
		f.claimed = true
		e.freeList = append(e.freeList, i) // unless something comes to hold it
		no, ok := e.owners[id.Owner()]
		_, dead := e.deadOwners[id.Owner()]
		switch {
		case ok:
			byNode[no] = append(byNode[no], id)
		case !dead:
			if unknown == nil {
				unknown = map[ids.Owner][]ids.ObjectID{}
			}
			unknown[id.Owner()] = append(unknown[id.Owner()], id)
		}
	}
	var st *settle
	for _, owner := range sortedKeys(unknown) {
		if st == nil {
			st = &settle{with: map[uint64]NodeNo{}}
		}
		e.nextSeq++
		st.left++
		st.with[e.nextSeq] = NoNode
		e.settles[e.nextSeq] = st
		if len(e.dueClaims[owner]) == 0 {
			e.sink.FindOwner(owner)
		}
		e.dueClaims[owner] = append(e.dueClaims[owner], dueClaim{e.nextSeq, unknown[owner]})
	}
	for _, no := range sortedKeys(byNode) {
		m := &Claim{IDs: byNode[no]}
		if no != via {
			if st == nil {
				st = &settle{with: map[uint64]NodeNo{}}
			}
			e.nextSeq++
			m.Seq = e.nextSeq
			st.left++
			st.with[m.Seq] = no
			e.settles[m.Seq] = st
		}
		e.sink.Peer(no, m)
	}
	return st
}

// claimDue makes the claims that waited to hear where an owner is: of what we still have.
func (e *Engine) claimDue(owner ids.Owner, no NodeNo) {
	due := e.dueClaims[owner]
	delete(e.dueClaims, owner)
	for _, d := range due {
		list := slices.DeleteFunc(d.ids, func(id ids.ObjectID) bool {
			f := e.foreign[e.find(id)]
			return f == nil || !f.claimed
		})
		st := e.settles[d.seq]
		if st == nil || len(list) == 0 {
			e.claimAck(d.seq)
			continue
		}
		st.with[d.seq] = no
		e.sink.Peer(no, &Claim{Seq: d.seq, IDs: list})
	}
}

// claimKept claims the refs that a foreign task leaves behind here. It returns those that its owner must hold until a
// Settled follows.
func (e *Engine) claimKept(u ids.Unique, owner NodeNo, kept []ids.ObjectID) []ids.ObjectID {
	if len(kept) == 0 {
		return nil
	}
	st := e.claimAll(kept, owner)
	if st == nil {
		return nil
	}
	st.node, st.msg = owner, &Settled{Unique: u}
	return kept
}

func (e *Engine) claimAck(seq uint64) {
	st := e.settles[seq]
	if st == nil {
		return
	}
	delete(e.settles, seq)
	if st.left--; st.left > 0 {
		return
	}
	if st.node != 0 && e.peers[st.node] != nil {
		e.sink.Peer(st.node, st.msg)
	}
	if st.object != 0 {
		if f := e.foreign[st.object]; f != nil && f.unsettled > 0 {
			f.unsettled--
			e.freeList = append(e.freeList, st.object)
		}
	}
}

func (e *Engine) endKeep(u ids.Unique) {
	if k := e.keeps[u]; k != nil {
		delete(e.keeps, u)
		for _, r := range k.refs {
			e.unhold(r)
		}
	}
}

func (e *Engine) endResult(key objKey) {
	if k := e.results[key]; k != nil {
		delete(e.results, key)
		for _, r := range k.refs {
			e.unhold(r)
		}
	}
}

// endResultsOf lets go what was kept for a node that is dead.
func (e *Engine) endResultsOf(no NodeNo) {
	var keys []objKey
	for key, k := range e.results {
		if k.node == no {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b objKey) int { return cmp.Or(cmp.Compare(a.u, b.u), cmp.Compare(a.i, b.i)) })
	for _, key := range keys {
		e.endResult(key)
	}
}

// subscribe asks a foreign object's owner to tell when it is ready, and claims it.
func (e *Engine) subscribe(i uint32) {
	f := e.foreign[i]
	o := e.objs.at(i)
	if f == nil || f.subscribed {
		return
	}
	if why, dead := e.deadOwners[o.id.Owner()]; dead {
		e.setError(i, fault.OwnerDied, "object "+o.id.String()+": its owner died: "+why)
		return
	}
	f.subscribed = true
	no, ok := e.owners[o.id.Owner()]
	if !ok {
		e.lookups[o.id.Owner()] = append(e.lookups[o.id.Owner()], i)
		e.sink.FindOwner(o.id.Owner())
		return
	}
	e.sink.Peer(no, &ObjAsk{ID: o.id})
}

// forgetForeign tells the owner that we are through with its object.
func (e *Engine) forgetForeign(i uint32, o *object, f *foreign) {
	delete(e.foreign, i)
	no, ok := e.owners[o.id.Owner()]
	if !ok {
		return
	}
	if o.flags&flagCopy != 0 {
		e.sink.Peer(no, &ObjCopy{ID: o.id})
	}
	if f.claimed {
		e.sink.Peer(no, &Unclaim{IDs: []ids.ObjectID{o.id}})
	}
}

// freeCopies tells the nodes that hold bytes of our object to drop them.
func (e *Engine) freeCopies(i uint32, o *object, s *spread) {
	delete(e.spread, i)
	for _, c := range s.sources {
		if e.peers[c.node] != nil {
			e.sink.Peer(c.node, &ObjFree{ID: o.id})
		}
	}
}

func (e *Engine) spreadOf(i uint32) *spread {
	s := e.spread[i]
	if s == nil {
		s = &spread{borrowers: map[NodeNo]bool{}}
		e.spread[i] = s
	}
	return s
}

// receiveRef takes a message about objects.
func (e *Engine) receiveRef(p *peer, m Msg) {
	switch m := m.(type) {
	case *Claim:
		for _, id := range m.IDs {
			if i := e.know(id); !e.spreadOf(i).borrowers[p.no] {
				e.spreadOf(i).borrowers[p.no] = true
				e.hold(i)
			}
		}
		if m.Seq != 0 {
			e.sink.Peer(p.no, &ClaimAck{Seq: m.Seq})
		}
	case *ClaimAck:
		e.claimAck(m.Seq)
	case *ObjCancel:
		if i := e.find(m.ID); i != 0 && e.foreign[i] == nil {
			e.cancelObject(i, Cancelling{m.Force, m.Recursive})
		}
	case *Unclaim:
		for _, id := range m.IDs {
			i := e.find(id)
			if s := e.spread[i]; s != nil && s.borrowers[p.no] {
				delete(s.borrowers, p.no)
				e.unhold(i)
			}
		}
	case *ObjAsk:
		i := e.know(m.ID)
		if e.objs.at(i).ready() {
			e.tellPeer(p.no, i)
		} else {
			e.await(i, waiter{kind: waitPeer, a: uint32(p.no)})
		}
	case *ObjReady:
		if i := e.find(m.Obj.ID); i != 0 {
			e.tell1(p, i, &m.Obj, nil)
		}
	case *ObjCopy:
		e.objCopy(p, m)
	case *ObjFree:
		e.ownerFreed(m.ID)
	case *ObjKeep:
		e.ownerKeeps(m.ID)
	case *FetchAsk:
		e.fetchAsk(p, m)
	case *FetchFrom:
		e.fetchFrom(m)
	}
}

// ownerFreed ends what is kept of an object for its owner.
func (e *Engine) ownerFreed(id ids.ObjectID) {
	i := e.find(id)
	if i == 0 {
		return
	}
	if o := e.objs.at(i); o.flags&flagPrimary != 0 {
		o.flags &^= flagPrimary
		e.unhold(i)
	}
}

// ownerKeeps makes the copy here the one that its owner counts on, if it is still here.
func (e *Engine) ownerKeeps(id ids.ObjectID) {
	i := e.find(id)
	if i == 0 {
		return
	}
	if o := e.objs.at(i); o.state == objArena && o.flags&flagCopy != 0 {
		o.flags = o.flags&^flagCopy | flagPrimary
		e.mem.Promote(o.mem)
		e.hold(i)
		e.freeList = append(e.freeList, i) // nobody else may want it here
	}
}

// tellPeer sends an object's value, or its size, to a node that asked.
func (e *Engine) tellPeer(no NodeNo, i uint32) {
	if e.peers[no] != nil {
		e.sink.Peer(no, &ObjReady{Obj: e.info(i)})
	}
}

// info is what we can tell another node of a ready object.
func (e *Engine) info(i uint32) ObjInfo {
	o := e.objs.at(i)
	d := ObjInfo{ID: o.id, Status: o.status, Size: o.size, Arena: o.state != objInline}
	for _, c := range e.contained[i] {
		d.Contained = append(d.Contained, e.objs.at(c).id)
	}
	if !d.Arena {
		d.Value = slices.Clone(e.blobs.get(o.val))
	}
	return d
}

// objCopy keeps the list of nodes that have an object's bytes.
func (e *Engine) objCopy(p *peer, m *ObjCopy) {
	i := e.find(m.ID)
	if i == 0 || !e.mine(m.ID) {
		return
	}
	s := e.spreadOf(i)
	k := slices.IndexFunc(s.sources, func(c source) bool { return c.node == p.no })
	switch {
	case m.Have && k >= 0:
		s.sources[k].complete = true
	case m.Have:
		s.sources = append(s.sources, source{node: p.no, complete: true})
	case k >= 0:
		gone := s.sources[k]
		s.sources = slices.Delete(s.sources, k, k+1)
		e.copyGone(i, s, gone, p.String()+", which gave it up after the node that had made it was gone")
	}
}

// dropCopy forgets the bytes that a dead node had; the last copy's end is the object's.
func (e *Engine) dropCopy(i uint32, s *spread, no NodeNo, why string) {
	k := slices.IndexFunc(s.sources, func(c source) bool { return c.node == no })
	if k < 0 {
		return
	}
	gone := s.sources[k]
	s.sources = slices.Delete(s.sources, k, k+1)
	e.copyGone(i, s, gone, why)
}

// copyGone acts on the end of a copy of an object of ours. When it was the primary one, a copy that is left takes its
// place, ours before another node's; when none is left, the object is an error.
func (e *Engine) copyGone(i uint32, s *spread, gone source, why string) {
	o := e.objs.at(i)
	if o.state == objArena {
		if gone.primary && o.flags&flagCopy != 0 {
			o.flags &^= flagCopy
			e.mem.Promote(o.mem)
		}
		return
	}
	if o.state != objElsewhere && o.state != objFetching {
		return
	}
	for k := range s.sources {
		c := &s.sources[k]
		if !c.complete || c.node == 0 || e.peers[c.node] == nil {
			continue
		}
		if gone.primary { // if it has evicted its copy meanwhile, its word of that comes, and the next one is asked
			c.primary = true
			e.sink.Peer(c.node, &ObjKeep{ID: o.id})
		}
		return
	}
	e.loseValue(i, fault.ObjectLost, e.lostText(o, "its only copy was lost with "+why))
}

// fetchAsk tells a node from whom to copy: the latest to have or get the bytes whom nobody else copies from, so that a
// broadcast is a chain.
func (e *Engine) fetchAsk(p *peer, m *FetchAsk) {
	i := e.find(m.ID)
	if i == 0 {
		e.sink.Peer(p.no, &FetchFrom{ID: m.ID, Key: m.Key, Lost: true})
		return
	}
	if !e.objs.at(i).ready() { // the node that made it told the asker before it told us
		e.await(i, waiter{kind: waitAsk, a: uint32(p.no), b: uint32(m.Key >> 32), req: uint32(m.Key)})
		return
	}
	from, ok := e.pickSource(i, p.no)
	if !ok {
		o := e.objs.at(i)
		value := e.blobs.get(o.val) // why it was lost
		if o.state != objInline || o.status != statusError {
			value = e.sink.ErrorValue(fault.ObjectLost, e.lostText(o, "no node has a copy any more"))
		}
		e.sink.Peer(p.no, &FetchFrom{ID: m.ID, Key: m.Key, Lost: true, Error: slices.Clone(value)})
		return
	}
	node, owner := e.cfg.Node, e.cfg.Owner
	if from != 0 {
		node, owner = e.peers[from].id, e.peers[from].owner
	}
	e.sink.Peer(p.no, &FetchFrom{ID: m.ID, Key: m.Key, Node: node, Owner: owner})
}

// feeds tells whether what node n is getting comes, directly or not, from the node first: then first cannot copy from n.
func (s *spread) feeds(first, n NodeNo) bool {
	for range s.sources {
		if n == first {
			return true
		}
		k := slices.IndexFunc(s.sources, func(c source) bool { return c.node == n })
		if k < 0 || s.sources[k].complete {
			return false
		}
		n = s.sources[k].from
	}
	return n == first
}

func (e *Engine) pickSource(i uint32, to NodeNo) (NodeNo, bool) {
	s := e.spreadOf(i)
	s.sources = slices.DeleteFunc(s.sources, func(c source) bool { return c.node == to })
	if e.objs.at(i).state == objArena && !slices.ContainsFunc(s.sources, func(c source) bool { return c.node == 0 }) {
		s.sources = append([]source{{node: 0, complete: true}}, s.sources...)
	}
	best := -1
	for k := len(s.sources) - 1; k >= 0; k-- {
		c := s.sources[k]
		if c.node != 0 && e.peers[c.node] == nil || c.node == 0 && e.objs.at(i).state != objArena || s.feeds(to, c.node) {
			continue
		}
		if best < 0 || c.children < s.sources[best].children {
			best = k
		}
	}
	if best < 0 {
		return 0, false
	}
	s.sources[best].children++
	from := s.sources[best].node
	if to != 0 {
		s.sources = append(s.sources, source{node: to, from: from})
	}
	return from, true
}
