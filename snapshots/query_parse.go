package snapshots

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"aptfleet/internal/deb"
)

// specialFields are the fields that no stanza has.
var specialFields = []string{"$Architecture", "$PackageType", "$Source", "$SourceVersion", "$Version"}

// ParseQuery reads a query of at most MaxQuery bytes. An error says where it
// cannot be read.
func ParseQuery(text string) (Query, error) {
	if len(text) > MaxQuery {
		return Query{}, fmt.Errorf("cannot read query: it has %d bytes, at most %d are read", len(text), MaxQuery)
	}
	if !utf8.ValidString(text) {
		return Query{}, fmt.Errorf("cannot read query: it is not UTF-8")
	}
	p := queryParser{text: text}
	root, err := p.query()
	if err == nil && p.next.kind != endToken {
		err = p.unexpected("the end, or , or |")
	}
	if err != nil {
		return Query{}, fmt.Errorf("cannot read query: %w", err)
	}
	return Query{text, root}, nil
}

type tokenKind int

const (
	noToken tokenKind = iota
	endToken
	wordToken
	markToken // ( ) { } | , ! or an operator
)

type token struct {
	kind tokenKind
	text string // of a word, without quotes
	at   int    // bytes before it
}

// queryParser reads a query from left to right, one token ahead.
type queryParser struct {
	text string
	pos  int
	next token
	err  error // of the tokens
}

// peek returns the token to be read next.
func (p *queryParser) peek() token {
	if p.next.kind == noToken {
		p.next = p.scan()
	}
	return p.next
}

// take reads the mark, if it is the next token.
func (p *queryParser) take(mark string) bool {
	if t := p.peek(); t.kind != markToken || t.text != mark {
		return false
	}
	p.next = token{}
	return true
}

// word reads a word; want is what it should be, for the error.
func (p *queryParser) word(want string) (token, error) {
	t := p.peek()
	if t.kind != wordToken {
		return token{}, p.unexpected(want)
	}
	p.next = token{}
	return t, nil
}

// unexpected is the error for the next token.
func (p *queryParser) unexpected(want string) error {
	t := p.peek()
	switch {
	case p.err != nil:
		return p.err
	case t.kind == endToken:
		return fmt.Errorf("it ends where %s is expected", want)
	}
	return fmt.Errorf("at byte %d: %q stands where %s is expected", t.at+1, t.text, want)
}

func (p *queryParser) scan() token {
	rest := strings.TrimLeftFunc(p.text[p.pos:], unicode.IsSpace)
	p.pos = len(p.text) - len(rest)
	t := token{kind: markToken, at: p.pos}
	if rest == "" {
		t.kind = endToken
		return t
	}
	for _, mark := range []string{"<<", "<=", "<", ">>", ">=", ">", "=", "%", "~", "(", ")", "{", "}", "|", ",", "!"} {
		if strings.HasPrefix(rest, mark) {
			t.text = mark
			p.pos += len(mark)
			return t
		}
	}
	t.kind = wordToken
	if rest[0] == '\'' || rest[0] == '"' {
		t.text = p.quoted(rest)
		return t
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("()|,!{}", r) })
	if end < 0 {
		end = len(rest)
	}
	t.text = rest[:end]
	p.pos += end
	return t
}

// quoted reads a word in quotes.
func (p *queryParser) quoted(rest string) string {
	var word strings.Builder
	escaped := false
	for i, r := range rest {
		switch {
		case i == 0:
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\':
			escaped = true
		case r == rune(rest[0]):
			p.pos += i + 1
			return word.String()
		default:
			word.WriteRune(r)
		}
	}
	p.err = fmt.Errorf("at byte %d: the quoted word has no end", p.pos+1)
	p.pos = len(p.text)
	return word.String()
}

