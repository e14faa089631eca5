package protocol

import "time"

// User is a person or a machine with a name.
type User struct {
	Name     string    `json:"name"`
	Roles    []string  `json:"roles"`
	Created  time.Time `json:"created"`
	Disabled time.Time `json:"disabled,omitzero"` // since then nothing acts in its name
}

// UserDetail is a user with what acts in its name.
type UserDetail struct {
	User
	Tokens   []Token   `json:"tokens"`
	Sessions []Session `json:"sessions"`
}

// SetUser changes what is given of a user.
type SetUser struct {
	Roles    []string `json:"roles,omitempty"` // instead of those it has
	Disabled *bool    `json:"disabled,omitempty"`
}

// UserChange answers a change or the removal of a user.
type UserChange struct {
	User
	EndedTokens   int  `json:"ended_tokens"` // worth nothing any more, or until the user is enabled again
	EndedSessions int  `json:"ended_sessions"`
	NoAdmin       bool `json:"no_admin,omitempty"` // no user is an admin any more; whoever may open the Unix socket still is
}

// Identity is who a request came from, and what they may.
type Identity struct {
	User  string   `json:"user"`
	Roles []string `json:"roles"`
	Via   string   `json:"via"` // "socket", "token:LABEL", "session"
}

// Token belongs to a user. Secret is present only in the answer that made it.
type Token struct {
	ID      int64     `json:"id"`
	User    string    `json:"user"`
	Label   string    `json:"label"`
	Roles   []string  `json:"roles"` // that it was made with, e.g. "uploader:demo/apps"; it has those that its user has now
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // absent: never
	Used    time.Time `json:"used,omitzero"`    // last; absent: not yet
	Secret  string    `json:"secret,omitempty"`
}

// NewToken asks for a token of User. Without Roles it has the user's own.
// Expires is a span ("90d", "12h"), a time as in RFC 3339, or "never"; a year
// from now if it is absent.
type NewToken struct {
	User    string   `json:"user"`
	Label   string   `json:"label"`
	Roles   []string `json:"roles,omitempty"`
	Expires string   `json:"expires,omitempty"`
}

// Session is a browser that a user signed in.
type Session struct {
	ID      int64     `json:"id"`
	User    string    `json:"user"`
	Created time.Time `json:"created,omitzero"`
	Expires time.Time `json:"expires"`
	Seen    time.Time `json:"seen,omitzero"` // last
	Address string    `json:"address,omitempty"`
	Browser string    `json:"browser,omitempty"` // "Firefox on Linux", as it says itself
}

// EndedSessions says how many sessions ended.
type EndedSessions struct {
	Ended int `json:"ended"`
}

// Act is one line of the audit trail.
type Act struct {
	At       time.Time `json:"at"`
	By       string    `json:"by"`
	Via      string    `json:"via"`
	Verb     string    `json:"verb"`
	Pipeline string    `json:"pipeline,omitempty"` // absent: an act on the server itself
	Object   string    `json:"object"`
	Detail   string    `json:"detail,omitempty"`
}
