package deb_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"aptfleet/internal/deb"
)

// member is one raw member of an ar archive; size is what its header claims.
type member struct {
	name string
	data []byte
	size string // "" is the length of data
}

func archive(members ...member) []byte {
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	for _, m := range members {
		if m.size == "" {
			m.size = fmt.Sprint(len(m.data))
		}
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10s`\n", m.name, 0, 0, 0, "100644", m.size)
		b.Write(m.data)
		if len(m.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.Linkname // of plain files
		if h.Typeflag == tar.TypeReg {
			h.Size, h.Linkname = int64(len(content)), ""
		}
		h.Mode = 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: content}
}

func gz(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var version = member{name: "debian-binary", data: []byte("2.0\n")}

// withControl is a package whose control file reads text.
func withControl(t testing.TB, text string) []byte {
	t.Helper()
	return archive(version, member{name: "control.tar", data: tarOf(t, file("./control", text))}, member{name: "data.tar", data: tarOf(t)})
}

func TestReadRefuses(t *testing.T) {
	ctl := member{name: "control.tar", data: tarOf(t, file("./control", control))}
	data := member{name: "data.tar", data: tarOf(t)}
	entries := func(headers ...tar.Header) []byte {
		return archive(version, member{name: "control.tar", data: tarOf(t, append(headers, file("./control", control))...)}, data)
	}
	field := func(name, value string) []byte {
		var b strings.Builder
		for line := range strings.Lines(control) {
			if strings.HasPrefix(line, name+":") {
				line = name + ": " + value + "\n"
			}
			b.WriteString(line)
		}
		return withControl(t, b.String())
	}
	many := make([]tar.Header, 2000)
	for i := range many {
		many[i] = file(fmt.Sprintf("./f%d", i), "")
	}
	damaged := gz(t, tarOf(t, file("./control", control)))
	damaged[len(damaged)-6] ^= 1 // inside the checksum
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":                            {nil, "the file ends after 0 bytes"},
		"text":                               {[]byte("this is no package at all\n"), "it does not start with"},
		"an empty archive":                   {archive(), "the archive is empty"},
		"a damaged header":                   {append(archive(version), bytes.Repeat([]byte("x"), 60)...), "a member's header is damaged"},
		"half a header":                      {append(archive(version), "control.tar"...), "header has 11 of 60 bytes"},
		"a negative size":                    {archive(version, member{"control.tar", nil, "-1"}), `control.tar: its size "-1" is no number`},
		"a signed size":                      {archive(version, member{"control.tar", nil, "+1"}), `its size "+1" is no number`},
		"no size":                            {archive(version, member{"control.tar", nil, " "}), `its size "" is no number`},
		"a size with a space":                {archive(version, member{"control.tar", nil, "1 2"}), "is no number"},
		"a large member":                     {archive(version, ctl, member{"data.tar", nil, "9999999999"}), "data.tar: truncated: it claims 9999999999 bytes"},
		"a terabyte in hex":                  {archive(version, ctl, member{"data.tar", nil, "0xffffffff"}), "is no number"},
		"no version":                         {archive(ctl, data), "control.tar: the first member must be debian-binary"},
		"version 3":                          {archive(member{name: "debian-binary", data: []byte("3.0\n")}, ctl, data), `the format version is "3.0"`},
		"a huge version":                     {archive(member{name: "debian-binary", data: make([]byte, 100)}), "claims 100 bytes where a version number"},
		"no control":                         {archive(version, data), "data.tar: it stands before control.tar"},
		"no data":                            {archive(version, ctl), "it has no data.tar"},
		"neither":                            {archive(version), "it has no control.tar"},
		"two controls":                       {archive(version, ctl, ctl, data), "control.tar: the archive has a second one"},
		"two data":                           {archive(version, ctl, data, data), "data.tar: the archive has a second one"},
		"empty data":                         {archive(version, ctl, member{name: "data.tar"}), "data.tar: it is empty"},
		"a foreign member":                   {archive(version, ctl, data, member{name: "evil"}), "evil: a member of this name does not belong here"},
		"a path as member":                   {archive(version, member{name: "../control.tar"}), "has a character that is not allowed"},
		"a control character":                {archive(version, member{name: "control\x1b.tar"}), "has a character that is not allowed"},
		"a nameless member":                  {archive(version, member{name: ""}), "a member has no name"},
		"garbage behind":                     {append(archive(version, ctl, data), "garbage"...), "header has 7 of 60 bytes"},
		"an unknown compression":             {archive(version, member{name: "control.tar.rar", data: []byte("x")}, data), `the compression ".rar" is not known`},
		"an unknown data compression":        {archive(version, ctl, member{name: "data.tar.rar", data: []byte("x")}), `data.tar.rar: the compression ".rar" is not known`},
		"no gzip":                            {archive(version, member{name: "control.tar.gz", data: []byte("nonsense, not gzip")}, data), "control.tar.gz: it cannot be unpacked"},
		"no xz":                              {archive(version, member{name: "control.tar.xz", data: []byte("nonsense, not xz..")}, data), "it is not xz data"},
		"no zstd":                            {archive(version, member{name: "control.tar.zst", data: []byte("nonsense, not zstd")}, data), "control.tar.zst: it cannot be unpacked"},
		"half a gzip":                        {archive(version, member{name: "control.tar.gz", data: damaged[:len(damaged)/2]}, data), "control.tar.gz: truncated inside"},
		"a damaged gzip":                     {archive(version, member{name: "control.tar.gz", data: damaged}, data), "invalid checksum"},
		"no tar":                             {archive(version, member{name: "control.tar", data: bytes.Repeat([]byte("x"), 1024)}, data), "control.tar: it cannot be unpacked"},
		"no control file":                    {archive(version, member{name: "control.tar", data: tarOf(t, file("./md5sums", ""))}, data), "it has no control file"},
		"an empty control.tar":               {archive(version, member{name: "control.tar"}, data), "it has no control file"},
		"two control files":                  {entries(file("./control", "")), `the file "control" occurs twice`},
		"a traversal":                        {entries(file("../etc/passwd", "")), `the name "../etc/passwd" leads out`},
		"an absolute path":                   {entries(file("/etc/passwd", "")), `the name "/etc/passwd" leads out`},
		"a hidden traversal":                 {entries(file("./x/../../y", "")), "leads out of the control directory"},
		"a subdirectory":                     {entries(tar.Header{Typeflag: tar.TypeDir, Name: "./sub/"}), `the name "./sub/" leads out`},
		"a link":                             {entries(tar.Header{Typeflag: tar.TypeSymlink, Name: "./postinst", Linkname: "/bin/sh"}), `"./postinst" is no plain file`},
		"a device":                           {entries(tar.Header{Typeflag: tar.TypeBlock, Name: "./disk"}), `"./disk" is no plain file`},
		"a control character in a file name": {entries(file("./a\x1b[2J", "")), "has a control character"},
		"too many files":                     {entries(many...), "it has more than 1024 entries"},
		"a large control file":               {withControl(t, control+" "+strings.Repeat("x", deb.MaxStanza)+"\n"), "the control file claims"},
		"prose":                              {withControl(t, "hello\n"), "the control file is none"},
		"an empty control file":              {withControl(t, ""), "the control file is none: cannot parse control stanza: it is empty"},
		"two paragraphs":                     {withControl(t, control+"\n"+control), "a second paragraph"},
		"no Package":                         {withControl(t, "Version: 1\nArchitecture: all\n"), "control: the field Package is missing"},
		"no Version":                         {withControl(t, "Package: aa\nArchitecture: all\n"), "the field Version is missing"},
		"no Architecture":                    {withControl(t, "Package: aa\nVersion: 1\n"), "the field Architecture is missing"},
		"a bad name":                         {field("Package", "../../etc"), `cannot use package name "../../etc"`},
		"a bad version":                      {field("Version", "1/../../2"), `cannot parse version "1/../../2"`},
		"a long version":                     {field("Version", "1"+strings.Repeat("0", 200)), "the version has more than 128 characters"},
		"a long name and version":            {withControl(t, "Package: "+strings.Repeat("a", 128)+"\nVersion: "+strings.Repeat("1", 128)+"\nArchitecture: amd64\n"), "a name of 267 bytes, 255 are possible"},
		"a bad architecture":                 {field("Architecture", "any"), `cannot use architecture "any"`},
		"a bad relation":                     {field("Depends", "libc6 (>> )"), "the field Depends: cannot parse relation"},
		"a name with an escape":              {field("Package", "aa\x1b[0m"), "control character 0x1b"},
		"a name folded over two lines":       {field("Package", "aa\n bb"), "cannot use package name"},
	} {
		for how, r := range map[string]io.Reader{"whole": bytes.NewReader(test.data), "byte by byte": iotest.OneByteReader(bytes.NewReader(test.data))} {
			_, err := deb.Read(r, deb.Limits{})
			var format *deb.FormatError
			if !errors.As(err, &format) || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "cannot read package: ") {
				t.Errorf("%s, %s: %v\nwant a *FormatError with %q", name, how, err, test.want)
			}
			if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
				t.Errorf("%s: the message has a control character: %q", name, err)
			}
		}
	}
}

func TestReadIgnoresWhatItShould(t *testing.T) {
	signature := member{name: "_gpgorigin", data: []byte("odd")}
	ctl := member{name: "control.tar/", data: tarOf(t, tar.Header{Typeflag: tar.TypeDir, Name: "./"}, file("control", control))}
	data := archive(version, ctl, signature, member{name: "data.tar.lzma", data: []byte("never looked at")}, signature)
	if _, err := deb.Read(bytes.NewReader(data), deb.Limits{}); err != nil {
		t.Error(err)
	}
}

func TestReadTellsAFailingDiskFromABadFile(t *testing.T) {
	data := withControl(t, control)
	broken := errors.New("the disk broke")
	for n := range len(data) {
		_, err := deb.Read(io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(broken)), deb.Limits{})
		var format *deb.FormatError
		if !errors.Is(err, broken) || errors.As(err, &format) {
			t.Fatalf("after %d bytes: %v, want the disk's error", n, err)
		}
	}
}

// bomb is a tar that unpacks to size bytes, compressed as it is made.
func bomb(t testing.TB, size int64, wrap func(io.Writer) io.WriteCloser) []byte {
	t.Helper()
	var b bytes.Buffer
	w := wrap(&b)
	archive := tar.NewWriter(w)
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "./md5sums", Size: size, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for left := size; left > 0; left -= int64(len(block)) {
		if _, err := archive.Write(block[:min(left, int64(len(block)))]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(archive.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestReadIsBounded reads control members that unpack to far more than they
// may, and watches what that allocates.
func TestReadIsBounded(t *testing.T) {
	const size = 128 << 20
	for ending, wrap := range map[string]func(io.Writer) io.WriteCloser{
		".gz": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		".zst": func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w)
			if err != nil {
				t.Fatal(err)
			}
			return z
		},
	} {
		data := archive(version, member{name: "control.tar" + ending, data: bomb(t, size, wrap)}, member{name: "data.tar", data: tarOf(t)})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := deb.Read(bytes.NewReader(data), deb.Limits{})
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), "it unpacks to more than 67108864 bytes") {
			t.Errorf("%s: %v", ending, err)
		}
		if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 32<<20 {
			t.Errorf("%s: %d MB were allocated", ending, allocated>>20)
		}
	}
	// An xz stream that asks for a dictionary of almost 4 GiB, and whose end is
	// too far away to tell that it needs less.
	noise := random(100_000)
	packed := xzOf(t, tarOf(t, file("./control", control), file("./md5sums", string(noise))))
	data := archive(version, member{name: "control.tar.xz", data: withHugeDictionary(packed)}, member{name: "data.tar", data: tarOf(t)})
	if _, err := deb.Read(bytes.NewReader(data), deb.Limits{}); err == nil || !strings.Contains(err.Error(), "it asks for a dictionary of 4294967295 bytes") {
		t.Errorf("a huge dictionary: %v", err)
	}
	// The limits of the caller hold too.
	data = withControl(t, control)
	for name, limits := range map[string]deb.Limits{"the file": {Size: int64(len(data)) - 1}, "control.tar": {ControlTar: 512}, "the control file": {ControlFile: 10}} {
		if _, err := deb.Read(bytes.NewReader(data), limits); err == nil {
			t.Errorf("a limit on %s was passed", name)
		}
	}
	if _, err := deb.Read(bytes.NewReader(data), deb.Limits{Size: int64(len(data))}); err != nil {
		t.Errorf("a package of exactly the limit: %v", err)
	}
}

// random returns n bytes that no compression makes fewer.
func random(n int) []byte {
	noise := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(noise)
	return noise
}

// withHugeDictionary makes an xz stream ask for almost 4 GiB.
func withHugeDictionary(packed []byte) []byte {
	return withHeader(packed, func(header []byte) { header[bytes.LastIndex(header, []byte{0x21, 1})+2] = 40 })
}

// withHeader changes the header of the first block of an xz stream.
func withHeader(packed []byte, change func(header []byte)) []byte {
	packed = bytes.Clone(packed)
	header := packed[12 : 12+(int(packed[12])+1)*4]
	change(header[:len(header)-4])
	binary.LittleEndian.PutUint32(header[len(header)-4:], crc32.ChecksumIEEE(header[:len(header)-4]))
	return packed
}

// A small xz stream costs what it holds, whatever dictionary its header names:
// an import reads tens of thousands of them.
func TestASmallStreamCostsWhatItHolds(t *testing.T) {
	plain := tarOf(t, file("./control", control), file("./postinst", strings.Repeat("x", 5000)))
	noise := tarOf(t, file("./control", control), file("./md5sums", string(random(20_000))))
	for name, packed := range map[string][]byte{
		"as dpkg-deb makes it": filter(t, plain, "xz", "--stdout", "--threads=2"),
		"without sizes":        xzOf(t, plain),
		"of several blocks":    xzOf(t, plain, "--block-size=4000"),
		"not compressible":     xzOf(t, noise),
		"almost 4 GiB":         withHugeDictionary(xzOf(t, plain)),
		"the same, with sizes": withHugeDictionary(filter(t, plain, "xz", "--stdout", "--threads=2")),
	} {
		data := archive(version, member{name: "control.tar.xz", data: packed}, member{name: "data.tar", data: tarOf(t)})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		const times = 20
		var r deb.Reader
		for range times {
			if _, err := r.Read(bytes.NewReader(data), deb.Limits{}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		runtime.ReadMemStats(&after)
		if allocated := (after.TotalAlloc - before.TotalAlloc) / times; allocated > 128<<10 {
			t.Errorf("%s: %d kB were allocated for each", name, allocated>>10)
		}
	}
}

// A block that claims to hold more than it does is damaged, and costs no more
// than it holds.
func TestABlockHoldsWhatItClaims(t *testing.T) {
	packed := filter(t, tarOf(t, file("./control", control)), "xz", "--stdout", "--threads=2")
	packed = withHeader(packed, func(header []byte) { // flags, packed size, size (two bytes for up to 16 KiB)
		_, n := binary.Uvarint(header[2:])
		header[2+n+1] += 8
	})
	data := archive(version, member{name: "control.tar.xz", data: packed}, member{name: "data.tar", data: tarOf(t)})
	if _, err := deb.Read(bytes.NewReader(data), deb.Limits{}); err == nil || !strings.Contains(err.Error(), "an xz block holds 2048 bytes and claims 3072") {
		t.Errorf("a block that claims too much: %v", err)
	}
}

// A source that fails is not taken for one that ends.
func TestDecompressTellsTheSourcesError(t *testing.T) {
	broken := errors.New("the disk is on fire")
	packed := xzOf(t, random(200_000))
	once := false
	source := io.MultiReader(bytes.NewReader(packed[:1000]), readerFunc(func([]byte) (int, error) {
		if once {
			return 0, io.EOF
		}
		once = true
		return 0, broken
	}))
	r, err := deb.Decompress(source, ".xz", 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func FuzzRead(f *testing.F) {
	f.Add(withControl(f, control))
	f.Add(archive(version, member{name: "control.tar.gz", data: gz(f, tarOf(f, file("./control", control)))}, member{name: "data.tar.gz", data: gz(f, tarOf(f, file("./a", "b")))}))
	f.Add(archive(version, member{name: "control.tar.xz", data: xzOf(f, tarOf(f, file("./control", control)))}, member{name: "data.tar.xz", data: xzOf(f, tarOf(f, file("./a", "b")), "--block-size=100")}))
	f.Add(archive(version, member{"control.tar", nil, "-5"}))
	f.Add([]byte("!<arch>\n"))
	var again deb.Reader // what it read before must not matter
	f.Fuzz(func(t *testing.T, data []byte) {
		visit := func(h *tar.Header, r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		}
		limits := deb.Limits{ControlTar: 1 << 20, DataUnpacked: 1 << 20, DataEntries: 1000}
		fresh, freshErr := deb.Read(bytes.NewReader(data), limits)
		if used, err := again.Read(bytes.NewReader(data), limits); !reflect.DeepEqual(used, fresh) || (err == nil) != (freshErr == nil) {
			t.Fatalf("a used reader reads %+v, %v; a fresh one %+v, %v", used, err, fresh, freshErr)
		}
		p, err := deb.Inspect(bytes.NewReader(data), limits, deb.Visitor{Control: visit, Data: visit})
		if err != nil {
			return
		}
		if p.Size != int64(len(data)) || deb.ValidPackageName(p.Name) != nil || deb.ValidArchitecture(p.Architecture) != nil {
			t.Fatalf("accepted as %+v", p)
		}
		if _, err := deb.ParseStanza(deb.Index(p, "pool/x.deb")); err != nil {
			t.Fatalf("its index paragraph is none: %v", err)
		}
	})
}
