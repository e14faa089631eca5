package lossydisk

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"
)

// The NBD protocol, as far as libnbd needs it: the fixed newstyle handshake
// without TLS, and simple replies
// (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md).
const (
	magicGreeting    = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption      = 0x49484156454f5054 // "IHAVEOPT"
	magicOptionReply = 0x0003e889045565a9
	magicRequest     = 0x25609513
	magicReply       = 0x67446698

	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1

	optionAbort = 2
	optionGo    = 7

	replyAck         = 1
	replyInfo        = 3
	replyUnsupported = 1<<31 | 1

	infoExport = 0

	exportHasFlags  = 1 << 0
	exportSendFlush = 1 << 2
	exportSendFUA   = 1 << 3

	commandRead       = 0
	commandWrite      = 1
	commandDisconnect = 2
	commandFlush      = 3

	commandFlagFUA = 1 << 0
)

// maxRequest bounds the bytes of one read or write.
const maxRequest = 64 << 20

// flushTime is how long a flush takes before it is done, about as on a good
// disk: the power has to be able to fail meanwhile.
const flushTime = 2 * time.Millisecond

// Serve answers one NBD client on conn until it disconnects. It does one
// request after the other, so a flush covers every write answered before.
func (d *Disk) Serve(conn io.ReadWriter) error {
	c := &connection{disk: d, in: bufio.NewReaderSize(conn, 1<<20), out: conn}
	err := c.handshake()
	for err == nil {
		err = c.request()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, errDisconnected) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return fmt.Errorf("cannot serve disk: %w", err)
}

var errDisconnected = errors.New("the client disconnected")

type connection struct {
	disk *Disk
	in   *bufio.Reader
	out  io.Writer
}

// send writes integers and bytes in network byte order, in one piece.
func (c *connection) send(parts ...any) error {
	var message []byte
	for _, part := range parts {
		var err error
		if message, err = binary.Append(message, binary.BigEndian, part); err != nil {
			return err
		}
	}
	_, err := c.out.Write(message)
	return err
}

func (c *connection) receive(into any) error { return binary.Read(c.in, binary.BigEndian, into) }

func (c *connection) handshake() error {
	if err := c.send(uint64(magicGreeting), uint64(magicOption), uint16(flagFixedNewstyle|flagNoZeroes)); err != nil {
		return err
	}
	var flags uint32
	if err := c.receive(&flags); err != nil {
		return err
	}
	for {
		var option struct {
			Magic        uint64
			Code, Length uint32
		}
		if err := c.receive(&option); err != nil {
			return err
		}
		if option.Magic != magicOption || option.Length > 1<<16 {
			return errors.New("the client does not speak NBD")
		}
		if _, err := c.in.Discard(int(option.Length)); err != nil {
			return err
		}
		reply := func(kind uint32, data []byte) error {
			return c.send(uint64(magicOptionReply), option.Code, kind, uint32(len(data)), data)
		}
		switch option.Code {
		case optionGo:
			info := binary.BigEndian.AppendUint16(nil, infoExport)
			info = binary.BigEndian.AppendUint64(info, uint64(c.disk.size))
			info = binary.BigEndian.AppendUint16(info, exportHasFlags|exportSendFlush|exportSendFUA)
			return errors.Join(reply(replyInfo, info), reply(replyAck, nil))
		case optionAbort:
			return errors.Join(reply(replyAck, nil), errDisconnected)
		}
		if err := reply(replyUnsupported, nil); err != nil {
			return err
		}
	}
}

// request reads one request and answers it.
func (c *connection) request() error {
	var r struct {
		Magic          uint32
		Flags, Command uint16
		Cookie, Offset uint64
		Length         uint32
	}
	if err := c.receive(&r); err != nil {
		return err
	}
	if r.Magic != magicRequest || r.Length > maxRequest {
		return errors.New("the client does not speak NBD")
	}
	var data []byte
	var failed error
	switch r.Command {
	case commandRead:
		data = make([]byte, r.Length)
		failed = c.disk.ReadAt(data, int64(r.Offset))
	case commandWrite:
		written := make([]byte, r.Length)
		if _, err := io.ReadFull(c.in, written); err != nil {
			return err
		}
		failed = c.disk.WriteAt(written, int64(r.Offset), r.Flags&commandFlagFUA != 0)
	case commandFlush:
		time.Sleep(flushTime)
		c.disk.Flush()
	case commandDisconnect:
		return errDisconnected
	default:
		failed = errors.ErrUnsupported
	}
	if failed != nil {
		return c.send(uint32(magicReply), uint32(syscall.EINVAL), r.Cookie)
	}
	return c.send(uint32(magicReply), uint32(0), r.Cookie, data)
}
