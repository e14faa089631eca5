package protocol

import "time"

// Retention says how much of a pipeline's past is kept although nothing else
// needs it. Either limit keeps a state.
type Retention struct {
	States int `json:"states"` // the newest different ones, at least 1
	Days   int `json:"days"`   // offered within so many days; 0: only the number counts
}

// SetPipeline changes what can be changed of a pipeline: what is given.
type SetPipeline struct {
	KeepStates *int  `json:"keep_states,omitempty"`
	KeepDays   *int  `json:"keep_days,omitempty"`
	Private    *bool `json:"private,omitempty"`
}

// Pin keeps a snapshot from being deleted.
type Pin struct {
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// NewPin asks for a pin. Somebody must be able to tell later whether it may go.
type NewPin struct {
	Reason string `json:"reason"`
}

// StartGC asks for a gc.
type StartGC struct {
	Reason string `json:"reason,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
}

// GC is the result of a change that was a gc.
type GC struct {
	DryRun    bool   `json:"dry_run"`
	Roots     []Root `json:"roots"`
	MoreRoots int    `json:"more_roots,omitempty"` // that are not listed
	Kept      Amount `json:"kept"`
	Gone      Amount `json:"gone"` // of a dry run: what would go
}

// Root is something that keeps states.
type Root struct {
	Pipeline  string `json:"pipeline"`
	Kind      string `json:"kind"`           // "stage", "history", "pin", "snapshot", "device", "retention", "recent"
	Name      string `json:"name"`           // of the stage, snapshot or device; else in words
	Note      string `json:"note,omitempty"` // what people should know about it
	States    int    `json:"states"`
	OnlyFiles int    `json:"only_files"` // packages that would go if this root alone went
	OnlyBytes int64  `json:"only_bytes"` // the same in bytes, with index files and all
}

// Amount counts what is kept or goes.
type Amount struct {
	States  int   `json:"states"`  // of all pipelines
	Chunks  int   `json:"chunks"`  // texts that states are made of
	Indices int   `json:"indices"` // Packages files, of which all compressions count as one
	Files   int   `json:"files"`   // packages
	Bytes   int64 `json:"bytes"`   // of all of it
}
