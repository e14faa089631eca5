package storetest

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

type products struct {
	defined []product.Product
	answers []product.Answer
}

func (p *products) at(pipeline, name string) int {
	return slices.IndexFunc(p.defined, func(o product.Product) bool { return o.Pipeline == pipeline && o.Name == name })
}

// Products implements product.Store.
func (m *Memory) Products(context.Context) ([]product.Product, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := slices.Clone(m.products.defined)
	slices.SortFunc(list, func(a, b product.Product) int {
		return cmp.Or(cmp.Compare(a.Pipeline, b.Pipeline), cmp.Compare(a.Name, b.Name))
	})
	return list, nil
}

// CreateProduct implements product.Store.
func (m *Memory) CreateProduct(_ context.Context, p product.Product, act release.Act) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.products.at(p.Pipeline, p.Name) >= 0 {
		return product.ErrExists
	}
	if m.releases.pipeline(p.Pipeline) == nil {
		return fmt.Errorf("no pipeline %s", p.Pipeline)
	}
	m.products.defined = append(m.products.defined, p)
	m.act(act)
	return nil
}

// SetProduct implements product.Store.
func (m *Memory) SetProduct(_ context.Context, p product.Product, act release.Act) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.products.at(p.Pipeline, p.Name)
	if at < 0 {
		return fmt.Errorf("no product %s", p.Name)
	}
	p.Created = m.products.defined[at].Created
	m.products.defined[at] = p
	m.act(act)
	return nil
}

// DeleteProduct implements product.Store.
func (m *Memory) DeleteProduct(_ context.Context, pipeline, name string, act release.Act) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at := m.products.at(pipeline, name); at >= 0 {
		m.products.defined = slices.Delete(m.products.defined, at, at+1)
	}
	m.products.answers = slices.DeleteFunc(m.products.answers, func(a product.Answer) bool { return a.Pipeline == pipeline && a.Product == name })
	m.act(act)
	return nil
}

// Answers implements product.Store.
func (m *Memory) Answers(context.Context) ([]product.Answer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := slices.Clone(m.products.answers)
	for i := range list {
		list[i].Text, list[i].Details = nil, nil
	}
	return list, nil
}

// PutAnswer implements product.Store.
func (m *Memory) PutAnswer(_ context.Context, a product.Answer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failsNext; err != nil {
		m.failsNext = nil
		return err
	}
	if m.products.at(a.Pipeline, a.Product) < 0 {
		return fmt.Errorf("no product %s", a.Product)
	}
	m.products.answers = slices.DeleteFunc(m.products.answers, func(o product.Answer) bool { return o.Pipeline == a.Pipeline && o.Question == a.Question })
	m.products.answers = append(m.products.answers, a)
	return nil
}

// Answer implements product.Store.
func (m *Memory) Answer(_ context.Context, pipeline string, question [32]byte) (product.Answer, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.products.answers {
		if a.Pipeline == pipeline && a.Question == question {
			return a, true, nil
		}
	}
	return product.Answer{}, false, nil
}

// DropAnswers implements product.Store.
func (m *Memory) DropAnswers(_ context.Context, pipeline string, states []snapshots.ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.products.answers = slices.DeleteFunc(m.products.answers, func(a product.Answer) bool {
		return a.Pipeline == pipeline && slices.Contains(states, a.State)
	})
	return nil
}
