package headstate

// The methods that make the structs of messages.go a Message, a Call or an Answer, and the table that decoders use.

func (*Register) Kind() Kind        { return KindRegister }
func (*Lease) Kind() Kind           { return KindLease }
func (*Leave) Kind() Kind           { return KindLeave }
func (*Report) Kind() Kind          { return KindReport }
func (*Subscribe) Kind() Kind       { return KindSubscribe }
func (*ViewAck) Kind() Kind         { return KindViewAck }
func (*KVGet) Kind() Kind           { return KindKVGet }
func (*KVPut) Kind() Kind           { return KindKVPut }
func (*KVDel) Kind() Kind           { return KindKVDel }
func (*KVExists) Kind() Kind        { return KindKVExists }
func (*KVList) Kind() Kind          { return KindKVList }
func (*JobStart) Kind() Kind        { return KindJobStart }
func (*JobEnd) Kind() Kind          { return KindJobEnd }
func (*Lookup) Kind() Kind          { return KindLookup }
func (*Nodes) Kind() Kind           { return KindNodes }
func (*Jobs) Kind() Kind            { return KindJobs }
func (*Totals) Kind() Kind          { return KindTotals }
func (*Registered) Kind() Kind      { return KindRegistered }
func (*Refused) Kind() Kind         { return KindRefused }
func (*RegisterAgain) Kind() Kind   { return KindRegisterAgain }
func (*LeaseAck) Kind() Kind        { return KindLeaseAck }
func (*Left) Kind() Kind            { return KindLeft }
func (*NodeDead) Kind() Kind        { return KindNodeDead }
func (*JobEnded) Kind() Kind        { return KindJobEnded }
func (*Snapshot) Kind() Kind        { return KindSnapshot }
func (*Delta) Kind() Kind           { return KindDelta }
func (*KVValue) Kind() Kind         { return KindKVValue }
func (*KVAdded) Kind() Kind         { return KindKVAdded }
func (*KVDeleted) Kind() Kind       { return KindKVDeleted }
func (*KVFound) Kind() Kind         { return KindKVFound }
func (*KVKeys) Kind() Kind          { return KindKVKeys }
func (*JobStarted) Kind() Kind      { return KindJobStarted }
func (*Done) Kind() Kind            { return KindDone }
func (*Owned) Kind() Kind           { return KindOwned }
func (*NodeList) Kind() Kind        { return KindNodeList }
func (*JobList) Kind() Kind         { return KindJobList }
func (*Total) Kind() Kind           { return KindTotal }
func (*Failed) Kind() Kind          { return KindFailed }
func (*ActorRegister) Kind() Kind   { return KindActorRegister }
func (*ActorUpdate) Kind() Kind     { return KindActorUpdate }
func (*ActorWatch) Kind() Kind      { return KindActorWatch }
func (*ActorGet) Kind() Kind        { return KindActorGet }
func (*ActorList) Kind() Kind       { return KindActorList }
func (*ActorNames) Kind() Kind      { return KindActorNames }
func (*ActorKill) Kind() Kind       { return KindActorKill }
func (*ActorRegistered) Kind() Kind { return KindActorRegistered }
func (*ActorGot) Kind() Kind        { return KindActorGot }
func (*ActorRows) Kind() Kind       { return KindActorRows }
func (*ActorNameList) Kind() Kind   { return KindActorNameList }
func (*ActorChanged) Kind() Kind    { return KindActorChanged }
func (*ActorDo) Kind() Kind         { return KindActorDo }
func (*ActorAdopt) Kind() Kind      { return KindActorAdopt }

func (m *KVGet) Number() uint64           { return m.Req }
func (m *KVPut) Number() uint64           { return m.Req }
func (m *KVDel) Number() uint64           { return m.Req }
func (m *KVExists) Number() uint64        { return m.Req }
func (m *KVList) Number() uint64          { return m.Req }
func (m *JobStart) Number() uint64        { return m.Req }
func (m *JobEnd) Number() uint64          { return m.Req }
func (m *Lookup) Number() uint64          { return m.Req }
func (m *Nodes) Number() uint64           { return m.Req }
func (m *Jobs) Number() uint64            { return m.Req }
func (m *Totals) Number() uint64          { return m.Req }
func (m *KVValue) Number() uint64         { return m.Req }
func (m *KVAdded) Number() uint64         { return m.Req }
func (m *KVDeleted) Number() uint64       { return m.Req }
func (m *KVFound) Number() uint64         { return m.Req }
func (m *KVKeys) Number() uint64          { return m.Req }
func (m *JobStarted) Number() uint64      { return m.Req }
func (m *Done) Number() uint64            { return m.Req }
func (m *Owned) Number() uint64           { return m.Req }
func (m *NodeList) Number() uint64        { return m.Req }
func (m *JobList) Number() uint64         { return m.Req }
func (m *Total) Number() uint64           { return m.Req }
func (m *Failed) Number() uint64          { return m.Req }
func (m *ActorRegister) Number() uint64   { return m.Req }
func (m *ActorGet) Number() uint64        { return m.Req }
func (m *ActorList) Number() uint64       { return m.Req }
func (m *ActorNames) Number() uint64      { return m.Req }
func (m *ActorKill) Number() uint64       { return m.Req }
func (m *ActorRegistered) Number() uint64 { return m.Req }
func (m *ActorGot) Number() uint64        { return m.Req }
func (m *ActorRows) Number() uint64       { return m.Req }
func (m *ActorNameList) Number() uint64   { return m.Req }

