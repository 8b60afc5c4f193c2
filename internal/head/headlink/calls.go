package headlink

import (
	"context"
	"fmt"
	"strings"

	"gray/internal/core/actor"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
)

// Call sends a call and waits for its answer, across lost links and restarts of the head, until ctx ends.
func (c *Client) Call(ctx context.Context, call headstate.Call) (headstate.Answer, error) {
	type result struct {
		answer headstate.Answer
		err    error
	}
	got := make(chan result, 1)
	cancel := c.Go(call, 0, func(a headstate.Answer, err error) { got <- result{a, err} })
	select {
	case r := <-got:
		return r.answer, r.err
	case <-ctx.Done():
		cancel()
		return nil, &fault.Error{
			Op: "head." + strings.TrimPrefix(fmt.Sprintf("%T", call), "*headstate."), Kind: fault.System, Ref: c.cfg.Head,
			Detail: "the head did not answer in time; check that it runs (ray status)", Err: context.Cause(ctx),
		}
	}
}

func ask[A headstate.Answer](ctx context.Context, c *Client, call headstate.Call) (a A, err error) {
	got, err := c.Call(ctx, call)
	if err != nil {
		return a, err
	}
	a, ok := got.(A)
	if !ok {
		return a, &fault.Error{Op: "head.Call", Kind: fault.Protocol, Ref: c.cfg.Head, Detail: fmt.Sprintf("the head answered %T with %T", call, got)}
	}
	return a, nil
}

// KVGet is a key's value; found is false if the key is not there.
func (c *Client) KVGet(ctx context.Context, ns, key string) (value []byte, found bool, err error) {
	a, err := ask[*headstate.KVValue](ctx, c, &headstate.KVGet{NS: ns, Key: key})
	if err != nil {
		return nil, false, err
	}
	return a.Value, a.Found, nil
}

// KVPut stores a value, and returns once it is safe. added tells whether the key was not there before; if it was and
// overwrite is false, its value stays.
func (c *Client) KVPut(ctx context.Context, ns, key string, value []byte, overwrite bool) (added bool, err error) {
	a, err := ask[*headstate.KVAdded](ctx, c, &headstate.KVPut{NS: ns, Key: key, Value: value, Overwrite: overwrite})
	if err != nil {
		return false, err
	}
	return a.Added, nil
}

// KVDel removes a key, or all keys that start with it, and tells how many were there. If the link broke under way and
// keys had been removed already, they are not counted.
func (c *Client) KVDel(ctx context.Context, ns, key string, prefix bool) (deleted int64, err error) {
	a, err := ask[*headstate.KVDeleted](ctx, c, &headstate.KVDel{NS: ns, Key: key, Prefix: prefix})
	if err != nil {
		return 0, err
	}
	return a.Deleted, nil
}

// KVExists tells whether a key is there.
func (c *Client) KVExists(ctx context.Context, ns, key string) (bool, error) {
	a, err := ask[*headstate.KVFound](ctx, c, &headstate.KVExists{NS: ns, Key: key})
	if err != nil {
		return false, err
	}
	return a.Exists, nil
}

// KVList are the keys of a namespace that start with prefix, sorted.
func (c *Client) KVList(ctx context.Context, ns, prefix string) ([]string, error) {
	a, err := ask[*headstate.KVKeys](ctx, c, &headstate.KVList{NS: ns, Prefix: prefix})
	if err != nil {
		return nil, err
	}
	return a.Keys, nil
}

// JobStart gives a driver a job id. The same key (random bytes of the driver's connection) gives the same id again.
func (c *Client) JobStart(ctx context.Context, key [16]byte, d headstate.Driver) (ids.Job, error) {
	a, err := ask[*headstate.JobStarted](ctx, c, &headstate.JobStart{Key: key, Driver: d})
	if err != nil {
		return ids.Job{}, err
	}
	return a.Job, nil
}

// JobEnd ends a job everywhere.
func (c *Client) JobEnd(ctx context.Context, job ids.Job, failed bool, message string) error {
	_, err := ask[*headstate.Done](ctx, c, &headstate.JobEnd{Job: job, Failed: failed, Message: message})
	return err
}

// Lookup tells which node holds an owner number's table, or how the owner died.
func (c *Client) Lookup(ctx context.Context, owner ids.Owner) (*headstate.Owned, error) {
	return ask[*headstate.Owned](ctx, c, &headstate.Lookup{Owner: owner})
}

// LookupNode tells where a node is, or how it died.
func (c *Client) LookupNode(ctx context.Context, id ids.NodeID) (*headstate.Owned, error) {
	return ask[*headstate.Owned](ctx, c, &headstate.Lookup{Node: id})
}

// Nodes is the node table: live nodes and the last dead ones, in the order in which they joined.
func (c *Client) Nodes(ctx context.Context) ([]headstate.NodeRow, error) {
	a, err := ask[*headstate.NodeList](ctx, c, &headstate.Nodes{})
	if err != nil {
		return nil, err
	}
	return a.Nodes, nil
}

// Jobs is the job table, by job id.
func (c *Client) Jobs(ctx context.Context) ([]headstate.JobRow, error) {
	a, err := ask[*headstate.JobList](ctx, c, &headstate.Jobs{})
	if err != nil {
		return nil, err
	}
	return a.Jobs, nil
}

// Resources are the sums over all live nodes of what they have and have free.
func (c *Client) Resources(ctx context.Context) (total, available headstate.Resources, err error) {
	a, err := ask[*headstate.Total](ctx, c, &headstate.Totals{})
	if err != nil {
		return nil, nil, err
	}
	return a.Total, a.Available, nil
}

// RegisterActor registers an actor that has a name or is detached. If created is false another actor has the name, and
// the call said that this will do; otherwise a name in use is an error of kind NAME_TAKEN.
func (c *Client) RegisterActor(ctx context.Context, call *headstate.ActorRegister) (created bool, row actor.Row, err error) {
	a, err := ask[*headstate.ActorRegistered](ctx, c, call)
	if err != nil {
		return false, actor.Row{}, err
	}
	return a.Created, a.Row, nil
}

// Actors is the actor table, by id: actors that live, and those that died last.
func (c *Client) Actors(ctx context.Context) ([]actor.Row, error) {
	a, err := ask[*headstate.ActorRows](ctx, c, &headstate.ActorList{})
	if err != nil {
		return nil, err
	}
	return a.Rows, nil
}
