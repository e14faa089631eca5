package main

import (
	"context"
	"testing"
	"time"

	"aptfleet/test/browser/webdriver"
)

// tab is the browser of somebody who opened the link that make run printed.
type tab struct {
	*webdriver.Browser
	t   *testing.T
	ctx context.Context
}

// visit opens the link and signs in.
func visit(t *testing.T, link string) *tab {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Minute)
	t.Cleanup(cancel)
	driver, err := webdriver.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := driver.Stop(); err != nil {
			t.Error(err)
		}
	})
	browser, err := driver.Open(ctx, webdriver.Options{Width: 1280, Height: 900, Profile: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := browser.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	v := &tab{browser, t, ctx}
	if err := v.Go(ctx, link); err != nil {
		t.Fatal(err)
	}
	v.shows("main button", "Sign in as")
	v.click("main button")
	v.shows("h1", "Pipeline "+pipelineName)
	return v
}

// shows waits until an element contains a text.
func (v *tab) shows(css, text string) {
	v.t.Helper()
	if err := v.WaitText(v.ctx, css, text); err != nil {
		v.t.Fatal(err)
	}
}

func (v *tab) click(css string) {
	v.t.Helper()
	if err := v.Click(v.ctx, css); err != nil {
		v.t.Fatal(err)
	}
}