func (m *KVGet) Numbered(req uint64) Call         { c := *m; c.Req = req; return &c }
func (m *KVPut) Numbered(req uint64) Call         { c := *m; c.Req = req; return &c }
func (m *KVDel) Numbered(req uint64) Call         { c := *m; c.Req = req; return &c }
func (m *KVExists) Numbered(req uint64) Call      { c := *m; c.Req = req; return &c }
func (m *KVList) Numbered(req uint64) Call        { c := *m; c.Req = req; return &c }
func (m *JobStart) Numbered(req uint64) Call      { c := *m; c.Req = req; return &c }
func (m *JobEnd) Numbered(req uint64) Call        { c := *m; c.Req = req; return &c }
func (m *Lookup) Numbered(req uint64) Call        { c := *m; c.Req = req; return &c }
func (m *Nodes) Numbered(req uint64) Call         { c := *m; c.Req = req; return &c }
func (m *Jobs) Numbered(req uint64) Call          { c := *m; c.Req = req; return &c }
func (m *Totals) Numbered(req uint64) Call        { c := *m; c.Req = req; return &c }
func (m *ActorRegister) Numbered(req uint64) Call { c := *m; c.Req = req; return &c }
func (m *ActorGet) Numbered(req uint64) Call      { c := *m; c.Req = req; return &c }
func (m *ActorList) Numbered(req uint64) Call     { c := *m; c.Req = req; return &c }
func (m *ActorNames) Numbered(req uint64) Call    { c := *m; c.Req = req; return &c }
func (m *ActorKill) Numbered(req uint64) Call     { c := *m; c.Req = req; return &c }

// ToHead is an empty message of a kind that daemons send, or nil.
func ToHead(k Kind) Message {
	switch k {
	case KindRegister:
		return new(Register)
	case KindLease:
		return new(Lease)
	case KindLeave:
		return new(Leave)
	case KindReport:
		return new(Report)
	case KindSubscribe:
		return new(Subscribe)
	case KindViewAck:
		return new(ViewAck)
	case KindKVGet:
		return new(KVGet)
	case KindKVPut:
		return new(KVPut)
	case KindKVDel:
		return new(KVDel)
	case KindKVExists:
		return new(KVExists)
	case KindKVList:
		return new(KVList)
	case KindJobStart:
		return new(JobStart)
	case KindJobEnd:
		return new(JobEnd)
	case KindLookup:
		return new(Lookup)
	case KindNodes:
		return new(Nodes)
	case KindJobs:
		return new(Jobs)
	case KindTotals:
		return new(Totals)
	case KindActorRegister:
		return new(ActorRegister)
	case KindActorUpdate:
		return new(ActorUpdate)
	case KindActorWatch:
		return new(ActorWatch)
	case KindActorGet:
		return new(ActorGet)
	case KindActorList:
		return new(ActorList)
	case KindActorNames:
		return new(ActorNames)
	case KindActorKill:
		return new(ActorKill)
	case KindStateQuery:
		return new(StateQuery)
	case KindStateTold:
		return new(StateTold)
	}
	return nil
}

// ToNode is an empty message of a kind that the head sends, or nil.
func ToNode(k Kind) Message {
	switch k {
	case KindRegistered:
		return new(Registered)
	case KindRefused:
		return new(Refused)
	case KindRegisterAgain:
		return new(RegisterAgain)
	case KindLeaseAck:
		return new(LeaseAck)
	case KindLeft:
		return new(Left)
	case KindNodeDead:
		return new(NodeDead)
	case KindJobEnded:
		return new(JobEnded)
	case KindSnapshot:
		return new(Snapshot)
	case KindDelta:
		return new(Delta)
	case KindKVValue:
		return new(KVValue)
	case KindKVAdded:
		return new(KVAdded)
	case KindKVDeleted:
		return new(KVDeleted)
	case KindKVFound:
		return new(KVFound)
	case KindKVKeys:
		return new(KVKeys)
	case KindJobStarted:
		return new(JobStarted)
	case KindDone:
		return new(Done)
	case KindOwned:
		return new(Owned)
	case KindNodeList:
		return new(NodeList)
	case KindJobList:
		return new(JobList)
	case KindTotal:
		return new(Total)
	case KindFailed:
		return new(Failed)
	case KindActorRegistered:
		return new(ActorRegistered)
	case KindActorGot:
		return new(ActorGot)
	case KindActorRows:
		return new(ActorRows)
	case KindActorNameList:
		return new(ActorNameList)
	case KindActorChanged:
		return new(ActorChanged)
	case KindActorDo:
		return new(ActorDo)
	case KindActorAdopt:
		return new(ActorAdopt)
	case KindStateAnswer:
		return new(StateAnswer)
	case KindStateAsk:
		return new(StateAsk)
	}
	return nil
}
