package headlink

import (
	"gray/internal/core/ids"
	"gray/internal/head"
)

// Local links a daemon to the head in its own process. The head never waits for the Client, so the Client may wait for
// the head.
func Local(s *head.Service, node ids.NodeID, c *Client) error {
	if err := s.Connect(node, (*toClient)(c)); err != nil {
		return err
	}
	c.Up(&toHead{s, node, c})
	return nil
}

type toClient Client

func (t *toClient) Send(msg []byte) {
	if err := (*Client)(t).Receive(msg); err != nil {
		panic("headlink: the head of this very program sent what can't be read: " + err.Error())
	}
}

func (t *toClient) Close() {}

type toHead struct {
	head   *head.Service
	node   ids.NodeID
	client *Client
}

func (t *toHead) Send(msg []byte) {
	if err := t.head.Receive(t.node, msg); err != nil {
		t.client.Down(t, err.Error())
	}
}

func (t *toHead) Close() {}
