package main

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
)

// Chunk types and the parameter of RFC 9260 that setting up an association needs.
const (
	chunkInit       = 1
	chunkInitAck    = 2
	chunkAbort      = 6
	chunkCookieEcho = 10
	chunkCookieAck  = 11

	parameterStateCookie = 7
)

const (
	headerLength = 12 // ports, verification tag, checksum
	chunkLength  = 4  // type, flags, length
	initLength   = 16 // initiate tag, window, streams, first sequence number
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// packet is an SCTP packet with one chunk.
type packet struct {
	source, destination uint16
	tag                 uint32 // the receiver's verification tag
	chunk               byte
	value               []byte // of the chunk
}

// marshal returns the packet as it is sent, with its checksum.
func (p *packet) marshal() []byte {
	b := make([]byte, headerLength+chunkLength, headerLength+chunkLength+len(p.value)+3)
	binary.BigEndian.PutUint16(b[0:], p.source)
	binary.BigEndian.PutUint16(b[2:], p.destination)
	binary.BigEndian.PutUint32(b[4:], p.tag)
	b[12] = p.chunk
	binary.BigEndian.PutUint16(b[14:], uint16(chunkLength+len(p.value)))
	b = append(b, p.value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

// parse reads the first chunk of a packet. It returns nil for what is not one.
func parse(b []byte) *packet {
	if len(b) < headerLength+chunkLength {
		return nil
	}
	length := int(binary.BigEndian.Uint16(b[14:]))
	if length < chunkLength || headerLength+length > len(b) {
		return nil
	}
	zeroed := slices.Clone(b)
	clear(zeroed[8:headerLength])
	if crc32.Checksum(zeroed, castagnoli) != binary.LittleEndian.Uint32(b[8:]) {
		return nil
	}
	return &packet{
		source: binary.BigEndian.Uint16(b[0:]), destination: binary.BigEndian.Uint16(b[2:]), tag: binary.BigEndian.Uint32(b[4:]),
		chunk: b[12], value: b[headerLength+chunkLength : headerLength+length],
	}
}

// initValue is the value of INIT and of INIT ACK, without parameters.
func initValue(tag uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, tag)
	b = binary.BigEndian.AppendUint32(b, 1<<16)
	b = binary.BigEndian.AppendUint16(b, 1)
	b = binary.BigEndian.AppendUint16(b, 1)
	return binary.BigEndian.AppendUint32(b, 1)
}

// answer returns what a server of the ports answers a packet, or nil. It keeps no state: the cookie is the client's tag.
func answer(ports map[uint16]bool, p *packet) *packet {
	if !ports[p.destination] {
		return nil
	}
	reply := &packet{source: p.destination, destination: p.source}
	switch {
	case p.chunk == chunkInit && p.tag == 0 && len(p.value) >= initLength:
		reply.chunk, reply.tag = chunkInitAck, binary.BigEndian.Uint32(p.value)
		reply.value = binary.BigEndian.AppendUint16(initValue(newTag()), parameterStateCookie)
		reply.value = binary.BigEndian.AppendUint16(reply.value, chunkLength+4)
		reply.value = binary.BigEndian.AppendUint32(reply.value, reply.tag)
	case p.chunk == chunkCookieEcho && len(p.value) == 4:
		reply.chunk, reply.tag = chunkCookieAck, binary.BigEndian.Uint32(p.value)
	default:
		return nil
	}
	return reply
}

// cookie returns the state cookie of an INIT ACK, or nil.
func cookie(value []byte) []byte {
	for b := value[initLength:]; len(b) >= 4; {
		kind, length := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if length < 4 || length > len(b) {
			return nil
		}
		if kind == parameterStateCookie {
			return b[4:length]
		}
		b = b[min(len(b), (length+3)&^3):]
	}
	return nil
}

// connect sets up an association with a port of the peer, and aborts it. Each read of c returns one packet.
func connect(c io.ReadWriter, port uint16) error {
	tag, source := newTag(), uint16(1<<15+rand.IntN(1<<15))
	send := func(peer uint32, chunk byte, value []byte) error {
		p := packet{source: source, destination: port, tag: peer, chunk: chunk, value: value}
		_, err := c.Write(p.marshal())
		return err
	}
	if err := send(0, chunkInit, initValue(tag)); err != nil {
		return err
	}
	var peer uint32
	buffer := make([]byte, 1<<16)
	for {
		n, err := c.Read(buffer)
		if err != nil {
			return err
		}
		p := parse(buffer[:n])
		if p == nil || p.source != port || p.destination != source || p.tag != tag {
			continue
		}
		switch {
		case p.chunk == chunkAbort:
			return errors.New("the peer aborted the association")
		case p.chunk == chunkInitAck && len(p.value) >= initLength:
			peer = binary.BigEndian.Uint32(p.value)
			err = send(peer, chunkCookieEcho, cookie(p.value))
		case p.chunk == chunkCookieAck:
			return send(peer, chunkAbort, nil)
		}
		if err != nil {
			return err
		}
	}
}

// newTag returns a verification tag, which is never 0.
func newTag() uint32 { return 1 + rand.Uint32N(1<<32-1) }