// query reads conditions with | between them.
func (p *queryParser) query() (condition, error) {
	var all either
	for {
		c, err := p.conjunction()
		if err != nil {
			return nil, err
		}
		all = append(all, c)
		if !p.take("|") {
			break
		}
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return all, nil
}

// conjunction reads conditions with commas between them.
func (p *queryParser) conjunction() (condition, error) {
	var all both
	for {
		c, err := p.term()
		if err != nil {
			return nil, err
		}
		all = append(all, c)
		if !p.take(",") {
			break
		}
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return all, nil
}

// term reads one condition, or a query in parentheses.
func (p *queryParser) term() (condition, error) {
	switch {
	case p.take("!"):
		c, err := p.term()
		return not{c}, err
	case p.take("("):
		c, err := p.query()
		if err == nil && !p.take(")") {
			err = p.unexpected(")")
		}
		return c, err
	}
	word, err := p.word("a package or a field")
	if err != nil {
		return nil, err
	}
	value, err := p.test()
	if err != nil {
		return nil, err
	}
	if p.err != nil {
		return nil, p.err
	}
	first, _ := utf8.DecodeRuneInString(word.text)
	switch {
	case strings.HasPrefix(word.text, "$"):
		return p.special(word, value)
	case unicode.IsUpper(first) && !strings.Contains(word.text, "_"):
		return field{word.text, value}, nil
	case value.op == anyValue && strings.Contains(word.text, "_"):
		return p.exactly(word)
	}
	return p.dependency(word, value)
}

// test reads "(operator value)", "(value)" or nothing.
func (p *queryParser) test() (test, error) {
	if !p.take("(") {
		return test{}, nil
	}
	t := test{op: "="}
	for _, op := range []operator{"<<", "<=", "<", ">>", ">=", ">", "=", matches, finds} {
		if p.take(string(op)) {
			t.op = op
			break
		}
	}
	if t.op == "<" || t.op == ">" {
		t.op += "="
	}
	value, err := p.word("a value")
	if err != nil {
		return test{}, err
	}
	if !p.take(")") {
		return test{}, p.unexpected(")")
	}
	t.value = value.text
	switch t.op {
	case matches:
		if _, err := path.Match(t.value, ""); err != nil {
			return test{}, fmt.Errorf("at byte %d: %q is no pattern: %w", value.at+1, t.value, err)
		}
	case finds:
		if t.re, err = regexp.Compile(t.value); err != nil {
			return test{}, fmt.Errorf("at byte %d: %w", value.at+1, err)
		}
	}
	return t, nil
}

func (p *queryParser) special(word token, value test) (condition, error) {
	for _, name := range specialFields {
		if name == word.text {
			return field{name, value}, nil
		}
	}
	return nil, fmt.Errorf("at byte %d: there is no %s; there are %s", word.at+1, word.text, strings.Join(specialFields, ", "))
}

// exactly reads name_version_architecture.
func (p *queryParser) exactly(word token) (condition, error) {
	name, rest, _ := strings.Cut(word.text, "_")
	version, architecture := rest, ""
	if i := strings.LastIndexByte(rest, '_'); i >= 0 {
		version, architecture = rest[:i], rest[i+1:]
	}
	ref := Ref{name, version, architecture}
	if err := ref.validate(); err != nil {
		return nil, fmt.Errorf("at byte %d: %q is no name_version_architecture: %w", word.at+1, word.text, err)
	}
	return exactly{ref}, nil
}

// dependency reads the rest of a condition on a name.
func (p *queryParser) dependency(word token, version test) (condition, error) {
	if err := deb.ValidPackageName(word.text); err != nil {
		return nil, fmt.Errorf("at byte %d: %w; for patterns there is Name (%% lib*), for architectures name {amd64}", word.at+1, err)
	}
	if version.op != anyValue && version.op != matches && version.op != finds {
		if _, err := deb.ParseVersion(version.value); err != nil {
			return nil, fmt.Errorf("behind %s: %w; a field begins with a capital letter", word.text, err)
		}
	}
	d := dependency{name: word.text, version: version}
	if p.take("{") {
		architecture, err := p.word("an architecture")
		if err != nil {
			return nil, err
		}
		if err := deb.ValidArchitecture(architecture.text); err != nil {
			return nil, fmt.Errorf("at byte %d: %w", architecture.at+1, err)
		}
		if !p.take("}") {
			return nil, p.unexpected("}")
		}
		d.architecture = architecture.text
	}
	return d, p.err
}
