package brokers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// cluster is the one implementation of Cluster; kinds differ in data.
type cluster struct {
	name    string
	kind    kind
	opt     Options
	dir     string
	ownDir  bool
	version string
	procs   *nursery
	nodes   []*node
	closed  sync.Once
	err     error
}

func (c *cluster) Kind() string            { return c.name }
func (c *cluster) Version() string         { return c.version }
func (c *cluster) Login() (string, string) { return c.kind.user, c.kind.pass }
func (c *cluster) Vhost() string           { return c.kind.vhost }

func (c *cluster) Nodes() []Node {
	all := make([]Node, len(c.nodes))
	for i, n := range c.nodes {
		all[i] = n
	}
	return all
}

func (c *cluster) Queue(name string) (string, map[string]string, map[string]string) {
	return c.kind.queue(name)
}

// Active asks all nodes at once and again and again, so that a frozen one, which answers nobody, does not delay the answer of another.
func (c *cluster) Active(ctx context.Context) (int, error) {
	asking, cancel := context.WithCancel(ctx)
	answers := make(chan int, len(c.nodes))
	var wg sync.WaitGroup
	for i, n := range c.nodes {
		wg.Go(func() {
			if n.awaitConnected(asking) == nil {
				answers <- i
			}
		})
	}
	defer wg.Wait()
	defer cancel()
	select {
	case i := <-answers:
		return i, nil
	case <-ctx.Done():
		return -1, fmt.Errorf("no node of %s answers CONNECTED: %w", c.name, context.Cause(ctx))
	}
}

func (c *cluster) Close() error {
	c.closed.Do(func() {
		c.procs.close()
		if c.ownDir {
			c.err = os.RemoveAll(c.dir)
		}
	})
	return c.err
}

// add makes a node that is not started yet. Its files belong under the directory that is returned.
func (c *cluster) add(name string) (*node, string, error) {
	dir := filepath.Join(c.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, "", err
	}
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	n := &node{cluster: c, name: name, port: port, log: filepath.Join(c.dir, name+".log")}
	c.nodes = append(c.nodes, n)
	return n, dir, nil
}

// startInOrder starts one node after the other, so that the first is the active one where only one can be.
func (c *cluster) startInOrder(ctx context.Context) error {
	for _, n := range c.nodes {
		if err := n.Start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// startTogether is for nodes that wait for each other.
func (c *cluster) startTogether(ctx context.Context, nodes []*node) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = n.Start(ctx) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
